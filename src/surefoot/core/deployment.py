# SPDX-License-Identifier: Apache-2.0
"""The state of a deployment, folded from its journal.

`evolve(state, event)` is total on journals: each event is either legal in a state or an `AssertionError` at once (an
illegal journal must never be acted upon). State is a function of the entries alone: folding a journal whole or in
pieces gives the same. Invariants, checked after each event: a terminal status never changes; tokens only grow; at
most one step runs; the undo begins once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

import msgspec
from msgspec.structs import replace

from surefoot.core import events as ev
from surefoot.core.errors import Failure
from surefoot.core.gates import Approval, Approvals, Bar, Gate, Promoted, Wait
from surefoot.core.plan import Direction, OnCancel, Plan, Playbook, Work
from surefoot.core.status import Status, StepStatus

#: Fences that one token has room for: more than a deployment has attempts.
FENCES = 1_000_000


class StepRun(msgspec.Struct, frozen=True):
    """One step in one direction: its newest attempt, and what the ones before it used up."""

    name: str
    direction: Direction
    status: StepStatus = StepStatus.PENDING
    attempt: int = 0  #: of the newest attempt; interrupted ones count here, but not as failures
    failures: int = 0
    touched: bool = False  #: an attempt of it has begun and ended, or was lost, so hosts may have changed
    agent: str | None = None
    token: int | None = None
    started_at: float | None = None
    finished_at: float | None = None
    ended: float = 0.0  #: the same in `Deployment.elapsed`
    failure: Failure | None = None


class Deployment(msgspec.Struct, frozen=True):
    """A deployment as its journal tells it."""

    id: str
    environment: str
    number: int
    version: str
    plan: Plan
    requested_at: float
    seq: int
    bundle: str | None = None
    requested_by: str = ""
    reason: str = ""
    key: str | None = None
    commit: str | None = None
    rollback: bool = False
    origin: ev.Origin | None = None
    not_before: float | None = None
    override: bool = False
    promoted: Promoted | None = None
    waits: tuple[Wait, ...] = ()  #: what it waits for, as it was last written down
    approvals: tuple[Approval, ...] = ()
    status: Status = Status.QUEUED
    direction: Direction = Direction.FORWARD
    previous_version: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    agent: str | None = None  #: the holder, or the last one
    token: int = 0
    held: bool = False  #: whether the last grant was not handed over yet
    grants: int = 0
    losses: int = 0  #: takeovers from a lost agent in this direction; the ones that were handed over don't count
    preflight_passed: bool = False
    pins: dict[str, str] = {}  #: what preflight has found that forward steps are held to, by variable
    #: What the hosts' fence is to be raised to: greater with each token, and, under one token, with each attempt of
    #: which something may still run on a host (its controller ends with the attempt, a task over there may not).
    fence: int = 0
    fenced: int = 0  #: what it was raised to on every host
    #: The inventory's hosts when something was changed first, and all others that the fence was raised on since.
    hosts: tuple[str, ...] = ()
    raised: tuple[str, ...] = ()  #: the inventory's hosts when the fence was raised last
    fence_failures: int = 0
    fence_failed: float = 0.0  #: when that was last, in `elapsed`
    misses: int = 0  #: how often in a row nothing could be begun on the agent's machine
    missed: float = 0.0  #: when that was last, in `elapsed`
    steps: tuple[StepRun, ...] = ()  #: forward steps of the plan, then the undo's in their order once it began
    healthy: bool | None = None  #: of the present direction
    recorded: bool | None = None  #: of the present direction
    survey: ev.VersionsSurveyed | None = None  #: what hosts said when it could not be put back
    bake_until: float | None = None  #: in `elapsed`; moves on by any time for which nobody watched
    baked: bool = False
    handed_over: float | None = None  #: when it was, in `elapsed`, until somebody takes it
    cancel: ev.CancelRequested | None = None
    cause: Failure | None = None  #: why it is put back, or was refused
    outcome: Failure | None = None
    resolve: ev.ResolveRequested | None = None  #: the request that is not answered yet
    asked: int = 0  #: the entry of the newest request: a second one in the same words asks for another look
    resolve_refused: Failure | None = None
    loose: bool = False  #: ended, and what was left on hosts may still change them: the fence has not risen since
    spoken_early: bool = False  #: whether that was so when the request was made
    resolved: ev.Resolved | None = None
    deliveries: tuple[ev.Delivered, ...] = ()  #: who was told of what
    last_at: float = 0.0
    #: Seconds that have passed, as far as entries tell; a clock that is set back does not take any of them away.
    elapsed: float = 0.0

    @property
    def takeovers(self) -> int:
        """How often another grant followed the first one."""
        return max(0, self.grants - 1)

    @property
    def running_step(self) -> StepRun | None:
        """The step whose attempt has begun and not ended."""
        for run in self.steps:
            if run.status is StepStatus.RUNNING:
                return run
        return None

    @property
    def touched(self) -> bool:
        """Whether any step may have changed anything."""
        return any(run.touched or run.status is StepStatus.RUNNING for run in self.steps)

    @property
    def changed(self) -> bool:
        """Whether an attempt that has ended, or was lost, may have changed anything."""
        return any(run.touched for run in self.steps)

    def hosts_wanted(self, *, raises: bool) -> tuple[str, ...]:
        """Return the hosts that the inventory has to name before anything may begin; none where it may name any.
        `raises`: the fence is raised first.

        Once something was changed, no host may be left out: nobody could put it back, nor keep from it what was lost on
        its way there.
        """
        if not raises:
            return self.raised
        return self.hosts if self.changed else ()

    def hosts_may_be_more(self, *, raises: bool) -> bool:
        """Whether the inventory may name others beside: what goes back may go back on more of them."""
        return raises and self.direction is Direction.UNDO

    @property
    def behind_fence(self) -> bool:
        """Whether nothing of what went before can change a host any more."""
        return self.plan.inventory is None or self.fenced == self.fence

    @property
    def stops_for_cancel(self) -> bool:
        """Whether a cancel was asked for that now ends the way forward."""
        return (
            self.cancel is not None
            and self.plan.on_cancel is OnCancel.ROLLBACK
            and self.direction is Direction.FORWARD
            and not self.status.terminal
        )

    @property
    def wants_agent(self) -> bool:
        """Whether an agent has something to do for it, now or when its turn comes."""
        if self.status is Status.STRANDED:
            return self.resolve is not None
        return not self.status.terminal

    @property
    def begun(self) -> bool:
        """Whether an agent has ever worked on it, or it has ended without."""
        return self.grants > 0 or self.status.terminal

    @property
    def approvals_gate(self) -> Approvals | None:
        """The approvals that it needs."""
        gate = self.plan.gates.approvals
        return gate if gate is not None and (gate.rollbacks or not self.rollback) else None

    @property
    def approvals_missing(self) -> int:
        """How many people have to agree yet."""
        gate = self.approvals_gate
        return 0 if gate is None else max(0, gate.required - len(self.approvals))

    @property
    def ready_at(self) -> float:
        """When an agent has to look at it, by the store's clock; a freeze or a lock of its environment keeps agents
        from it all the same, see `bar`. While people have to agree, that is when it is too late for them.
        """
        if self.status is not Status.WAITING:
            return 0.0
        for wait in self.waits:
            if wait.gate is Gate.APPROVAL:
                return wait.until or 0.0
        return max((wait.until or 0.0 for wait in self.waits if wait.gate is not Gate.FREEZE), default=0.0)

    @property
    def bar(self) -> Bar:
        """What of its environment keeps agents from looking at it."""
        if self.begun or self.approvals_missing:
            return Bar.NOTHING
        return Bar.LOCK if self.override else Bar.FREEZE

    def runs(self, direction: Direction) -> tuple[StepRun, ...]:
        """Return the steps of one direction, in the order in which they run."""
        return tuple(run for run in self.steps if run.direction is direction)

    def work(self, run: StepRun) -> Work:
        """Return what the step does in its direction."""
        step = self.plan.step(run.name)
        if run.direction is Direction.FORWARD:
            return step.work
        assert step.undo is not None
        return step.undo


def accept(entry: ev.Entry) -> Deployment:
    """Return the state after the first entry of a journal, which must be `Accepted`."""
    accepted = entry.event
    assert isinstance(accepted, ev.Accepted) and entry.seq == 1, "a journal begins with Accepted"
    return Deployment(
        id=accepted.id,
        environment=accepted.environment,
        number=accepted.number,
        version=accepted.version,
        plan=accepted.plan,
        requested_at=entry.at,
        seq=entry.seq,
        bundle=accepted.bundle,
        requested_by=accepted.requested_by,
        reason=accepted.reason,
        key=accepted.key,
        commit=accepted.commit,
        rollback=accepted.rollback,
        origin=accepted.origin,
        not_before=accepted.not_before,
        override=accepted.override,
        promoted=accepted.promoted,
        steps=tuple(StepRun(step.name, Direction.FORWARD) for step in accepted.plan.steps),
        last_at=entry.at,
    )


def fold(entries: Iterable[ev.Entry], state: Deployment | None = None) -> Deployment:
    """Return the state after all entries, going on from `state` if there is one."""
    for entry in entries:
        state = accept(entry) if state is None else evolve(state, entry)
    assert state is not None, "an empty journal has no state"
    return state


def evolve(state: Deployment, entry: ev.Entry) -> Deployment:
    """Return the state after one more entry; `AssertionError` if it can't follow."""
    assert entry.seq == state.seq + 1, f"{state.id}: entry {entry.seq} after {state.seq}"
    elapsed = state.elapsed + max(0.0, entry.at - state.last_at)
    misses = 0 if type(entry.event) in ev.OUTCOMES else state.misses
    after = _apply(replace(state, elapsed=elapsed, seq=entry.seq, last_at=entry.at, misses=misses), entry)
    assert after.status is state.status or not state.status.terminal, f"{state.id}: {state.status} is an end"
    assert after.token >= state.token, f"{state.id}: token went back"
    if after.steps is not state.steps:
        assert [run.status for run in after.steps].count(StepStatus.RUNNING) <= 1, f"{state.id}: two steps run"
    return after


