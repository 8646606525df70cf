# SPDX-License-Identifier: Apache-2.0
"""Gates as every store holds them: freezes, windows, schedules, approvals; nothing begins past a closed one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from msgspec import structs

from surefoot.core import events as ev
from surefoot.core import opening
from surefoot.core.environment import Frozen, Unfrozen
from surefoot.core.errors import Code, Failure, NotAllowedError, RefusedError, UsageError
from surefoot.core.gates import Approvals, Gate, Gates, Promoted, Window
from surefoot.core.status import Status
from surefoot.store.protocol import Store, Submission
from tests.store import journal as j

#: Seconds for what comes by itself.
PATIENCE = 60.0


def freeze(store: Store, *, until: float | None = None, environment: str = "prod") -> None:
    store.note(environment, Frozen("ann", "Black Friday", until), str(uuid.uuid4()))


def thaw(store: Store) -> None:
    store.note("prod", Unfrozen("ann"), str(uuid.uuid4()))


def gated(gates: Gates, version: str = "1.0") -> Submission:
    asked = j.submission(version)
    return replace(asked, plan=structs.replace(asked.plan, gates=gates))


def soon(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def closed_now(store: Store) -> Window:
    """A window that opens in about twelve hours."""
    minute = int(store.now() // 60 + 12 * 60) % 1440
    return Window(start=minute, end=(minute + 1) % 1440)


# -- freezes -------------------------------------------------------------------------------------------------------


def test_what_is_done_to_an_environment_is_a_journal_of_its_own(store: Store) -> None:
    freeze(store)
    thaw(store)
    freeze(store, until=4e9)
    entries = store.chronicle("prod")
    assert [entry.seq for entry in entries] == [1, 2, 3]
    assert [entry.event for entry in entries] == [
        Frozen("ann", "Black Friday"),
        Unfrozen("ann"),
        Frozen("ann", "Black Friday", 4e9),
    ]
    assert all(abs(entry.at - store.now()) < 60 for entry in entries)
    (row,) = store.environments()
    assert row == store.environment("prod") and row.freeze is not None
    assert (row.freeze.by, row.freeze.until, row.queue) == ("ann", 4e9, ())
    assert store.chronicle("stage") == [] and store.environment("stage").freeze is None


def test_a_note_whose_answer_was_lost_is_made_once(store: Store) -> None:
    name = str(uuid.uuid4())
    first = store.note("prod", Frozen("ann", "x"), name)
    assert store.note("prod", Frozen("ann", "x"), name) == first
    assert store.chronicle("prod") == [first]
    with pytest.raises(UsageError):
        store.note("e" * 10_000, Frozen("ann", "x"), "y")


def test_many_notes_at_once_have_no_gap(opened: Callable[[], Store]) -> None:
    stores = [opened() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: freeze(stores[n % 4]), range(20)))
    assert [entry.seq for entry in stores[0].chronicle("prod")] == list(range(1, 21))


def test_a_frozen_environment_refuses_deployments_but_knows_its_keys(store: Store) -> None:
    store.submit(j.submission("1.0", key="early"))
    freeze(store)
    with pytest.raises(RefusedError) as refused:
        j.submit(store, "2.0")
    assert refused.value.code is Code.FROZEN and "Black Friday" in refused.value.message
    assert store.submit(j.submission("1.0", key="early")) == ("prod-1", False)
    assert j.submit(store, "1.0", "stage") == "stage-1"
    thaw(store)
    assert j.submit(store, "2.0") == "prod-2"


def test_who_wants_to_wait_for_a_freeze_waits_until_it_is_over(store: Store) -> None:
    freeze(store)
    deployment, _ = store.submit(replace(j.submission(), when_open=True))
    state = j.state(store, deployment)
    assert state.status is store.summary(deployment).status is Status.WAITING
    assert [wait.gate for wait in state.waits] == [Gate.FREEZE]
    assert store.environment("prod").queue == (deployment,) and store.queue_position(deployment) == 1
    assert store.work() == [] and store.next_ready() is None
    assert store.claim(j.a_claim(store, deployment)) is None
    thaw(store)
    assert [work.deployment for work in store.work()] == [deployment] and store.next_ready() == 0.0
    assert store.claim(j.a_claim(store, deployment)) is not None
    assert j.state(store, deployment).status is Status.RUNNING


def test_a_freeze_keeps_what_is_queued_from_beginning_and_never_stops_what_has_begun(store: Store) -> None:
    first, second = j.submit(store, "1.0"), j.submit(store, "2.0")
    grant = j.claim(store, first)
    freeze(store)
    assert [work.deployment for work in store.work()] == [first]
    j.append(store, first, grant, ev.HandedOver("a test"), release=True)
    j.finish(store, first, j.claim(store, first, "b"))
    assert store.work() == []
    early = j.a_claim(store, second)
    assert store.claim(early) is None, "the store itself holds the gate"
    assert j.state(store, second).status is Status.QUEUED
    thaw(store)
    j.finish(store, second, j.claim(store, second))


def test_a_freeze_ends_by_itself(store: Store) -> None:
    freeze(store, until=store.now() + 0.5)
    deployment, _ = store.submit(replace(j.submission(), when_open=True))
    ready = store.next_ready()
    assert ready is not None and 0.0 <= ready <= 0.5
    soon(lambda: bool(store.work()))
    assert store.environment("prod").freeze is None
    assert store.claim(j.a_claim(store, deployment)) is not None


def test_an_override_passes_a_freeze_but_no_lock(store: Store) -> None:
    j.deployed(store, "1.0")
    freeze(store)
    emergency, _ = store.submit(replace(j.submission("1.1"), override=True, reason="the site is down"))
    entry = store.journal(emergency)[0]
    assert isinstance(entry.event, ev.Accepted) and entry.event.override
    assert [work.deployment for work in store.work()] == [emergency]
    next_, _ = store.submit(replace(j.submission("1.2"), override=True))
    j.finish(store, emergency, j.claim(store, emergency), Status.STRANDED)
    assert store.work() == [] and store.claim(j.a_claim(store, next_)) is None


# -- times -----------------------------------------------------------------------------------------------------------


def test_outside_of_its_windows_a_deployment_is_refused_or_waits(store: Store) -> None:
    gates = Gates(windows=(closed_now(store),))
    with pytest.raises(RefusedError) as refused:
        store.submit(gated(gates))
    assert refused.value.code is Code.WINDOW_CLOSED
    deployment, _ = store.submit(replace(gated(gates), when_open=True))
    (wait,) = j.state(store, deployment).waits
    assert wait.gate is Gate.WINDOW and wait.until is not None
    assert 11 * 3600 < wait.until - store.now() < 13 * 3600
    ready = store.next_ready()
    assert ready is not None and 11 * 3600 < ready < 13 * 3600
    assert store.work() == [] and store.claim(j.a_claim(store, deployment)) is None
    assert store.submit(replace(gated(gates), override=True))[1]


def test_a_scheduled_deployment_lets_others_go_first_until_its_time_has_come(store: Store) -> None:
    later, _ = store.submit(replace(j.submission("2.0"), not_before=store.now() + 1.0))
    assert j.state(store, later).status is Status.WAITING
    now = j.submit(store, "1.0")
    assert [work.deployment for work in store.work()] == [now]
    assert store.claim(j.a_claim(store, later)) is None
    j.finish(store, now, j.claim(store, now))
    soon(lambda: [work.deployment for work in store.work()] == [later])
    j.finish(store, later, j.claim(store, later))


def test_a_freeze_that_ends_before_the_scheduled_time_does_not_matter(store: Store) -> None:
    freeze(store, until=store.now() + 3600)
    asked = replace(j.submission(), not_before=store.now() + 7200)
    deployment, _ = store.submit(asked)
    assert [wait.gate for wait in j.state(store, deployment).waits] == [Gate.SCHEDULE]
    with pytest.raises(RefusedError):
        store.submit(replace(asked, not_before=store.now() + 1800))


# -- approvals -------------------------------------------------------------------------------------------------------

TWO = Gates(approvals=Approvals(required=2, groups={"sre": ("ann", "bob", "cyn")}))


def approve(store: Store, deployment: str, by: str) -> None:
    j.append(store, deployment, None, *opening.approval(j.state(store, deployment), by, "fine"))


def test_a_deployment_waits_for_its_approvals_and_blocks_nobody(store: Store) -> None:
    deployment, _ = store.submit(gated(TWO, "2.0"))
    assert store.summary(deployment).status is Status.WAITING and store.work() == []
    other = j.submit(store, "1.0")
    j.finish(store, other, j.claim(store, other))
    assert store.claim(j.a_claim(store, deployment)) is None
    approve(store, deployment, "ann@laptop")
    assert store.work() == [] and store.summary(deployment).status is Status.WAITING
    approve(store, deployment, "bob")
    assert store.summary(deployment).status is Status.QUEUED
    assert [work.deployment for work in store.work()] == [deployment]
    state = j.state(store, deployment)
    assert [(given.by, given.reason, given.groups) for given in state.approvals] == [
        ("ann@laptop", "fine", ("sre",)),
        ("bob", "fine", ("sre",)),
    ]
    assert store.summary(deployment).seq == state.seq == 4
    j.finish(store, deployment, j.claim(store, deployment))


def test_a_rejected_deployment_has_failed_without_any_agent(store: Store) -> None:
    deployment, _ = store.submit(gated(TWO))
    after = j.append(store, deployment, None, *opening.rejection(j.state(store, deployment), "ann", "not today"))
    assert after.status is store.summary(deployment).status is Status.FAILED
    reason = store.summary(deployment).reason
    assert reason is not None and reason.code is Code.REJECTED and "not today" in reason.message
    assert store.environment("prod").queue == () and store.work() == []


def test_an_agent_looks_when_approvals_are_too_late(store: Store) -> None:
    gates = Gates(approvals=Approvals(groups={"sre": None}, expires=0.3))
    deployment, _ = store.submit(gated(gates))
    freeze(store)
    soon(lambda: [work.deployment for work in store.work()] == [deployment])
    verdict = opening.begin(j.state(store, deployment), None, store.now())
    assert isinstance(verdict, opening.Settle)
    assert j.append(store, deployment, None, *verdict.events).status is Status.FAILED


@pytest.mark.parametrize("event", [ev.ApprovalExpired(), ev.Rejected("me", "x"), ev.Superseded("prod-2", "2")])
def test_without_its_reason_nobody_ends_a_deployment(store: Store, event: ev.Event) -> None:
    deployment = j.submit(store)
    failure = Failure(Code.REJECTED, "x")
    with pytest.raises(NotAllowedError):
        j.append(store, deployment, None, event, ev.Finished(Status.SUCCEEDED, failure))
    with pytest.raises(NotAllowedError):
        j.append(store, deployment, None, ev.Finished(Status.FAILED, failure))
    j.claim(store, deployment)
    before = j.state(store, deployment)
    with pytest.raises(NotAllowedError):
        j.append(store, deployment, None, event, ev.Finished(Status.FAILED, failure))
    assert j.state(store, deployment) == before


def test_evidence_of_a_promotion_is_in_the_journal(store: Store) -> None:
    promoted = Promoted("stage", "stage-4", "1.0", 123.0, "d1", "abc")
    deployment, _ = store.submit(replace(j.submission(), promoted=promoted))
    assert j.state(store, deployment).promoted == promoted
