# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a config: all of it at once, each with file, line, key, sentence, and what is allowed.

Guarantees: a problem shows values only as the file has them, never what a variable was replaced with.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from surefoot.core.errors import Code, ConfigError

#: A key's place: names and list positions, from the top.
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    file: str
    line: int | None
    key: str  #: as `environments.production.steps[0].playbook`; empty for the file as a whole
    message: str
    allowed: tuple[str, ...] = ()
    code: Code = Code.CONFIG_VALUE
    hint: str = ""

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        allowed = f" (allowed: {', '.join(self.allowed)})" if self.allowed else ""
        return ": ".join(part for part in (where, self.key, self.message + allowed) if part)


class ConfigProblems(ConfigError):  # noqa: N818 - it is many
    """The config is wrong in one or more places; the message has a line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Take them in the order in which they are to be told."""
        assert problems
        self.problems = tuple(problems)
        first, *more = self.problems
        if not more:
            super().__init__(str(first), code=first.code, hint=first.hint)
            return
        lines = (f"{problem} - {problem.hint}" if problem.hint else str(problem) for problem in self.problems)
        hint = f"mend these {len(self.problems)}; surefoot check tells what is left"
        super().__init__("\n".join(lines), code=first.code, hint=hint)


def dotted(place: Iterable[str | int]) -> str:
    """Return a place as people write it; keys that would mislead are quoted."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if part and all(c.isalnum() or c in "_-" for c in part) else shown(part)
            text += f".{word}" if text else word
    return text


def shown(value: object, limit: int = 60) -> str:
    """Return a value as it may be told: on one line, not too long, quoted if it is text."""
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else f"{text[: limit - 4]}...{text[-1]}"


def one_line(text: str) -> str:
    """Return a sentence from elsewhere so that it can neither break a line nor steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that was probably meant."""
    found = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that asks so, or nothing."""
    meant = nearest(word, known)
    return f"; did you mean {meant!r}?" if meant else ""


def file_label(path: Path) -> str:
    """Return a file's name as the reader of a message would type it: relative where it is below this folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
