# SPDX-License-Identifier: Apache-2.0
"""The ground that a lab stands on: namespaces of its own, a cgroup, a link to the machine, and who clears them away."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from surefoot.drills.lab.errors import LabError
from surefoot.drills.lab.need import SBIN, cgroups

GUARDIAN = Path(__file__).with_name("guardian.py")
#: Names that labs use on the machine; the sweeping of what killed guardians left goes by them.
PREFIX = "surefoot-lab-"
LINK = "sflab"
SUBNET = "10.88"
#: Where the lab's files are: a folder that is empty but for who is in the lab's mount namespace.
FOLDERS = Path("/var/tmp")
#: Seconds in which a lab must be gone.
PATIENCE = 30.0


class Ground:
    """See the module's docstring."""

    def __init__(self) -> None:
        """Take hold of a new one."""
        top = cgroups()
        assert top is not None, "who makes a lab has asked need.missing()"
        sweep(top)
        self.name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        self.folder = FOLDERS / self.name
        self.cgroup = top / self.name
        self._lock = threading.Lock()
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARDIAN), self.name, str(self.folder), str(self.cgroup), LINK, SUBNET],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ(),
            cwd="/",
            start_new_session=True,
        )
        assert self._guardian.stdout is not None
        said = self._guardian.stdout.readline().split()
        if len(said) != 2:
            self.clear()
            raise LabError("the ground for a lab can't be laid", hint="its guardian said why above")
        self.pid, self.number = int(said[0]), int(said[1])
        (self.cgroup / "machine").mkdir()

    @property
    def subnet(self) -> str:
        """The first three numbers of all addresses of the lab."""
        return f"{SUBNET}.{self.number}"

    @property
    def link(self) -> str:
        """The machine's link to the lab."""
        return f"{LINK}{self.number}"

    @property
    def guardian(self) -> int:
        """The process that clears the lab away when this one is gone."""
        return self._guardian.pid

    def path(self, *parts: str) -> Path:
        """Return where a file of the lab's folder is for this process, which is not in the lab's namespace."""
        return Path(f"/proc/{self.pid}/root", str(self.folder).lstrip("/"), *parts)

    def enter(self, *command: str, pid: bool = False) -> list[str]:
        """Return the command line that runs something in the lab's namespaces; processes in it end with the lab."""
        inside = ["--pid"] if pid else []
        return ["nsenter", "--target", str(self.pid), "--mount", "--net", *inside, "--", *command]

    def leashed(self, *command: str) -> list[str]:
        """Return the command line that runs something on the machine itself, and ends with the lab."""
        procs = self.cgroup / "machine" / "cgroup.procs"
        return ["sh", "-c", f'echo 0 >{procs}; exec "$@"', "leashed", *command]

    def run(self, *command: str, stdin: str = "") -> str:
        """Run something in the lab's namespaces, and return what it prints. LabError if it fails."""
        return run(self.enter(*command), stdin=stdin)

    def clear(self) -> None:
        """Clear the ground, and wait until it is clear."""
        with self._lock:
            guardian = self._guardian
            assert guardian.stdin is not None and guardian.stdout is not None
            with contextlib.suppress(OSError):
                guardian.stdin.close()
            try:
                code = guardian.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                guardian.kill()
                code = guardian.wait()
            guardian.stdout.close()
        if code != 0:
            sweep(self.cgroup.parent)


def run(command: Sequence[str], *, stdin: str = "", timeout: float = 60.0) -> str:
    """Run a command of the lab's making, and return what it prints. LabError if it fails."""
    done = subprocess.run(
        list(command), check=False, capture_output=True, text=True, input=stdin, env=environ(), timeout=timeout
    )
    if done.returncode != 0:
        raise LabError(f"{command[-1]!r:.200} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def environ() -> dict[str, str]:
    """Return what the lab's own programs need of the environment."""
    return {"PATH": os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN)), "LC_ALL": "C.UTF-8", "HOME": "/root"}


def sweep(top: Path) -> None:
    """Remove what labs have left whose guardians were killed: leashed processes, empty cgroups, empty folders."""
    for cgroup in top.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another may sweep at the same time
            if not (cgroup / "cgroup.procs").read_text().strip():  # where the guardian is as long as it lives
                (cgroup / "cgroup.kill").write_text("1")
                for below, _, _ in os.walk(cgroup, topdown=False):
                    Path(below).rmdir()
    for folder in FOLDERS.glob(f"{PREFIX}*"):
        if not (top / folder.name).exists():
            with contextlib.suppress(OSError):  # not empty: not ours to judge
                folder.rmdir()
