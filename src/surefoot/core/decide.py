# SPDX-License-Identifier: Apache-2.0
"""What next: a pure function from a deployment's state to one action.

Guarantees: every state that is not terminal has an action; forward steps run in the plan's order, the undo in exactly
the reverse order of what was started; nothing runs forward once the undo began; an end is only decided when no step
runs. It decides nothing about who may act: that is the lease's matter, and the token's.

Order of the undo when a step of it fails for good: it stops there and the deployment is stranded. The undo of an
older step may rely on the newer ones being undone (Steno's sagas stop for the same reason).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from msgspec.structs import replace

from surefoot.core import events as ev
from surefoot.core.deployment import Deployment, StepRun
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Direction, Playbook, Retry
from surefoot.core.sentences import hosts_said
from surefoot.core.status import Status, StepStatus

#: Seconds below which a delay is over: a sleep of rounding errors might never end it.
SHORTEST_WAIT = 0.001


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do: ended, or not begun."""


@dataclass(frozen=True, slots=True)
class Write:
    """Append this event; nothing else."""

    event: ev.Event


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing may begin for so many seconds (the delay before a retry)."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Preflight:
    """Run the preflight checks."""


@dataclass(frozen=True, slots=True)
class RaiseFence:
    """Make every host refuse older tokens, and end what they still run."""


@dataclass(frozen=True, slots=True)
class RunStep:
    """Run one attempt of a step. `raises_fence`: the attempt raises the hosts' fence first."""

    run: StepRun
    attempt: int
    retry: Retry
    raises_fence: bool


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Run the health checks until they pass as the policy asks, or its time is over."""


@dataclass(frozen=True, slots=True)
class RecordVersion:
    """Tell every host which version it runs, and ask each (None: the environment had none before)."""

    version: str | None


@dataclass(frozen=True, slots=True)
class Survey:
    """Ask each host which version it runs: it could not be put back, and a person must know."""


@dataclass(frozen=True, slots=True)
class Bake:
    """Watch health for so many seconds, with one look at least; it has passed before."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Resolve:
    """Check what a person says is repaired."""

    request: ev.ResolveRequested


Action = Rest | Write | Wait | Preflight | RaiseFence | RunStep | CheckHealth | RecordVersion | Survey | Bake | Resolve


def decide(s: Deployment, now: float) -> Action:
    """Return the next action. `now` is `elapsed` as it has moved on since; it counts for the delay before a retry, and
    for what is left of a bake.
    """
    match s.status:
        case Status.STRANDED:
            return _resolve(s)
        case Status.SUCCEEDED | Status.FAILED | Status.ROLLED_BACK | Status.CANCELLED:
            return Rest()
        case Status.QUEUED | Status.WAITING:
            return Write(_cancelled(s)) if s.cancel is not None else Rest()
        case Status.RUNNING:
            return _forward(s, now)
        case Status.ROLLING_BACK:
            return _back(s, now)
        case _:
            assert_never(s.status)


def interrupts(s: Deployment) -> str | None:
    """Say why the step in flight must be ended before it is done; None if it need not."""
    return "cancelled" if s.stops_for_cancel and s.running_step is not None else None


def _forward(s: Deployment, now: float) -> Action:
    assert s.running_step is None, f"{s.id}: no decision while a step runs"
    if s.stops_for_cancel:
        return _give_up(s, _cancel_failure(s))
    if s.losses > s.plan.takeover_limit:
        return _give_up(s, _too_often(s))
    if s.cause is not None:  # a preflight check failed
        return Write(ev.Finished(Status.FAILED, s.cause))
    if (hindered := _hindered(s, now)) is not None:
        return hindered
    if (s.plan.preflight or s.plan.needed) and not s.preflight_passed:
        return Preflight()
    for run in s.runs(Direction.FORWARD):
        if run.status is not StepStatus.SUCCEEDED:
            return _step(s, run, now)
    if s.plan.health and s.healthy is None:
        return CheckHealth()
    if s.healthy is False:
        return _give_up(s, _outcome(s))
    if s.plan.records and s.recorded is None:
        return _fenced(s, now) or RecordVersion(s.version)
    if s.recorded is False:
        return _give_up(s, _outcome(s))
    if s.plan.bake > 0 and not s.baked:
        if s.bake_until is None:
            return Write(ev.BakeStarted(s.plan.bake))
        return Bake(max(0.0, s.bake_until - now))
    return Write(ev.Finished(Status.SUCCEEDED))


def _back(s: Deployment, now: float) -> Action:
    assert s.running_step is None, f"{s.id}: no decision while a step runs"
    assert s.cause is not None
    if s.losses > s.plan.takeover_limit:
        return Write(ev.Finished(Status.STRANDED, _too_often(s)))  # asking hosts may be what kills agents
    if (hindered := _hindered(s, now)) is not None:
        return hindered
    for run in s.runs(Direction.UNDO):
        if run.status is not StepStatus.SUCCEEDED:
            return _step(s, run, now)
    if s.plan.health and s.previous_version is not None and s.healthy is None:
        return _fenced(s, now) or CheckHealth()
    if s.healthy is False:
        return _strand(s, _outcome(s))
    if s.plan.records and s.recorded is None:
        return _fenced(s, now) or RecordVersion(s.previous_version)
    if s.recorded is False:
        return _strand(s, _outcome(s))
    cancelled = s.cause.code is Code.CANCELLED
    # What was given up, and had no undo, may still be on its way to a host.
    return _fenced(s, now) or Write(_cancelled(s) if cancelled else ev.Finished(Status.ROLLED_BACK, s.cause))


