# SPDX-License-Identifier: Apache-2.0
"""Durations as people write them: `500ms`, `5s`, `10m`, `1h`, `1h30m`, `14d`.

Guarantees: `parse_duration(format_duration(x)) == x` for whole milliseconds; nothing negative, nothing over a year. A
plain number is refused, because half of its readers would take it for another unit than its writer.
"""

from __future__ import annotations

import re
from fractions import Fraction

#: More than this is a slip of the pen, and more than timers of the system bear.
MAX_SECONDS = 366 * 24 * 3600

_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_NUMBER = r"(\d{1,12}(?:\.\d{1,9})?)"
#: Largest unit first, each once.
PATTERN = rf"(?=\d)(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m(?!s))?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?"
_DURATION = re.compile(PATTERN, re.ASCII)
EXAMPLES = "500ms, 5s, 10m, 1h, 1h30m, 14d"

_OTHER_UNITS = {
    "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "min": "m", "mins": "m", "minute": "m", "minutes": "m",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
    "msec": "ms", "millis": "ms", "milliseconds": "ms",
}  # fmt: skip
_DAYS = {"day": 1, "days": 1, "w": 7, "week": 7, "weeks": 7}


class DurationError(ValueError):
    """The text is no duration; `hint` says what to write."""

    def __init__(self, message: str, hint: str) -> None:
        """Take what is wrong, and what to write instead."""
        super().__init__(message)
        self.hint = hint


def parse_duration(text: object) -> float:
    """Return the seconds; zero is a duration, whoever can't use it refuses it."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        raise DurationError(f"{text} has no unit", hint=f"write {text}s if seconds are meant")
    if not isinstance(text, str):
        raise DurationError("not a duration", hint=f"write a number and a unit: {EXAMPLES}")
    match = _DURATION.fullmatch(text)
    if match is None:
        raise DurationError(f"{_short(text)} is not a duration", hint=_hint(text))
    parts = zip(match.groups(), _MILLISECONDS.values(), strict=True)
    milliseconds = sum((Fraction(number) * unit for number, unit in parts if number is not None), Fraction(0))
    if milliseconds > MAX_SECONDS * 1000:
        raise DurationError(f"{_short(text)} is longer than a year", hint=f"write a shorter one: {EXAMPLES}")
    return float(milliseconds / 1000)


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads as the same time, to the millisecond."""
    left = round(seconds * 1000)
    if left < 0:
        raise ValueError("a duration is never negative")
    parts: list[str] = []
    for unit, milliseconds in _MILLISECONDS.items():
        count, left = divmod(left, milliseconds)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _hint(text: str) -> str:
    """Say what the writer may have meant."""
    bare = text.strip().lower().replace(" ", "")
    if re.fullmatch(r"-.*", bare):
        return f"a duration is never negative; write {EXAMPLES}"
    if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", bare, re.ASCII):
        return f"write {bare}s if seconds are meant"
    if match := re.fullmatch(r"(\d{1,9})([a-z]+)", bare, re.ASCII):
        number, unit = match.groups()
        if unit in _DAYS:
            return f"write {int(number) * _DAYS[unit]}d"
        if unit := _OTHER_UNITS.get(unit, unit if unit in _MILLISECONDS else ""):
            return f"write {number}{unit}"
    return f"write a number and a unit: {EXAMPLES}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