def _apply(s: Deployment, entry: ev.Entry) -> Deployment:
    match entry.event:  # one kind after the other is asked for, so what happens most comes first
        case ev.StepStarted() as e:
            return _started(s, e, entry)
        case ev.StepSucceeded() as e:
            return _ended(s, e, StepStatus.SUCCEEDED, entry.at)
        case ev.LeaseGranted() as e:
            return _granted(s, e, entry.at)
        case ev.FenceRaised(hosts=hosts):
            return _raised(s, hosts)
        case ev.FenceFailed(failure=failure):
            return _fence_failed(s, failure, entry.at)
        case ev.Delivered() as e:
            return replace(s, deliveries=(*s.deliveries, e))
        case ev.ResolveRequested() as e:
            assert s.status is Status.STRANDED and s.resolved is None
            return replace(s, resolve=e, asked=entry.seq, spoken_early=s.loose, losses=0)
        case ev.ResolveRefused(failure=failure):
            assert s.status is Status.STRANDED
            return replace(s, resolve=None, resolve_refused=failure, held=False)
        case ev.Finished() as e:
            return _finished(s, e, entry.at)
        case ev.VersionsRecorded(direction=direction):
            assert direction is s.direction
            return replace(s, recorded=True)
        case ev.UndoStarted(cause=cause):
            return _undo(s, cause)
        case ev.StepFailed(failure=failure) as e:
            return _ended(s, e, StepStatus.FAILED, entry.at, failure)
        case ev.HealthPassed(direction=direction):
            assert direction is s.direction
            return replace(s, healthy=True)
        case ev.VersionsSurveyed() as e:
            assert s.direction is Direction.UNDO
            return replace(s, survey=e)
        case ev.Accepted():
            raise AssertionError(f"{s.id}: accepted twice")
        case ev.Waiting(waits=waits):
            assert not s.begun and waits, f"{s.id}: waits while {s.status}"
            return replace(s, status=Status.WAITING, waits=waits)
        case ev.ApprovalGiven() as e:
            return _approved(s, e, entry.at)
        case ev.Rejected() | ev.ApprovalExpired() | ev.Superseded():
            assert not s.begun, f"{s.id}: {ev.type_of(entry.event)} while {s.status}"
            return s
        case ev.HandedOver():
            return replace(_interrupt(s, entry.at), held=False, handed_over=s.elapsed)
        case ev.PreflightPassed(pins=pins):
            return replace(s, preflight_passed=True, pins=pins)
        case ev.PreflightFailed(failure=failure):
            return replace(s, cause=failure)
        case ev.NotBegun(failure=failure):
            assert s.held and s.status.started, f"{s.id}: nothing to begin while {s.status}"
            return _not_begun(replace(s, misses=s.misses + 1, missed=s.elapsed, outcome=failure), failure, entry.at)
        case ev.StepInterrupted() as e:
            return _ended(s, e, StepStatus.INTERRUPTED, entry.at)
        case ev.HealthFailed(direction=direction, failure=failure):
            assert direction is s.direction
            return replace(s, healthy=False, outcome=failure)
        case ev.VersionsMixed(direction=direction, failure=failure):
            assert direction is s.direction
            # What was to write the version on a host may still be on its way there.
            return replace(s, recorded=False, outcome=failure, fence=s.fence + 1)
        case ev.BakeStarted(seconds=seconds):
            assert s.direction is Direction.FORWARD and s.bake_until is None
            return replace(s, bake_until=s.elapsed + seconds)
        case ev.BakePassed():
            return replace(s, baked=True)
        case ev.BakeFailed(failure=failure):
            assert s.direction is Direction.FORWARD
            return replace(s, healthy=False, outcome=failure)
        case ev.CancelRequested() as e:
            return s if s.cancel or s.status.terminal else replace(s, cancel=e)
        case ev.Resolved() as e:
            assert s.status is Status.STRANDED and s.resolved is None
            return replace(s, resolve=None, resolve_refused=None, resolved=e, held=False)
        case ev.DeliveryFailed():
            return s
        case _:
            assert_never(entry.event)


