# SPDX-License-Identifier: Apache-2.0
"""The agent that `deploy` runs by itself where the config names none: in a thread of this process, or in the
background.

Guarantees: an agent in a thread hands over before the process ends by itself; killed with the process, it leaves what
every killed agent leaves: a journal from which the next one goes on, and no process. The store's URL, which may hold
a password, reaches the background process by its environment, never by its arguments.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from surefoot.cli.text import clean
from surefoot.cli.who import background_agent_name, ends_with, is_own_agent_of_the_past, own_agent_name
from surefoot.core.errors import NewerStoreError, StoreError, SurefootError
from surefoot.core.lease import AgentStatus, Role
from surefoot.core.notes import Level, Log, Note
from surefoot.store.protocol import elsewhere

if TYPE_CHECKING:
    from surefoot.cli.app import App
    from surefoot.store.protocol import AgentReport, Store, Work

#: Seconds that an agent gets to hand over; with a store that is away it needs as long as its lease is good.
HANDOVER = 30.0
#: Seconds between looks for a sign of life.
LOOK_EVERY = 0.2
#: By what CI runners (GitHub's, Jenkins) find the processes of a job, which they kill when it has ended.
MARKS_OF_JOBS = frozenset({"RUNNER_TRACKING_ID", "JENKINS_NODE_COOKIE", "JENKINS_SERVER_COOKIE"})
#: What agents in the background say.
BACKGROUND_LOG = "background.log"


class OwnAgent:
    """An agent in a thread, until one deployment wants no agent any more."""

    def __init__(self, app: App, until: str) -> None:
        """Nothing runs before `start`."""
        self._app = app
        self._until = until
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self.left: str | None = None  #: a deployment that it has handed over
        self._beside: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def lives(self) -> bool:
        """Say whether it still works; raise what ended it, if anything but its work's end did."""
        lives = self._thread.is_alive()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return lives

    def stop(self) -> None:
        """Have it hand over, and wait for that."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(HANDOVER)

    def _run(self) -> None:
        app = self._app
        try:
            from surefoot.agent.service import AgentOptions, run_agent

            options = AgentOptions(
                name=own_agent_name(),
                role=Role.PRIMARY,
                ttl=app.lease_ttl,
                state=app.state_folder,
                until=self._until,
                passing=True,
                patient=True,
                strays=self._have_one_beside,
            )
            self.left = run_agent(options, app.store_url, stop=self._stop, log=_Aloud(app))
            _forget_the_dead(app)
        except SurefootError as error:
            self._error = error
        except BaseException as error:
            self._error = RuntimeError(f"the agent in this process ended: {error!r}")
            self._error.__cause__ = error

    def _have_one_beside(self) -> None:
        """Have another be there for the own deployment, should that be ready first; it ends no sooner than this one's
        work, since that is left to do until then.
        """
        if self._beside is None or self._beside.poll() is not None:
            self._beside = start_in_background(self._app)


class _Aloud(Log):
    """Says with -v what the journal does not say, which is shown anyway; without, that a trace was lost."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(self, note: Note) -> None:
        if note.type == "trace" and note.level <= Level.WARNING:
            self._app.console.warn(note.text)
        elif self._app.settings.verbose and note.seq is None:
            self._app.console.note(clean(note.text))


def _forget_the_dead(app: App) -> None:
    """Forget agents of earlier processes on this machine that were killed before they could leave, and remove the files
    that each had unpacked: nobody has its name again.
    """
    from surefoot.agent import folders

    with contextlib.suppress(SurefootError), app.writing(existing=True) as store:
        now, silent = store.now(), 2 * app.lease_ttl
        for row in store.agents(silent):
            if row.status is AgentStatus.OFFLINE and is_own_agent_of_the_past(row.report.name, now - row.last_seen_at):
                store.leave(row.report.name, row.report.incarnation)
        known = {row.report.name for row in store.agents(silent)}
        folders.forget(app.state_folder, lambda name: name not in known and is_own_agent_of_the_past(name, 0.0))


def see_that_one_can_work(app: App) -> None:
    """Refuse what would be accepted and never worked: where the config names no agents, one has to work here."""
    from surefoot.agent import folders

    if not app.has_agents:
        folders.see_that_one_can_work(app.state_folder)


@contextlib.contextmanager
def agent_for(app: App, deployment: str) -> Iterator[OwnAgent | None]:
    """Have an agent of this process work where the config names none; whatever it is that ends the context before its
    time, an agent in the background does what is left.
    """
    if app.has_agents:
        yield None
        return
    agent = OwnAgent(app, until=deployment)
    try:
        agent.start()
        yield agent
    except NewerStoreError:
        raise  # nor could one in the background: it is for an upgraded program's
    except BaseException:
        # Before ours has handed over, so that nothing can come between; it waits for that.
        if start_in_background(app):
            log = clean(str(app.state_folder / BACKGROUND_LOG))
            app.console.note(f"an agent in the background does what is left to do; what it says is in {log}")
        raise
    finally:
        agent.stop()
    if agent.left is not None:  # another command's, that was killed
        start_in_background(app)


