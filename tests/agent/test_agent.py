# SPDX-License-Identifier: Apache-2.0
"""An agent whose actions answer what the test tells: what it does when the journal moves on, or the store blinks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from surefoot.agent import worker
from surefoot.agent.access import ThreadAccess
from surefoot.agent.agent import SILENT_INTERVALS, Agent, AgentSettings
from surefoot.agent.machine import Vitals
from surefoot.api import gates, requests
from surefoot.cli.app import SILENT
from surefoot.config.models import MAX_TTL
from surefoot.core import events as ev
from surefoot.core.decide import RunStep
from surefoot.core.errors import Code, Failure, NewerStoreError, StoreError
from surefoot.core.gates import Approvals, Gates
from surefoot.core.lease import LeaseTiming, Role
from surefoot.core.plan import Command, Plan, Retry, Step
from surefoot.core.status import Status
from surefoot.store.memory import MemoryStore
from surefoot.store.protocol import Append, Store, Submission
from tests.store import journal as j

WITHIN = 30.0
REFUSAL = ev.ResolveRefused(Failure(Code.HEALTH_FAILED, "not well"))


@dataclass
class Performer:
    """Checks what is said to be repaired for as long as the test likes."""

    answer: Callable[[ev.ResolveRequested], ev.Resolved | ev.ResolveRefused]
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def resolve(self, _: Any, request: ev.ResolveRequested) -> ev.Resolved | ev.ResolveRefused:
        self.begun.set()
        await self.go.wait()
        return self.answer(request)

    async def settle(self, _: Any) -> None:
        pass

    async def forget(self, _: Any) -> None:
        pass


@contextlib.asynccontextmanager
async def working(
    store: Store,
    performer: Any,
    *,
    ttl: float = 60.0,
    name: str = "x",
    strays: Callable[[], None] = lambda: None,
    stop: asyncio.Event | None = None,
    **settings: Any,
) -> AsyncIterator[asyncio.Task[None]]:
    """An agent at work."""
    access, vital = ThreadAccess(5.0), ThreadAccess(5.0)
    agent = Agent(
        AgentSettings(name, timing=LeaseTiming(ttl), **settings),
        store=store, access=access, vital_access=vital, performer=performer,
        clock=time.monotonic, vitals=Vitals, note=lambda _: None, strays=strays,
    )  # fmt: skip
    agent.stop = stop or agent.stop
    task = asyncio.create_task(agent.run())
    try:
        yield task
    finally:
        agent.stop.set()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), WITHIN)
        access.close()
        vital.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("answer", [lambda request: ev.Resolved(request.version), lambda _: REFUSAL])
async def test_a_person_who_takes_the_word_back_while_it_is_checked_has_the_last_one(
    answer: Callable[[ev.ResolveRequested], ev.Resolved | ev.ResolveRefused],
) -> None:
    store = MemoryStore()
    stranded = j.deployed(store, "2.0", status=Status.STRANDED)
    requests.resolve(store, stranded, by="ada", reason="repaired", version="1.0")
    performer = Performer(answer)
    async with working(store, performer):
        await asyncio.wait_for(performer.begun.wait(), WITHIN)
        requests.resolve(store, stranded, by="bob", reason="by hand", version="1.5", unchecked=True)
        performer.go.set()
        await until(lambda: j.seen(store).holder is None)  # long before the lease would have run out
    types = [ev.type_of(entry.event) for entry in store.journal(stranded)]
    assert "resolve_refused" not in types and types.count("resolved") == 1
    assert store.environment("prod").current_version == "1.5"


async def test_a_second_request_to_resolve_is_answered_for_itself() -> None:
    store = MemoryStore()
    stranded = j.deployed(store, "2.0", status=Status.STRANDED)
    requests.resolve(store, stranded, by="ada", reason="repaired", version="1.0")
    performer = Performer(lambda request: ev.Resolved(request.version))
    async with working(store, performer):
        await asyncio.wait_for(performer.begun.wait(), WITHIN)
        requests.resolve(store, stranded, by="bob", reason="no, the other one", version="1.5")
        performer.go.set()
        await until(lambda: store.environment("prod").locked_by is None)
    assert store.environment("prod").current_version == "1.5"


async def test_the_same_request_once_more_is_answered_by_another_look() -> None:
    store, runs = MemoryStore(), ["2.0"]

    class Looking(Performer):
        async def resolve(self, job: Any, request: ev.ResolveRequested) -> ev.Resolved | ev.ResolveRefused:
            seen = runs[-1]
            await super().resolve(job, request)
            return ev.Resolved(seen)

    stranded = j.deployed(store, "2.0", status=Status.STRANDED)
    requests.resolve(store, stranded, by="ada", reason="repaired")
    performer = Looking(lambda _: REFUSAL)
    async with working(store, performer):
        await asyncio.wait_for(performer.begun.wait(), WITHIN)
        runs.append("1.0")  # she goes on repairing, and says again that it is done, in the same words
        requests.resolve(store, stranded, by="ada", reason="repaired")
        performer.go.set()
        await until(lambda: store.environment("prod").locked_by is None)
    assert store.environment("prod").current_version == "1.0"


class Blinking(MemoryStore):
    """A store that is away for a moment when it is asked for a summary."""

    asked = 0

    def summary(self, deployment: str) -> Any:
        self.asked += 1
        if self.asked == 3:
            raise StoreError("the server restarts")
        return super().summary(deployment)


async def test_an_agent_that_works_for_one_deployment_outlives_a_store_that_blinks() -> None:
    store = Blinking()
    waits = j.submit(store)
    grant = j.claim(store, waits, "another")
    async with working(store, None, until=waits, look_every=0.01) as task:
        await until(lambda: store.asked > 5)
        assert not task.done()
        j.finish(store, waits, grant)
        await asyncio.wait_for(task, WITHIN)


async def test_an_agent_that_works_for_one_deployment_begins_no_other_after_it() -> None:
    store = MemoryStore()
    first = j.submit(store, "1.0")
    grant = j.claim(store, first, "another")
    second = j.submit(store, "2.0")
    async with working(store, None, until=first, look_every=0.01) as task:
        await asyncio.sleep(0.1)
        j.finish(store, first, grant)
        await asyncio.wait_for(task, WITHIN)
    assert [ev.type_of(entry.event) for entry in store.journal(second)] == ["accepted"]


class Ending(MemoryStore):
    """A store in which a deployment ends in the instant before somebody looks for work."""

    def __init__(self) -> None:
        super().__init__()
        self.end: Callable[[], object] = lambda: None

    def work(self) -> Any:
        self.end()
        return super().work()


async def test_nor_does_it_if_its_own_ends_in_between() -> None:
    store = Ending()
    first = j.submit(store, "1.0")
    grant = j.claim(store, first, "another")
    second = j.submit(store, "2.0")

    def end() -> None:
        if not store.summary(first).status.terminal:
            j.finish(store, first, grant)

    store.end = end
    async with working(store, Stepping(), until=first, look_every=0.01) as task:
        await asyncio.wait_for(task, WITHIN)
    assert [ev.type_of(entry.event) for entry in store.journal(second)] == ["accepted"]


async def test_but_it_begins_what_is_before_its_own() -> None:
    store = MemoryStore()
    first, second = j.submit(store, "1.0"), j.submit(store, "2.0")
    async with working(store, Stepping(), until=second, look_every=0.01) as task:
        await asyncio.wait_for(task, WITHIN)
    assert {store.summary(one).status for one in (first, second)} == {Status.SUCCEEDED}


async def test_a_lease_is_kept_while_those_before_it_are_told_that_they_are_overtaken() -> None:
    plan = Plan("p", "prod", (Step("only", Command("true")),), gates=Gates(approvals=Approvals(), latest=True))
    store = Slow()
    *older, newest = (store.submit(Submission("prod", f"{n}", plan, requested_by="ada"))[0] for n in range(8))
    gates.approve(store, newest, by="bob")
    async with working(store, Stepping(), ttl=1.0):
        await until(lambda: store.summary(newest).status is Status.SUCCEEDED)
    assert {store.summary(one).status for one in older} == {Status.CANCELLED}
    assert [ev.type_of(entry.event) for entry in store.journal(newest)].count("lease_granted") == 1


class Full(Performer):
    """A machine on which nothing can be begun: its disk is full."""

    def __init__(self) -> None:
        super().__init__(lambda _: REFUSAL)

    async def step(self, _: Any, __: RunStep) -> ev.NotBegun:
        return ev.NotBegun(Failure(Code.AGENT_FOLDER, "no space left"))


@pytest.mark.parametrize("others", [True, False])
async def test_what_this_machine_can_not_begin_is_left_to_another_if_there_is_one(others: bool) -> None:
    store = MemoryStore()
    step = Step("only", Command("true"), retry=Retry(1, 0.0, 60.0))
    async with contextlib.AsyncExitStack() as agents:
        await agents.enter_async_context(working(store, Full(), look_every=0.01))
        if others:
            await agents.enter_async_context(working(store, Stepping(), name="y", ttl=1.0, role=Role.SECONDARY))
        await until(lambda: len(store.agents(60.0)) == 1 + others)
        deployment = store.submit(Submission("prod", "1", Plan("p", "prod", (step,), retry=Retry(1, 0.0, 60.0))))[0]
        await until(lambda: store.summary(deployment).status.terminal)
        reasons = {row.report.name: row.report.degraded for row in store.agents(60.0)}
    assert store.summary(deployment).status is (Status.SUCCEEDED if others else Status.FAILED)
    assert "no space left" in reasons["x"], "it counts as degraded, so that the other comes first"
    handed = [entry.event for entry in store.journal(deployment) if isinstance(entry.event, ev.HandedOver)]
    assert len(handed) == others


class Slow(MemoryStore):
    """A store that takes its time."""

    def journal(self, deployment: str, after: int = 0) -> list[ev.Entry]:
        time.sleep(0.3)
        return super().journal(deployment, after)


class Stepping(Performer):
    """Does what it is asked for at once."""

    def __init__(self) -> None:
        super().__init__(lambda _: REFUSAL)

    async def step(self, _: Any, action: RunStep) -> ev.StepSucceeded:
        return ev.StepSucceeded(action.run.name, action.run.direction, action.attempt)


async def test_while_an_agent_goes_on_with_what_another_had_begun_somebody_else_begins_its_own() -> None:
    store = MemoryStore()
    begun = j.submit(store, environment="other")
    j.append(store, begun, j.claim(store, begun, "another"), ev.HandedOver("the agent stops"), release=True)
    plan = Plan("p", "prod", (Step("only", Command("true")),), gates=Gates(approvals=Approvals()))
    own = store.submit(Submission("prod", "1.0", plan, requested_by="ada"))[0]
    held, strayed = Held(), asyncio.Event()
    async with working(store, held, ttl=1.0, until=own, strays=strayed.set, look_every=0.01):
        await asyncio.wait_for(strayed.wait(), WITHIN)
        async with working(store, Stepping(), name="y", role=Role.EMERGENCY, look_every=0.01):
            gates.approve(store, own, by="bob")
            await until(lambda: store.summary(own).status is Status.SUCCEEDED)
            assert store.summary(begun).status is Status.RUNNING
        held.go.set()
        await until(lambda: store.summary(begun).status is Status.SUCCEEDED)


class Held(Stepping):
    """Does it when it is let."""

    async def step(self, _: Any, action: RunStep) -> ev.StepSucceeded:
        await self.go.wait()
        return await super().step(_, action)


class Odd(Stepping):
    """Ends as cancelled, though nobody did that."""

    async def step(self, _: Any, action: RunStep) -> ev.StepSucceeded:
        raise asyncio.CancelledError


async def test_a_step_that_ends_as_cancelled_though_nobody_did_that_is_an_error() -> None:
    store, plan = MemoryStore(), Plan("p", "prod", (Step("only", Command("true")),), takeover_limit=1)
    deployment = store.submit(Submission("prod", "1.0", plan, requested_by="ada"))[0]
    async with working(store, Odd(), ttl=1.0):
        await until(lambda: store.summary(deployment).status.terminal)
    assert store.summary(deployment).status is Status.ROLLED_BACK


class Finishing(Held):
    """Succeeds in the very moment in which the agent reads that somebody has cancelled it."""

    async def step(self, _: Any, action: RunStep) -> ev.StepSucceeded:
        self.begun.set()
        return await super().step(_, action)


async def test_what_has_succeeded_while_a_cancel_was_read_has_succeeded() -> None:
    performer, loop = Finishing(), asyncio.get_running_loop()

    def let_it_end(event: ev.Event) -> None:
        if isinstance(event, ev.CancelRequested):
            asyncio.run_coroutine_threadsafe(ended(), loop).result(WITHIN)

    async def ended() -> None:
        performer.go.set()
        await asyncio.sleep(0.1)

    store = Told("journal", let_it_end)
    deployment = j.submit(store)
    async with working(store, performer):
        await asyncio.wait_for(performer.begun.wait(), WITHIN)
        requests.cancel(store, deployment, by="ada")
        await until(lambda: store.summary(deployment).status.terminal)
    assert "step_succeeded" in [ev.type_of(entry.event) for entry in store.journal(deployment)]


class Told(MemoryStore):
    """A store that is told, of each call that may matter, before it answers."""

    def __init__(self, call: str, hears: Callable[[Any], None]) -> None:
        super().__init__()
        self.call, self.hears = call, hears

    def append(self, append: Append) -> tuple[ev.Entry, ...]:
        entries = super().append(append)
        if self.call == "append":
            self.hears(append.events[0])
        return entries

    def journal(self, deployment: str, after: int = 0) -> list[ev.Entry]:
        entries = super().journal(deployment, after)
        if self.call == "journal" and after and threading.current_thread() is not threading.main_thread():
            self.hears(super().journal(deployment)[-1].event)
        return entries


@pytest.mark.parametrize("call", ["append", "journal"])
async def test_a_stop_is_heard_though_it_comes_while_the_store_is_asked(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a step, and while one runs: nothing announces it once more."""
    monkeypatch.setattr(worker, "LOOK_AGAIN", 0.01 if call == "journal" else 10 * WITHIN)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def stop_in_the_midst_of_it(event: ev.Event) -> None:
        if isinstance(event, ev.StepStarted):
            monkeypatch.setattr(worker, "LOOK_AGAIN", 10 * WITHIN)
            asyncio.run_coroutine_threadsafe(announced(), loop).result(WITHIN)

    async def announced() -> None:
        stop.set()
        await asyncio.sleep(0.1)

    store = Told(call, stop_in_the_midst_of_it)
    deployment = j.submit(store)
    async with working(store, Held(), stop=stop) as task:
        await asyncio.wait_for(task, WITHIN)
    assert [ev.type_of(entry.event) for entry in store.journal(deployment)][-2:] == ["step_started", "handed_over"]


