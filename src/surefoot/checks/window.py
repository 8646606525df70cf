# SPDX-License-Identifier: Apache-2.0
"""`window`: the time of day is one at which this may be done.

The agent's clock counts. Where a deployment shall wait for the time instead of being refused, give the environment
`windows`: a check only says yes or no.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from surefoot.checks.model import CheckFailed, CheckOptions, CheckWarned, Context, Kind
from surefoot.config.fields import one_of
from surefoot.config.models import Window
from surefoot.core.windows import is_open, next_opening, told


class Outside(StrEnum):
    """What it means to be outside of the window."""

    FAIL = "fail"
    WARN = "warn"


class WindowOptions(Window, CheckOptions):
    """Options of `window`."""

    outside: Annotated[Outside, BeforeValidator(one_of(Outside))] = Field(
        default=Outside.FAIL, description="What it is outside of the window: `fail` or `warn`."
    )


class TimeWindow(Kind):
    """See the module's docstring."""

    name: ClassVar = "window"
    options: ClassVar = WindowOptions

    async def probe(self, options: WindowOptions, context: Context) -> str:
        """Look at the clock."""
        window, now = options.planned, time.time()
        if is_open([window], now):
            return f"it is within {told(window)}"
        opens = datetime.fromtimestamp(next_opening([window], now), UTC)
        outcome = CheckWarned if options.outside is Outside.WARN else CheckFailed
        raise outcome(f"it is outside of {told(window)}", f"it opens at {opens:%Y-%m-%d %H:%M} UTC")
