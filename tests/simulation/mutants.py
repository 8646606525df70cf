# SPDX-License-Identifier: Apache-2.0
"""Seeded protocol bugs, to show that the simulation would find them: `python -m tests.simulation.mutants`.

Each is the product with one rule left out, put in by patching from here: the product has no switch for it. The
simulation is as good as the mutants that it catches; one that it does not catch is a check that is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

from msgspec import structs

from surefoot.agent import agent as agents
from surefoot.agent import holding, worker
from surefoot.agent.courier import Courier
from surefoot.agent.redact import Redactor
from surefoot.agent.secrets import Secrets
from surefoot.core import decide as do
from surefoot.core import deployment as states
from surefoot.core import events as ev
from surefoot.core import lease, outbox
from surefoot.core.errors import LeaseLostError, StoreError
from surefoot.core.lease import Role
from surefoot.core.plan import Direction, Plan
from surefoot.core.status import Status, StepStatus
from surefoot.integrations.delivery import Told
from surefoot.store import memory, rules
from tests.simulation import hosts, world
from tests.simulation.schedule import broken_by

#: Schedules after which a mutant counts as not caught.
SCHEDULES = 6_000

#: Those that take hundreds of schedules: `--quick` leaves them to `make mutants`.
RARE = (
    "holders deadline is counted from the reply",
    "claim does not compare what was seen",
    "host that could not be raised is skipped",
    "what is stranded is never fenced",
    "what is stranded is left in front of the fence",
    "what was to write a version is not fenced off",
    "end without an undo is not fenced off",
    "versions are recorded in front of the fence",
)

Around = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True)
class Mutant:
    """One bug: what is left out, and how it is put in."""

    name: str
    around: Around


MUTANTS: list[Mutant] = []


def mutant(make: Callable[[], contextlib.AbstractContextManager[Any]]) -> Around:
    """Register a mutant under its function's name."""
    MUTANTS.append(Mutant(make.__name__.replace("_", " "), make))
    return make


def decided(change: Callable[[states.Deployment, do.Action], do.Action]) -> contextlib.AbstractContextManager[Any]:
    """Patch what is decided, from the state and from what should have been decided."""
    right = do.decide
    return patch.object(do, "decide", lambda s, now: change(s, right(s, now)))


def evolved(kind: type, change: Callable[[states.Deployment, states.Deployment], states.Deployment]) -> Any:
    """Patch what a kind of event makes of a state, from before and after."""
    right = states._apply

    def apply(s: states.Deployment, entry: ev.Entry) -> states.Deployment:
        after = right(s, entry)
        return change(s, after) if isinstance(entry.event, kind) else after

    return patch.object(states, "_apply", apply)


# -- the lease ---------------------------------------------------------------------------------------


@mutant
def holders_deadline_is_counted_from_the_reply() -> Any:
    async def renewed(self: holding.Holding) -> bool:
        try:
            await self._access(self._store.renew, self.grant)
        except LeaseLostError as error:
            self.lose(error.message)
            return False
        except StoreError:
            return False
        if self.good:
            self.deadline = self._timing.deadline(self._clock())
            for listener in tuple(self._listeners):
                listener(self.deadline)
        return True

    return patch.object(holding.Holding, "_renewed", renewed)


@mutant
def holder_trusts_its_lease_for_longer_than_the_ttl() -> Any:
    return patch.object(lease, "HOLD", 1.2)


@mutant
def holder_never_gives_up_by_itself() -> Any:
    return patch.object(lease.LeaseTiming, "deadline", lambda *_: float("inf"))


@mutant
def step_is_not_told_the_deadline() -> Any:
    def tell(self: holding.Holding, listener: Callable[[float], None]) -> Callable[[], None]:
        listener(float("inf"))
        return lambda: None

    return patch.object(holding.Holding, "tell", tell)


@mutant
def lease_is_taken_before_it_has_expired() -> Any:
    return patch.object(lease.LeaseSeen, "expired", lambda self, now: now - self.at >= self.ttl / 2)


