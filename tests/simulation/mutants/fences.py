# SPDX-License-Identifier: Apache-2.0
"""A fence that is not raised, or does not hold."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from msgspec import structs

from surefoot.core import decide as do
from surefoot.core import deployment as states
from surefoot.core import events as ev
from surefoot.core.plan import Direction
from surefoot.core.status import Status, StepStatus
from tests.simulation import hosts, performer
from tests.simulation.mutants.registry import decided, evolved, mutant, mutant_where


@mutant
def fence_is_not_raised_on_one_host() -> Any:
    right = performer.SimPerformer._raise_all

    async def most(self: Any, job: Any, hosts: Any) -> Any:
        return await right(self, job, hosts[:-1])

    return patch.object(performer.SimPerformer, "_raise_all", most)


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
        return replace(action, raises_fence=False) if isinstance(action, do.RunStep) else action

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
    right = performer.SimPerformer._raise_all

    async def all_is_well(self: Any, job: Any, hosts: Any) -> Any:
        await right(self, job, hosts)
        return ev.FenceRaised(tuple(host.name for host in hosts))

    return patch.object(performer.SimPerformer, "_raise_all", all_is_well)


@mutant
def play_begins_before_the_journal_knows_its_hosts() -> Any:
    right = performer.SimPerformer.step

    async def hasty(self: Any, job: Any, action: Any) -> Any:
        written: list[asyncio.Task[None]] = []

        async def at_some_time(event: Any) -> None:
            written.append(asyncio.create_task(job.fence_raised(event)))

        outcome = await right(self, structs.replace(job, fence_raised=at_some_time), action)
        for task in written:
            await task
        return outcome

    return patch.object(performer.SimPerformer, "step", hasty)


def unfenced(kind: type) -> Any:
    """Patch a kind of event so that what it leaves on its way to a host is not fenced off."""
    return evolved(kind, lambda s, after: structs.replace(after, fence=s.fence))


@mutant
def what_failed_is_not_fenced_off() -> Any:
    return unfenced(ev.StepFailed)


@mutant_where(lambda script: script.shown_by == "file")
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
    right = performer.SimPerformer.step

    async def never_begun(self: Any, job: Any, action: Any) -> Any:
        event = await right(self, job, action)
        return ev.NotBegun(event.failure) if isinstance(event, ev.StepFailed) else event

    return patch.object(performer.SimPerformer, "step", never_begun)


@mutant
def inventory_may_name_other_hosts_in_mid_way() -> Any:
    return patch.object(states.Deployment, "hosts_wanted", lambda *_, **__: ())