def _approved(s: Deployment, e: ev.ApprovalGiven, at: float) -> Deployment:
    assert not s.begun, f"{s.id}: approved while {s.status}"
    s = replace(s, approvals=(*s.approvals, Approval(e.by, at, e.reason, e.groups)))
    if s.approvals_missing:
        return s
    waits = tuple(wait for wait in s.waits if wait.gate is not Gate.APPROVAL)
    return replace(s, waits=waits, status=Status.WAITING if waits else Status.QUEUED)


def _granted(s: Deployment, e: ev.LeaseGranted, at: float) -> Deployment:
    assert e.token > s.token, f"{s.id}: token {e.token} after {s.token}"
    assert not s.approvals_missing or s.begun, f"{s.id}: begun without approval"
    first = s.grants == 0
    if s.bake_until is not None:
        until = s.bake_until + _unwatched(s, e)
        # Whoever watches to the end says so: where it seems to be over, the clock was set forward meanwhile.
        s = replace(s, bake_until=until if until > s.elapsed else s.elapsed + s.plan.bake)
    return replace(
        _interrupt(s, at),
        status=Status.RUNNING if s.status in (Status.QUEUED, Status.WAITING) else s.status,
        previous_version=e.previous_version if first else s.previous_version,
        started_at=at if first else s.started_at,
        agent=e.agent,
        token=e.token,
        fence=e.token * FENCES,
        held=True,
        handed_over=None,
        grants=s.grants + 1,
        losses=s.losses + (1 if s.held else 0),
        fence_failures=0,
        misses=0,
        survey=None,
        waits=(),
    )