@mutant
def lease_is_observed_once_and_for_all() -> Any:
    return patch.object(lease.LeaseSeen, "seen", lambda self, *_: self)


@mutant
def claim_does_not_look_whether_the_holder_lives() -> Any:
    return patch.object(agents.Agent, "_holder_gone", lambda *_: True)


@mutant
def claim_does_not_compare_what_was_seen() -> Any:
    right = memory.MemoryStore.claim

    def claim(self: Any, claim: Any) -> Any:
        name = claim.seen.environment
        return right(self, replace(claim, seen=self._lease_row(name, self._environments[name])))

    return patch.object(memory.MemoryStore, "claim", claim)


@mutant
def renewal_does_not_check_the_token() -> Any:
    return patch.object(memory.MemoryStore, "renew", lambda *_: None)


@mutant
def agent_that_is_killed_leaves_its_steps_running() -> Any:
    return patch.object(world.World, "orphan", lambda *_: None)


@mutant
def agents_presence_falls_while_its_process_is_only_cut_off() -> Any:
    right = memory.MemoryStore._holder_gone

    def gone(self: Any, row: Any) -> bool:
        return right(self, row) or self._clock() - row.renewed_at > 1.5

    return patch.object(memory.MemoryStore, "_holder_gone", gone)


# -- the journal -------------------------------------------------------------------------------------


@mutant
def append_does_not_check_what_it_follows() -> Any:
    right = memory.MemoryStore.append

    def append(self: Any, append: Any) -> Any:
        newest = states.fold(self.journal(append.state.id))
        return right(self, structs.replace(append, state=newest))

    return patch.object(memory.MemoryStore, "append", append)


@mutant
def append_checks_neither_the_token_nor_what_it_follows() -> Any:
    right = memory.MemoryStore.append

    def append(self: Any, append: Any) -> Any:
        newest = states.fold(self.journal(append.state.id))
        grant = append.grant and self._lease(append.grant.environment)
        return right(self, structs.replace(append, state=newest, grant=grant))

    return patch.object(memory.MemoryStore, "append", append)


@mutant
def append_is_repeated_without_its_id() -> Any:
    right = memory.MemoryStore._append

    def append(self: Any, append: Any, lease: Any) -> Any:
        return right(self, structs.replace(append, event_id=uuid.uuid4().hex), lease)

    return patch.object(memory.MemoryStore, "_append", append)


@mutant
def append_whose_reply_is_lost_counts_as_made() -> Any:
    right = worker.Worker._append

    async def append(self: Any, event: ev.Event, release: bool) -> None:
        access = self._access

        async def once(call: Any, *given: Any) -> Any:
            try:
                return await access(call, *given)
            except StoreError:
                return ()

        self._access = once
        try:
            await right(self, event, release)
        finally:
            self._access = access

    return patch.object(worker.Worker, "_append", append)


@mutant
def step_is_begun_before_it_is_in_the_journal() -> Any:
    async def step(self: Any, job: Any, action: do.RunStep) -> None:
        run = action.run
        until = lambda s: do.interrupts(s) is not None  # noqa: E731
        outcome = await self._watch(self._performer.step(job, action), until=until)
        if await self._decision(ev.StepStarted(run.name, run.direction, action.attempt)):
            await self._fact(outcome or ev.StepInterrupted(run.name, run.direction, action.attempt, "cancelled"))

    return patch.object(worker.Worker, "_step", step)


@mutant
def end_of_a_step_is_written_before_it_is_gone() -> Any:
    async def ended(task: asyncio.Task[Any]) -> None:
        task.cancel()

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        kill = hosts.Process.kill

        def late(self: Any, why: str) -> None:
            self.loop.call_later(3.0, kill, self, why)

        with (
            patch.object(worker, "_ended", ended),
            patch.object(hosts.Process, "kill", late),
        ):
            yield

    return around()


@mutant
def environment_moves_on_when_a_version_was_put_back() -> Any:
    right = states.environment_after

    def after(s: states.Deployment, *, current: str | None, previous: str | None) -> Any:
        if s.status is Status.ROLLED_BACK:
            return states.EnvironmentChange(s.version, current, None)
        return right(s, current=current, previous=previous)

    return patch.object(rules, "environment_after", after)