def _step(s: Deployment, run: StepRun, now: float) -> Action:
    """Run the step, wait for its next attempt, or give up on it."""
    retry = s.plan.step(run.name).retry
    failures = run.failures if run.status is StepStatus.FAILED else 0
    if (not_yet := _again(s, retry, failures, run.failure, now - run.ended)) is not None:
        return not_yet
    raises = isinstance(s.work(run), Playbook)
    return _fenced(s, now, by_step=raises) or RunStep(
        run=run,
        attempt=run.attempt + 1,
        retry=retry,
        raises_fence=raises and not s.behind_fence,
    )


def _hindered(s: Deployment, now: float) -> Action | None:
    """Return what is to be done where nothing could be begun last time; None if it may be tried (again) now."""
    return _again(s, s.plan.retry, s.misses, s.outcome, now - s.missed)


def _fenced(s: Deployment, now: float, *, by_step: bool = False) -> Action | None:
    """Return what is to be done before hosts may be touched or judged; None if nothing is (or the step does it)."""
    if (not_yet := _again(s, s.plan.retry, s.fence_failures, s.outcome, now - s.fence_failed)) is not None:
        return not_yet
    return None if by_step or s.behind_fence else RaiseFence()


def _again(s: Deployment, retry: Retry, tries: int, failure: Failure | None, ago: float) -> Action | None:
    """Return what is to be done after `tries` in vain, the last one `ago` seconds ago: give up, or wait; None if
    there were none, or it may be tried again now. A wait too short for a clock to tell is over; what has elapsed never
    goes back, so none is longer than the delay.
    """
    if not tries:
        return None
    if tries >= retry.attempts:
        assert failure is not None, f"{s.id}: failed without a reason"
        return _give_up(s, failure)
    left = retry.delay - ago
    return Wait(left) if left > SHORTEST_WAIT else None


def _give_up(s: Deployment, cause: Failure) -> Action:
    """Turn back; where nothing was touched there is nothing to put back."""
    if s.direction is Direction.UNDO:
        return _strand(s, cause)
    if s.touched:
        return Write(ev.UndoStarted(cause))
    return Write(_cancelled(s) if cause.code is Code.CANCELLED else ev.Finished(Status.FAILED, cause))


def _strand(s: Deployment, cause: Failure) -> Action:
    """Leave it to a person: on hosts where nothing of it moves any more, if they can be reached."""
    if not s.behind_fence and not s.fence_failures:
        return RaiseFence()
    if not s.plan.records:
        return Write(ev.Finished(Status.STRANDED, cause))
    if s.survey is None:
        return Survey()
    said = hosts_said(s.survey)
    message = f"{cause.message}; {said}" if said else cause.message
    return Write(ev.Finished(Status.STRANDED, replace(cause, message=message)))


def _resolve(s: Deployment) -> Action:
    """Check what is said to be repaired, behind the fence: nothing of the past may change a host after it was looked
    at, be it by a person alone.
    """
    if s.resolve is None:
        return Rest()
    if s.losses > s.plan.takeover_limit:
        return Write(ev.ResolveRefused(_too_often(s)))
    if s.behind_fence:
        unseen = s.spoken_early and s.plan.version_probe is None
        return Write(ev.ResolveRefused(_spoken_early(s))) if unseen else Resolve(s.resolve)
    if s.fence_failures:
        assert s.resolve_refused is not None
        return Write(ev.ResolveRefused(s.resolve_refused))
    return RaiseFence()


def _outcome(s: Deployment) -> Failure:
    assert s.outcome is not None, f"{s.id}: failed without a reason"
    return s.outcome


def _cancel_failure(s: Deployment) -> Failure:
    assert s.cancel is not None
    why = f": {s.cancel.reason}" if s.cancel.reason else ""
    return Failure(Code.CANCELLED, f"cancelled by {s.cancel.by or 'someone'}{why}")


def _cancelled(s: Deployment) -> ev.Finished:
    return ev.Finished(Status.CANCELLED, _cancel_failure(s))


def _spoken_early(s: Deployment) -> Failure:
    return Failure(
        Code.LOOK_AGAIN,
        f"what was left of {s.id} on hosts could change them until just now, and no version_probe tells what they run",
        hint=f"look at each host once more, then say so again: surefoot resolve {s.id} --reason TEXT",
    )


def _too_often(s: Deployment) -> Failure:
    return Failure(
        Code.TAKEN_OVER_TOO_OFTEN,
        f"{s.losses} agents were lost while they worked on {s.id}; it may be what kills them",
        hint=f"surefoot events {s.id}",
    )