def _unwatched(s: Deployment, e: ev.LeaseGranted) -> float:
    """Return for how long nobody has watched health before a grant: since the lost agent was last heard of, or since
    it was handed over.
    """
    if e.waited_seconds is not None:
        return e.waited_seconds
    return 0.0 if s.handed_over is None else s.elapsed - s.handed_over


def _interrupt(s: Deployment, at: float) -> Deployment:
    """Call the step in flight interrupted: nobody knows how far it came."""
    steps = tuple(
        replace(run, status=StepStatus.INTERRUPTED, touched=True, finished_at=at)
        if run.status is StepStatus.RUNNING
        else run
        for run in s.steps
    )
    return replace(s, steps=steps)


def _find(s: Deployment, name: str, direction: Direction) -> StepRun:
    for run in s.steps:
        if run.name == name and run.direction is direction:
            return run
    raise AssertionError(f"{s.id}: there is no step {name} {direction}")


def _with(s: Deployment, run: StepRun) -> tuple[StepRun, ...]:
    """Return the steps, with one of them as it is now."""
    return tuple([run if r.name == run.name and r.direction is run.direction else r for r in s.steps])


def _started(s: Deployment, e: ev.StepStarted, entry: ev.Entry) -> Deployment:
    if e.direction is Direction.UNDO and not any(run.name == e.step for run in s.runs(Direction.UNDO)):
        # Journals of earlier versions also put back what had never begun.
        s = replace(s, steps=(*s.steps, StepRun(e.step, Direction.UNDO)))
    run = _find(s, e.step, e.direction)
    assert e.direction is s.direction and s.status.started, f"{s.id}: {e.direction} step while {s.status}"
    assert e.attempt == run.attempt + 1, f"{s.id}: attempt {e.attempt} after {run.attempt}"
    assert entry.token == s.token, f"{s.id}: step begun with token {entry.token}, lease has {s.token}"
    started = replace(
        run,
        status=StepStatus.RUNNING,
        attempt=e.attempt,
        agent=entry.agent,
        token=entry.token,
        started_at=entry.at,
        finished_at=None,
        failure=None,
    )
    # What was known of health and versions was known before this change.
    return replace(s, steps=_with(s, started), healthy=None, recorded=None)


