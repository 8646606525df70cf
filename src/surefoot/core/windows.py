# SPDX-License-Identifier: Apache-2.0
"""When deploy windows are open, on the clocks of their time zones.

Guarantees: a window that crosses midnight belongs to the day on which it opens; on days when clocks are set, it opens
and closes when people's clocks show it. Reads nothing but the time zone data that Python brings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from surefoot.core.gates import MINUTES_OF_A_DAY, Window

#: Days ahead within which each window opens again, whatever its days: a week, and one more where clocks skip all of
#: it when they are set.
AHEAD = 14


def is_open(windows: Sequence[Window], now: float) -> bool:
    """Whether deployments may start now; without any window, always."""
    return not windows or any(start <= now < end for start, end in _times(windows, now))


def next_opening(windows: Sequence[Window], now: float) -> float:
    """Return when the first of them opens after now."""
    return min(start for start, _ in _times(windows, now) if start > now)


def _times(windows: Sequence[Window], now: float) -> Iterator[tuple[float, float]]:
    """Yield from when to when each window is open, around now and in the days to come."""
    for window in windows:
        zone = ZoneInfo(window.time_zone)
        today = datetime.fromtimestamp(now, UTC).astimezone(zone).date()
        for ahead in range(-1, AHEAD + 1):
            day = today + timedelta(days=ahead)
            if day.weekday() in window.days:
                length = MINUTES_OF_A_DAY if window.end <= window.start else 0
                start, end = _at(day, window.start, zone), _at(day, window.end + length, zone)
                if start < end:  # not so where clocks skip all of it
                    yield start, end


def _at(day: date, minute: int, zone: ZoneInfo) -> float:
    """Return when the clocks of a zone first show that minute of a day (or of the one after), or have skipped it."""
    days, rest = divmod(minute, MINUTES_OF_A_DAY)
    there = day + timedelta(days=days)
    shown = datetime(there.year, there.month, there.day, rest // 60, rest % 60, tzinfo=zone)
    before, at = shown.replace(fold=1).timestamp(), shown.timestamp()
    while before < at - 1:  # skipped: clocks are set somewhere in between
        middle = (before + at) // 2
        unset = datetime.fromtimestamp(middle, zone).utcoffset() == shown.utcoffset()
        before, at = (middle, at) if unset else (before, middle)
    return at


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def told(window: Window) -> str:
    """Say when a window is open: `mon-fri 09:00-17:00 Europe/Zurich`."""
    days = sorted(window.days)
    if len(days) > 2 and days == list(range(days[0], days[-1] + 1)):
        which = "daily" if len(days) == len(DAYS) else f"{DAYS[days[0]]}-{DAYS[days[-1]]}"
    else:
        which = ",".join(DAYS[day] for day in days)
    return f"{which} {_clock(window.start)}-{_clock(window.end)} {window.time_zone}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