class Late(MemoryStore):
    """A store in which something is asked for in the instant after an agent has seen that nothing is left to do."""

    served = False

    def next_ready(self) -> float | None:
        found = super().next_ready()
        if not self.history("prod"):
            j.submit(self)
            self.served = any(row.status.able for row in self.agents(60.0))
        return found


async def test_an_agent_that_ends_when_nothing_is_left_leaves_nothing_to_one_who_has_seen_it() -> None:
    store = Late()
    async with working(store, Stepping(), once=True, look_every=0.01) as task:
        await asyncio.wait_for(task, WITHIN)
    assert store.served, "so nobody else is asked for"
    assert store.summary("prod-1").status is Status.SUCCEEDED


async def test_an_agent_says_that_it_lives_every_second_or_so_however_long_its_ttl_is() -> None:
    store = MemoryStore()
    seen: set[float] = set()

    def often_enough() -> bool:
        seen.update(row.last_seen_at for row in store.agents(WITHIN))
        return len(seen) > 2

    async with working(store, Performer(lambda _: REFUSAL), ttl=MAX_TTL):
        await until(often_enough)
    assert SILENT_INTERVALS * LeaseTiming(MAX_TTL).report_every <= SILENT, "people are told that it is offline"


class Upgraded(MemoryStore):
    """A store that a newer program upgrades, and may write into what this one does not know."""

    newer = unreadable = False

    def work(self) -> Any:
        if self.newer:
            raise NewerStoreError("the store has a newer schema")
        return super().work()

    def journal(self, deployment: str, after: int = 0, limit: int | None = None) -> list[ev.Entry]:
        if self.unreadable:
            raise NewerStoreError("the store holds what this program does not know")
        return super().journal(deployment, after, limit)


