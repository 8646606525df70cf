# SPDX-License-Identifier: Apache-2.0
"""Text for people: safe to show, times and durations as one says them, tables.

Guarantees: what has passed `clean` moves no cursor, changes no colour, rings no bell and hides nothing, whoever wrote
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from surefoot.core.wording import duration

__all__ = ["ago", "clean", "clean_lines", "did_you_mean", "duration", "table"]

#: Colours and cursor movements as programs print them: taken out whole, since they mean nothing to a reader.
_SEQUENCES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
#: What is left of control characters, and characters that turn the direction of writing or show nothing.
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def clean(text: str) -> str:
    """Return text that is safe on a terminal, on one line."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", _SEQUENCES.sub("", text.rstrip("\r\n")))


def clean_lines(text: str) -> list[str]:
    """Return the lines of a text, each safe on a terminal."""
    return [clean(line) for line in text.replace("\r\n", "\n").split("\n")]


def ago(at: float | None, now: float) -> str:
    """Return a time as one says it: `just now`, `2 min ago`."""
    if at is None:
        return "-"
    passed = now - at
    if passed < 5:
        return "just now"
    for seconds, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if passed >= seconds:
            return f"{int(passed // seconds)} {unit} ago"
    return f"{int(passed)} s ago"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return aligned lines: a head, then the rows. Texts must be clean already."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question that names the nearest ones; empty where none is near."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(names), n=2, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else ""
