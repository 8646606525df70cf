# SPDX-License-Identifier: Apache-2.0
"""How people are told when something expires."""

from __future__ import annotations

import time
from datetime import UTC, datetime

_DAY = 86400.0


def expires(end: float) -> str:
    """Return that something expires, or has expired, and when: by the day, and in days from now."""
    left = end - time.time()
    try:
        day = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        day = "in another age"
    if left <= 0:
        return f"expired {_span(-left)} ago ({day})"
    return f"expires in {_span(left)} ({day})"


def _span(seconds: float) -> str:
    for unit, name in ((_DAY, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= unit:
            count = int(seconds // unit)
            return f"{count} {name}{'s' * (count != 1)}"
    return "less than a minute"
