# SPDX-License-Identifier: Apache-2.0
"""What a program that runs for long says of itself: notes, each of which becomes one line of its log.

Guarantees: a note that concerns a deployment names it, and the fencing token that it is worked on with, where there is
one. How a line looks, and where it goes, is no business of whoever says it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum

import msgspec

from surefoot.core import events as ev
from surefoot.core.errors import Failure
from surefoot.core.sentences import sentence
from surefoot.core.status import Status


class Level(IntEnum):
    """How bad it is, in syslog's numbers."""

    CRITICAL = 2
    ERROR = 3
    WARNING = 4
    INFO = 6


class Note(msgspec.Struct, frozen=True):
    """One thing that is said."""

    text: str
    type: str  #: what it is, for programs: an event's name, or one of the log's own
    level: Level = Level.INFO
    deployment: str | None = None
    token: int | None = None
    seq: int | None = None  #: where it is in the deployment's journal, if it is an entry of that
    fields: Mapping[str, str | int] = msgspec.field(default_factory=dict)  #: what else there is to know


#: What a line of the log has of an event beside its failure.
TOLD = ("step", "direction", "attempt", "status")

#: Takes what is said.
Tell = Callable[[Note], object]


class Log:
    """Where a program's notes go; this one keeps none."""

    def __call__(self, note: Note) -> None:
        """Take a note."""

    def hide(self, hidden: Callable[[str], str]) -> None:
        """Take what takes secrets out of a text; notes come without them, what libraries log may not."""


def note_of(deployment: str, entry: ev.Entry) -> Note:
    """Return an entry of a deployment's journal as a line of the log tells it."""
    event, fields = entry.event, dict[str, str | int]()
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if isinstance(value, Failure):
            fields["code"] = str(value.code)
            if value.host:
                fields["host"] = value.host
        elif name in TOLD and value:
            fields[name] = value if isinstance(value, int) else str(value)
    return Note(
        sentence(entry),
        type=ev.type_of(event),
        level=_level(event),
        deployment=deployment,
        token=entry.token,
        seq=entry.seq,
        fields=fields,
    )


def _level(event: ev.Event) -> Level:
    match event:
        case ev.Finished(status=Status.STRANDED):
            return Level.CRITICAL
        case ev.Finished(status=Status.FAILED | Status.ROLLED_BACK) | ev.UndoStarted() | ev.ResolveRefused():
            return Level.ERROR
        case (
            ev.PreflightFailed()
            | ev.FenceFailed()
            | ev.NotBegun()
            | ev.StepFailed()
            | ev.StepInterrupted()
            | ev.HealthFailed()
            | ev.BakeFailed()
            | ev.VersionsMixed()
            | ev.CancelRequested()
        ):
            return Level.WARNING
        case ev.LeaseGranted(taken_from=lost) if lost is not None:
            return Level.WARNING
        case _:
            return Level.INFO