@mutant
def stranded_environment_is_not_locked() -> Any:
    right = states.environment_after

    def after(s: states.Deployment, *, current: str | None, previous: str | None) -> Any:
        change = right(s, current=current, previous=previous)
        return change and structs.replace(change, locked_by=None)

    return patch.object(rules, "environment_after", after)


@mutant
def newest_deployment_comes_first() -> Any:
    right = memory.MemoryStore.work

    def work(self: Any) -> Any:
        found = right(self)
        queue = self._queue(self._environments["production"]) if "production" in self._environments else []
        if found and queue and found[0].deployment == queue[0].id:
            return [structs.replace(found[0], deployment=queue[-1].id)]
        return found

    return patch.object(memory.MemoryStore, "work", work)


@mutant
def key_that_is_known_makes_another_deployment() -> Any:
    right = memory.MemoryStore.submit
    return patch.object(memory.MemoryStore, "submit", lambda self, asked: right(self, replace(asked, key=None)))


# -- the outbox --------------------------------------------------------------------------------------


@mutant
def what_was_not_told_counts_as_told() -> Any:
    async def told(self: Any, delivery: Any, entries: Any, *_: Any) -> None:
        await self._told(delivery, states.fold(entries), Told("posted"))

    return patch.object(Courier, "_not_told", told)


@mutant
def news_of_an_end_is_told_to_nobody() -> Any:
    right = outbox.changes

    def changes(entries: Any, before: Any = None) -> Any:
        found = right(entries, before)
        return replace(found, added=()) if any(isinstance(e.event, ev.Finished) for e in entries) else found

    return patch.object(outbox, "changes", changes)


@mutant
def delivery_whose_agent_is_lost_is_nobody_elses() -> Any:
    right = memory.MemoryStore.take_delivery
    return patch.object(memory.MemoryStore, "take_delivery", lambda self, delivery, _: right(self, delivery, 1e6))


@mutant
def newer_news_is_told_before_older() -> Any:
    right = memory.MemoryStore.deliveries

    def deliveries(self: Any, *args: Any) -> Any:
        last = {deployment: (deployment, of, target) for deployment, of, target in self._outbox}
        with patch.object(self, "_outbox", {key: self._outbox[key] for key in last.values()}):
            return right(self, *args)

    return patch.object(memory.MemoryStore, "deliveries", deliveries)


# -- the fence ---------------------------------------------------------------------------------------


@mutant
def fence_is_not_raised_on_one_host() -> Any:
    right = world.SimPerformer._raise_all

    async def most(self: Any, job: Any) -> Any:
        reached = self._hosts(job)[:-1]
        with patch.object(self, "_hosts", lambda _: reached):
            return await right(self, job)

    return patch.object(world.SimPerformer, "_raise_all", most)


@mutant
def raise_does_not_end_what_runs() -> Any:
    right = hosts.Host.end_older

    def end(self: Any, token: float) -> None:
        if token == float("inf"):
            right(self, token)

    return patch.object(hosts.Host, "end_older", end)


@mutant
def host_lets_smaller_tokens_in() -> Any:
    return patch.object(hosts.Host, "admit", lambda *_: None)


@mutant
def takeover_does_not_raise_the_fence() -> Any:
    def change(s: states.Deployment, action: do.Action) -> do.Action:
        return structs_replace(action, raises_fence=False) if isinstance(action, do.RunStep) else action

    return decided(change)


@mutant
def what_is_stranded_is_never_fenced() -> Any:
    def change(s: states.Deployment, action: do.Action) -> do.Action:
        if isinstance(action, do.RaiseFence) and s.status is Status.STRANDED and s.resolve is not None:
            return do.Resolve(s.resolve)
        return action

    stack = contextlib.ExitStack()
    stack.enter_context(decided(change))
    stack.enter_context(_stranded_unfenced())
    return stack


@mutant
def what_is_stranded_is_left_in_front_of_the_fence() -> Any:
    return _stranded_unfenced()


