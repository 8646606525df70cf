# SPDX-License-Identifier: Apache-2.0
"""Who asks, what an agent of this process is called, and what ends it."""

from __future__ import annotations

import os
import re
import secrets
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

#: What the name of an agent in the background ends with.
BACKGROUND = "-background"
#: What a container's first process mostly is, and no machine's: with it, all others end.
FIRSTS = frozenset({"sh", "bash", "dash", "ash", "busybox", "tini", "dumb-init", "docker-init", "catatonit"})
#: Seconds.
DAY = 24 * 3600.0
MONTH = 30 * DAY


def requested_by() -> str:
    """Return who asks: the CI's user, else the one behind sudo, else this one, at this machine."""
    for name in ("GITHUB_ACTOR", "GITLAB_USER_LOGIN"):
        if actor := os.environ.get(name):
            return actor
    user = os.environ.get("SUDO_USER") or os.environ.get("USER") or _account()
    return f"{user}@{socket.gethostname()}"


def _account() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def own_agent_name() -> str:
    """Return a name for an agent that lives as long as this process. Nobody else has it, ever: numbers of processes
    come again, and containers often share their host's name as well.
    """
    return _own_name(os.getpid())


def background_agent_name() -> str:
    """Return a name for an agent that this process starts in the background; each has its own."""
    return _new_name(os.getpid()) + BACKGROUND


def _new_name(process: int) -> str:
    return f"{_host()}-{process}-{secrets.token_hex(3)}"


_own_name = cache(_new_name)


def is_own_agent_of_the_past(name: str, silent: float) -> bool:
    """Whether a name is that of an agent which a process ran for itself that is gone: of this machine, as can be seen
    (in a container another may have its number, so `silent` for a day will do); of any other, if it was silent for a
    month: machines that CI jobs run on may exist for a single one.
    """
    found = re.fullmatch(rf"(.+)-(\d{{1,9}})-[0-9a-f]{{6}}({BACKGROUND})?", name)
    if found is None:
        return False
    if found[1] != _host():
        return silent > MONTH
    return silent > DAY or not Path(f"/proc/{found[2]}").exists()


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "localhost"


def ends_with() -> str | None:
    """Return what ends with this command, and so does every process that it leaves; None where that can't be told."""
    mine = os.getpid()
    if os.environ.get("SYSTEMD_EXEC_PID") == str(mine):
        return "unit of systemd"
    with suppress(OSError):
        if mine == 1 or (os.getppid() == 1 and Path("/proc/1/comm").read_text().strip() in FIRSTS):
            return "container"
    return None
