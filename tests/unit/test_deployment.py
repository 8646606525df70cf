# SPDX-License-Identifier: Apache-2.0
"""What the fold of a journal makes of single events, where decisions do not show it."""

from __future__ import annotations

from surefoot.core import events as ev
from surefoot.core.deployment import Deployment, evolve
from surefoot.core.errors import Code, Failure
from surefoot.core.gates import Approvals, Gate, Gates, Wait
from surefoot.core.plan import Direction
from surefoot.core.status import Status, StepStatus
from tests.support.journals import add, deployment

FULL = Failure(Code.INTERNAL, "no space left")


def held() -> Deployment:
    return add(deployment(Gates()), 1.0, ev.LeaseGranted("a", 1))


def begun(state: Deployment, at: float, attempt: int) -> Deployment:
    event = ev.StepStarted("go", Direction.FORWARD, attempt)
    return evolve(state, ev.Entry(state.seq + 1, at, event, agent="a", token=1))


def test_a_takeover_is_each_grant_after_the_first() -> None:
    assert deployment(Gates()).takeovers == held().takeovers == 0
    assert add(held(), 2.0, ev.LeaseGranted("b", 2)).takeovers == 1


def test_what_can_not_be_begun_is_counted_in_a_row() -> None:
    missed = add(held(), 2.0, ev.NotBegun(FULL), ev.NotBegun(FULL))
    assert missed.misses == 2
    passed = add(missed, 3.0, ev.PreflightPassed())
    assert passed.misses == 0
    assert add(passed, 4.0, ev.NotBegun(FULL)).misses == 1


def test_what_could_not_be_begun_is_as_untouched_as_before() -> None:
    assert not held().touched and begun(held(), 2.0, 1).touched
    (run,) = add(begun(held(), 2.0, 1), 3.0, ev.NotBegun(FULL)).steps
    assert (run.status, run.touched, run.failure) == (StepStatus.PENDING, False, FULL)
    failed = add(begun(held(), 2.0, 1), 3.0, ev.StepFailed("go", Direction.FORWARD, 1, FULL))
    (run,) = add(begun(failed, 4.0, 2), 5.0, ev.NotBegun(FULL)).steps
    assert (run.status, run.touched) == (StepStatus.INTERRUPTED, True)


def test_a_fence_that_can_not_be_raised_is_counted_in_a_row() -> None:
    failed = add(held(), 2.0, ev.FenceFailed(FULL), ev.FenceFailed(FULL))
    assert failed.fence_failures == 2
    assert add(failed, 3.0, ev.FenceRaised(("web-01",))).fence_failures == 0


def test_an_attempt_that_runs_has_neither_an_end_nor_a_failure() -> None:
    failed = add(begun(held(), 2.0, 1), 3.0, ev.StepFailed("go", Direction.FORWARD, 1, FULL))
    (run,) = failed.steps
    assert (run.status, run.finished_at, run.failure, run.failures) == (StepStatus.FAILED, 3.0, FULL, 1)
    assert failed.fence == held().fence, "a command leaves nothing on hosts that a fence would keep out"
    (again,) = begun(failed, 4.0, 2).steps
    assert (again.status, again.started_at, again.finished_at, again.failure) == (StepStatus.RUNNING, 4.0, None, None)
    assert again.failures == 1, "what an attempt has used up stays used up"


def test_on_the_way_back_health_and_versions_are_asked_for_again() -> None:
    unwell = add(held(), 2.0, ev.VersionsRecorded(Direction.FORWARD, "1.0"), ev.HealthFailed(Direction.FORWARD, FULL))
    assert (unwell.healthy, unwell.recorded, unwell.outcome) == (False, True, FULL)
    back = add(unwell, 3.0, ev.UndoStarted(FULL))
    assert (back.healthy, back.recorded, back.outcome, back.cause) == (None, None, None, FULL)
    assert back.fence == unwell.fence + 1, "what went forward may still be on its way to a host"
    mixed = add(back, 4.0, ev.VersionsMixed(Direction.UNDO, FULL))
    assert (mixed.recorded, mixed.fence) == (False, back.fence + 1), "so may what was to write the version"