class _Presence:
    """Who is there, as from now on: one that was killed just now seems to be there for some seconds more, as long as
    its steps are not ended. So it is a sign of life that counts which comes after the first look.
    """

    def __init__(self, store: Store, work: list[Work], *, sure: bool) -> None:
        """If not `sure`, whoever seems to be there will do."""
        from surefoot.cli.app import SILENT

        self._store = store
        self._silent = SILENT
        self._until = time.monotonic() + SILENT
        self._look(work)
        self._first = {row.report.name: row.last_seen_at for row in self._able} if sure else {}

    def is_there(self, deployment: str) -> bool:
        """Say whether an agent is there for this deployment, and not busy elsewhere."""
        return self._lives(
            lambda report: (
                report.ends_with in (None, deployment) and not elsewhere(self._busy.get(report.name), deployment)
            )
        )

    def anybody(self) -> bool:
        """Say whether any agent is there, busy or not."""
        return self._lives(lambda _: True)

    def _look(self, work: list[Work]) -> None:
        self._able = [row for row in self._store.agents(self._silent) if row.status.able]
        self._busy = {item.lease.holder: item.deployment for item in work}

    def _lives(self, wanted: Callable[[AgentReport], bool]) -> bool:
        while found := [row for row in self._able if wanted(row.report)]:
            if any(row.last_seen_at != self._first.get(row.report.name) for row in found):
                return True
            if time.monotonic() >= self._until:
                return False  # the store's clock was set back, so that nobody ever seems silent
            time.sleep(LOOK_EVERY)
            self._look(self._store.work())
        return False


def leave_nothing(app: App, store: Store) -> None:
    """Have somebody work where the config names no agents, if anything is left to do for which nobody is there."""
    if app.has_agents:
        return
    try:
        left = left_to_nobody(store, sure=True)
    except StoreError:
        left = True  # an agent that finds nothing ends
    if left:
        start_in_background(app)


def leave_nothing_of_others(app: App, store: Store) -> None:
    """Do so for what commands that are gone have left; one that asked just now may be about to see to it itself."""
    from surefoot.cli.app import SILENT

    with contextlib.suppress(StoreError):
        if not app.has_agents and left_to_nobody(store, since=SILENT):
            start_in_background(app)


def left_to_nobody(store: Store, since: float | None = None, *, sure: bool = False) -> bool:
    """Say whether anything is left to do, now or at a time, or to tell, and no agent is there for it. With `since`, of
    what was accepted at least so many seconds ago alone, and nothing of what is to be told: whoever asks has an agent,
    which tells that. Who wants to be `sure` waits for a sign of life of those that seem to be there.
    """
    from surefoot.api.requests import load

    work = store.work()
    untold = since is None and bool(store.deliveries(limit=1))
    if not work and not untold and store.next_ready() is None:
        return False
    presence = _Presence(store, work, sure=sure)
    if untold and not presence.anybody():
        return True
    due = {item.deployment for item in work}
    asked = due.union(*(row.queue for row in store.environments()))
    now = store.now()
    return any(
        state.wants_agent
        and (state.id in due or not state.approvals_missing)
        and not 0 <= now - state.requested_at < (since or 0.0)  # the clock may have been set back
        for state in (load(store, deployment) for deployment in asked if not presence.is_there(deployment))
    )


def start_in_background(app: App) -> subprocess.Popen[bytes] | None:
    """Start an agent in a process of its own that works until nothing is left to do; say so, and return None, if that
    can't be.
    """
    name = background_agent_name()
    # In the same folder, to which paths in the environment and in the store's URL may be relative; but no file there is
    # taken for a module (-P).
    call = [sys.executable, "-P", "-m", "surefoot", "agent", "run", name, "--role", Role.EMERGENCY.value, "--once"]
    env = {name: value for name, value in os.environ.items() if name not in MARKS_OF_JOBS}
    env["SUREFOOT_STORE"] = app.store_url
    if app.config_path is not None:
        env["SUREFOOT_CONFIG"] = str(app.config_path)
    try:
        app.state_folder.mkdir(parents=True, exist_ok=True)
        with _log_of_background(app.state_folder) as log:
            agent = subprocess.Popen(
                call,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    except OSError as error:
        app.console.warn(
            f"no agent could be started in the background, and nobody does what is left to do: {error}",
            " ".join(call[3:]),
        )
        return None
    if whole := ends_with():
        app.console.warn(
            f"the agent in the background, which is to do what is left, ends with this {whole}",
            "follow the deployment to its end, or name agents in the config that run elsewhere",
        )
    return agent


def _log_of_background(folder: Path) -> IO[bytes]:
    """Open what an agent in the background writes to; that it works matters more than what it says."""
    try:
        return (folder / BACKGROUND_LOG).open("ab")
    except OSError:
        return Path(os.devnull).open("ab")
