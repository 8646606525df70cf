# SPDX-License-Identifier: Apache-2.0
"""An agent's age, as an observer sees it who looks now and then, by a wall clock that may jump."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from surefoot.store.sightings import Sightings


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_who_fell_silent_between_two_looks_that_are_far_apart_is_old() -> None:
    clock = Clock()
    seen = Sightings(clock)
    seen.age("one", "a", 1, by_wall_clock=0.1)
    clock.now += 60
    assert seen.age("one", "a", 9, by_wall_clock=55.0) == 55.0
    clock.now += 1
    assert seen.age("one", "a", 9, by_wall_clock=56.0) == 56.0


def test_a_wall_clock_that_jumps_changes_little_for_who_looks_often() -> None:
    clock = Clock()
    seen = Sightings(clock)
    seen.age("one", "a", 1, by_wall_clock=0.0)
    clock.now += 0.25
    assert seen.age("one", "a", 2, by_wall_clock=3600.0) == 0.25
    clock.now += 0.25
    assert seen.age("one", "a", 3, by_wall_clock=-3600.0) == 0.0


@given(
    beats=st.lists(st.floats(0.01, 5), min_size=1, max_size=30),
    looks=st.lists(st.floats(0.01, 5), min_size=2, max_size=30),
    offset=st.floats(-1e6, 1e6),
)
def test_the_age_is_right_to_within_the_time_between_two_looks(
    beats: list[float], looks: list[float], offset: float
) -> None:
    """Whatever the wall clock is off by; and exact where it is right."""
    clock = Clock()
    seen, exact = Sightings(clock), Sightings(clock)
    written = [clock.now]
    for step in beats:
        written.append(written[-1] + step)
    first = 0
    for step in looks:
        clock.now += step
        there = [at for at in written if at <= clock.now]
        first = first or len(there)
        true = clock.now - there[-1]
        wrong = seen.age("one", "a", len(there), true + offset)
        assert abs(exact.age("one", "a", len(there), true) - true) < 1e-6
        if len(there) > first:
            assert abs(wrong - true) <= max(looks) + 1e-6
