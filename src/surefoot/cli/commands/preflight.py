# SPDX-License-Identifier: Apache-2.0
"""The preflight checks alone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from surefoot.cli.lazy import command
from surefoot.cli.params import TEXT

if TYPE_CHECKING:
    from surefoot.agent.rehearsal import Outcome
    from surefoot.cli.app import App
    from surefoot.core.events import Checked


@command("preflight", example="surefoot preflight production 2.0\nsurefoot preflight production 2.0 --output json")
@click.argument("environment", type=TEXT)
@click.argument("version", type=TEXT)
@click.option("--agent", "agent", metavar="NAME", type=TEXT, help="Whom {agent} means; whom deploy would choose.")
@click.pass_context
def preflight(ctx: click.Context, environment: str, version: str, *, agent: str | None) -> int:
    """Run the preflight checks alone.

    Side by side, from this machine, with its environment; nothing is touched. A table with a fix for each that failed
    is added to $GITHUB_STEP_SUMMARY, where that is set.

    Exit codes: 0 passed, 3 failed.
    """
    from surefoot.cli.app import App
    from surefoot.core import events as ev
    from surefoot.core.errors import Exit

    app = App.of(ctx)
    outcome = _rehearsed(app, environment, version, agent)
    failure = outcome.failure if isinstance(outcome, ev.PreflightFailed) else None
    _summarise(outcome, f"Preflight of {environment} {version}")
    if app.json:
        checks = [_shown(check) for check in outcome.checks]
        app.console.document({"passed": failure is None, "checks": checks})
    else:
        _tell(app, outcome.checks)
    if failure is None:
        return Exit.DONE
    from surefoot.cli.errors import write_error

    write_error(failure.code, failure.message, failure.hint)
    return Exit.REFUSED


def _rehearsed(app: App, environment: str, version: str, agent: str | None) -> Outcome:
    import asyncio
    import signal
    from contextlib import closing

    from surefoot.agent.rehearsal import rehearse
    from surefoot.cli.text import clean

    submission = app.submission(environment, version, reason="", key=None)
    files = app.files()
    with app.reading() as store:
        previous = store.environment(environment).current_version
        who = agent or app.likely_agent(store)

    async def run() -> Outcome:
        task = asyncio.current_task()
        assert task is not None
        for ending in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(ending) is not signal.SIG_IGN:  # nohup
                asyncio.get_running_loop().add_signal_handler(ending, task.cancel)
        return await rehearse(submission, files, agent=who, previous_version=previous, note=note)

    def note(text: str) -> None:
        if app.settings.verbose:
            app.console.note(clean(text))

    try:
        with closing(files):
            return asyncio.run(run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _shown(check: Checked) -> dict[str, Any]:
    return {
        "name": check.name,
        "status": check.status,
        "message": check.message,
        "hint": check.hint,
        "duration_seconds": check.duration_seconds,
        "host": check.host,
    }


def _tell(app: App, checks: tuple[Checked, ...]) -> None:
    from surefoot.cli.text import clean, duration

    if not checks:
        app.console.print("there are no preflight checks")
        return
    names = [f"{check.name} on {check.host}" if check.host else check.name for check in checks]
    app.console.table(
        ("", "CHECK", "TOOK", "RESULT"),
        [(c.status, name, duration(c.duration_seconds), c.message) for name, c in zip(names, checks, strict=True)],
    )
    for name, check in zip(names, checks, strict=True):
        if check.hint and check.status in ("fail", "warn"):
            app.console.print(clean(f"fix of {name}: {check.hint}"))


def _summarise(outcome: Outcome, title: str) -> None:
    """Add the table to the CI's summary, where there is one; a summary that can't be written changes no outcome."""
    if not (path := os.environ.get("GITHUB_STEP_SUMMARY")):
        return
    from surefoot.reports.preflight import markdown

    with contextlib.suppress(OSError), Path(path).open("a", encoding="utf-8", errors="replace") as file:
        file.write(markdown(outcome.checks, title))
