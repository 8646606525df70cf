# SPDX-License-Identifier: Apache-2.0
"""Reading: status, show, history. They touch nothing, and end with 0 whatever they read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from surefoot.cli.lazy import command
from surefoot.cli.params import TEXT

#: Deployments of a queue of which `status` says what they wait for; `show` says it of each.
WAITS_TOLD = 20

if TYPE_CHECKING:
    from surefoot.cli.app import App
    from surefoot.core.deployment import Deployment
    from surefoot.core.summary import Summary
    from surefoot.store.protocol import EnvironmentRow, Store


@command("status", example="surefoot status\nsurefoot status production --output json")
@click.argument("environment", type=TEXT, required=False)
@click.pass_context
def status(ctx: click.Context, environment: str | None) -> None:
    """Show what runs where, and what waits."""
    from surefoot.cli.app import App

    app = App.of(ctx)
    with app.reading() as store:
        rows = _environments(app, store, environment)
        if app.json:
            app.console.document({"environments": [_environment(row) for row in rows]})
        elif not rows:
            app.console.print("Nothing was deployed yet.")
        else:
            app.console.table(
                ("ENVIRONMENT", "VERSION", "PREVIOUS", "RUNNING", "QUEUE", "FROZEN", "LOCKED BY"),
                [
                    (
                        row.name,
                        row.current_version or "-",
                        row.previous_version or "-",
                        row.running or "-",
                        len(row.queue) or "-",
                        _frozen(row),
                        row.locked_by or "-",
                    )
                    for row in rows
                ],
            )
            for row in rows:
                _tell_waits(app, store, row)
                if row.locked_by:
                    app.console.note(f"hint: {row.name} needs a person: surefoot show {row.locked_by}")


def _frozen(row: EnvironmentRow) -> str:
    from surefoot.core.wording import clock

    if row.freeze is None:
        return "-"
    return "yes" if row.freeze.until is None else f"until {clock(row.freeze.until)}"


def _tell_waits(app: App, store: Store, row: EnvironmentRow) -> None:
    """Say why nothing may start, and what each of the queue waits for."""
    from surefoot.api import gates, requests
    from surefoot.cli.text import clean
    from surefoot.core.gates import Gate
    from surefoot.core.opening import frozen

    if row.freeze is not None:
        app.console.print(clean(frozen(row.name, row.freeze)))
    now = store.now() if row.queue else 0.0
    for deployment in row.queue[:WAITS_TOLD]:
        waits = gates.waits_for(requests.load(store, deployment), row, now)
        if said := "; ".join(wait.message for wait in waits if wait.gate is not Gate.FREEZE):
            app.console.print(clean(f"{deployment} waits: {said}"))


def _environments(app: App, store: Store, name: str | None) -> list[EnvironmentRow]:
    """Return the environments that took a deployment, and those of the config that did not yet."""
    from surefoot.store.protocol import EnvironmentRow

    rows = {row.name: row for row in store.environments()}
    for configured in app.environment_names():
        rows.setdefault(configured, EnvironmentRow(configured))
    if name is None:
        return [rows[key] for key in sorted(rows)]
    if name not in rows:
        raise app.unknown_environment(name, rows)
    return [rows[name]]


def _environment(row: EnvironmentRow) -> dict[str, Any]:
    from surefoot.core import views

    return {
        "name": row.name,
        "current_version": row.current_version,
        "previous_version": row.previous_version,
        "locked_by": row.locked_by,
        "frozen": views.freeze(row.freeze),
        "running": row.running,
        "queue": list(row.queue),
    }


@command("show", example="surefoot show production-3\nsurefoot show production-3 --output json")
@click.argument("deployment", metavar="ID", type=TEXT)
@click.pass_context
def show(ctx: click.Context, deployment: str) -> None:
    """Show one deployment.

    Its status, its steps, and why it ended as it did.
    """
    from surefoot.api.requests import load
    from surefoot.cli.app import App

    app = App.of(ctx)
    with app.reading() as store:
        state = load(store, deployment)
        if app.json:
            app.console.document(app.shown(store, state))
        else:
            _tell(app, store, state)


def _tell(app: App, store: Store, state: Deployment) -> None:
    from surefoot.cli.text import ago, clean, duration
    from surefoot.core.summary import summarise

    now, say = store.now(), app.console.print
    say(f"{clean(state.id)}  {clean(state.version)}  {app.console.status(state.status)}")
    place = store.queue_position(state.id)
    facts = [
        ("previous", state.previous_version),
        ("queue", f"number {place}" if place else None),
        ("requested", f"{ago(state.requested_at, now)} by {state.requested_by or 'someone'}"),
        ("reason", state.reason or None),
        ("commit", state.commit),
        ("waits for", "; ".join(wait.message for wait in app.waits(store, state)) or None),
        *(("approved", f"by {given.by}" + (f": {given.reason}" if given.reason else "")) for given in state.approvals),
        ("promoted", f"from {evidence.environment} ({evidence.deployment})" if (evidence := state.promoted) else None),
        ("override", "starts in spite of freezes and windows" if state.override else None),
        ("started", ago(state.started_at, now) if state.started_at else None),
        (
            "took",
            duration(state.finished_at - (state.started_at or state.requested_at)) if state.finished_at else None,
        ),
        ("agent", f"{state.agent} (token {state.token})" if state.agent else None),
        ("takeovers", str(state.takeovers) if state.takeovers else None),
        ("resolved", f"runs {state.resolved.version or 'no version'}" if state.resolved else None),
    ]
    for name, fact in facts:
        if fact is not None:
            say(f"  {name:<10} {clean(fact)}")
    say()
    app.console.table(
        ("STEP", "STATUS", "ATTEMPT", "AGENT", "TOOK"),
        [
            (
                f"undo {run.name}" if run.direction == "undo" else run.name,
                str(run.status),
                run.attempt or "-",
                run.agent or "-",
                duration(run.finished_at - run.started_at) if run.started_at and run.finished_at else "-",
            )
            for run in state.steps
        ],
    )
    failure = summarise(state).reason
    if failure is not None:
        say()
        say(f"{failure.code}: {clean(failure.message)}")
        where = ", ".join(f"{k} {v}" for k, v in (("step", failure.step), ("host", failure.host)) if v)
        if where:
            say(f"  at {clean(where)}")
        if hint := app.hint_for(state, failure):
            say(f"hint: {clean(hint)}")


@command("history", example="surefoot history production --limit 5")
@click.argument("environment", type=TEXT)
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@click.pass_context
def history(ctx: click.Context, environment: str, limit: int) -> None:
    """Show an environment's deployments.

    The newest comes first.
    """
    from surefoot.cli.app import App
    from surefoot.cli.text import ago

    app = App.of(ctx)
    with app.reading() as store:
        found = store.history(environment, limit=limit)
        if not found:
            _environments(app, store, environment)
        if app.json:
            app.console.document({"deployments": _rows(store, found)})
            return
        if not found:
            app.console.print(f"Nothing was deployed to {environment} yet.")
            return
        now = store.now()
        app.console.table(
            ("ID", "VERSION", "STATUS", "WHEN", "TOOK", "BY", "AGENT"),
            [
                (s.id, s.version, s.status, ago(s.requested_at, now), _took(s), s.requested_by or "-", s.agent or "-")
                for s in found
            ],
        )


def _rows(store: Store, found: list[Summary]) -> list[dict[str, Any]]:
    from surefoot.core import views

    if not found:
        return []
    first = store.journal(found[0].id, limit=1)[0].event
    project = first.plan.project if hasattr(first, "plan") else ""
    queue = store.environment(found[0].environment).queue
    places = {name: place for place, name in enumerate(queue, 1)}
    return [views.row(summary, project, places.get(summary.id)) for summary in found]


def _took(summary: Summary) -> str:
    from surefoot.cli.text import duration

    if summary.finished_at is None:
        return "-"
    return duration(summary.finished_at - (summary.started_at or summary.requested_at))
