# SPDX-License-Identifier: Apache-2.0
"""Presence on one machine: a `flock` on a file beside the database, held as long as any process has its descriptor.

Guarantees: the kernel lets the lock fall when the last process that has the descriptor is gone: the agent, and each
shim that inherited it. A tester takes the lock shared and a holder takes it exclusive, so that testers never look
like holders to each other. Does not work across machines, nor on file systems without `flock` (NFS).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from pathlib import Path
from urllib.parse import quote

from surefoot.core.errors import Code, NotAllowedError

#: A tester may have the lock for a moment; a holder has it for longer than this.
TRIES, PAUSE = 25, 0.02
#: File names end at 255 bytes.
MAX_FILE_NAME = 200


class FlockPresence:
    """The presences of one store's agents, and those that this process holds."""

    def __init__(self, folder: Path) -> None:
        """Take the folder of the lock files; it is made when it is needed."""
        self._folder = folder
        self._held: dict[str, tuple[int, str]] = {}

    def _path(self, agent: str) -> Path:
        name = quote(agent, safe="", errors="replace")
        if len(name) > MAX_FILE_NAME:
            name = hashlib.sha256(name.encode()).hexdigest()
        return self._folder / f"{name}.lock"

    def enter(self, agent: str, incarnation: str) -> int:
        """Take the presence and return the descriptor that carries it; the same one if this process has it already."""
        if (held := self._held.get(agent)) is not None:
            if held[1] != incarnation:
                raise duplicate(agent)
            return held[0]
        self._folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path(agent), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        for _ in range(TRIES):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(PAUSE)
                continue
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()} {incarnation}\n".encode(errors="replace"), 0)
            self._held[agent] = (fd, incarnation)
            return fd
        os.close(fd)
        raise duplicate(agent)

    def descriptors(self, agent: str) -> tuple[int, ...]:
        """Return the descriptor that carries an agent's presence, if this process has it."""
        held = self._held.get(agent)
        return () if held is None else (held[0],)

    def held(self, agent: str) -> bool | None:
        """Whether any process holds the agent's presence; None where that can't be known."""
        if agent in self._held:
            return True
        try:
            fd = os.open(self._path(agent), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        else:
            return False
        finally:
            os.close(fd)

    def forget(self, agent: str) -> None:
        """Remove the file of an agent whose name nobody will take again."""
        self._path(agent).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of what this process holds; shims that inherited a descriptor keep theirs."""
        for fd, _ in self._held.values():
            os.close(fd)
        self._held.clear()


def duplicate(agent: str) -> NotAllowedError:
    """Return the refusal of a second process with one name."""
    return NotAllowedError(
        f"another process runs as agent {agent}, or is still ending what it ran",
        code=Code.AGENT_DUPLICATE,
        hint="give each agent a name of its own, or wait until the other has ended",
    )
