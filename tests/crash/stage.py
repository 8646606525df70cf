# SPDX-License-Identifier: Apache-2.0
"""One case: a project and two hosts in a folder, agents that die, and what the hosts say afterwards.

Hosts are folders. Whatever changes one writes its token into the host's log first, so that the promises are judged
from what the hosts saw.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from surefoot.core import events as ev
from surefoot.core.plan import Direction
from surefoot.store import open_store
from tests.crash.victim import MV, Points, install

#: Seconds for an agent to come to its end; it takes two or three on a machine that has time.
PATIENCE = 120.0
#: What the program imports when it is needed: here once, for all processes that are forked off.
PRELOADED = (
    "surefoot.agent.service",
    "surefoot.cli.app",
    "surefoot.cli.commands.agents",
    "surefoot.cli.commands.deploy",
    "surefoot.cli.main",
    "surefoot.api.requests",
    "surefoot.config.loading",
    "surefoot.config.models",
    "surefoot.steps.ansible",
    "surefoot.store.postgres",
    "surefoot.store.sqlite",
    "psutil",
)
TTL = 2.0
HOSTS = ("web-01", "web-02")

STEP = r"""#!/bin/sh
# usage: step.sh NAME; changes every host to the version of its direction
set -eu
case $SUREFOOT_DIRECTION in forward) want=$SUREFOOT_VERSION ;; *) want=${SUREFOOT_PREVIOUS_VERSION:-none} ;; esac
for host in "$CRASH_FOLDER"/hosts/*/; do
  echo "$SUREFOOT_TOKEN $SUREFOOT_DEPLOYMENT $1 $SUREFOOT_DIRECTION $want" >> "$host/log"
  sleep 0.05
  case $SUREFOOT_VERSION in *-bad) [ "$1/$SUREFOOT_DIRECTION" = two/forward ] && exit 1 ;; esac
  echo "$want" > "$host/version.new" && mv "$host/version.new" "$host/version"
done
"""
PLAY = """\
- hosts: all
  gather_facts: false
  serial: 1
  tasks:
    - name: change the host
      ansible.builtin.raw: |
        set -eu
        host="{{ lookup('env', 'CRASH_FOLDER') }}/hosts/{{ inventory_hostname }}"
        echo "{{ surefoot_token }} {{ surefoot_deployment }} one {{ surefoot_direction }} WANT" >> "$host/log"
        sleep 0.05
        case "{{ surefoot_version }}/{{ surefoot_direction }}" in *-bad/forward) exit 1 ;; esac
        echo "WANT" > "$host/version.new" && /bin/mv "$host/version.new" "$host/version"
"""
HEALTH = r"""#!/bin/sh
# both hosts run this one version
set -eu
for host in "$CRASH_FOLDER"/hosts/*/; do [ "$(cat "$host/version")" = "$SUREFOOT_CHECKED_VERSION" ]; done
"""


class Stage:
    """See the module's docstring."""

    def __init__(self, folder: Path, store: str, *, playbooks: bool) -> None:
        """Lay everything out in `folder`, which must be empty; nothing runs yet."""
        for name in PRELOADED:
            importlib.import_module(name)
        self.folder = folder
        self.store = store
        self.playbooks = playbooks
        self.broken: list[str] = []
        for host in HOSTS:
            (folder / "hosts" / host).mkdir(parents=True)
            (folder / "hosts" / host / "version").write_text("none\n")
        (folder / "bin").mkdir()
        (folder / "bin" / "mv").write_text(MV)
        (folder / "bin" / "mv").chmod(0o755)
        project = folder / "project"
        project.mkdir()
        for name, text in (("step.sh", STEP), ("health.sh", HEALTH)):
            (project / name).write_text(text)
            (project / name).chmod(0o755)
        (project / "forward.yml").write_text(PLAY.replace("WANT", "{{ surefoot_version }}"))
        (project / "back.yml").write_text(PLAY.replace("WANT", "{{ surefoot_previous_version or 'none' }}"))
        where = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
        (project / "hosts.ini").write_text("".join(f"{host} {where}\n" for host in HOSTS))
        (project / "surefoot.yml").write_text(json.dumps(self._config(), indent=1))

    @classmethod
    def again(cls, folder: Path, store: str, *, playbooks: bool) -> Stage:
        """Return the stage that is laid out in a folder already; lay it out if it is not."""
        if not (folder / "project").exists():
            return cls(folder, store, playbooks=playbooks)
        stage = cls.__new__(cls)
        stage.folder, stage.store, stage.playbooks, stage.broken = folder, store, playbooks, []
        return stage

    def _config(self) -> dict[str, Any]:
        environment: dict[str, Any] = {
            "retry": {"attempts": 1, "delay": "100ms", "timeout": "60s"},
            "health": [{"command": {"run": "./health.sh"}}],
            "health_policy": {"within": "5s", "interval": "100ms", "successes": 1},
            "takeover_limit": 20,
        }
        if self.playbooks:
            environment |= {
                "inventory": "hosts.ini",
                "fence": {"path": str(self.folder / "fence")},
                "steps": [{"name": "one", "playbook": "forward.yml", "undo": {"playbook": "back.yml"}}],
                "version_probe": {"command": {"run": "grep -qx {version} $CRASH_FOLDER/hosts/{host}/version"}},
            }
        else:
            environment["steps"] = [
                {"name": name, "run": f"./step.sh {name}", "undo": {"run": f"./step.sh {name}"}}
                for name in ("one", "two")
            ]
        return {
            "project": "crash",
            "agents": {"primary": {"role": "primary"}, "secondary": {"role": "secondary"}},
            "lease": {"ttl": f"{TTL:g}s"},
            "environments": {"production": environment},
        }

    # -- processes -----------------------------------------------------------------------------------

    def surefoot(self, *arguments: str, at: str | None = None) -> int:
        """Run the program to its end, dying at a point if one is given; return what it ended with.

        A process is forked off this one, which has imported the program: that is all that is saved.
        """
        environ = {**os.environ, "CRASH_FOLDER": str(self.folder), "NO_COLOR": "1"}
        if at is not None:
            environ |= {"CRASH_AT": at, "CRASH_POINTS": str(self.points), "CRASH_PID": str(self.folder / "pid")}
            if self.playbooks:
                environ["PATH"] = f"{self.folder / 'bin'}:{environ['PATH']}"
        pid = os.fork()
        if pid == 0:
            self._be(arguments, environ, at)
        return self._ended(pid, arguments)

    @property
    def points(self) -> Path:
        """The file of all points that were passed, one a line."""
        return self.folder / "points"

    def _be(self, arguments: tuple[str, ...], environ: dict[str, str], at: str | None) -> NoReturn:
        code = 99
        try:
            os.setsid()
            with (self.folder / "output").open("ab") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            os.environ.clear()
            os.environ.update(environ)
            if at is not None:
                (self.folder / "pid").write_text(str(os.getpid()))
                install(Points(self.points, at))
            from surefoot.cli.main import main

            config = str(self.folder / "project" / "surefoot.yml")
            sys.argv = ["surefoot", "--config", config, "--store", self.store, *arguments]
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
        finally:
            os._exit(code)

    def _ended(self, pid: int, arguments: tuple[str, ...]) -> int:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.broken.append(f"2, it ends: surefoot {' '.join(arguments)} did not, in {PATIENCE:g} s")
        return -1

    def deploy(self, version: str) -> None:
        """Have a version accepted."""
        if (code := self.surefoot("deploy", "production", version, "--detach")) != 0:
            raise RuntimeError(f"deploy --detach ended with {code}: {self.output()}")

    def agent(self, name: str, at: str | None = None) -> int:
        """Run an agent until there is no work left, or until it dies."""
        return self.surefoot("agent", "run", name, "--once", at=at)

    def output(self) -> str:
        """All that was printed."""
        path = self.folder / "output"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- the verdict ---------------------------------------------------------------------------------

    def judge(self, deployment: str, status: str, version: str) -> None:
        """Judge what the hosts and the journal say of how a deployment ended."""
        store = open_store(self.store)
        try:
            entries = store.journal(deployment)
            row = store.environment("production")
        finally:
            store.close()
        self._hosts(version)
        self.hold("4: the journal has gaps", [entry.seq for entry in entries] == list(range(1, len(entries) + 1)))
        events = [entry.event for entry in entries]
        ends = [str(event.status) for event in events if isinstance(event, ev.Finished)]
        self.hold(f"2: it ended as {ends}, not {status}", ends == [status])
        if ends == [status]:
            self._honest(events)
        here = row.current_version or "none"
        self.hold(f"4: the environment is said to run {here}, not {version}", here == version)
        self.hold("1: the lease is still held", row.lease is None or row.lease.holder is None)
        self._nothing_runs()

    def hold(self, what: str, holds: bool) -> None:
        """Note what does not hold."""
        if not holds:
            self.broken.append(what)

    def _hosts(self, version: str) -> None:
        for host in HOSTS:
            folder = self.folder / "hosts" / host
            found = (folder / "version").read_text().strip()
            self.hold(f"3: {host} runs {found}, not {version}", found == version)
            log = (folder / "log").read_text().splitlines() if (folder / "log").exists() else []
            tokens = [int(line.split()[0]) for line in log]
            self.hold(f"1: {host} saw the tokens {tokens}", all(a <= b for a, b in pairwise(tokens)))

    def _honest(self, events: list[ev.Event]) -> None:
        last = max(place for place, event in enumerate(events) if isinstance(event, ev.StepStarted))
        direction = Direction.UNDO if any(isinstance(event, ev.UndoStarted) for event in events) else Direction.FORWARD
        well = any(isinstance(event, ev.HealthPassed) and event.direction is direction for event in events[last:])
        self.hold("5: it ended without a health check after the last change", well)

    def _nothing_runs(self) -> None:
        mark = f"CRASH_FOLDER={self.folder}\0".encode()
        until = time.monotonic() + 10
        left = self._running(mark)
        while left and time.monotonic() < until:  # a shim may be about to end
            time.sleep(0.05)
            left = self._running(mark)
        self.hold(f"1: still running: {left}", not left)

    @staticmethod
    def _running(mark: bytes) -> list[str]:
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in (process / "environ").read_bytes():
                        found.append(f"{process.name} {(process / 'cmdline').read_text()[:200]}")
        return found

    def clean(self) -> None:
        """End what a broken case has left: by id, and only what carries this folder's mark."""
        for line in self._running(f"CRASH_FOLDER={self.folder}\0".encode()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
