# SPDX-License-Identifier: Apache-2.0
"""What happens to a store when the processes that use it are many, die or freeze. Real processes, real signals."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3 as db
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from surefoot.core import events as ev
from surefoot.core.errors import NotAllowedError
from surefoot.core.lease import AgentStatus, Role
from surefoot.core.plan import Direction
from surefoot.store import open_store, sqlite
from surefoot.store.protocol import AgentReport, News, Standing, Store
from tests.store import journal as j
from tests.support.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
DEADLINE = 20.0

#: An agent that takes its presence and a lease, says so, starts a child that inherits the presence, and waits.
HOLDER = """
import subprocess, sys, time
from surefoot.core.lease import Role
from surefoot.store import open_store
from surefoot.store.protocol import AgentReport
from tests.store import journal as j
store = open_store(sys.argv[1])
fds = store.enter("a", "a-1")
store.report(AgentReport("a", Role.PRIMARY, "a-1"))
print("granted", j.claim(store, sys.argv[2], "a").token, flush=True)
if sys.argv[3] == "with-shim":
    shim = subprocess.Popen(["sleep", "60"], pass_fds=fds, stdout=subprocess.DEVNULL)
    print(shim.pid, flush=True)
time.sleep(60)
"""
#: A program that opens an empty store and submits once.
STARTER = """
import sys
from surefoot.store import open_store
from tests.store import journal as j
sys.stdin.readline()
print(j.submit(open_store(sys.argv[1])))
"""
#: Fifty programs, each of which opens an empty store and submits once. They have imported what they need together; they
#: begin together, too, when the pipe ends that they all read, and none outlives the first.
FIFTY = """
import ctypes, os, sys
import surefoot.store.postgres, surefoot.store.sqlite
from surefoot.store import open_store
from tests.store import journal as j
begin, ready = os.pipe()
for _ in range(50):
    if not os.fork():
        ctypes.CDLL(None).prctl(1, 9)
        try:
            os.close(ready)
            os.read(begin, 1)
            print(j.submit(open_store(sys.argv[1])), flush=True)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(0)
os.close(ready)
for _ in range(50):
    os.wait()
"""


class Programs:
    """Processes of one test; none outlives it."""

    def __init__(self) -> None:
        self._pids: list[int] = []
        self._running: list[subprocess.Popen[str]] = []

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._running.append(process)
        return process

    def adopt(self, pid: int) -> None:
        self._pids.append(pid)

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()
        for pid in self._pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.fixture
def programs() -> Iterator[Programs]:
    programs = Programs()
    try:
        yield programs
    finally:
        programs.close()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url)
    yield store
    store.close()


def eventually(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def present(store: Store) -> bool:
    (work,) = store.work()
    assert work.lease.holder == "a"
    return work.holder_present


def test_fifty_programs_that_start_at_once_on_an_empty_store_all_succeed(url: str, programs: Programs) -> None:
    starters = programs.start(FIFTY, url)
    ids = sorted(said(starters) for _ in range(50))
    assert ids == sorted(f"prod-{n}" for n in range(1, 51))


def test_a_killed_agent_is_known_to_be_gone(url: str, store: Store, programs: Programs) -> None:
    agent = programs.start(HOLDER, url, j.submit(store), "alone")
    assert said(agent) == "granted 1"
    assert present(store)
    assert store.agents(60.0)[0].status is AgentStatus.ONLINE
    agent.kill()
    eventually(lambda: not present(store))
    assert store.agents(60.0)[0].status is AgentStatus.OFFLINE
    assert store.enter("a", "a-2")
    assert store.report(AgentReport("a", Role.PRIMARY, "a-2")) is Standing.WELCOME
    assert not present(store), "a new process of that name is not the holder"
    assert store.agents(60.0)[0].status is AgentStatus.ONLINE


def test_presence_stays_until_the_dead_agents_shim_is_gone(url: str, store: Store, programs: Programs) -> None:
    agent = programs.start(HOLDER, url, j.submit(store), "with-shim")
    said(agent)
    shim = int(said(agent))
    programs.adopt(shim)
    agent.kill()
    agent.wait()
    time.sleep(0.3)
    assert present(store)
    with pytest.raises(NotAllowedError):
        store.enter("a", "a-2")
    os.kill(shim, signal.SIGKILL)
    eventually(lambda: not present(store))


def test_a_frozen_agent_is_present(url: str, store: Store, programs: Programs) -> None:
    agent = programs.start(HOLDER, url, j.submit(store), "alone")
    said(agent)
    agent.send_signal(signal.SIGSTOP)
    time.sleep(0.2)
    assert present(store)
    agent.send_signal(signal.SIGCONT)
    assert present(store)


def test_what_was_accepted_survives_the_kill_of_who_submitted_it(url: str, store: Store, programs: Programs) -> None:
    starter = programs.start(STARTER + "\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)", url)
    assert starter.stdin is not None
    starter.stdin.write("go\n")
    starter.stdin.flush()
    starter.wait()
    assert store.summary("prod-1").wants_agent


def test_a_client_frozen_inside_a_transaction_does_not_keep_the_lease_for_long(
    postgres: PostgresServer, programs: Programs
) -> None:
    url = postgres.new_database()
    store = open_store(url)
    deployment = j.submit(store)
    frozen = programs.start(
        """
