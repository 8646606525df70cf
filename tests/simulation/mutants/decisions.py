# SPDX-License-Identifier: Apache-2.0
"""Wrong decisions, made of a right journal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from msgspec import structs

from surefoot.core import decide as do
from surefoot.core import deployment as states
from surefoot.core import events as ev
from surefoot.core import opening
from surefoot.core.gates import Gate
from surefoot.core.plan import Direction, Plan
from surefoot.core.status import Status, StepStatus
from tests.simulation.mutants.registry import decided, evolved, mutant, mutant_where
from tests.simulation.script import Kind, Script


@mutant
def undo_goes_forward() -> Any:
    def change(_: states.Deployment, after: states.Deployment) -> states.Deployment:
        forward = after.runs(Direction.FORWARD)
        return structs.replace(after, steps=forward + after.runs(Direction.UNDO)[::-1])

    return evolved(ev.UndoStarted, change)


@mutant
def undo_leaves_out_the_step_that_failed() -> Any:
    def change(_: states.Deployment, after: states.Deployment) -> states.Deployment:
        done = {run.name for run in after.runs(Direction.FORWARD) if run.status is StepStatus.SUCCEEDED}
        undo = tuple(run for run in after.runs(Direction.UNDO) if run.name in done)
        return structs.replace(after, steps=after.runs(Direction.FORWARD) + undo)

    return evolved(ev.UndoStarted, change)


@mutant
def undo_is_of_the_last_step_alone() -> Any:
    def change(_: states.Deployment, after: states.Deployment) -> states.Deployment:
        return structs.replace(after, steps=after.runs(Direction.FORWARD) + after.runs(Direction.UNDO)[:1])

    return evolved(ev.UndoStarted, change)


def skipping(kind: type, direction: Direction) -> Any:
    """Patch a check out of one direction: it passes unseen."""

    def change(s: states.Deployment, action: do.Action) -> do.Action:
        if not isinstance(action, kind) or s.direction is not direction:
            return action
        if isinstance(action, do.CheckHealth):
            return do.Write(ev.HealthPassed(direction))
        return do.Write(ev.VersionsRecorded(direction, None))

    return decided(change)


@mutant
def success_without_health_checks() -> Any:
    return skipping(do.CheckHealth, Direction.FORWARD)


@mutant
def undo_without_checks() -> Any:
    @contextlib.contextmanager
    def around() -> Iterator[None]:
        with skipping(do.CheckHealth, Direction.UNDO), skipping(do.RecordVersion, Direction.UNDO):
            yield

    return around()


@mutant
def what_could_not_be_put_back_is_called_rolled_back() -> Any:
    def change(s: states.Deployment, action: do.Action) -> do.Action:
        match action:
            case do.Write(ev.Finished(status=Status.STRANDED, reason=why)):
                return do.Write(ev.Finished(Status.ROLLED_BACK, why))
            case _:
                return action

    return decided(change)


@mutant
def failure_in_mid_way_is_called_failed_without_an_undo() -> Any:
    def change(s: states.Deployment, action: do.Action) -> do.Action:
        match action:
            case do.Write(ev.UndoStarted(cause=cause)):
                return do.Write(ev.Finished(Status.FAILED, cause))
            case _:
                return action

    return decided(change)


@mutant
def failed_preflight_is_ignored() -> Any:
    def change(s: states.Deployment, action: do.Action) -> do.Action:
        match action:
            case do.Write(ev.Finished(status=Status.FAILED)) if s.cause is not None:
                return do.decide(structs.replace(s, cause=None, preflight_passed=True), s.elapsed)
            case _:
                return action

    return decided(change)


@mutant
def cancel_is_lost_in_a_takeover() -> Any:
    def change(s: states.Deployment, after: states.Deployment) -> states.Deployment:
        return structs.replace(after, cancel=None) if s.grants else after

    return evolved(ev.LeaseGranted, change)


@mutant
def cancel_counts_between_steps_only_when_it_came_there() -> Any:
    def change(s: states.Deployment, after: states.Deployment) -> states.Deployment:
        return s if s.running_step is not None else after

    return evolved(ev.CancelRequested, change)


@mutant
def agents_that_are_lost_are_not_counted() -> Any:
    return evolved(ev.LeaseGranted, lambda s, after: structs.replace(after, losses=s.losses))


@mutant
def failures_are_not_counted() -> Any:
    def change(_: states.Deployment, after: states.Deployment) -> states.Deployment:
        return structs.replace(after, steps=tuple(structs.replace(run, failures=0) for run in after.steps))

    return evolved(ev.StepFailed, change)


@mutant
def delay_believes_a_clock_that_jumped() -> Any:
    right = states.evolve

    def evolve(s: states.Deployment, entry: ev.Entry) -> states.Deployment:
        back = min(0.0, entry.at - s.last_at)
        return right(structs.replace(s, elapsed=s.elapsed + back), entry)

    return patch.object(states, "evolve", evolve)


@mutant_where(lambda script: script.finishes)
def cancel_ends_what_was_to_be_finished() -> Any:
    wanted = property(lambda s: s.cancel is not None and s.direction is Direction.FORWARD and not s.status.terminal)
    return patch.object(states.Deployment, "stops_for_cancel", wanted)


@mutant
def rollback_of_a_plan_is_left_out() -> Any:
    def undo_of(self: Plan, started: Any) -> tuple[str, ...]:
        return tuple(name for name in reversed(started) if self.step(name).undo is not None)

    return patch.object(Plan, "undo_of", undo_of)


@mutant
def resolution_is_believed_unchecked() -> Any:
    def change(s: states.Deployment, action: do.Action) -> do.Action:
        return do.Write(ev.Resolved(s.previous_version)) if isinstance(action, do.Resolve) else action

    return decided(change)


@mutant_where(lambda script: not script.sees and {Kind.PAUSE, Kind.FULL} <= {fault.kind for fault in script.faults})
def word_given_before_the_fence_rose_is_believed() -> Any:
    return evolved(ev.ResolveRequested, lambda _, after: structs.replace(after, spoken_early=False))


@mutant
def deployment_begins_before_its_time() -> Any:
    right = opening.closed

    def closed(*given: Any) -> Any:
        return tuple(wait for wait in right(*given) if wait.gate is not Gate.SCHEDULE)

    return patch.object(opening, "closed", closed)


@mutant
def step_in_flight_counts_as_done_after_a_takeover() -> Any:
    def change(s: states.Deployment, after: states.Deployment) -> states.Deployment:
        steps = tuple(
            structs.replace(run, status=StepStatus.SUCCEEDED) if run.status is StepStatus.INTERRUPTED else run
            for run in after.steps
        )
        return structs.replace(after, steps=steps)

    return evolved(ev.LeaseGranted, change)


@mutant
def health_is_not_asked_again_after_a_change() -> Any:
    @contextlib.contextmanager
    def around() -> Iterator[None]:
        keep = lambda s, after: structs.replace(after, healthy=s.healthy)  # noqa: E731
        well = lambda _, after: structs.replace(after, healthy=True)  # noqa: E731
        with evolved(ev.StepStarted, keep), evolved(ev.UndoStarted, well):
            yield

    return around()


def _asks_again(script: Script) -> bool:
    return script.impatient or sum(fault.kind is Kind.RESOLVE for fault in script.faults) > 1


@mutant_where(_asks_again)
def request_in_the_same_words_is_taken_for_the_one_before() -> Any:
    def change(before: states.Deployment, after: states.Deployment) -> states.Deployment:
        return structs.replace(after, asked=before.asked) if after.resolve == before.resolve else after

    return evolved(ev.ResolveRequested, change)
