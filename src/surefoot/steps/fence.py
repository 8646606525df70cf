# SPDX-License-Identifier: Apache-2.0
"""The fence on hosts: how a command is wrapped so that only the present token may run it, and what its refusals mean.

Guarantees, on a host that the command reaches: it runs only if its token is the greatest that this host has seen;
when a greater token is let in, nothing that an older one started there and had not ended still runs. See fence.sh.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from surefoot.core.errors import Code, Failure

SCRIPT = Path(__file__).with_name("fence.sh")
#: Exit statuses of the guard itself.
UNUSABLE, STALE, HELD = 96, 97, 98
_REFUSAL = re.compile(r"surefoot-fence: (\w+): ([^\r\n]*)")
_CODES = {"stale": Code.FENCE_STALE, "held": Code.FENCE_FAILED, "disk": Code.HOST_DISK_FULL}
_HINTS = {
    Code.FENCE_STALE: "another agent has taken over; nothing is to be done",
    Code.FENCE_FAILED: "log in and end them; then deploy again",
    Code.FENCE_FOLDER: "make it writable for the user that Ansible connects as, or set fence: {path: …}",
    Code.HOST_DISK_FULL: "free some space on the host: df -h",
}
_INSTALL = "install it: flock is in the package util-linux"


@dataclass(frozen=True, slots=True)
class Fence:
    """Which fence a command stands behind. `folder` is empty for the host's default."""

    name: str
    token: int
    folder: str = ""

    def guard(self, command: str) -> str:
        """Return the command line that runs `command` behind this fence."""
        script = "\n".join(line for line in SCRIPT.read_text().splitlines() if not line.startswith("#"))
        words = (script, "surefoot-fence", self.folder, self.name, str(self.token), uuid.uuid4().hex, command)
        return "sh -c " + " ".join(map(quote, words))


def fence_name(store: str, project: str, environment: str) -> str:
    """Return the name of an environment's fence; of another store's environment of that name it is another."""
    return f"{project}/{environment}/{store}"


def refusal(output: str, host: str | None) -> Failure | None:
    """Return what the guard said, if it refused."""
    match = _REFUSAL.search(output)
    if match is None:
        return None
    kind, text = match.groups()
    code = _CODES.get(kind, Code.FENCE_FOLDER)
    hint = _INSTALL if kind == "missing" else _HINTS[code]
    return Failure(code, f"{host or 'host'}: {text}", hint=hint, host=host)
