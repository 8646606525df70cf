# SPDX-License-Identifier: Apache-2.0
"""From an accepted deployment to the exit code: follow it, cancel it on a signal, leave it to others, tell its
outcome.

Guarantees: a signal becomes a durable cancel however long the store takes to come back, and does not end the process;
where no agents are configured one runs in this process, or (once nobody follows any more, for whatever reason) in a
process of its own, so that what was accepted ends; an outcome that is known is the exit code, whatever fails then.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from surefoot.api import requests
from surefoot.api.follow import Follower, StoreAway, StoreBack, Update
from surefoot.cli.app import SILENT
from surefoot.cli.own_agent import OwnAgent, agent_for, leave_nothing_of_others, start_in_background
from surefoot.cli.text import clean
from surefoot.cli.views.base import View, view_for
from surefoot.core.errors import Exit, NotFoundError, StoreError, SurefootError, WaitTimeoutError
from surefoot.core.events import Delivered, DeliveryFailed
from surefoot.core.sentences import sentence
from surefoot.core.status import Status

if TYPE_CHECKING:
    from surefoot.cli.app import App
    from surefoot.cli.interrupts import Interrupts
    from surefoot.core.deployment import Deployment
    from surefoot.store.protocol import Store

#: Seconds between tries to write a cancel while the store is away.
CANCEL_AGAIN = 0.5

EXITS = {
    Status.SUCCEEDED: Exit.DONE,
    Status.FAILED: Exit.REFUSED,
    Status.ROLLED_BACK: Exit.PUT_BACK,
    Status.STRANDED: Exit.STRANDED,
    Status.CANCELLED: Exit.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to follow, and what a signal means."""

    detach: bool = False
    timeout: float | None = None
    cancel_on_interrupt: bool = True


class _Left(Exception):  # noqa: N818 - the follower goes, nothing is wrong
    """Nobody follows any more; the deployment goes on."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def see_through(app: App, store: Store, deployment: str, patience: Patience, interrupts: Interrupts) -> int:
    """Follow an accepted deployment as the caller wants it; return the exit code."""
    if patience.detach:
        return _detach(app, store, deployment)
    leave_nothing_of_others(app, store)
    try:
        with agent_for(app, deployment) as agent, contextlib.closing(view_for(app.console)) as view:
            if agent is None:
                warn_if_alone(app, store)
            state = _follow(app, store, deployment, patience=patience, interrupts=interrupts, view=view, agent=agent)
    except _Left as left:
        _show_left(app, store, deployment)
        hint = f"surefoot events {deployment} --follow"
        raise WaitTimeoutError(f"{left.why}; {deployment} goes on", hint=hint) from None
    leave_nothing_of_others(app, store)
    return conclude(app, store, state)


def _detach(app: App, store: Store, deployment: str) -> int:
    if app.has_agents:
        warn_if_alone(app, store)
    else:
        start_in_background(app)
    if app.json:
        app.console.document(app.shown(store, requests.load(store, deployment)))
    else:
        app.console.print(deployment)
        app.console.note(f"hint: surefoot events {deployment} --follow")
    return Exit.DONE


def _show_left(app: App, store: Store, deployment: str) -> None:
    """Show how far it has come where JSON is wanted; that it goes on is true without that, too."""
    from surefoot.cli.console import last_words

    if app.json:
        with contextlib.suppress(StoreError), last_words():
            app.console.document(app.shown(store, requests.load(store, deployment)))


def _follow(
    app: App,
    store: Store,
    deployment: str,
    *,
    patience: Patience,
    interrupts: Interrupts,
    view: View,
    agent: OwnAgent | None,
) -> Deployment:
    detached = threading.Event()
    cancel = _Cancel(app, store, deployment, view)
    interrupts.answer_with(cancel if patience.cancel_on_interrupt else lambda _signal: detached.set())
    deadline = None if patience.timeout is None else time.monotonic() + patience.timeout

    def check() -> bool:
        if detached.is_set():
            raise _Left(f"{interrupts.first} ends the following")
        if deadline is not None and time.monotonic() >= deadline and not cancel.unwritten:
            raise _Left("the time to wait is over")
        return agent is not None and agent.lives()

    try:
        return watch(Follower(store, deployment), view, check)
    finally:
        cancel.gone.set()


def watch(
    follower: Follower,
    view: View,
    check: Callable[[], bool] = lambda: False,
    until: Callable[[Deployment], bool] = lambda state: state.status.terminal,
) -> Deployment:
    """Show what happens until `until` holds; `check` is called at least every half second: it may raise, and says
    whether a store that is away is worth waiting for however long that takes.
    """
    state: Deployment | None = None
    for news in follower.news(until, stay=check):
        match news:
            case Update(state):
                view.update(news)
            case StoreAway(error):
                view.say(f"{error.message}; trying again")
            case StoreBack():
                view.say("the store is back")
        if state is None or not until(state):
            check()
    try:
        for update in follower.rest():
            view.update(update)
    except StoreError as error:
        view.say(f"{error.message}; the last lines of the log may be missing here")
    assert state is not None
    return state


class _Cancel:
    """What a signal does: it asks for a safe end, trying until that is written, or nobody follows any more.

    Then an agent in the background stands by for the one of this process: whoever sends a signal (a CI runner,
    `timeout -k`) may soon kill.
    """

    def __init__(self, app: App, store: Store, deployment: str, view: View) -> None:
        self.unwritten = False
        self.gone = threading.Event()
        self._app = app
        self._stands_by = app.has_agents
        self._store = store
        self._deployment = deployment
        self._view = view

    def __call__(self, signal: str) -> None:
        from surefoot.cli.who import requested_by

        self.unwritten = True
        while not self.gone.is_set():
            try:
                state = requests.cancel(self._store, self._deployment, by=requested_by(), reason=signal)
            except StoreError as error:
                self._view.say(f"{signal}: the cancel is not written yet: {error.message}")
                self.gone.wait(CANCEL_AGAIN)
            except NotFoundError:
                break  # it has ended meanwhile
            else:
                self._view.say(f"{signal}: cancel requested; following {self._deployment} to its safe end")
                if not self._stands_by and not state.status.terminal:
                    self._stands_by = start_in_background(self._app) is not None
                break
        self.unwritten = False


def _tell_aftermath(app: App, store: Store, state: Deployment) -> None:
    """Say who was told of it and who was not yet, and leave a summary where the CI shows one."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY") if os.environ.get("GITHUB_ACTIONS") == "true" else None
    if not state.plan.targets and not summary:
        return
    entries = store.journal(state.id)
    for entry in entries[state.seq :]:
        if isinstance(entry.event, Delivered | DeliveryFailed):
            app.console.note(clean(sentence(entry)))
    if summary:
        from surefoot.reports.outcome import markdown

        with Path(summary).open("a", encoding="utf-8", errors="replace") as file:
            file.write(markdown(entries))


