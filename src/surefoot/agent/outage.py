# SPDX-License-Identifier: Apache-2.0
"""A store that is away, as an agent's log has it: when that begins, once a minute while it lasts, when it is over."""

from __future__ import annotations

from collections.abc import Callable

from surefoot.core.notes import Level
from surefoot.core.wording import duration

#: Seconds until the same trouble is said again.
SAID_EVERY = 60.0
#: Seconds without a failure after which the store counts as back: some calls may fail while others are answered.
STEADY = 2.0


class Outage:
    """One agent's view. `clock` in seconds; `say(text, type, level)` takes each line."""

    def __init__(self, clock: Callable[[], float], say: Callable[[str, str, Level], object]) -> None:
        """The store counts as there."""
        self.failed_at = float("-inf")  #: when a call last failed
        self._clock = clock
        self._say = say
        self._since: float | None = None
        self._said: dict[str, float] = {}

    def failed(self, why: str) -> None:
        """Note that a call failed."""
        now = self.failed_at = self._clock()
        self._since = now if self._since is None else self._since
        if now - self._said.get(why, float("-inf")) >= SAID_EVERY:
            self._said[why] = now
            lasts = f", for {duration(now - self._since)} now" if now - self._since >= SAID_EVERY else ""
            self._say(f"store: {why}; trying again{lasts}", "store_failed", Level.WARNING)

    def answered(self) -> None:
        """Note that a call was answered."""
        if self._since is not None and self._clock() - self.failed_at >= STEADY:
            lasted = duration(self.failed_at - self._since)
            self._say(f"store: it answers again, after {lasted}", "store_back", Level.INFO)
            self._since = None
            self._said.clear()
