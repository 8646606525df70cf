# SPDX-License-Identifier: Apache-2.0
"""How long agents have been unheard of, as seen by one observer.

Guarantees: once this observer has seen an agent's counter move, that agent's age is measured on the observer's own
monotonic clock, so that a wall clock that jumps makes nobody look dead or alive. On first sight there is
only the difference of two wall-clock times to go by.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Sight:
    beat: tuple[str, int]
    at: float
    moved: bool  #: an earlier beat was seen too, so this one is no older than the look before `at`


class Sightings:
    """What one observer has seen of all agents."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take the observer's monotonic clock."""
        self._clock = clock
        self._seen: dict[str, _Sight] = {}
        self._lock = threading.Lock()

    def age(self, agent: str, incarnation: str, beats: int, by_wall_clock: float) -> float:
        """Return for how long the agent has been unheard of."""
        now = self._clock()
        with self._lock:
            sight = self._seen.get(agent)
            if sight is None or sight.beat != (incarnation, beats):
                sight = _Sight((incarnation, beats), now, moved=sight is not None)
                self._seen[agent] = sight
        watched = now - sight.at
        return watched if sight.moved else max(by_wall_clock, watched)
