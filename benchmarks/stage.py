# SPDX-License-Identifier: Apache-2.0
"""What rows are measured on: a project in a temporary folder, a store, and agents that are real processes.

Guarantees: every process that it started has ended, and its folder is gone, when the stage closes, whatever happened
meanwhile. Times are taken from outside: by the clock of this process, from files that steps write, from pids.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.agent.bundle import pack
from surefoot.checks.registry import KINDS
from surefoot.config.freeze import freeze
from surefoot.config.loading import load
from surefoot.core.lease import AgentStatus
from surefoot.store import open_store
from surefoot.store.protocol import Submission
from tests.support.postgres import PostgresServer

#: Seconds within which anything that is waited for must come true.
PATIENCE = 60.0
STORES = ("postgres", "sqlite")
#: Makes a config; its steps may write into the folder that it is given.
Config = Callable[[Path], dict[str, Any]]

#: A step that says when, by whom and with which processes it began, one file an attempt, and goes on until it is ended
#: if it is the deployment's first attempt. It ignores SIGTERM and has a daemon in a session of its own: what has to be
#: gone must be ended the hard way.
STUBBORN = r"""#!/bin/sh
now=$(date +%s.%N)
trap '' TERM
note="NOTES/$SUREFOOT_DEPLOYMENT.$SUREFOOT_TOKEN"
if [ "$SUREFOOT_TOKEN" = "$(cat NOTES/$SUREFOOT_ENVIRONMENT.first)" ]; then
  setsid sleep 600 & daemon=$!
  echo "$now $SUREFOOT_AGENT $$ $daemon" > "$note.new" && mv "$note.new" "$note"
  while :; do sleep 600; done
