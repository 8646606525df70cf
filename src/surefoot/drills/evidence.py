# SPDX-License-Identifier: Apache-2.0
"""What hosts' black boxes prove of a deployment. Nothing here asks Surefoot: tokens are read from the commands, as they
came to the hosts.

The rule of one at a time: once the first task of a token runs anywhere, nothing with a smaller token runs anywhere;
what comes with a smaller token later is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from surefoot.core.deployment import FENCES
from surefoot.drills.lab import Command
from surefoot.drills.lab.blackbox import KILLED

#: How the fence refuses a command.
REFUSED = 97


@dataclass(frozen=True, slots=True)
class Reign:
    """All that came to hosts with one token of the store's, whichever of its fences it stood behind."""

    token: int
    sources: frozenset[str]
    first: float  #: when its first command began
    first_task: float | None  #: when its first command that was more than a raise began
    last: float  #: when the last that was not refused ended
    tasks: int
    refused: int


def reigns(commands: Iterable[Command]) -> list[Reign]:
    """Return each token's commands, the smallest token first."""
    by_token: dict[int, list[Command]] = {}
    for command in commands:
        if command.token is not None:
            by_token.setdefault(command.token // FENCES, []).append(command)
    return [_reign(token, found) for token, found in sorted(by_token.items())]


def _reign(token: int, commands: list[Command]) -> Reign:
    ran = [c for c in commands if c.code != REFUSED]
    tasks = [c for c in ran if not c.raises]
    return Reign(
        token,
        frozenset(c.source for c in commands),
        min(c.begin for c in commands),
        min((c.begin for c in tasks), default=None),
        max((c.end or c.begin for c in ran), default=commands[0].begin),
        len(tasks),
        len(commands) - len(ran),
    )


def late(commands: Sequence[Command], dead: Iterable[str] = ()) -> list[Command]:
    """Return commands that ran although a greater token's first task had begun. `dead` are hosts that lost power,
    whose last commands have no end.
    """
    without = set(dead)
    found = []
    opened: dict[int, float] = {r.token: r.first_task for r in reigns(commands) if r.first_task is not None}
    for command in commands:
        if command.token is None or command.code == REFUSED:
            continue
        over = min((at for token, at in opened.items() if token > command.token // FENCES), default=None)
        if over is None:
            continue
        ended = command.end if command.end is not None else (command.begin if command.host in without else float("inf"))
        # What the fence has killed was dead when the raise returned; its wrapper's note may come a little later.
        if command.begin >= over or (ended > over and command.code != KILLED):
            found.append(command)
    return found


def unfenced(commands: Iterable[Command], sources: Iterable[str]) -> int:
    """Return how many commands of runners' stood behind no fence: transfers, which were let in by a look at it."""
    known = set(sources)
    return sum(command.token is None and command.source in known for command in commands)


def since(commands: Iterable[Command], at: float) -> list[Command]:
    """Return the commands that began after a moment."""
    return [command for command in commands if command.begin >= at]


def shown(command: Command) -> str:
    """Return a command for a report."""
    token, fence = divmod(command.token or 0, FENCES)
    ended = (
        "did not end" if command.end is None else f"ended with {command.code} after {command.end - command.begin:.2f} s"
    )
    return f"{command.host}: token {token}.{fence} from {command.source} at {command.begin:.3f}, {ended}"


__all__ = ["KILLED", "REFUSED", "Reign", "late", "reigns", "shown", "since", "unfenced"]
