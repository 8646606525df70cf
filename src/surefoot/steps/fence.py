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

from surefoot.core.deployment import FENCES
from surefoot.core.errors import Code, Failure

SCRIPT = Path(__file__).with_name("fence.sh")
#: Exit statuses of the guard itself.
UNUSABLE, STALE, HELD = 96, 97, 98
_REFUSAL = re.compile(r"surefoot-fence: (\w+): ([^\r\n]*)")
_OWN = "on the host: sudo sh -c 'mkdir -p {folder} && chown -R {user} {folder}'; or set fence: {{path: …}}"
#: Of each kind of refusal: its code, what to do, and where in its text the words are that this names.
_KINDS = {
    # Who was taken over from can't write this down: who reads it in a journal has a store that knows less than hosts.
    "stale": (Code.FENCE_STALE, "another agent has taken over; if none has, the store is an older copy than this host"
              " knows: while nothing deploys, on the host: rm -r {folder}", r", which (?P<folder>.*) has seen"),
    "held": (Code.FENCE_FAILED, "on the host, end them, then deploy again: ps -o pid,stat,wchan,args -p '{pids}'",
             r"ended: (?P<pids>.*)"),
    "disk": (Code.HOST_DISK_FULL, "free some space on the host: df -h {folder}", r"device for (?P<folder>.*)"),
    "folder": (Code.FENCE_FOLDER, _OWN, r"(?P<folder>.*) can't be made or written by (?P<user>.*)"),
    "lock": (Code.FENCE_FOLDER, "on the host: stat -f {folder}; a file system without locks (some kinds of NFS) can't"
             " hold a fence: set fence: {{path: …}}", r"(?P<folder>.*) can't be locked"),
    "damaged": (Code.FENCE_FOLDER, "on the host, look at them, and write a million times the deployment's token"
                " into token: head {folder}/token {folder}/raising", r"(?P<folder>.*)/token or raising"),
    "mute": (Code.FENCE_FAILED, "the login shell of the user that Ansible connects as must run what it is sent;"
             " on the host: getent passwd {user}", r".* of (?P<user>\S+) runs"),
    "missing": (Code.FENCE_FOLDER, "on the host: apt-get install {program}, or its package (flock is in util-linux)",
                r"(?P<program>\S+)"),
}  # fmt: skip
#: What a login shell may take apart even in single quotes (fish a backslash, csh a line's end and `!`), for printf %b.
_ODD = str.maketrans({sign: f"\\0{ord(sign):03o}" for sign in "'\\!\n"})
_SH = """sh -c 'eval "$(printf %b "$1")"' surefoot-fence """
_NUMBER = re.compile(r"(?<=token )\d+|(?<=behind )\d+")


@dataclass(frozen=True, slots=True)
class Fence:
    """Which fence a command stands behind. `folder` is empty for the host's default."""

    name: str
    token: int
    folder: str = ""

    def guard(self, command: str) -> str:
        """Return the command line that runs `command` behind this fence."""
        script = "\n".join(line for line in SCRIPT.read_text().splitlines() if not line.startswith("#"))
        odd, known = script.translate(_ODD), (self.folder, self.name, str(self.token), uuid.uuid4().hex, "")
        return _SH + " ".join(map(quote, (odd, *known, command.translate(_ODD))))


def for_any_shell(script: str) -> str:
    """Return a command that has sh run `script`, behind no fence, whatever login shell takes it."""
    return f"""sh -c 'exec sh -c "$(printf %b "$1")"' sh {quote(script.translate(_ODD))}"""


def fence_name(store: str, project: str, environment: str) -> str:
    """Return the name of an environment's fence; of another store's environment of that name it is another."""
    return f"{project}/{environment}/{store}"


def refusal(output: str, host: str | None) -> Failure | None:
    """Return what the guard said, if it refused."""
    match = _REFUSAL.search(output)
    if match is None:
        return None
    kind, text = match.groups()
    code, hint, words = _KINDS.get(kind, _KINDS["folder"])
    text = _NUMBER.sub(_shown, text)
    named = re.match(words, text) or re.search(words, text)
    hint = hint.format(**named.groupdict()) if named else ""
    return Failure(code, f"{host or 'host'}: {text}", hint=hint, host=host)


def _shown(number: re.Match[str]) -> str:
    """Return a fence's number as people know it: the token, and which of its fences where it has had several."""
    token, more = divmod(int(number.group()), FENCES)
    return f"{token}.{more}" if token and more else str(token or more)
