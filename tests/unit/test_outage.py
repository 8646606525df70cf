# SPDX-License-Identifier: Apache-2.0
"""What an agent's log says of a store that is away: enough to know, not a line for every call."""

from __future__ import annotations

from surefoot.agent.outage import Outage


class Bench:
    def __init__(self) -> None:
        self.now = 1000.0
        self.said: list[tuple[str, str]] = []
        self.outage = Outage(lambda: self.now, lambda text, kind, _: self.said.append((kind, text)))

    def fails(self, seconds: float, why: str = "gone", every: float = 0.5) -> None:
        for _ in range(round(seconds / every)):
            self.outage.failed(why)
            self.now += every


def test_an_outage_is_said_when_it_begins_once_a_minute_and_when_it_is_over() -> None:
    bench = Bench()
    bench.outage.answered()
    bench.fails(150.0)
    bench.now += 2.0
    bench.outage.answered()
    bench.outage.answered()
    assert bench.said == [
        ("store_failed", "store: gone; trying again"),
        ("store_failed", "store: gone; trying again, for 1 min now"),
        ("store_failed", "store: gone; trying again, for 2 min now"),
        ("store_back", "store: it answers again, after 2 min 30 s"),
    ]


def test_a_store_that_answers_some_calls_and_not_others_is_not_back_and_not_said_anew_each_time() -> None:
    bench = Bench()
    for _ in range(60):
        bench.fails(0.5)
        bench.outage.answered()
    assert bench.said == [("store_failed", "store: gone; trying again")]


def test_each_trouble_is_said_and_a_second_outage_like_a_first_one() -> None:
    bench = Bench()
    for _ in range(2):
        bench.fails(1.0, "gone")
        bench.fails(1.0, "read-only")
        bench.now += 5.0
        bench.outage.answered()
    assert [text for _, text in bench.said] == 2 * [
        "store: gone; trying again",
        "store: read-only; trying again",
        "store: it answers again, after 1.5 s",
    ]
