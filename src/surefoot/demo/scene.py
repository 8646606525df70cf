# SPDX-License-Identifier: Apache-2.0
"""The demo's scene: a project, two hosts and two agents in one folder, every part a real process.

Guarantees: `end` ends every process that the scene started, with all that descend from them, frozen ones too. Processes
are ended by id only. Not guaranteed: if the demo itself is killed by SIGKILL, its processes stay.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

import psutil

from surefoot.demo.hosts import DemoHost

AGENTS = ("runner-01", "runner-02")
VERSIONS = ("1.0", "2.0", "3.0", "4.0", "5.0")
#: The bug that release 3.0 ships: the price list lacks what /health needs. It starts, it answers, and it is not well.
BUG = ("3.0", '"rope": 12, "boots": 80', '"rope": 12')
#: Seconds that agents have to hand over, and hosts to finish their requests, before they are killed.
END_WITHIN = 5.0
HOST_UP_WITHIN = 20.0


class Scene:
    """Everything the demo needs, in `folder`."""

    def __init__(
        self, folder: Path, whole: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    ) -> None:
        """Lay out project and hosts in `folder`, which must be empty. Nothing runs yet.

        Under `whole` nothing is interrupted: a process that was started is always known here.
        """
        self._whole = whole
        self.folder = folder
        self.project = folder / "project"
        self.hosts = tuple(
            DemoHost(name, folder / "hosts" / name, port)
            for name, port in zip(("web-01", "web-02"), _free_ports(2), strict=True)
        )
        self._processes: list[subprocess.Popen[bytes]] = []
        self._environ = _environ()
        self._write()

    # -- the folder ----------------------------------------------------------------------------------

    @property
    def config(self) -> Path:
        """The project's config."""
        return self.project / "surefoot.yml"

    @property
    def store(self) -> Path:
        """The SQLite file that agents and commands share."""
        return self.project / ".surefoot" / "surefoot.db"

    @property
    def fences(self) -> Path:
        """Where the hosts keep the token that may change them."""
        return self.folder / "fence"

    @property
    def output(self) -> Path:
        """What the processes say, one file each."""
        return self.folder / "output"

    def _write(self) -> None:
        with as_file(files("surefoot.demo") / "project") as source:
            shutil.copytree(source, self.project, ignore=shutil.ignore_patterns("__pycache__", "app.py", "host"))
            app = (source / "app.py").read_text(encoding="utf-8")
            for host in self.hosts:
                shutil.copytree(source / "host", host.root / "bin", ignore=shutil.ignore_patterns("__pycache__"))
                (host.root / "bin" / "record").chmod(0o755)
        for version in VERSIONS:
            release = self.project / "releases" / version / "app.py"
            release.parent.mkdir(parents=True)
            buggy, good, bad = BUG
            text = app.replace(good, bad) if version == buggy else app
            release.write_text(text.replace("@VERSION@", version), encoding="utf-8")
        values = {"@FENCE@": str(self.fences), "@PYTHON@": sys.executable}
        for host in self.hosts:
            key = host.name.upper().replace("-", "_")
            values |= {f"@{key}_ROOT@": str(host.root), f"@{key}_PORT@": str(host.port)}
        for name in ("surefoot.yml", "inventory.ini"):
            text = (self.project / name).read_text(encoding="utf-8")
            for key, value in values.items():
                text = text.replace(key, value)
            (self.project / name).write_text(text, encoding="utf-8")
        self.output.mkdir()

    # -- processes -----------------------------------------------------------------------------------

    def start_hosts(self) -> None:
        """Start each host's supervisor, and wait until it is up."""
        for host in self.hosts:
            script = host.root / "bin" / "supervisor.py"
            self._spawn(host.name, [sys.executable, "-S", str(script), str(host.root), str(host.port)], self._environ)
        until = time.monotonic() + HOST_UP_WITHIN
        while not all((host.root / "supervisor.pid").exists() for host in self.hosts):
            if time.monotonic() > until:
                raise TimeoutError("the hosts did not come up")
            time.sleep(0.05)

    def start_agent(self, name: str) -> subprocess.Popen[bytes]:
        """Start an agent as `surefoot agent run NAME` does."""
        return self._spawn(name, self.command("agent", "run", name), self._environ)

    def deploy(self, version: str) -> subprocess.Popen[bytes]:
        """Start `surefoot deploy production VERSION`."""
        return self._spawn(f"deploy-{version}", self.command("deploy", "production", version), self._environ)

    def ask(self, *arguments: str) -> str:
        """Run a reading command, and return what it prints."""
        done = subprocess.run(
            self.command(*arguments), env=self._environ, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of a surefoot command in this project."""
        return [sys.executable, "-m", "surefoot", "--config", str(self.config), "--no-color", *arguments]

    def said(self, name: str, lines: int = 8) -> str:
        """Return the last lines that a process wrote."""
        file = self.output / f"{name}.txt"
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else ""

    def _spawn(self, name: str, command: list[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
        with self._whole(), (self.output / f"{name}.txt").open("ab") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.project,
                env=environ,
                start_new_session=True,
            )
            self._processes.append(process)
        return process

    # -- the end -------------------------------------------------------------------------------------

    def end(self) -> None:
        """End everything that the scene started, agents and commands before hosts."""
        for process in reversed(self._processes):
            tree = descendants(process.pid) if process.poll() is None else []
            if process.poll() is None:
                process.terminate()
                _signal([*tree, process.pid], signal.SIGCONT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(END_WITHIN)
            if process.poll() is None:
                tree = descendants(process.pid)
                process.kill()
                process.wait()
            _signal(tree, signal.SIGKILL)
        self._processes.clear()

    def write_stop(self) -> Path:
        """Write the script that ends a scene which was kept, and return its path."""
        script = self.folder / "stop"
        pids = " ".join(str(process.pid) for process in reversed(self._processes) if process.poll() is None)
        mark = shlex.quote(str(self.folder))
        script.write_text(
            "#!/bin/sh\n"
            "# Ends the demo's agents and hosts (only processes that name this folder), and removes the folder.\n"
            f"folder={mark}\n"
            f"for pid in {pids}; do\n"
            '  case "$(ps -ww -o args= -p "$pid")" in *"$folder"*) kill "$pid";; esac\n'
            "done\n"
            f"for pid in {pids}; do\n"
            "  for i in 1 2 3 4 5 6 7 8 9 10; do\n"
            '    case "$(ps -ww -o args= -p "$pid")" in *"$folder"*) sleep 0.5;; *) break;; esac\n'
            "  done\n"
            "done\n"
            'rm -rf -- "$folder"\n',
            encoding="utf-8",
        )
        script.chmod(0o755)
        return script


class frozen(contextlib.AbstractContextManager[list[int]]):  # noqa: N801 - reads as the verb it is
    """Freezes a process and everything below it, as if its machine slept; it wakes up at the end of the block.

    `unless`: as long as this is true of what the freeze caught, it is thawed and frozen again.
    """

    def __init__(self, pid: int, *, unless: Callable[[], bool]) -> None:
        """Freeze nothing yet."""
        self._pid = pid
        self._unless = unless
        self._stopped: list[int] = []

    def __enter__(self) -> list[int]:
        """Return the ids of all that is frozen."""
        while True:
            while fresh := [p for p in (self._pid, *descendants(self._pid)) if p not in self._stopped]:
                self._stopped += fresh
                _signal(fresh, signal.SIGSTOP)
            if not self._unless():
                return list(self._stopped)
            self._thaw()

    def __exit__(self, *_: object) -> None:
        """Wake all of them up."""
        self._thaw()

    def _thaw(self) -> None:
        _signal(self._stopped, signal.SIGCONT)
        self._stopped.clear()


def descendants(pid: int) -> list[int]:
    """Return the ids of everything below a process."""
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _free_ports(count: int) -> list[int]:
    """Return ports that were free just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]


def _environ() -> dict[str, str]:
    """Return an environment in which neither the user's Surefoot nor the user's Ansible settings take part."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SUREFOOT_", "ANSIBLE_", "GITHUB_"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"}
