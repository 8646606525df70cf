# SPDX-License-Identifier: Apache-2.0
"""Gates: approve, reject, freeze, unfreeze. Each says who, when and why in a journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from surefoot.cli.lazy import command
from surefoot.cli.params import TEXT, TIME

if TYPE_CHECKING:
    from surefoot.cli.app import App
    from surefoot.cli.params import When
    from surefoot.core.deployment import Deployment
    from surefoot.store.protocol import Store


@command("approve", example='surefoot approve production-7\nsurefoot approve production-7 --reason "tested on staging"')
@click.argument("deployment", metavar="ID", type=TEXT)
@click.option("--reason", metavar="TEXT", type=TEXT, default="", help="Why; kept in the journal.")
@click.pass_context
def approve(ctx: click.Context, deployment: str, reason: str) -> None:
    """Agree to a deployment that waits for approval.

    Whoever has asked for it can't. Approving twice does no harm.
    """
    from surefoot.api import gates
    from surefoot.cli.app import App
    from surefoot.cli.own_agent import leave_nothing
    from surefoot.cli.text import clean
    from surefoot.cli.who import requested_by

    app = App.of(ctx)
    with app.writing(existing=True) as store:
        said = app.said_of(store, deployment, reason)
        state = gates.approve(store, deployment, by=requested_by(), reason=said)
        leave_nothing(app, store)  # whoever followed may be gone
        _warn(app, store, state)
        if app.json:
            app.console.document(app.shown(store, state))
            return
        missing = state.approvals_missing
        more = f"; {missing} more needed" if missing else ""
        app.console.print(clean(f"{state.id} ({state.version} to {state.environment}): approved{more}"))


def _warn(app: App, store: Store, state: Deployment) -> None:
    """Say what an approval does not say by itself: who counted, and whether something newer has gone ahead."""
    from surefoot.cli.text import clean
    from surefoot.core.status import Status

    gate = state.approvals_gate
    unknown = [name for name, members in (gate.groups.items() if gate else ()) if members is None]
    if unknown:
        app.console.warn(
            clean(f"the config lists no members of {', '.join(unknown)}: anyone but the requester may approve"),
            "list them under groups in surefoot.yml",
        )
    newer = store.history(state.environment, limit=1)
    if not state.begun and newer and newer[0].number > state.number and newer[0].status is Status.SUCCEEDED:
        app.console.warn(
            clean(f"{newer[0].id} ({newer[0].version}) is newer and was deployed already"),
            f"to leave it: surefoot reject {state.id} --reason TEXT",
        )


@command("reject", example='surefoot reject production-7 --reason "the migration is not reviewed"')
@click.argument("deployment", metavar="ID", type=TEXT)
@click.option("--reason", metavar="TEXT", type=TEXT, required=True, help="Why; kept in the journal.")
@click.pass_context
def reject(ctx: click.Context, deployment: str, reason: str) -> None:
    """Refuse a deployment that waits for approval.

    It has failed then; nothing of it was touched. Whoever has asked for it may reject it too.
    """
    from surefoot.api import gates
    from surefoot.cli.app import App
    from surefoot.cli.own_agent import leave_nothing
    from surefoot.cli.text import clean
    from surefoot.cli.who import requested_by

    app = App.of(ctx)
    with app.writing(existing=True) as store:
        said = app.said_of(store, deployment, reason)
        state = gates.reject(store, deployment, by=requested_by(), reason=said)
        leave_nothing(app, store)  # somebody is to be told
        if app.json:
            app.console.document(app.shown(store, state))
        else:
            app.console.print(clean(f"{state.id} ({state.version} to {state.environment}): rejected"))


@command(
    "freeze",
    example='surefoot freeze production --reason "Black Friday"\n'
    'surefoot freeze production --reason "audit" --until 2026-01-31T18:00Z',
)
@click.argument("environment", type=TEXT)
@click.option("--reason", metavar="TEXT", type=TEXT, required=True, help="Why; kept in the environment's journal.")
@click.option(
    "--until",
    metavar="TIME",
    type=TIME,
    help="When it ends by itself: 2026-01-31T22:00Z, 22:00 (the next one), or 90m from now.",
)
@click.pass_context
def freeze(ctx: click.Context, environment: str, reason: str, until: When | None) -> None:
    """Let no deployment start in an environment.

    What runs goes on to its end; what is queued waits. A second freeze takes the place of the first.
    """
    from surefoot.api import gates
    from surefoot.cli.app import App
    from surefoot.cli.own_agent import leave_nothing
    from surefoot.cli.text import clean
    from surefoot.cli.who import requested_by
    from surefoot.core.errors import UsageError
    from surefoot.core.opening import frozen

    app = App.of(ctx)
    with app.writing() as store:
        app.know_environment(store, environment)
        now = store.now()
        end = None if until is None else until.after(now)
        if end is not None and end <= now:
            raise UsageError("--until is in the past", hint="write a time to come, or a duration from now such as 90m")
        said = app.said_of_environment(environment, reason)
        gates.freeze(store, environment, by=requested_by(), reason=said, until=end)
        leave_nothing(app, store)  # it may end sooner than the one before
        row = store.environment(environment)
        if app.json:
            _document(app, store, environment)
            return
        if row.freeze is not None:
            app.console.print(clean(frozen(environment, row.freeze)))
        if row.running:
            app.console.note(clean(f"{row.running} has begun and goes on; to end it: surefoot cancel {row.running}"))


@command("unfreeze", example="surefoot unfreeze production")
@click.argument("environment", type=TEXT)
@click.option("--reason", metavar="TEXT", type=TEXT, default="", help="Why; kept in the environment's journal.")
@click.pass_context
def unfreeze(ctx: click.Context, environment: str, reason: str) -> None:
    """Let deployments start again in an environment.

    Those that were waiting start in their order.
    """
    from surefoot.api import gates
    from surefoot.cli.app import App
    from surefoot.cli.own_agent import leave_nothing
    from surefoot.cli.text import clean
    from surefoot.cli.who import requested_by

    app = App.of(ctx)
    with app.writing() as store:
        app.know_environment(store, environment)
        said = app.said_of_environment(environment, reason)
        before = gates.unfreeze(store, environment, by=requested_by(), reason=said)
        leave_nothing(app, store)
        if app.json:
            _document(app, store, environment)
        else:
            what = "is not frozen" if before is None else "is frozen no more"
            app.console.print(clean(f"{environment} {what}"))


def _document(app: App, store: Store, environment: str) -> None:
    from surefoot.core import views

    app.console.document({"environment": environment, "frozen": views.freeze(store.environment(environment).freeze)})