def _stranded_unfenced() -> Any:
    right = do._strand
    return patch.object(do, "_strand", lambda s, cause: right(structs.replace(s, fence_failures=1), cause))


@mutant
def host_that_could_not_be_raised_is_skipped() -> Any:
    right = world.SimPerformer._raise_all

    async def all_is_well(self: Any, job: Any) -> Any:
        await right(self, job)
        return ev.FenceRaised(tuple(host.name for host in self._hosts(job)))

    return patch.object(world.SimPerformer, "_raise_all", all_is_well)


def unfenced(kind: type) -> Any:
    """Patch a kind of event so that what it leaves on its way to a host is not fenced off."""
    return evolved(kind, lambda s, after: structs.replace(after, fence=s.fence))


@mutant
def what_failed_is_not_fenced_off() -> Any:
    return unfenced(ev.StepFailed)


@mutant
def what_was_to_write_a_version_is_not_fenced_off() -> Any:
    return unfenced(ev.VersionsMixed)


@mutant
def end_without_an_undo_is_not_fenced_off() -> Any:
    right = do._fenced

    def fenced(s: states.Deployment, now: float, *, by_step: bool = False) -> do.Action | None:
        checked = s.recorded or not s.plan.records
        over = s.direction is Direction.UNDO and checked and not by_step and s.healthy is not False
        undone = all(run.status is StepStatus.SUCCEEDED for run in s.runs(Direction.UNDO))
        return None if over and undone else right(s, now, by_step=by_step)

    return patch.object(do, "_fenced", fenced)


@mutant
def versions_are_recorded_in_front_of_the_fence() -> Any:
    def change(s: states.Deployment, action: do.Action) -> do.Action:
        done = all(run.status is StepStatus.SUCCEEDED for run in s.runs(s.direction))
        if not isinstance(action, do.RaiseFence) or s.status.terminal or not done or s.recorded is not None:
            return action
        wanted = s.version if s.direction is Direction.FORWARD else s.previous_version
        return do.RecordVersion(wanted) if s.plan.records else action

    return decided(change)


@mutant
def fence_that_can_not_be_raised_makes_a_step_look_touched() -> Any:
    def change(s: states.Deployment, after: states.Deployment) -> states.Deployment:
        return structs.replace(after, steps=tuple(structs.replace(r, touched=r.attempt > 0) for r in after.steps))

    return evolved(ev.FenceFailed, change)


@mutant
def playbook_that_can_not_begin_is_begun_for_ever() -> Any:
    return patch.object(do, "_hindered", lambda s, now: None)


@mutant
def what_failed_half_way_is_told_as_never_begun() -> Any:
    right = world.SimPerformer.step

    async def never_begun(self: Any, job: Any, action: Any) -> Any:
        event = await right(self, job, action)
        return ev.NotBegun(event.failure) if isinstance(event, ev.StepFailed) else event

    return patch.object(world.SimPerformer, "step", never_begun)


def structs_replace(action: do.RunStep, **changes: Any) -> do.RunStep:
    """Return a changed action."""
    return replace(action, **changes)


# -- decisions ---------------------------------------------------------------------------------------


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


@mutant
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


# -- environments ------------------------------------------------------------------------------------


@mutant
def agent_goes_on_claiming_while_it_works() -> Any:
    right = agents.Agent._work

    async def work(self: Any, deployment: str, holding: Any) -> None:
        more = asyncio.create_task(self._claim_and_work())
        try:
            await right(self, deployment, holding)
        finally:
            more.cancel()
            await asyncio.gather(more, return_exceptions=True)

    return patch.object(agents.Agent, "_work", work)


def barring_all(change: Callable[[Any, list[Any]], Any]) -> Any:
    """Patch what keeps an environment's deployments waiting, from its row and from the others'."""
    right = memory.MemoryStore._wanting

    def wanting(self: Any, row: Any, now: float) -> Any:
        return right(self, change(row, list(self._environments.values())), now)

    return patch.object(memory.MemoryStore, "_wanting", wanting)


