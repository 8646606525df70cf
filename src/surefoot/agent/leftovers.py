# SPDX-License-Identifier: Apache-2.0
"""Ends what attempts have left behind on this machine when their shim could not: it was killed, or is frozen.

Each shim leaves a record while anything of its attempt runs. A process belongs to an attempt if it stands below its
shim, in its cgroup, or has the attempt's marker in its environment. Guarantees: a process is only killed through a
pidfd, after it was seen to belong; what `sweep` and `end_attempt` return from is gone. What clears its environment
*and* detaches from a killed shim on a kernel without cgroup v2 is not found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from surefoot.agent import shim

#: Seconds after which what can't be killed (a process in an uninterruptible wait) is given up on.
PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Record:
    """What a shim wrote down about its attempt."""

    path: Path
    pid: int
    start_time: int
    token: int
    marker: str
    cgroup: str
    scope: str


def sweep(folder: Path, scope: str, below_token: int | None = None) -> list[int]:
    """End the attempts of `scope` with a smaller token, and those whose shim is dead; return the killed processes' ids.

    Raises TimeoutError if one can't be ended.
    """
    killed: list[int] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        record = read(path)
        if record is None or record.scope != scope:
            continue
        stale = below_token is not None and record.token < below_token
        if stale or not _alive(record):
            killed += end_attempt(path, record.marker)
    return killed


def end_attempt(path: Path, marker: str) -> list[int]:
    """End all that one attempt left, its shim included; return the killed processes' ids."""
    record = read(path)
    killed: set[int] = set()
    end = time.monotonic() + PATIENCE
    while found := _members(record, marker):
        killed.update(pid for pid in found if _kill(pid, record, marker))
        if time.monotonic() > end:
            raise TimeoutError(f"processes {sorted(found)} of an earlier attempt can't be ended")
        time.sleep(0.01)
    with contextlib.suppress(OSError):
        path.unlink()
    if record is not None and record.cgroup:
        with contextlib.suppress(OSError):
            Path(record.cgroup).rmdir()
    return sorted(killed)


def read(path: Path) -> Record | None:
    """Return the record in a file; None if it is none, or not whole."""
    try:
        pid, start_time, token, marker, cgroup, scope = path.read_text().splitlines()
        return Record(path, int(pid), int(start_time), int(token), marker, cgroup, scope)
    except (OSError, ValueError):
        return None


def _alive(record: Record) -> bool:
    try:
        return shim.start_time(record.pid) == record.start_time and _state(record.pid) != "Z"
    except OSError:
        return False


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(errors="surrogateescape").rpartition(")")[2].split()[0]


def _members(record: Record | None, marker: str) -> set[int]:
    """Return the processes that belong to an attempt and are not dead."""
    found: set[int] = set()
    if record is not None:
        if _alive(record):
            # A frozen shim first: thawed, it would only report what is no longer true.
            found.update((record.pid, *shim.descendants(record.pid)))
        if record.cgroup:
            with contextlib.suppress(OSError):
                found.update(map(int, (Path(record.cgroup) / "cgroup.procs").read_text().split()))
    needle = f"SUREFOOT_ATTEMPT_MARKER={marker}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if needle in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
    return {pid for pid in found if _running(pid)} - {os.getpid()}


def _running(pid: int) -> bool:
    try:
        return _state(pid) not in "ZX"
    except OSError:
        return False


def _kill(pid: int, record: Record | None, marker: str) -> bool:
    """Kill a process that is still a member once a pidfd holds its identity."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if pid not in _members(record, marker):
            return False
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
