# SPDX-License-Identifier: Apache-2.0
"""How long agents have been unheard of, as seen by one observer.

Guarantees: once this observer has looked twice, an agent's age is right by the observer's own monotonic clock to within
the time between two looks, so that a wall clock that jumps makes nobody look dead or alive to who looks often. Only
within that time, which is all there is on first sight, the difference of two wall-clock times decides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf

import msgspec


class _Sight(msgspec.Struct, frozen=True):
    beat: tuple[str, int]
    at: float  #: when it was first seen
    slack: float  #: for how long it may have been there before, unseen
    looked_at: float


class Sightings:
    """What one observer has seen of all agents."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take the observer's monotonic clock."""
        self._clock = clock
        self._seen: dict[str, _Sight] = {}
        self._lock = threading.Lock()

    def age(self, agent: str, incarnation: str, beats: int, by_wall_clock: float) -> float:
        """Return for how long the agent has been unheard of."""
        now, beat = self._clock(), (incarnation, beats)
        with self._lock:
            before = self._seen.get(agent)
            if before is None:
                sight = _Sight(beat, now, inf, now)
            elif before.beat == beat:
                sight = _Sight(beat, before.at, before.slack, now)
            else:
                sight = _Sight(beat, now, now - before.looked_at, now)
            self._seen[agent] = sight
        watched = now - sight.at
        return min(max(by_wall_clock, watched), watched + sight.slack)