@pytest.mark.parametrize("begun", [True, False])
async def test_an_agent_that_is_older_than_the_store_ends_what_it_has_begun_and_then_itself(begun: bool) -> None:
    store, held = Upgraded(), Held()
    deployment = j.submit(store) if begun else ""
    async with working(store, held, look_every=0.01) as task:
        await until(lambda: bool(store.agents(WITHIN)))
        if begun:
            await until(lambda: store.summary(deployment).status is Status.RUNNING)
        store.newer = True
        if begun:
            later = j.submit(store, "2.0")
            held.go.set()
        with pytest.raises(NewerStoreError):
            await asyncio.wait_for(task, WITHIN)
    if begun:
        assert [store.summary(one).status for one in (deployment, later)] == [Status.SUCCEEDED, Status.QUEUED]
    assert [row.reason for row in store.agents(WITHIN)] == ["stopped"]


async def test_an_agent_that_can_not_read_what_it_works_on_leaves_it_to_those_that_can() -> None:
    store, held = Upgraded(), Held()
    deployment = j.submit(store)
    async with working(store, held, ttl=1.0, look_every=0.01) as task:
        await until(lambda: [ev.type_of(entry.event) for entry in store.journal(deployment)][-1:] == ["step_started"])
        store.unreadable = True
        with pytest.raises(NewerStoreError):  # at once: it holds the lease for as long as it lives
            await asyncio.wait_for(task, WITHIN)
    store.unreadable = False
    async with working(store, Stepping(), name="y", ttl=1.0, look_every=0.01):
        await until(lambda: store.summary(deployment).status.terminal)
    assert store.summary(deployment).status is Status.SUCCEEDED
