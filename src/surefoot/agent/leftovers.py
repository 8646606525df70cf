# SPDX-License-Identifier: Apache-2.0
"""Ends what attempts have left behind on this machine when their shim could not: it was killed, or is frozen.

Each shim leaves a record while anything of its attempt runs. A process belongs to an attempt if it stands below its
shim, in its cgroup, has the attempt's marker in its environment, or stands below one that does. Guarantees: what
`sweep` and `end_attempt` return from is gone; a process is signalled only through a pidfd, after its start time has
shown that it is the one that was seen to belong; records of other users are not believed. What clears its environment
*and* detaches from a killed shim, where we may not make a cgroup, is not found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from surefoot.agent import shim
from surefoot.core.errors import SurefootError

#: Seconds after which what can't be killed (in an uninterruptible wait, another user's) is given up on.
PATIENCE = 10.0
#: Seconds between looks.
LOOK_AGAIN = 0.005
#: The environment variable that carries an attempt's marker.
MARKER = "SUREFOOT_ATTEMPT_MARKER"


class StuckError(SurefootError):
    """What an earlier attempt left can't be ended: nothing may begin on this machine."""


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

    Raises StuckError if one can't be ended.
    """
    killed: list[int] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        record = read(path)
        if record is None or record.scope != scope:
            continue
        stale = below_token is not None and record.token < below_token
        if stale or _shim(record) is None:
            killed += end_attempt(path, record.marker)
    return killed


def end_attempt(path: Path, marker: str) -> list[int]:
    """End all that one attempt left, its shim last; return the killed processes' ids."""
    record = read(path)
    killed: set[int] = set()
    end = time.monotonic() + PATIENCE
    while True:
        watcher = _shim(record) if record is not None else None
        if record is not None and watcher is not None:
            # Stopped, it starts nothing more, but is still the subreaper below which we find what detaches.
            _send(record.pid, record.start_time, signal.SIGSTOP)
        found = _members(record, marker)
        if record is not None and record.cgroup:
            shim.attempt(shim.write, f"{record.cgroup}/cgroup.kill", "1")
        killed.update(pid for pid, started in found.items() if _send(pid, started, signal.SIGKILL))
        if record is not None and watcher is not None and not found and watcher.state in "Tt":
            _send(record.pid, record.start_time, signal.SIGKILL)
            killed.add(record.pid)
        if watcher is None and not found:
            break
        if time.monotonic() > end:
            raise StuckError(
                f"processes that an earlier attempt left on this machine can't be ended: {sorted(found)}",
                hint="end them by hand (they may be another user's, or wait for a device)",
            )
        time.sleep(LOOK_AGAIN)
    for leftover in (path, path.with_name(f"{path.name}.new")):
        leftover.unlink(missing_ok=True)
    if record is not None and record.cgroup:
        shim.remove_cgroup(record.cgroup)
    return sorted(killed)


def read(path: Path) -> Record | None:
    """Return the record in a file; None if it is none, not whole, or not ours."""
    try:
        if path.stat().st_uid != os.geteuid():
            return None
        text = path.read_bytes().decode(errors="surrogateescape")
        pid, start_time, token, marker, cgroup, scope, _ = text.split("\n")
        return Record(path, int(pid), int(start_time), int(token), marker, cgroup, scope)
    except (OSError, ValueError):
        return None


def _shim(record: Record) -> shim.Stat | None:
    """Return the attempt's shim, if it is alive."""
    with contextlib.suppress(OSError):
        stat = shim.Stat(record.pid)
        if stat.started == record.start_time and stat.runs:
            return stat
    return None


def _members(record: Record | None, marker: str) -> dict[int, int]:
    """Return the start times of the processes that belong to an attempt and are not dead, without its shim."""
    processes = dict(shim.processes())
    found = _in_cgroup(record.cgroup) if record is not None and record.cgroup else set()
    needle = f"{MARKER}={marker}".encode()
    for pid in processes:
        with contextlib.suppress(OSError):
            if needle in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
    not_told = {os.getpid()}
    if record is not None and _shim(record) is not None:
        found.add(record.pid)
        not_told.add(record.pid)
    children: dict[int, list[int]] = {}
    for pid, stat in processes.items():
        children.setdefault(stat.parent, []).append(pid)
    look = list(found)
    while look:
        below = [child for parent in look for child in children.get(parent, ()) if child not in found]
        found.update(below)
        look = below
    return {pid: processes[pid].started for pid in found - not_told if pid in processes and processes[pid].runs}


def _in_cgroup(path: str) -> set[int]:
    pids: set[int] = set()
    for folder, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            pids.update(map(int, shim.read(f"{folder}/cgroup.procs").split()))
    return pids


def _send(pid: int, started: int, number: signal.Signals) -> bool:
    """Send a signal to that very process; one that has its pid by now gets none."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if shim.Stat(pid).started != started:
            return False
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