import os, signal, sys
from surefoot.store import open_store
store = open_store(sys.argv[1])
with store._writing(durable=True) as conn:
    store._q.lock_environment(conn, name="prod")
    print("locked", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    conn.execute("UPDATE environments SET token = 99")
""",
        url,
    )
    assert said(frozen) == "locked"
    grant = j.claim(store, deployment)
    frozen.send_signal(signal.SIGCONT)
    frozen.wait()
    assert frozen.returncode != 0
    j.append(store, deployment, grant, ev.StepStarted("only", Direction.FORWARD, 1))
    store.close()


# -- a server that goes away ------------------------------------------------------------------------------------------


def test_a_restarted_server_makes_nobody_look_gone_and_presence_is_taken_again(own_postgres: PostgresServer) -> None:
    url = own_postgres.new_database()
    agent, other = open_store(url), open_store(url)
    deployment = j.submit(agent)
    fds = agent.enter("a", "a-1")
    j.claim(agent, deployment, "a")
    assert present(other)
    own_postgres.restart()
    assert present(other), "its lock fell with the server, not with the agent"
    assert agent.report(AgentReport("a", Role.PRIMARY, "a-1")) is Standing.WELCOME
    assert agent.enter("a", "a-1") != () and fds != ()
    assert present(other)
    with pytest.raises(NotAllowedError):
        other.enter("a", "a-2")
    agent.close()
    eventually(lambda: not present(other))
    other.close()


def test_who_waits_hears_of_changes_after_the_server_crashed(own_postgres: PostgresServer) -> None:
    url = own_postgres.new_database()
    store, other = open_store(url), open_store(url)
    while store.wait(0.2):
        pass
    own_postgres.kill()
    own_postgres.start()
    assert store.wait(DEADLINE), "what it missed, nobody knows"
    while store.wait(0.5):
        pass
    j.submit(other)
    assert store.wait(DEADLINE)
    store.close()
    other.close()


def test_a_holder_that_tells_its_journal_wakes_followers_but_not_every_agent(own_postgres: PostgresServer) -> None:
    url = own_postgres.new_database()
    store, other = open_store(url), open_store(url)
    deployment = j.submit(other)
    grant = j.claim(other, deployment)
    mark = store.mark()
    while store.wait_as_agent(0.5) is not None:
        pass
    j.append(other, deployment, grant, ev.StepStarted("only", Direction.FORWARD, 1))
    assert store.wait(DEADLINE, mark)
    assert store.wait_as_agent(0.5) is None
    j.append(other, deployment, None, ev.CancelRequested("me"))
    assert store.wait_as_agent(DEADLINE) == News(frozenset({deployment}))
    own_postgres.kill()
    own_postgres.start()
    assert store.wait_as_agent(DEADLINE) == News(None), "of what was asked meanwhile, nobody knows"
    store.close()
    other.close()


def test_what_was_accepted_survives_a_crash_of_the_server(own_postgres: PostgresServer) -> None:
    url = own_postgres.new_database()
    store = open_store(url)
    ids = [j.submit(store, str(n)) for n in range(20)]
    own_postgres.kill()
    own_postgres.start()
    assert store.environment("prod").queue == tuple(ids)
    j.append(store, ids[0], j.claim(store, ids[0]), ev.StepStarted("only", Direction.FORWARD, 1))
    store.close()


def test_a_presence_whose_session_the_server_has_ended_is_taken_again_at_the_next_look(
    postgres: PostgresServer,
) -> None:
    url = postgres.new_database()
    mine, other = open_store(url), open_store(url)
    try:
        mine.enter("a", "a-1")
        mine.report(AgentReport("a", Role.PRIMARY, "a-1"))
        before = os.fstat(mine.presence("a")[0]).st_ino
        postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        until = time.monotonic() + DEADLINE
        while other.agents(600)[0].status is not AgentStatus.OFFLINE:  # the session is being ended
            assert time.monotonic() < until
        mine.wait_as_agent(0.01)
        while other.agents(600)[0].status is AgentStatus.OFFLINE:
            mine.wait_as_agent(0.01)
            assert time.monotonic() < until
        assert os.fstat(mine.presence("a")[0]).st_ino != before
    finally:
        mine.close()
        other.close()
    assert mine.presence("a") == ()


class Rows(list[tuple[object, ...]]):
    """What a statement has found."""

    def fetchall(self) -> list[tuple[object, ...]]:
        return self

    def fetchone(self) -> tuple[object, ...] | None:
        return self[0] if self else None


def test_tables_that_another_starter_makes_while_one_looks_are_no_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "surefoot.db"

    class Slow:
        """A connection after each of whose statements another starter comes first."""

        def execute(self, statement: str) -> Rows:
            with contextlib.closing(db.connect(path)) as conn:
                found = Rows(conn.execute(statement).fetchall())
            sqlite.SqliteStore(path).close()
            return found

    assert sqlite._version(Slow()) == 0
