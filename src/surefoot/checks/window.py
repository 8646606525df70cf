# SPDX-License-Identifier: Apache-2.0
"""`window`: the time of day is one at which this may be done.

The agent's clock counts. Where a deployment shall wait for the time instead of being refused, give the environment
`windows`: a check only says yes or no.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from surefoot.checks.model import CheckFailed, CheckOptions, CheckWarned, Context, Kind
from surefoot.config.fields import Day, TimeOfDay, TimeZone, filled, one_of, refuse
from surefoot.core.errors import Code
from surefoot.core.gates import MINUTES_OF_A_DAY, Window
from surefoot.core.windows import DAYS, is_open, next_opening, told


class Outside(StrEnum):
    """What it means to be outside of the window."""

    FAIL = "fail"
    WARN = "warn"


class WindowOptions(CheckOptions):
    """Options of `window`."""

    days: Annotated[tuple[Day, ...], BeforeValidator(filled)] = Field(default=DAYS, description="On which days.")
    from_: TimeOfDay = Field(default=0, alias="from", description='From when, such as `"09:00"`.')
    to: TimeOfDay = Field(
        default=MINUTES_OF_A_DAY,
        description='Until when; a time before `from` is one of the next day. `"24:00"` is the end of the day.',
    )
    time_zone: TimeZone = Field(default="UTC", description="On whose clocks, such as `Europe/Zurich`.")
    outside: Annotated[Outside, BeforeValidator(one_of(Outside))] = Field(
        default=Outside.FAIL, description="What it is outside of the window: `fail` or `warn`."
    )

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.from_ == self.to:
            why = "from and to are the same"
            raise refuse(why, hint="leave both out for whole days", code=Code.CONFIG_TIMING)
        return self


class TimeWindow(Kind):
    """See the module's docstring."""

    name: ClassVar = "window"
    options: ClassVar = WindowOptions

    async def probe(self, options: WindowOptions, context: Context) -> str:
        """Look at the clock."""
        window = Window(tuple(map(DAYS.index, options.days)), options.from_, options.to, options.time_zone)
        now = time.time()
        if is_open([window], now):
            return f"it is within {told(window)}"
        opens = datetime.fromtimestamp(next_opening([window], now), UTC)
        outcome = CheckWarned if options.outside is Outside.WARN else CheckFailed
        raise outcome(f"it is outside of {told(window)}", f"it opens at {opens:%Y-%m-%d %H:%M} UTC")
