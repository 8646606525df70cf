# SPDX-License-Identifier: Apache-2.0
"""Where an agent writes on its machine: a folder of its own, and the registry of running attempts.

Guarantees: what is returned is there and can be written to; RefusedError (SF-AGENT-FOLDER) where that can't be. Nobody
else can write to the registry, in which whatever supervises steps is found. What an agent that lives has written is
left alone by another that is started with its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from surefoot.core.errors import Code, RefusedError

#: Seconds within which whoever has made a folder for himself is known to the store.
BEGINS_WITHIN = 60.0


class OwnFolder:
    """The folder of the agent of one name. Another may live that has the name: nothing in it is touched before `take`,
    which is for whoever has got the name, and by `leave` only after that.
    """

    def __init__(self, state: Path, name: str) -> None:
        """Make it, if it is not there."""
        self.path = _made(state / "agents" / name)
        self._taken = False

    def take(self) -> None:
        """Empty it of what the last agent of that name left."""
        self._taken = True
        shutil.rmtree(self.path, ignore_errors=True)
        _made(self.path)

    def leave(self) -> None:
        """Remove it."""
        if self._taken:
            shutil.rmtree(self.path, ignore_errors=True)


def forget(state: Path, past: Callable[[str], bool]) -> None:
    """Remove the folders of agents of the past, that could not do so themselves; one that begins just now has a new
    one, and may not be known yet.
    """
    with contextlib.suppress(OSError):
        for folder in (state / "agents").iterdir():
            if time.time() - folder.stat().st_mtime > BEGINS_WITHIN and past(folder.name):
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def turn(state: Path, within: float) -> AsyncIterator[Callable[[], None]]:
    """Have one agent after another of a project start on this machine; give what lets the next one in, as the end does.
    Nobody waits longer than `within` seconds, nor where there can be no lock.
    """
    fd = -1
    try:
        with contextlib.suppress(OSError):
            fd = os.open(_made(state) / "starting.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            await _locked(fd, within)
        yield lambda: fcntl.flock(fd, fcntl.LOCK_UN) if fd >= 0 else None
    finally:
        if fd >= 0:
            os.close(fd)


async def _locked(fd: int, within: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while True:
                with contextlib.suppress(BlockingIOError):
                    return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                await asyncio.sleep(0.1)


def attempts_folder() -> Path:
    """Return this machine's registry of running attempts: one for all agents of a user, gone with a reboot."""
    user = os.geteuid()
    run = Path("/run" if user == 0 else os.environ.get("XDG_RUNTIME_DIR", ""))
    # `su` leaves us that of another user, a session that ends takes its own away, and containers may be read-only.
    usable = run.is_absolute() and os.access(run, os.W_OK | os.X_OK)
    place = run if usable else Path(tempfile.gettempdir())
    # Where all may write, somebody may have made it before us.
    return _private(_private(place / f"surefoot-{user}", user) / "attempts", user)


def see_that_one_can_work(state: Path) -> None:
    """Refuse to go on where no agent could work here, be it only that the disk is read-only."""
    attempts_folder()
    _made(state / "agents")


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        why = "it can't be written to"
    except OSError as error:
        why = error.strerror or str(error)
    raise _unusable(folder, why, f"see that this user may write to {folder}")


def _private(folder: Path, user: int) -> Path:
    """Make a folder that is this user's alone; one that was more open is closed."""
    folder = _made(folder)
    try:
        found = folder.lstat()
        if found.st_uid == user and stat.S_ISDIR(found.st_mode):
            if stat.S_IMODE(found.st_mode) & 0o077:
                folder.chmod(0o700)
            return folder
        why = "it belongs to another user" if found.st_uid != user else "it is a link"
    except OSError as error:
        why = error.strerror or str(error)
    raise _unusable(folder, why, f"see who has made {folder}, or set XDG_RUNTIME_DIR to a folder of this user's")


def _unusable(folder: Path, why: str, hint: str) -> RefusedError:
    message = f"no agent can work here, for want of its folder {folder}: {why}"
    return RefusedError(message, code=Code.AGENT_FOLDER, hint=hint)
