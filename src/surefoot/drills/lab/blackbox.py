# SPDX-License-Identifier: Apache-2.0
"""A host's black box, read: every command that came to it over SSH, as the host itself wrote it down (blackbox.sh)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

SCRIPT = Path(__file__).with_name("blackbox.sh")
LOG = "/var/log/surefoot-lab/commands"


@dataclass(frozen=True, slots=True)
class Command:
    """One command on a host. Times are the machine's wall clock, which all hosts share."""

    host: str
    begin: float
    source: str  #: the address that it came from
    token: int | None  #: None if it did not stand behind the fence
    raises: bool = False  #: whether it does nothing but raise the fence
    end: float | None = None  #: None: it has not ended, or its host lost power
    code: int | None = None
    pid: str = ""  #: of the box's own process for it; others get the same number later


#: How a command ends that is killed.
KILLED = 137


def ends(lines: Iterable[str], at: float) -> str:
    """Return the lines that are missing when all commands are known to have been ended."""
    running = {command.pid for command in parse("", lines) if command.end is None}
    return "".join(f"end {at:.9f} {pid} {KILLED}\n" for pid in sorted(running))


def parse(host: str, lines: Iterable[str]) -> list[Command]:
    """Return a host's commands, oldest first."""
    found: list[Command] = []
    running: dict[str, int] = {}
    for line in lines:
        match line.split():
            case ["begin", at, pid, source, token, what]:
                running[pid] = len(found)
                number = int(token) if token.isdigit() else None
                found.append(Command(host, float(at), source, number, what == "raise", pid=pid))
            case ["end", at, pid, code] if pid in running:
                place = running.pop(pid)
                found[place] = replace(found[place], end=float(at), code=int(code))
    return found
