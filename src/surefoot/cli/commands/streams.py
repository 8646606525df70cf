# SPDX-License-Identifier: Apache-2.0
"""Streams: a deployment's events and its log, as they are or as they grow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from surefoot.cli.lazy import command
from surefoot.cli.params import TEXT

if TYPE_CHECKING:
    from surefoot.api.follow import Update
    from surefoot.cli.app import App


@command(
    "events",
    example="surefoot events production-3 --follow\nsurefoot events production-3 --output json\n"
    "surefoot events production",
)
@click.argument("deployment", metavar="ID", type=TEXT)
@click.option("--follow", is_flag=True, help="Go on until the deployment has ended.")
@click.pass_context
def events(ctx: click.Context, deployment: str, follow: bool) -> None:
    """Show a deployment's journal.

    All that happened, in order; with --output json as JSON Lines. With an environment's name instead of an ID: its own
    journal, of freezes.
    """
    from surefoot.cli.app import App
    from surefoot.cli.text import clean
    from surefoot.cli.views.plain import clock
    from surefoot.core import views
    from surefoot.core.sentences import sentence

    app = App.of(ctx)

    def tell(update: Update) -> None:
        if app.json:
            app.console.lines(views.event(entry) for entry in update.entries)
        else:
            app.console.prints(
                f"{entry.seq:>4}  {clock(entry.at)}  {clean(sentence(entry))}" for entry in update.entries
            )

    if not _environments_own(app, deployment):
        _stream(app, deployment, follow, tell, log=False)


def _environments_own(app: App, name: str) -> bool:
    """Tell an environment's own journal, if that is what is asked for."""
    from surefoot.cli.text import clean
    from surefoot.cli.views.plain import clock
    from surefoot.core import views
    from surefoot.core.sentences import deed

    with app.reading() as store:
        entries = store.chronicle(name)
        if not entries and name not in app.environment_names():
            return False
        for entry in entries:
            if app.json:
                app.console.line(views.deed(entry))
            else:
                app.console.print(f"{entry.seq:>4}  {clock(entry.at)}  {clean(deed(entry))}")
    return True


@command("logs", example="surefoot logs production-3 --follow")
@click.argument("deployment", metavar="ID", type=TEXT)
@click.option("--follow", is_flag=True, help="Go on until the deployment has ended.")
@click.pass_context
def logs(ctx: click.Context, deployment: str, follow: bool) -> None:
    """Show what a deployment's steps printed.

    And what the agents say of them; with --output json as JSON Lines.
    """
    from surefoot.cli.app import App
    from surefoot.cli.views.plain import clock, log_text
    from surefoot.core.views import rfc3339

    app = App.of(ctx)

    def tell(update: Update) -> None:
        if app.json:
            app.console.lines(
                {
                    "id": line.id,
                    "at": rfc3339(line.at),
                    "stream": line.stream,
                    "step": line.step,
                    "direction": line.direction,
                    "attempt": line.attempt,
                    "host": None,  # a step does not tell; scripts may rely on the key
                    "agent": line.agent,
                    "token": line.token,
                    "text": line.text,
                }
                for line in update.lines
            )
        else:
            app.console.prints(f"{clock(line.at)}  {log_text(line)}" for line in update.lines)

    _stream(app, deployment, follow, tell, log=True)


def _stream(app: App, deployment: str, follow: bool, tell: Callable[[Update], None], *, log: bool) -> None:
    """Tell what there is, and with `follow` what comes until the end."""
    from surefoot.api.follow import Follower, StoreAway, StoreBack, Update
    from surefoot.cli.app import SILENT
    from surefoot.cli.following import warn_if_alone

    with app.reading() as store:
        follower = Follower(store, deployment, log=log)
        if not follow:
            for update in follower.rest():
                tell(update)
            return
        asked_at = time.monotonic()  # whether anybody works; an agent may just be starting
        for news in follower.news():
            match news:
                case StoreAway(error):
                    app.console.warn(f"{error.message}; trying again", error.hint)
                case StoreBack():
                    app.console.note("the store is back")
                case Update(state):
                    tell(news)
                    if time.monotonic() - asked_at > SILENT and state.wants_agent and not state.approvals_missing:
                        asked_at = math.inf if warn_if_alone(app, store) else time.monotonic()
        for update in follower.rest():
            tell(update)
