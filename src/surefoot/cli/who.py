# SPDX-License-Identifier: Apache-2.0
"""Who asks, and what an agent of this process is called."""

from __future__ import annotations

import os
import re
import socket


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
    """Return a name for an agent that lives as long as this process."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "localhost"
    return f"{host}-{os.getpid()}"