@mutant
def lock_of_one_environment_bars_all() -> Any:
    return barring_all(
        lambda row, rows: replace(row, locked_by=next((one.locked_by for one in rows if one.locked_by), None))
    )


@mutant
def freeze_of_one_environment_bars_all() -> Any:
    return barring_all(
        lambda row, rows: replace(row, chronicle=next((one.chronicle for one in rows if one.freeze), row.chronicle))
    )


@mutant
def version_before_is_looked_up_in_another_environment() -> Any:
    right = memory.MemoryStore.claim

    def claim(self: Any, claim: Any) -> Any:
        first = next(iter(self._environments.values()))
        events = tuple(structs.replace(event, previous_version=first.current) for event in claim.append.events)
        return right(self, replace(claim, append=structs.replace(claim.append, events=events)))

    return patch.object(memory.MemoryStore, "claim", claim)


@mutant
def fence_is_raised_on_hosts_of_all_environments() -> Any:
    right = world.SimPerformer._raise_all

    async def all_hosts(self: Any, job: Any) -> Any:
        found = [host for judge in self.world.judges for host in judge.environment.hosts.values()]
        with patch.object(self, "_hosts", lambda _: found):
            return await right(self, job)

    return patch.object(world.SimPerformer, "_raise_all", all_hosts)


@mutant
def deployment_is_done_by_the_plan_of_the_one_before() -> Any:
    right, plans = worker.Worker._job, {}

    def job(self: Any) -> Any:
        found = right(self)
        plan = plans.setdefault(found.agent, found.state.plan)
        return replace(found, state=structs.replace(found.state, plan=plan))

    return patch.object(worker.Worker, "_job", job)


# -- agents, and what they say -----------------------------------------------------------------------


@mutant
def emergency_agent_waits_for_runners_that_are_gone() -> Any:
    right = lease.choose

    def choose(me: str, found: Any, *, deployment: str | None = None) -> Any:
        choice = right(me, found, deployment=deployment)
        emergency = any(agent.name == me and agent.role is Role.EMERGENCY for agent in found)
        return replace(choice, eligible=False) if emergency and len(found) > 1 else choice

    return patch.object(agents, "choose", choose)


@mutant
def secret_is_let_through() -> Any:
    return patch.object(Secrets, "redactor", lambda *_: Redactor({}))


@mutant
def log_takes_lines_of_whoever_was_taken_over_from() -> Any:
    right = memory.MemoryStore.append_log
    return patch.object(
        memory.MemoryStore, "append_log", lambda self, deployment, lines, _: right(self, deployment, lines)
    )


# -- running them ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What came of a mutant."""

    name: str
    promise: str | None
    schedules: int


def attack(number: int, schedules: int = SCHEDULES) -> Verdict:
    """Play schedules with a mutant until one breaks a promise."""
    found = MUTANTS[number]
    for seed in range(1, schedules + 1):
        if (promise := broken_by(seed, found.around)) is not None:
            return Verdict(found.name, promise, seed)
    return Verdict(found.name, None, schedules)


def main() -> int:
    """Attack with all mutants; 0 if all are caught, and nothing is found without one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=SCHEDULES, help="how many before a mutant has got away")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("names", nargs="*", help="mutants whose name begins so; all if none is given")
    parser.add_argument("--quick", action="store_true", help="without those that take long to catch")
    chosen = parser.parse_args()
    numbers = [
        number
        for number, found in enumerate(MUTANTS)
        if (not chosen.quick or found.name not in RARE)
        and (not chosen.names or any(found.name.startswith(name) for name in chosen.names))
    ]
    escaped = 0
    with multiprocessing.Pool(chosen.jobs) as pool:
        for verdict in pool.imap(partial(attack, schedules=chosen.schedules), numbers):
            escaped += verdict.promise is None
            how = f"caught after {verdict.schedules:5}" if verdict.promise else f"NOT caught in {verdict.schedules:5}"
            print(f"{verdict.name:60} {how}  {(verdict.promise or '')[:100]}", flush=True)
    print(f"{len(numbers) - escaped} of {len(numbers)} mutants caught")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