def conclude(app: App, store: Store, state: Deployment) -> int:
    """Tell how it ended; return the exit code of that."""
    from surefoot.cli.console import last_words
    from surefoot.cli.errors import write_error
    from surefoot.cli.text import duration

    with last_words():
        if app.json:
            app.console.document(app.shown(store, state))
        else:
            took = duration((state.finished_at or state.last_at) - state.requested_at)
            what = clean(f"{state.id} {state.environment} {state.version}")
            app.console.print(f"{what}: {app.console.status(state.status)} after {took}")
    if state.status is not Status.SUCCEEDED and state.outcome is not None:
        write_error(state.outcome.code, state.outcome.message, app.hint_for(state, state.outcome))
        for line in state.outcome.evidence.splitlines()[-10:]:
            app.console.note(f"  {clean(line)}")
    with contextlib.suppress(StoreError, OSError):
        _tell_aftermath(app, store, state)
    if gateway := os.environ.get("SUREFOOT_PUSHGATEWAY"):
        _push_metrics(app, store, gateway, state.plan.project)
    return EXITS[state.status]


def _push_metrics(app: App, store: Store, gateway: str, project: str) -> None:
    """Push the metrics of all deployments; what comes of it changes nothing of the outcome."""
    from surefoot.monitoring.push import push

    try:
        push(gateway, store, project)
    except SurefootError as error:
        app.console.warn(error.message, error.hint)


def warn_if_alone(app: App, store: Store) -> bool:
    """Say so where no agent is there to take the work; return whether it is so."""
    try:
        rows = store.agents(SILENT)
    except StoreError:
        return False  # nobody knows; whoever follows hears that the store is away
    if any(row.status.able for row in rows):
        return False
    name = next(iter(app.agent_names), "NAME" if app.has_agents else "NAME --role emergency --once")
    app.console.warn("no agent is online; the deployment waits until one is", f"surefoot agent run {name}")
    return True
