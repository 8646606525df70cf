# SPDX-License-Identifier: Apache-2.0
"""How figures are said, to people, everywhere."""

from __future__ import annotations

import math
from datetime import UTC, datetime

#: Times that calendars know.
MIN_TIME, MAX_TIME = 0.0, 253_402_300_799.0


def duration(seconds: float) -> str:
    """Return a duration as one says it: `0.4 s`, `12 s`, `3 min 20 s`, `1 h 5 min`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min" if whole % 3600 // 60 else f"{whole // 3600} h"


def clock(at: float) -> str:
    """Return a time since 1970 as everyone on earth can read it: `2026-01-31 09:30 UTC`."""
    if not math.isfinite(at) or not MIN_TIME <= at <= MAX_TIME:
        return "some day"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC").replace(":00 UTC", " UTC")
