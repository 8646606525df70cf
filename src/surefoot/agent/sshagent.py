# SPDX-License-Identifier: Apache-2.0
"""An ssh-agent for one attempt: it holds the private key, so that no file has to.

Guarantees: the key comes by way of stdin from memory to `ssh-add`, so it is in no file and no argument; the agent
belongs to the attempt's process tree, and ends with it: by the dead man's switch, too. Its socket is in a folder that
is closed to others, and goes with the attempt, whoever of us is killed; should all be killed at once, the folder (with
a dead socket in it) is removed by the next agent on this machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from surefoot.agent.shim import Stat

#: Loads the key, and becomes the command; fails as ssh-add does if it won't be loaded.
_LOAD = 'ssh-add -q - || exit 95; exec "$@" </dev/null'


@dataclass(frozen=True, slots=True)
class Prepared:
    """A command line, what it reads first, and the folders that must not outlive it."""

    argv: tuple[str, ...]
    stdin: bytes | None = None
    tidy: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Prepared({self.argv})"


@contextlib.contextmanager
def beside(argv: tuple[str, ...], key: str, run: Path) -> Iterator[Prepared]:
    """Give a command that runs beside an ssh-agent which holds `key`; without a key, the command as it is.

    `run` is this machine's folder for what goes with a reboot: sockets' paths are short.
    """
    if not key:
        yield Prepared(argv)
        return
    rooms = run / "ssh"
    rooms.mkdir(mode=0o700, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=f"{os.getpid()}-{Stat(os.getpid()).started}-", dir=rooms)
    wrapped = ("ssh-agent", "-a", f"{folder}/agent", "/bin/sh", "-c", _LOAD, "surefoot-ssh", *argv)
    text = key.strip().replace("\r\n", "\n") + "\n"
    try:
        yield Prepared(wrapped, text.encode("utf-8", "surrogateescape"), (folder,))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(run: Path) -> None:
    """Remove the folders of those that were killed with all that watched over them."""
    for folder in (run / "ssh").glob("*-*-*"):
        pid, started, _ = folder.name.split("-", 2)
        with contextlib.suppress(OSError, ValueError):
            if Stat(int(pid)).started == int(started):
                continue
        shutil.rmtree(folder, ignore_errors=True)
