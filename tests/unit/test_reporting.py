# SPDX-License-Identifier: Apache-2.0
"""What reports read of long histories and long queues."""

from __future__ import annotations

import pytest

from surefoot.api import history, reporting, requests
from surefoot.core.status import Status
from surefoot.core.summary import Summary
from surefoot.store.memory import MemoryStore
from tests.store import journal as j


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the store's clock shows; pages are short."""
    monkeypatch.setattr(history, "PAGE", 3)
    return [100.0]


def test_what_ended_last_is_found_behind_a_queue_that_is_longer_than_a_page(clock: list[float]) -> None:
    store = MemoryStore(lambda: clock[0])
    j.deployed(store, "1.0", "stage")
    clock[0] = 200.0
    j.deployed(store, "1.0", "prod")
    for number in range(10):
        j.submit(store, f"2.{number}", "prod")
    assert reporting.newest_ended(store) == "prod-1"


def test_the_end_of_a_queue_that_was_cancelled_hides_nothing_that_ended_later(clock: list[float]) -> None:
    store = MemoryStore(lambda: clock[0])
    queue = [j.submit(store, f"1.{number}") for number in range(10)]
    for deployment in queue[4:]:
        requests.cancel(store, deployment, by="me")
    for number, deployment in enumerate(queue[:4]):
        clock[0] = 200.0 + number
        j.finish(store, deployment, j.claim(store, deployment))
    assert [summary.id for summary in reporting.ended_since(store, "prod", 150.0)] == queue[3::-1]


def test_of_a_long_history_no_more_is_read_than_was_asked_for(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore(lambda: clock[0])
    for number in range(30):
        clock[0] += 1.0
        j.deployed(store, f"1.{number}")
    asked: list[int | None] = []
    history_of = store.history

    def counted(environment: str, limit: int = 20, before: int | None = None) -> list[Summary]:
        asked.append(before)
        return history_of(environment, limit, before)

    monkeypatch.setattr(store, "history", counted)
    assert [summary.number for summary in reporting.ended_since(store, "prod", clock[0])] == [30]
    assert asked == [None, 28]


def test_what_brought_many_deployments_is_read_a_page_at_a_time(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore(lambda: clock[0])
    for number in range(20):
        j.deployed(store, f"1.{number}", status=Status.ROLLED_BACK if number == 7 else Status.SUCCEEDED)
    whole = {name: store.journal(name) for name in (f"prod-{number}" for number in range(1, 21))}
    monkeypatch.setattr(reporting, "PAGE", 6)
    asked: list[str] = []
    for name in ("journal", "openings"):
        method = getattr(store, name)
        monkeypatch.setattr(store, name, lambda *args, name=name, method=method: (asked.append(name), method(*args))[1])
    found = list(reporting.with_journals(store, reporting.ended_since(store, "prod", 0.0)))
    assert [one.summary.number for one in found] == list(range(20, 0, -1))
    for one in found:
        entries = whole[one.summary.id]
        assert list(one.entries) == (entries if one.summary.number == 8 else entries[:1])
    assert sorted(asked) == ["journal", *["openings"] * 4]
