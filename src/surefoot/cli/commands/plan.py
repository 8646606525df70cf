# SPDX-License-Identifier: Apache-2.0
"""What a deploy would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from surefoot.cli.lazy import command
from surefoot.cli.params import TEXT

if TYPE_CHECKING:
    from surefoot.cli.app import App
    from surefoot.core.plan import Plan, Work
    from surefoot.store.protocol import EnvironmentRow

#: Columns of what stands before a line: `preflight` and two spaces.
LABELS = 11


@command("plan", example="surefoot plan production 2.0")
@click.argument("environment", type=TEXT)
@click.argument("version", type=TEXT)
@click.pass_context
def plan(ctx: click.Context, environment: str, version: str) -> None:
    """Show what a deploy would do.

    Steps, hosts, which agent and why, gates. Touches nothing.
    """
    from surefoot.api import gates
    from surefoot.cli.app import App
    from surefoot.cli.inventory import hosts_of

    app = App.of(ctx)
    submission = app.submission(environment, version, reason="", key=None)
    frozen = submission.plan
    hosts = hosts_of(app.config.folder, frozen.inventory) if frozen.inventory else ()
    with app.reading() as store:
        row = store.environment(environment)
        shown = _shown(frozen, version, hosts, row, app.choice_of_agent(store))
        waits, refused = gates.foreseen(store, submission)
    shown["gates"] = [wait.message for wait in waits]
    if refused is not None:
        shown["gates"] = list(dict.fromkeys((refused.message, *shown["gates"])))
        shown["refused"] = {"code": str(refused.code), "message": refused.message, "hint": refused.hint}
    if app.json:
        app.console.document(shown)
    else:
        _tell(app, shown)


def _shown(
    plan: Plan,
    version: str,
    hosts: tuple[str, ...],
    environment: EnvironmentRow,
    agent: tuple[str | None, tuple[str, ...]],
) -> dict[str, Any]:
    return {
        "project": plan.project,
        "environment": plan.environment,
        "version": version,
        "current_version": environment.current_version,
        "hosts": list(hosts),
        "steps": [
            {
                "name": step.name,
                "does": _work(step.work),
                "undo": None if step.undo is None else _work(step.undo),
                "attempts": step.retry.attempts,
                "delay_seconds": step.retry.delay,
                "timeout_seconds": step.retry.timeout,
            }
            for step in plan.steps
        ],
        "preflight": [check.name or check.kind for check in plan.preflight],
        "health": [check.name or check.kind for check in plan.health],
        "agent": agent[0],
        "agent_reasons": list(agent[1]),
        "bake_seconds": plan.bake,
        "rollback": None if plan.rollback is None else _work(plan.rollback),
        "gates": [],
        "refused": None,
        "running": environment.running,
        "queue": list(environment.queue),
    }


def _work(work: Work) -> str:
    from surefoot.core.plan import Command, Playbook

    match work:
        case Command(run=text):
            return f"run {text}"
        case Playbook(playbook=path):
            return f"playbook {path}"


def _tell(app: App, shown: dict[str, Any]) -> None:
    from surefoot.cli.text import clean, duration

    say = app.console.print
    say(
        clean(
            f"{shown['project']} {shown['environment']}: {shown['current_version'] or 'nothing'} → {shown['version']}"
        )
    )
    waits = [name for name in (shown["running"], *shown["queue"]) if name]
    for label, text in (
        ("hosts", ", ".join(shown["hosts"]) or "none"),
        ("agent", shown["agent"] or "none"),
        *(("", why) for why in shown["agent_reasons"]),
        ("before", ", ".join(waits) or "nothing"),
        ("gates", ", ".join(shown["gates"]) or "none"),
        *((what, ", ".join(shown[what])) for what in ("preflight", "health") if shown[what]),
    ):
        say(clean(f"  {label:<{LABELS}}{text}"))
    say()
    app.console.table(
        ("", "STEP", "DOES", "UNDO", "ATTEMPTS", "TIMEOUT"),
        [
            (
                place,
                step["name"],
                step["does"],
                step["undo"] or "-",
                step["attempts"],
                duration(step["timeout_seconds"]),
            )
            for place, step in enumerate(shown["steps"], 1)
        ],
    )
    say()
    if shown["rollback"]:
        say(clean(f"On a failure, everything is put back by: {shown['rollback']}"))
    if shown["bake_seconds"]:
        say(f"Health is watched for {duration(shown['bake_seconds'])} before it has succeeded.")
    if shown["refused"]:
        say(clean(f"A deploy would be refused: {shown['refused']['message']}"))
        say(clean(f"hint: {shown['refused']['hint']}"))
    elif shown["gates"]:
        say(clean(f"A deploy would wait: {'; '.join(shown['gates'])}"))
