# SPDX-License-Identifier: Apache-2.0
"""Appends that are not checked, come twice or too late; an outbox that loses what was to be told."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from msgspec import structs

from surefoot.agent import worker
from surefoot.agent.courier import Courier
from surefoot.core import decide as do
from surefoot.core import deployment as states
from surefoot.core import events as ev
from surefoot.core import outbox, summary
from surefoot.core.errors import StoreError
from surefoot.core.status import Status
from surefoot.integrations.delivery import Told
from surefoot.store import memory, rules
from tests.simulation import hosts
from tests.simulation.mutants.registry import mutant


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
    right = summary.environment_after

    def after(s: states.Deployment, *, current: str | None, previous: str | None) -> Any:
        if s.status is Status.ROLLED_BACK:
            return summary.EnvironmentChange(s.version, current, None)
        return right(s, current=current, previous=previous)

    return patch.object(rules, "environment_after", after)


@mutant
def stranded_environment_is_not_locked() -> Any:
    right = summary.environment_after

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


@mutant
def what_was_not_told_counts_as_told() -> Any:
    async def told(self: Any, delivery: Any, story: Any, *_: Any) -> None:
        await self._told(delivery, story.state, Told("posted"))

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