def test_what_never_began_is_skipped_at_the_end() -> None:
    ended = add(held(), 2.0, ev.Finished(Status.FAILED, FULL))
    assert [run.status for run in ended.steps] == [StepStatus.SKIPPED]


def test_the_inventory_may_name_more_hosts_only_where_the_way_back_raises_the_fence() -> None:
    forward = held()
    back = add(forward, 2.0, ev.UndoStarted(FULL))
    asked = [state.hosts_may_be_more(raises=raises) for state in (forward, back) for raises in (False, True)]
    assert asked == [False, False, False, True]


def test_an_agent_looks_at_what_waits_for_people_when_it_is_too_late_for_them() -> None:
    window = Wait(Gate.WINDOW, "closed", until=9.0)
    assert add(deployment(Gates()), 1.0, ev.Waiting((window,))).ready_at == 9.0
    assert add(deployment(Gates()), 1.0, ev.Waiting((window, Wait(Gate.APPROVAL, "one", until=5.0)))).ready_at == 5.0


def test_a_clock_that_is_set_back_takes_no_time_away_and_adds_none() -> None:
    state = add(held(), 4.0, ev.PreflightPassed())
    assert (state.elapsed, add(state, 2.0, ev.NotBegun(FULL)).elapsed) == (4.0, 4.0)


def test_what_preflight_has_found_is_kept() -> None:
    assert add(held(), 2.0, ev.PreflightPassed(pins={"image": "sha256:1"})).pins == {"image": "sha256:1"}


def test_the_first_cancel_counts_and_none_after_the_end() -> None:
    cancelled = add(held(), 2.0, ev.CancelRequested(by="ann"), ev.CancelRequested(by="bob"))
    assert cancelled.cancel is not None and cancelled.cancel.by == "ann"
    assert add(held(), 2.0, ev.Finished(Status.FAILED, FULL), ev.CancelRequested(by="ann")).cancel is None


def test_what_fails_while_it_is_watched_is_unhealthy() -> None:
    baking = add(held(), 2.0, ev.HealthPassed(Direction.FORWARD), ev.BakeStarted(60.0))
    assert baking.healthy
    failed = add(baking, 3.0, ev.BakeFailed(FULL))
    assert (failed.healthy, failed.outcome, failed.baked) == (False, FULL, False)


def test_a_request_to_resolve_is_open_until_it_is_answered() -> None:
    stranded = add(held(), 2.0, ev.Finished(Status.STRANDED, FULL))
    asked = add(stranded, 3.0, ev.ResolveRequested("ann", "fixed"), ev.LeaseGranted("b", 2))
    refused = add(asked, 4.0, ev.ResolveRefused(FULL))
    assert (refused.resolve, refused.resolve_refused, refused.held) == (None, FULL, False)
    again = add(refused, 5.0, ev.ResolveRequested("ann", "fixed"), ev.LeaseGranted("b", 3))
    assert again.resolve == asked.resolve and again.asked > asked.asked and again.held
    resolved = add(again, 6.0, ev.Resolved("1.0"))
    assert (resolved.resolve, resolved.resolve_refused, resolved.held) == (None, None, False)


def test_who_was_told_is_known() -> None:
    told = ev.Delivered("hook", 1, "sent")
    assert add(held(), 2.0, told).deliveries == (told,)


def test_what_has_its_approvals_goes_on_waiting_for_the_rest() -> None:
    window, approval = Wait(Gate.WINDOW, "closed", until=9.0), Wait(Gate.APPROVAL, "one", until=5.0)
    for waits, left, status in (((window, approval), (window,), Status.WAITING), ((approval,), (), Status.QUEUED)):
        state = add(deployment(Gates(approvals=Approvals())), 1.0, ev.Waiting(waits), ev.ApprovalGiven("ann"))
        assert (state.waits, state.status) == (left, status)


def test_what_the_environment_ran_is_what_the_first_agent_found() -> None:
    first = add(deployment(Gates()), 1.0, ev.LeaseGranted("a", 1, previous_version="1.0"))
    assert add(first, 2.0, ev.LeaseGranted("b", 2, previous_version="2.0")).previous_version == "1.0"
