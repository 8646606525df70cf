# SPDX-License-Identifier: Apache-2.0
"""Figures are a fold of the journals: whoever reads them, and however often they begin anew, they come out the same."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from msgspec import structs

from surefoot.core import events as ev
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Direction
from surefoot.core.status import Status
from surefoot.monitoring.catalogue import METRICS, Type
from surefoot.monitoring.families import of_ledger
from surefoot.monitoring.ledger import Histogram, Ledger, Progress
from surefoot.monitoring.reader import Reader
from surefoot.store.memory import MemoryStore
from surefoot.store.protocol import Append
from tests.store import journal as j

FAILURE = Failure(Code.HEALTH_FAILED, "not healthy")


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock, clock)


def figures(ledger: Ledger) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All samples but the ones that are zero."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in of_ledger(ledger)
        for sample in family.samples
        if sample.value
    }


def count(ledger: Ledger, name: str, *labels: str) -> float:
    return ledger.counters[name][labels]


def taken(ledger: Ledger, name: str, *labels: str) -> Histogram:
    return ledger.histograms[name][labels]


def a_failed_deployment(store: MemoryStore, clock: Clock, status: Status = Status.ROLLED_BACK) -> str:
    """A step, a takeover in the midst of it, its success, failed health, the undo, the end: 17 s in all."""
    id_ = j.submit(store, "2.0")
    clock.at += 3
    first = j.claim(store, id_, "a")
    j.append(store, id_, first, ev.StepStarted("only", Direction.FORWARD, 1))
    clock.at += 5
    taken_over = j.a_claim(store, id_, "b")
    granted = ev.LeaseGranted("b", first.token + 1, ("b chosen",), None, "a", 4.5)
    grant = store.claim(replace(taken_over, append=structs.replace(taken_over.append, events=(granted,))))
    assert grant is not None
    j.append(store, id_, grant, ev.StepStarted("only", Direction.FORWARD, 2))
    clock.at += 7
    j.append(store, id_, grant, ev.StepSucceeded("only", Direction.FORWARD, 2))
    j.append(store, id_, grant, ev.HealthFailed(Direction.FORWARD, FAILURE), ev.UndoStarted(FAILURE))
    clock.at += 5
    j.append(store, id_, grant, ev.Finished(status, FAILURE), release=True)
    return id_


def test_a_deployment_that_was_taken_over_and_put_back_is_counted_as_such(store: MemoryStore, clock: Clock) -> None:
    j.deployed(store, "1.0")
    a_failed_deployment(store, clock)
    reader = Reader()
    reader.refresh(store)
    ledger = reader.ledger
    assert count(ledger, "surefoot_deployments_total", "prod", "succeeded") == 1
    assert count(ledger, "surefoot_deployments_total", "prod", "rolled_back") == 1
    assert count(ledger, "surefoot_takeovers_total", "prod") == 1
    assert count(ledger, "surefoot_deployment_failures_total", "prod", "SF-HEALTH-FAILED") == 1
    assert count(ledger, "surefoot_health_checks_total", "prod", "failed") == 1
    assert taken(ledger, "surefoot_deployment_duration_seconds", "prod", "rolled_back").total == 17
    # Of the attempt that was cut off nobody knows how long it would have taken.
    assert taken(ledger, "surefoot_step_duration_seconds", "prod", "only").total == 7
    assert taken(ledger, "surefoot_takeover_duration_seconds").total == 4.5
    assert taken(ledger, "surefoot_restore_duration_seconds", "prod").total == 5
    assert ledger.newest["prod", "rolled_back"] == ("2.0", "prod-2", clock.at)


def test_an_environment_is_known_at_zero_before_anything_happens_in_it() -> None:
    reader = Reader({"prod": ["only"]})
    for status in Status:
        if status.terminal:
            assert reader.ledger.counters["surefoot_deployments_total"]["prod", str(status)] == 0
    names = {family.name for family in of_ledger(reader.ledger)}
    assert "surefoot_deployments" in names and "surefoot_takeover_duration_seconds" in names


def test_a_cancel_in_the_queue_has_no_duration_and_a_stranded_one_is_restored_when_it_is_resolved(
    store: MemoryStore, clock: Clock
) -> None:
    reader = Reader()
    stranded = a_failed_deployment(store, clock, Status.STRANDED)
    reader.refresh(store)
    assert ("prod",) in reader.ledger.histograms["surefoot_restore_duration_seconds"]
    assert taken(reader.ledger, "surefoot_restore_duration_seconds", "prod").counts == [0] * 10
    clock.at += 95
    state = j.state(store, stranded)
    store.append(Append(state, (ev.ResolveRequested("me", "done", True, "1.0"),)))
    grant = j.claim(store, stranded, "b")
    j.append(store, stranded, grant, ev.Resolved("1.0", True), release=True)
    queued = j.submit(store, "3.0")
    grant = j.claim(store, queued)
    j.append(store, queued, grant, ev.Finished(Status.CANCELLED, FAILURE), release=True)
    now = reader.refresh(store)
    assert taken(reader.ledger, "surefoot_restore_duration_seconds", "prod").total == 100
    assert count(reader.ledger, "surefoot_changes_total", "prod", "failed") == 1
    # The grant to an agent that checks the repair is no takeover.
    assert count(reader.ledger, "surefoot_takeovers_total", "prod") == 1
    assert now.environments[0].locked_by is None
    assert figures(reader.ledger) == figures(_anew(store))


def _anew(store: MemoryStore) -> Ledger:
    reader = Reader()
    reader.refresh(store)
    return reader.ledger


def test_whoever_begins_anew_comes_to_the_figures_of_who_followed_all_along(store: MemoryStore, clock: Clock) -> None:
    chance = random.Random(7)
    following = Reader({"prod": ["only"]})
    for n in range(120):
        clock.at += chance.random() * 100
        match chance.randrange(5):
            case 0:
                a_failed_deployment(store, clock)
            case 1:
                j.submit(store, "9", "stage")
            case 2:
                j.deployed(store, str(n), chance.choice(["prod", "other"]))
            case 3:
                id_ = j.submit(store, str(n), "prod")
                following.refresh(store)
                j.finish(store, id_, j.claim(store, id_))
            case _:
                following.refresh(store)
        if chance.random() < 0.3:
            following.refresh(store)
    following.refresh(store)
    assert figures(following.ledger) == figures(_anew(store))
    assert count(following.ledger, "surefoot_deployments_total", "prod", "rolled_back") > 5


def test_a_history_longer_than_a_page_is_read_whole(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surefoot.monitoring.reader.PAGE", 4)
    for n in range(13):
        j.deployed(store, str(n))
    j.submit(store, "14")
    reader = Reader()
    now = reader.refresh(store)
    assert count(reader.ledger, "surefoot_deployments_total", "prod", "succeeded") == 13
    assert now.oldest == {"prod": 1000.0} and now.started == {}


def test_a_rollback_that_somebody_asked_for_takes_a_change_back(store: MemoryStore, clock: Clock) -> None:
    j.deployed(store, "1.0")
    committed = ev.Origin(
        changes=(ev.Change("abc", "ann", "x", at=clock.at - 60), ev.Change("abd", "ann", "y", at=None))
    )
    id_, _ = store.submit(replace(j.submission("2.0"), origin=committed))
    j.finish(store, id_, j.claim(store, id_))
    back, _ = store.submit(replace(j.submission("1.0"), rollback=True))
    clock.at += 20
    j.finish(store, back, j.claim(store, back))
    ledger = _anew(store)
    assert count(ledger, "surefoot_changes_total", "prod", "succeeded") == 2
    assert count(ledger, "surefoot_changes_total", "prod", "taken_back") == 1
    assert taken(ledger, "surefoot_restore_duration_seconds", "prod").total == 20
    assert taken(ledger, "surefoot_lead_time_seconds", "prod").total == 60


def test_an_entry_counts_once_however_often_it_is_given() -> None:
    ledger = Ledger()
    progress = Progress("prod-1", "prod", 1)
    entries = [
        ev.Entry(1, 10.0, ev.LeaseGranted("a", 1)),
        ev.Entry(2, 11.0, ev.HealthPassed(Direction.FORWARD)),
        ev.Entry(3, 12.0, ev.Finished(Status.SUCCEEDED)),
    ]
    for _ in range(3):
        ledger.apply(progress, entries)
    assert count(ledger, "surefoot_deployments_total", "prod", "succeeded") == 1
    assert count(ledger, "surefoot_health_checks_total", "prod", "passed") == 1


def test_a_clock_that_went_back_makes_no_negative_duration() -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(-5.0, "prod-1", 0.0)
    histogram.observe(2.0, "prod-2", 0.0)
    histogram.observe(2.1, "prod-3", 0.0)
    assert histogram.counts == [1, 1, 1] and histogram.total == 4.1


def test_every_metric_of_the_contract_is_in_the_catalogue_with_its_labels() -> None:
    contract = {
        "runner_status": {"runner", "role"},
        "surefoot_deployments_total": {"environment", "outcome"},
        "surefoot_deployment_duration_seconds": {"environment", "outcome"},
        "surefoot_deployment_in_progress": {"environment"},
        "surefoot_queue_depth": {"environment"},
        "surefoot_step_duration_seconds": {"environment", "step"},
        "surefoot_takeovers_total": {"environment"},
        "surefoot_takeover_duration_seconds": set(),
        "surefoot_environment_stranded": {"environment"},
        "surefoot_environment_version_info": {"environment", "version"},
        "surefoot_store_up": set(),
    }
    for name, labels in contract.items():
        assert set(METRICS[name].labels) == labels
    for name, metric in METRICS.items():
        assert (metric.type is Type.HISTOGRAM) == bool(metric.buckets)
        assert name.endswith("_total") == (metric.type is Type.COUNTER)
