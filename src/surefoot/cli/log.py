# SPDX-License-Identifier: Apache-2.0
"""The log of a program that runs for long: one line a note, for people, as JSON, or as an entry of systemd's journal.

Guarantees: a note is one line, whatever is in it; what libraries log (from warnings on) comes in the same form, without
secrets; a log that can't be written costs its lines and nothing else. It rests on Python's `logging`, which asyncio has
loaded already (ADR 19), and talks to the journal's socket itself: that takes no library.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TextIO

from surefoot.cli.text import clean
from surefoot.cli.views.plain import clock
from surefoot.core import notes
from surefoot.core.errors import UsageError
from surefoot.core.notes import Level, Note
from surefoot.core.views import rfc3339

#: Where systemd's journal takes entries, in its native protocol.
JOURNAL = "/run/systemd/journal/socket"
#: Characters of one line: a datagram must hold it.
LONGEST = 32 * 1024

#: Ours and Python's, the worst first: they have the same names.
_LEVELS: dict[Level, int] = {level: getattr(logging, level.name) for level in Level}


class Form(StrEnum):
    """How a line looks."""

    TEXT = "text"
    JSON = "json"
    JOURNAL = "journal"


def form(chosen: str | None, environ: Mapping[str, str]) -> Form:
    """Return the form that was asked for; else the journal's where stderr is the journal, else text."""
    name = chosen or environ.get("SUREFOOT_LOG_FORMAT") or ""
    if name not in ("", *Form):
        raise UsageError(f"SUREFOOT_LOG_FORMAT is {name[:40]!r}", hint=f"it may be {', '.join(Form)}")
    if name == Form.JOURNAL and not os.path.exists(JOURNAL):  # noqa: PTH110 - a socket
        raise UsageError(f"there is no journal at {JOURNAL}", hint="--log-format text, or json")
    return Form(name) if name else Form.JOURNAL if to_journal(environ) else Form.TEXT


def to_journal(environ: Mapping[str, str]) -> bool:
    """Whether systemd has given this process the journal as its stderr (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class Log(notes.Log):
    """Where a program's notes go; of those of a process there is one."""

    def __init__(self, program: str, form: Form, *, prefixed: bool = False, **who: str) -> None:
        """`who` says on each line whose it is, such as `agent="runner-01"`; `prefixed`: each line begins with its
        level, as systemd reads it.
        """
        lines: logging.Formatter = _Json(who) if form is Form.JSON else _Text()
        plain = _Stderr(lines, prefixed=prefixed or form is Form.JOURNAL)
        handler = _Journal(program, who, plain) if form is Form.JOURNAL else plain
        self._hidden = _Hidden()
        handler.addFilter(self._hidden)
        self._logger = logging.getLogger("surefoot")
        self._logger.setLevel(logging.INFO)
        logging.getLogger().handlers[:] = [handler]

    def __call__(self, note: Note) -> None:
        """Write a note down."""
        self._logger.log(_LEVELS[note.level], "%s", note.text, extra={"note": note})

    def hide(self, hidden: Callable[[str], str]) -> None:
        """Take what takes secrets out of a text."""
        self._hidden.hidden = hidden


class _Hidden(logging.Filter):
    """Makes a note of what a library logs, and takes secrets out of it."""

    hidden: Callable[[str], str] = staticmethod(lambda text: text)

    def filter(self, record: logging.LogRecord) -> bool:
        if not isinstance(getattr(record, "note", None), Note):
            text = f"{record.name}: {record.getMessage()}"
            if record.exc_info and record.exc_info[1] is not None:
                text += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
            level = next((level for level, number in _LEVELS.items() if record.levelno >= number), Level.INFO)
            record.note = Note(self.hidden(text), "library", level)
        return True


def _said(note: Note) -> str:
    """Return a note on one line, with what it concerns."""
    token = f" token {note.token}" if note.token is not None else ""
    of = f"{note.deployment}{token}: " if note.deployment is not None else ""
    text = clean((of + note.text).replace("\n", "; "))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _facts(note: Note) -> dict[str, str | int]:
    """Return what is known of a note, without what is not."""
    found = {"deployment": note.deployment, "token": note.token, "seq": note.seq}
    if note.deployment is not None:
        found["environment"] = note.deployment.rpartition("-")[0]
    return {key: value for key, value in found.items() if value is not None} | dict(note.fields)


class _Text(logging.Formatter):
    """For people."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{clock(record.created)} {_said(record.note)}"  # type: ignore[attr-defined]


class _Json(logging.Formatter):
    """For programs: one document a line, in ASCII."""

    def __init__(self, who: Mapping[str, str]) -> None:
        super().__init__()
        self._who = dict(who)

    def format(self, record: logging.LogRecord) -> str:
        note: Note = record.note  # type: ignore[attr-defined]
        first = {
            "at": rfc3339(record.created),
            "level": note.level.name.lower(),
            "type": note.type,
            "message": note.text,
        }
        return json.dumps(first | self._who | _facts(note))


class _Stderr(logging.Handler):
    """Writes lines to stderr, while somebody reads it."""

    def __init__(self, lines: logging.Formatter, *, prefixed: bool) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(lines)
        self._prefixed = prefixed

    def emit(self, record: logging.LogRecord) -> None:
        level = f"<{record.note.level:d}>" if self._prefixed else ""  # type: ignore[attr-defined]
        stream: TextIO = sys.stderr
        try:
            stream.write(f"{level}{self.format(record)}\n".encode(stream.encoding, "replace").decode(stream.encoding))
            stream.flush()
        except (OSError, ValueError):
            return


class _Journal(logging.Handler):
    """Sends entries to systemd's journal; lines with their level to stderr where it does not take them."""

    def __init__(self, program: str, who: Mapping[str, str], otherwise: _Stderr) -> None:
        super().__init__(logging.INFO)
        self._always = {"SYSLOG_IDENTIFIER": program, **_named(who)}
        self._otherwise = otherwise
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        note: Note = record.note  # type: ignore[attr-defined]
        fields: dict[str, Any] = {"MESSAGE": _said(note), "PRIORITY": int(note.level), **self._always}
        fields |= _named({"type": note.type, **_facts(note)})
        try:
            self._socket.sendto(b"".join(_field(name, str(value)) for name, value in fields.items()), JOURNAL)
        except OSError:
            self._otherwise.emit(record)


def _named(found: Mapping[str, Any]) -> dict[str, Any]:
    return {f"SUREFOOT_{key.upper()}": value for key, value in found.items()}


def _field(name: str, value: str) -> bytes:
    """Return a field as the journal's native protocol has it: with its length where it has more than one line."""
    data = value.encode("utf-8", "replace")
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