fi
echo "$now $SUREFOOT_AGENT $$" > "$note.new" && mv "$note.new" "$note"
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an attempt of the stubborn step said of itself; `began` is by the clock that `time.time` reads."""

    began: float
    agent: str
    pids: tuple[int, ...]


class Stage:
    """One project with its agents."""

    def __init__(self, folder: Path, store: str, agents: Sequence[str], config: Config) -> None:
        self.folder = folder
        self.store_url = store
        self.notes = folder / "notes"
        self.project = folder / "project"
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self.former: dict[str, str] = {}
        self.notes.mkdir()
        self.project.mkdir()
        (self.project / "step.sh").write_text(STUBBORN.replace("NOTES", str(self.notes)))
        (self.project / "step.sh").chmod(0o755)
        roles = {name: {"role": "secondary" if place else "primary"} for place, name in enumerate(agents)}
        whole = {"project": "bench", **({"agents": roles} if roles else {}), **config(self.notes)}
        (self.project / "surefoot.yml").write_text(json.dumps(whole, indent=1))
        self.store = open_store(store)

    # -- agents --------------------------------------------------------------------------------------

    def command(self, *arguments: str, store: str | None = None) -> list[str]:
        """Return the command line of a surefoot command."""
        config = str(self.project / "surefoot.yml")
        return [str(Path(sys.executable).with_name("surefoot")), "--config", config, "--store", store or self.store_url,
                *arguments]  # fmt: skip

    def start(self, name: str, store: str | None = None) -> None:
        """Start an agent, which may see the store at an address of its own."""
        rows = self.store.agents(2.0)
        self.former |= {row.report.name: row.report.incarnation for row in rows if row.report.name == name}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.agents[name] = subprocess.Popen(
                self.command("agent", "run", name, store=store), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def online(self, *names: str) -> None:
        """Wait until these agents may take work."""

        def ready() -> bool:
            for name in names:
                assert self.agents[name].poll() is None, (self.folder / f"{name}.log").read_text()
            fit = {
                row.report.name
                for row in self.store.agents(2.0)
                if row.status in (AgentStatus.ONLINE, AgentStatus.DEGRADED)
                and row.report.incarnation != self.former.get(row.report.name)  # itself, not who had its name before
            }
            return fit.issuperset(names)

        until(ready, f"agents are online: {names}")

    def pid(self, name: str) -> int:
        """Return an agent's process."""
        return self.agents[name].pid

    def end(self, name: str) -> None:
        """End an agent for good, in whatever state it is."""
        agent = self.agents.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(agent.pid, signal.SIGKILL)
        agent.wait()

    def close(self) -> None:
        """End all."""
        for name in list(self.agents):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid(name), signal.SIGCONT)
                self.agents[name].terminate()
        for name, agent in list(self.agents.items()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                agent.wait(5)
            self.end(name)
        self.store.close()

    # -- deployments ---------------------------------------------------------------------------------

    def submission(self, environment: str, version: str = "1.0") -> Submission:
        """Return what `deploy` would ask for; its bundle is in the store."""
        config = load(self.project / "surefoot.yml", kinds=KINDS)
        files = pack(config.folder, config.path)
        self.store.put_bundle(files.digest, files.chunks())
        return Submission(
            environment=environment, version=version, plan=freeze(config, environment), bundle=files.digest,
            requested_by="benchmark",
        )  # fmt: skip

    def submit_stubborn(self, environment: str = "prod") -> str:
        """Submit a deployment whose first attempt does not end by itself; return its id."""
        lease = self.store.environment(environment).lease
        token = lease.token + 1 if lease is not None else 1
        (self.notes / f"{environment}.first").write_text(f"{token}\n")
        return self.store.submit(self.submission(environment))[0]

    def attempt(self, deployment: str, other_than: str | None = None) -> Attempt:
        """Wait for an attempt of the stubborn step, by another agent than one if that is named."""
        found: list[Attempt] = []

        def begun() -> bool:
            for note in self.notes.glob(f"{deployment}.*[0-9]"):
                began, agent, *pids = note.read_text().split()
                if agent != other_than:
                    found.append(Attempt(float(began), agent, tuple(map(int, pids))))
            return bool(found)

        until(begun, f"an attempt of {deployment} begins")
        return found[0]

    def ended(self, deployment: str) -> str:
        """Wait for a deployment's end; return its status."""
        try:
            until(lambda: self.store.summary(deployment).status.terminal, f"{deployment} ends")
        except AssertionError:
            for entry in self.store.journal(deployment):
                print(entry, file=sys.stderr)
            for log in self.folder.glob("*.log"):
                print(f"-- {log.name}\n{log.read_text()}", file=sys.stderr)
            raise
        return str(self.store.summary(deployment).status)


class Deaths:
    """When processes die, seen from outside: each by a descriptor of its own, so that no pid can be mistaken."""

    def __init__(self, pids: Sequence[int]) -> None:
        """Watch these, which must be alive."""
        self._fds = [os.pidfd_open(pid) for pid in pids]

    def wait(self, patience: float = PATIENCE) -> float:
        """Return when (`time.time`) the last of them was gone."""
        left = set(self._fds)
        poll = select.poll()
        for fd in left:
            poll.register(fd, select.POLLIN)
        deadline = time.monotonic() + patience
        try:
            while left:
                for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    poll.unregister(fd)
                    left.remove(fd)
                assert not left or time.monotonic() < deadline, f"a step's process is still alive after {patience:g} s"
            return time.time()
        finally:
            for fd in self._fds:
                os.close(fd)


def until(holds: Callable[[], object], what: str, patience: float = PATIENCE, every: float = 0.02) -> None:
    """Wait until something holds, or fail saying what did not come true. Looks so seldom that it does not disturb."""
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end, f"did not come true in {patience:g} s: {what}"
        time.sleep(every)


@contextlib.contextmanager
def stage(store: str, agents: Sequence[str], config: Config) -> Iterator[Stage]:
    """Give a stage on a new store (`postgres`, `sqlite`), or on one that there is (its URL)."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sf-bench-")))
        match store:
            case "postgres":
                store = stack.enter_context(postgres()).new_database()
            case "sqlite":
                store = str(folder / "surefoot.db")
        built = Stage(folder, store, agents, config)
        stack.callback(built.close)
        yield built


@contextlib.contextmanager
def postgres() -> Iterator[PostgresServer]:
    """Give a PostgreSQL server that syncs what it commits."""
    with PostgresServer(fsync=True) as server:
        yield server


def stubborn(ttl: float) -> Config:
    """Return what makes a config with one environment whose only step is the stubborn one."""
    steps = [{"name": "work", "run": "exec ./step.sh"}]
    return lambda _: {"lease": {"ttl": f"{ttl:g}s"}, "environments": {"prod": {"steps": steps}}}
