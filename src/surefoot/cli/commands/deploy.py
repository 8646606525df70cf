# SPDX-License-Identifier: Apache-2.0
"""What changes hosts, and what ends or repairs such a change: deploy, rollback, cancel, resolve."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from surefoot.cli.lazy import command
from surefoot.cli.params import DURATION, TEXT, TIME

if TYPE_CHECKING:
    from surefoot.cli.app import App
    from surefoot.cli.following import Patience
    from surefoot.cli.params import When
    from surefoot.core.deployment import Deployment
    from surefoot.store.protocol import Store, Submission


def following(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of all commands that submit and follow."""
    options = (
        click.option("--detach", is_flag=True, help="End once it is accepted."),
        click.option("--reason", metavar="TEXT", type=TEXT, default="", help="Why; kept in the journal."),
        click.option(
            "--key", metavar="KEY", type=TEXT, help="Submitted again with the same key, it is the same deployment."
        ),
        click.option("--timeout", metavar="DURATION", type=DURATION, help="Follow no longer than this; it goes on."),
        click.option(
            "--on-interrupt",
            type=click.Choice(["cancel", "detach"]),
            default="cancel",
            show_default=True,
            help="What SIGINT, SIGTERM and SIGHUP mean while it is followed.",
        ),
        click.option("--when-open", is_flag=True, help="Wait for a freeze or a window instead of being refused."),
        click.option(
            "--at",
            "at",
            metavar="TIME",
            type=TIME,
            help="Start then: 2026-01-31T22:00Z, 22:00 (the next one), or 90m from now.",
        ),
        click.option(
            "--override-freeze", is_flag=True, help="Start in spite of a freeze or a closed window; needs --reason."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def _patience(detach: bool, timeout: float | None, on_interrupt: str) -> Patience:
    from surefoot.cli.following import Patience

    return Patience(detach=detach, timeout=timeout, cancel_on_interrupt=on_interrupt == "cancel")


def _wishes(store: Store, submission: Submission, when_open: bool, at: When | None, override: bool) -> Submission:
    """Return the submission with when it is to start, and past which gates."""
    from dataclasses import replace

    from surefoot.core.errors import UsageError

    if override and not submission.reason.strip():
        raise UsageError(
            "--override-freeze needs a reason, which the journal keeps", hint='add --reason "what can\'t wait"'
        )
    now = store.now()
    not_before = None if at is None else at.after(now)
    if not_before is not None and not_before < now and submission.key is None:  # under a key it may be accepted already
        raise UsageError("--at is in the past", hint="leave it out to start now, or write a time to come")
    return replace(submission, when_open=when_open, not_before=not_before, override=override)


def _warn_of_other_files(app: App, submission: Submission) -> None:
    """Say that what succeeded where the version is promoted from is not what is deployed, where git can tell: else
    anything that lies in the folder counts as a file of the project.
    """
    from surefoot.cli.text import clean

    evidence = submission.promoted
    if evidence is None or not evidence.commit or not submission.commit or evidence.bundle == submission.bundle:
        return
    app.console.warn(
        f"the files are not those that {evidence.deployment} ran with: what succeeded in {evidence.environment} is not "
        "all that is deployed",
        f"if that matters: surefoot deploy {evidence.environment} {clean(submission.version)}, from these files",
    )


@command(
    "deploy",
    example="surefoot deploy production 2.0\nsurefoot deploy production 2.0 --detach --key build-1042 --output json",
)
@click.argument("environment", type=TEXT)
@click.argument("version", type=TEXT)
@following
@click.pass_context
def deploy(
    ctx: click.Context,
    environment: str,
    version: str,
    *,
    detach: bool,
    reason: str,
    key: str | None,
    timeout: float | None,
    on_interrupt: str,
    when_open: bool,
    at: When | None,
    override_freeze: bool,
) -> int:
    """Deploy a version and follow it to its end.

    Where the config names no agents, it runs its own in this process. What it may have to wait for (approvals, a
    freeze, a window) is said while it waits.

    Exit codes: 0 succeeded, 3 refused, 4 failed and put back, 5 stranded, 6 cancelled, 8 timed out waiting.
    """
    from contextlib import closing
    from dataclasses import replace

    from surefoot.api.gates import promoted
    from surefoot.api.requests import submit
    from surefoot.cli.app import App
    from surefoot.cli.following import see_through
    from surefoot.cli.interrupts import Interrupts
    from surefoot.cli.own_agent import see_that_one_can_work

    app = App.of(ctx)
    submission = app.submission(environment, version, reason=reason, key=key)
    see_that_one_can_work(app)
    files = ctx.with_resource(closing(app.files()))
    for warning in files.warnings:
        app.console.warn(warning)
    with app.writing() as store, Interrupts() as interrupts:
        submission = _wishes(store, submission, when_open, at, override_freeze)
        submission = promoted(store, replace(submission, bundle=files.digest))
        _warn_of_other_files(app, submission)
        store.put_bundle(files.digest, files.chunks())
        deployment, new = submit(store, app.asked_from(store, submission))
        app.accepted(deployment, new, key)
        return see_through(app, store, deployment, _patience(detach, timeout, on_interrupt), interrupts)


@command("rollback", example="surefoot rollback production\nsurefoot rollback production --to 1.9")
@click.argument("environment", type=TEXT)
@click.option("--to", "to", metavar="VERSION", type=TEXT, help="Which version; the previous one if not given.")
@following
@click.pass_context
def rollback(
    ctx: click.Context,
    environment: str,
    *,
    to: str | None,
    detach: bool,
    reason: str,
    key: str | None,
    timeout: float | None,
    on_interrupt: str,
    when_open: bool,
    at: When | None,
    override_freeze: bool,
) -> int:
    """Deploy an earlier version again.

    With the steps and files which it was deployed with. Exit codes are those of deploy. During a freeze, or outside of
    the windows, add --override-freeze --reason TEXT.
    """
    from surefoot.api import requests
    from surefoot.cli.app import App
    from surefoot.cli.following import see_through
    from surefoot.cli.interrupts import Interrupts
    from surefoot.cli.own_agent import see_that_one_can_work
    from surefoot.cli.who import requested_by

    app = App.of(ctx)
    with app.writing() as store:
        app.know_environment(store, environment)
        see_that_one_can_work(app)
        submission = requests.rollback(store, environment, to, by=requested_by(), reason=reason, key=key)
        with Interrupts() as interrupts:
            submission = _wishes(store, app.as_now(submission), when_open, at, override_freeze)
            deployment, new = requests.submit(store, app.asked_from(store, submission))
            app.accepted(deployment, new, key)
            return see_through(app, store, deployment, _patience(detach, timeout, on_interrupt), interrupts)


@command("cancel", example='surefoot cancel production-3 --reason "wrong branch"')
@click.argument("deployment", metavar="ID", type=TEXT)
@click.option("--reason", metavar="TEXT", type=TEXT, default="", help="Why; kept in the journal.")
@click.pass_context
def cancel(ctx: click.Context, deployment: str, reason: str) -> None:
    """Ask for a safe end of a deployment.

    What it changed is put back. Asking again does no harm.
    """
    from surefoot.api import requests
    from surefoot.cli.app import App
    from surefoot.cli.own_agent import leave_nothing
    from surefoot.cli.text import clean
    from surefoot.cli.who import requested_by

    app = App.of(ctx)
    with app.writing(existing=True) as store:
        said = app.said_of(store, deployment, reason)
        state = requests.cancel(store, deployment, by=requested_by(), reason=said)
        leave_nothing(app, store)  # whoever followed may be gone, and somebody is to be told
        if app.json:
            app.console.document(app.shown(store, state))
        elif state.status.terminal:
            app.console.print(f"{clean(state.id)} is cancelled")
        else:
            app.console.print(f"{clean(state.id)}: cancel requested{_goes_on(state)}")
            app.console.note(f"hint: surefoot events {clean(state.id)} --follow")


def _goes_on(state: Deployment) -> str:
    begun = state.grants > 0 and not state.stops_for_cancel
    return f", but it is {state.status} and goes on to its end" if begun else ""


@command("resolve", example='surefoot resolve production-7 --reason "restored web-2 from its backup"')
@click.argument("deployment", metavar="ID", type=TEXT)
@click.option("--reason", metavar="TEXT", type=TEXT, required=True, help="What was done; kept in the journal.")
@click.option("--unchecked", is_flag=True, help="Take it for true without the health checks.")
@click.option(
    "--version",
    "version",
    metavar="VERSION",
    type=TEXT,
    help="Which version it runs now; hosts are asked if not given.",
)
@click.pass_context
def resolve(ctx: click.Context, deployment: str, reason: str, unchecked: bool, version: str | None) -> int:
    """Declare a stranded environment repaired.

    The health checks have to agree, unless --unchecked. Exit code 3 if they do not.
    """
    from surefoot.api import requests
    from surefoot.cli.app import App
    from surefoot.cli.resolving import see_resolved
    from surefoot.cli.who import requested_by

    app = App.of(ctx)
    if version is not None:
        version = app.valid_version(version)
    with app.writing(existing=True) as store:
        said = app.said_of(store, deployment, reason)
        state = requests.resolve(
            store, deployment, by=requested_by(), reason=said, unchecked=unchecked, version=version
        )
        return see_resolved(app, store, state)
