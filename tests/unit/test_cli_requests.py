# SPDX-License-Identifier: Apache-2.0
"""The verbs, on a store in memory: what they append, what they refuse, what a lost answer does."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from surefoot.api import follow, requests  # noqa: E402
from surefoot.core import events as ev  # noqa: E402
from surefoot.core.errors import Code, ConflictError, NewerStoreError, NotAllowedError, NotFoundError, StoreError  # noqa: E402
from surefoot.core.plan import Direction  # noqa: E402
from surefoot.core.status import Status  # noqa: E402
from surefoot.store.memory import MemoryStore  # noqa: E402
from surefoot.store.protocol import LogLine  # noqa: E402
from tests.store import journal as j  # noqa: E402


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    memory = MemoryStore()
    yield memory
    memory.close()


class Flaky:
    """A store that loses the answers of the first calls of a method: they happened, and nobody heard."""

    def __init__(self, store: MemoryStore, method: str, times: int, error: Exception, *, after: bool) -> None:
        self._store, self._method, self._left, self._error, self._after = store, method, times, error, after

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if name != self._method:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._left == 0:
                return real(*args, **kwargs)
            self._left -= 1
            if self._after:
                real(*args, **kwargs)
            raise self._error

        return call


AWAY = StoreError("away", code=Code.STORE_UNREACHABLE)


# -- submit --------------------------------------------------------------------------------------------


def test_a_submission_whose_answer_was_lost_is_accepted_once(store: MemoryStore) -> None:
    flaky = Flaky(store, "submit", 1, AWAY, after=True)
    deployment, _ = requests.submit(flaky, j.submission())
    assert deployment == "prod-1"
    assert [row.id for row in store.history("prod")] == ["prod-1"]


def test_a_submission_gives_up_when_the_store_stays_away(store: MemoryStore) -> None:
    with pytest.raises(StoreError):
        requests.submit(Flaky(store, "submit", 99, AWAY, after=False), j.submission())
    assert not store.history("prod")


def test_a_submission_of_which_no_answer_came_is_found_again_by_the_key_that_is_told(store: MemoryStore) -> None:
    with pytest.raises(StoreError, match="away") as caught:
        requests.submit(Flaky(store, "submit", 99, AWAY, after=True), j.submission())
    (key,) = re.findall("--key (\\S+),", caught.value.hint)
    assert requests.submit(store, j.submission(key=key)) == ("prod-1", False)


def test_a_submission_that_the_store_refuses_is_not_repeated(store: MemoryStore) -> None:
    full = StoreError("full", code=Code.STORE_FULL)
    flaky = Flaky(store, "submit", 1, full, after=False)
    with pytest.raises(StoreError, match="full"):
        requests.submit(flaky, j.submission())


def test_the_same_key_is_the_same_deployment(store: MemoryStore) -> None:
    first = requests.submit(store, j.submission(key="build-7"))
    second = requests.submit(store, j.submission(key="build-7"))
    assert first == ("prod-1", True)
    assert second == ("prod-1", False)


# -- cancel --------------------------------------------------------------------------------------------


def test_cancelling_what_is_queued_ends_it_at_once(store: MemoryStore) -> None:
    deployment = j.submit(store)
    state = requests.cancel(store, deployment, by="me", reason="wrong")
    assert state.status is Status.CANCELLED
    assert store.environment("prod").queue == ()
    assert state.outcome is not None and "me: wrong" in state.outcome.message


def test_cancelling_what_runs_is_a_request_and_repeating_it_adds_nothing(store: MemoryStore) -> None:
    deployment = j.submit(store)
    j.claim(store, deployment)
    requests.cancel(store, deployment, by="me")
    state = requests.cancel(store, deployment, by="someone else")
    assert state.status is Status.RUNNING
    assert [type(e.event) for e in store.journal(deployment)].count(ev.CancelRequested) == 1


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.STRANDED])
def test_cancelling_what_has_ended_otherwise_is_not_allowed(store: MemoryStore, status: Status) -> None:
    deployment = j.deployed(store, "1.0", status=status)
    with pytest.raises(NotAllowedError, match="has ended"):
        requests.cancel(store, deployment, by="me")


def test_cancelling_twice_is_no_error(store: MemoryStore) -> None:
    deployment = j.submit(store)
    requests.cancel(store, deployment, by="me")
    assert requests.cancel(store, deployment, by="me").status is Status.CANCELLED


def test_a_cancel_that_meets_an_agents_append_is_decided_anew(store: MemoryStore) -> None:
    deployment = j.submit(store)
    conflict = ConflictError("somebody was faster")
    state = requests.cancel(Flaky(store, "append", 1, conflict, after=False), deployment, by="me")
    assert state.status is Status.CANCELLED


def test_a_cancel_whose_answer_was_lost_is_found_when_repeated(store: MemoryStore) -> None:
    deployment = j.submit(store)
    with pytest.raises(StoreError):
        requests.cancel(Flaky(store, "append", 1, AWAY, after=True), deployment, by="me")
    assert requests.cancel(store, deployment, by="me").status is Status.CANCELLED
    assert len(store.journal(deployment)) == 3


def test_no_such_deployment(store: MemoryStore) -> None:
    with pytest.raises(NotFoundError):
        requests.cancel(store, "prod-99", by="me")


# -- resolve -------------------------------------------------------------------------------------------


def test_resolving_unchecked_unlocks_at_once(store: MemoryStore) -> None:
    j.deployed(store, "1.0")
    deployment = j.deployed(store, "2.0", status=Status.STRANDED)
    state = requests.resolve(store, deployment, by="me", reason="repaired", unchecked=True)
    assert state.resolved is not None and state.resolved.version == "1.0"
    assert store.environment("prod").locked_by is None


def test_resolving_unchecked_takes_the_version_that_the_person_names(store: MemoryStore) -> None:
    j.deployed(store, "1.0")
    deployment = j.deployed(store, "2.0", status=Status.STRANDED)
    requests.resolve(store, deployment, by="me", reason="went forward", unchecked=True, version="2.0")
    row = store.environment("prod")
    assert (row.current_version, row.previous_version) == ("2.0", "1.0")


def test_resolving_checked_waits_for_an_agent(store: MemoryStore) -> None:
    deployment = j.deployed(store, "2.0", status=Status.STRANDED)
    state = requests.resolve(store, deployment, by="me", reason="repaired")
    assert state.resolve is not None and state.resolved is None
    assert [work.deployment for work in store.work()] == [deployment]


def test_only_a_stranded_deployment_can_be_resolved_and_only_once(store: MemoryStore) -> None:
    fine = j.deployed(store, "1.0")
    stranded = j.deployed(store, "2.0", status=Status.STRANDED)
    with pytest.raises(NotAllowedError, match="not stranded"):
        requests.resolve(store, fine, by="me", reason="?")
    requests.resolve(store, stranded, by="me", reason="!", unchecked=True)
    with pytest.raises(NotAllowedError, match="resolved already"):
        requests.resolve(store, stranded, by="me", reason="!", unchecked=True)


# -- rollback ------------------------------------------------------------------------------------------


def test_a_rollback_takes_plan_and_files_of_the_earlier_deployment(store: MemoryStore) -> None:
    j.deployed(store, "1.0")
    j.deployed(store, "2.0")
    found = requests.rollback(store, "prod", None, by="me", reason="", key=None)
    first = store.journal("prod-1")[0].event
    assert isinstance(first, ev.Accepted)
    assert (found.version, found.plan, found.bundle, found.rollback) == ("1.0", first.plan, first.bundle, True)


@pytest.mark.parametrize(("to", "says"), [(None, "no earlier"), ("9.9", "never deployed"), ("1.0", "runs 1.0 already")])
def test_a_rollback_to_nowhere_is_refused(store: MemoryStore, to: str | None, says: str) -> None:
    j.deployed(store, "1.0")
    with pytest.raises(NotFoundError, match=says) as refused:
        requests.rollback(store, "prod", to, by="me", reason="", key=None)
    assert refused.value.code is Code.NO_EARLIER_VERSION


# -- following -----------------------------------------------------------------------------------------


def test_following_tells_each_entry_and_line_once_to_the_end(store: MemoryStore) -> None:
    deployment = j.submit(store)

    def agent() -> None:
        grant = j.claim(store, deployment)
        j.append(store, deployment, grant, ev.StepStarted("only", Direction.FORWARD, 1))
        for number in range(2500):
            store.append_log(deployment, [LogLine(f"line {number}", step="only")], grant)
        j.append(store, deployment, grant, ev.StepSucceeded("only", Direction.FORWARD, 1))
        j.finish(store, deployment, grant)

    worker = threading.Thread(target=agent)
    worker.start()
    follower = follow.Follower(store, deployment)
    updates = [news for news in follower.news() if isinstance(news, follow.Update)]
    updates += follower.rest()
    worker.join(timeout=30)
    entries = [entry.seq for update in updates for entry in update.entries]
    lines = [line.text for update in updates for line in update.lines]
    assert entries == list(range(1, len(store.journal(deployment)) + 1))
    assert lines == [f"line {number}" for number in range(2500)]
    assert updates[-1].state.status is Status.SUCCEEDED


def test_a_long_log_is_told_a_page_at_a_time_with_the_entries_where_they_belong(store: MemoryStore) -> None:
    deployment = j.submit(store)
    grant = j.claim(store, deployment)
    for number in range(3 * follow.PAGE):
        store.append_log(deployment, [LogLine(f"line {number}", step="only")], grant)
    j.finish(store, deployment, grant)
    updates = list(follow.Follower(store, deployment).rest())
    assert [len(update.lines) for update in updates] == [follow.PAGE, follow.PAGE, follow.PAGE, 0]
    kinds = [[ev.type_of(entry.event) for entry in update.entries] for update in updates]
    assert kinds == [["accepted", "lease_granted"], [], [], ["finished"]]


@pytest.mark.parametrize("page", [0, 1])
def test_what_was_read_when_the_store_went_away_is_told_all_the_same(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(follow, "LOOK_EVERY", 0.01)
    deployment = j.submit(store)
    grant = j.claim(store, deployment)
    store.append_log(deployment, [LogLine(f"line {number}") for number in range(follow.PAGE + 1)], grant)
    j.finish(store, deployment, grant)
    read = store.log
    calls = 0

    def log(deployment: str, after: int = 0, limit: int = 1000) -> list[LogLine]:
        nonlocal calls
        calls += 1
        if calls == page + 1:
            raise AWAY
        return read(deployment, after, limit)

    monkeypatch.setattr(store, "log", log)
    updates = [news for news in follow.Follower(store, deployment).news() if isinstance(news, follow.Update)]
    assert [entry.seq for update in updates for entry in update.entries] == [1, 2, 3]
    assert [line.id for update in updates for line in update.lines] == list(range(1, follow.PAGE + 2))


def test_a_store_that_goes_away_is_waited_for_and_that_is_told_once(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LOOK_EVERY", 0.02)
    deployment = j.deployed(store, "1.0")
    flaky = Flaky(store, "journal", 3, AWAY, after=False)
    news = list(follow.Follower(flaky, deployment).news())
    assert [type(item) for item in news] == [follow.StoreAway, follow.StoreBack, follow.Update]


def test_a_store_that_stays_away_ends_the_following(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(follow, "PATIENCE", 0.05)
    deployment = j.submit(store)
    flaky = Flaky(store, "mark", 10**6, AWAY, after=False)
    began = time.monotonic()
    with pytest.raises(StoreError):
        list(follow.Follower(flaky, deployment).news())
    assert time.monotonic() - began < 10


def test_a_journal_that_a_newer_program_writes_into_is_followed_no_further(store: MemoryStore) -> None:
    deployment = j.submit(store)
    flaky = Flaky(store, "journal", 1, NewerStoreError("what this program does not know"), after=False)
    with pytest.raises(NewerStoreError):
        list(follow.Follower(flaky, deployment).news())