def _ended(
    s: Deployment,
    e: ev.StepSucceeded | ev.StepFailed | ev.StepInterrupted,
    status: StepStatus,
    at: float,
    failure: Failure | None = None,
) -> Deployment:
    run = _find(s, e.step, e.direction)
    assert run.status is StepStatus.RUNNING and run.attempt == e.attempt, f"{s.id}: {e.step} ended without a start"
    leaves = status is not StepStatus.SUCCEEDED and isinstance(s.work(run), Playbook)
    ended = replace(
        run,
        status=status,
        touched=True,
        finished_at=at,
        ended=s.elapsed,
        failure=failure,
        failures=run.failures + (status is StepStatus.FAILED),
    )
    return replace(s, steps=_with(s, ended), fence=s.fence + leaves, fence_failures=0)


def _raised(s: Deployment, hosts: tuple[str, ...]) -> Deployment:
    known = dict.fromkeys(s.hosts if s.changed else ())
    return replace(
        s,
        fenced=s.fence,
        fence_failures=0,
        loose=False,
        hosts=tuple(known | dict.fromkeys(hosts)),
        raised=hosts,
    )


def _fence_failed(s: Deployment, failure: Failure, at: float) -> Deployment:
    s = replace(s, fence_failures=s.fence_failures + 1, fence_failed=s.elapsed)
    if s.status is Status.STRANDED:
        return replace(s, resolve_refused=failure)
    if False in (s.healthy, s.recorded):
        return s  # it is given up, of something else
    return _not_begun(replace(s, outcome=failure), failure, at)


def _not_begun(s: Deployment, failure: Failure, at: float) -> Deployment:
    """Take back the start of the step in flight, if one is: its own work never began, so it is as untouched as before,
    and has used up no attempt of its retries.
    """
    run = s.running_step
    if run is None:
        return s
    not_begun = replace(
        run,
        status=StepStatus.INTERRUPTED if run.touched else StepStatus.PENDING,
        finished_at=at,
        failure=failure,
    )
    return replace(s, steps=_with(s, not_begun))


def _undo(s: Deployment, cause: Failure) -> Deployment:
    assert s.direction is Direction.FORWARD and s.status is Status.RUNNING, f"{s.id}: undo while {s.status}"
    assert s.running_step is None, f"{s.id}: undo while a step runs"
    started = [run.name for run in s.steps if run.touched]
    undo = tuple(StepRun(name, Direction.UNDO) for name in s.plan.undo_of(started))
    return replace(
        s,
        status=Status.ROLLING_BACK,
        direction=Direction.UNDO,
        steps=s.steps + undo,
        cause=cause,
        outcome=None,
        healthy=None,
        recorded=None,
        fence=s.fence + 1,
        losses=0,
        fence_failures=0,
        misses=0,
    )


def _finished(s: Deployment, e: ev.Finished, at: float) -> Deployment:
    assert e.status.terminal and not s.status.terminal, f"{s.id}: {e.status} after {s.status}"
    assert s.running_step is None, f"{s.id}: finished while a step runs"
    steps = tuple(
        replace(run, status=StepStatus.SKIPPED) if run.status is StepStatus.PENDING else run for run in s.steps
    )
    return replace(
        s, status=e.status, outcome=e.reason, finished_at=at, steps=steps, held=False, loose=not s.behind_fence
    )
