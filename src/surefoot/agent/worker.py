# SPDX-License-Identifier: Apache-2.0
"""Works one deployment while its lease is held: read the journal, decide, perform, append, until it ends.

Guarantees: a step's start is in the journal before its first process exists, its end only after its last one is gone;
nothing is appended or begun once the lease is lost; an outcome whose append got no answer is appended again under the
same id until it is known to stand. It does not guarantee that an action runs once: whatever is in flight when an
agent dies runs again elsewhere.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal, TypeVar, assert_never

from surefoot.agent.access import StoreAccess, answered
from surefoot.agent.holding import Holding
from surefoot.agent.performer import Job, Performer
from surefoot.core import decide as do
from surefoot.core import events as ev
from surefoot.core.deployment import Deployment, fold
from surefoot.core.errors import Code, ConflictError, Failure, LeaseLostError, NewerStoreError, StoreError
from surefoot.store.protocol import Append, Store

E = TypeVar("E", bound=ev.Event)

#: What is no fault of the deployment: another agent's machine may well be able to do it.
OF_THE_MACHINE = frozenset({Code.AGENT_FOLDER, Code.STEP_NOT_STARTED})
#: Seconds for which the journal is not read again while an action runs, if no change is announced.
LOOK_AGAIN = 1.0


class HandOver(Exception):  # noqa: N818 - an instruction, not an error
    """The agent is told to stop, or to give way: give the lease back, and say why."""


class Worker:
    """One deployment in one agent's hands."""

    def __init__(
        self,
        state: Deployment,
        holding: Holding,
        *,
        store: Store,
        access: StoreAccess,
        performer: Performer,
        changed: Changes,
        handover: asyncio.Event,
        note: Callable[[str], None],
        told: Callable[[ev.Entry], None] = lambda _: None,
        gives_way: Callable[[], str] = lambda: "",
        unable: Callable[[Failure], Awaitable[None]] | None = None,
    ) -> None:
        """Go on from `state`, as it was when `holding` was claimed. `handover` asks to give it back at once,
        `gives_way` says why to do so as soon as nothing is in flight that could not wait; both are looked at when
        `changed` announces something. `told` hears of each entry of the journal that is written meanwhile; `unable` of
        what this machine can't do, before it is decided what becomes of that.
        """
        self.state = state  #: what the journal says, as far as it was read
        self._holding = holding
        self._store = store
        self._access = access
        self._performer = performer
        self._changed = changed
        self._handover = handover
        self._gives_way = gives_way
        self._note = note
        self._told = told
        self._unable = unable
        self._read_at = 0.0
        self._released = False

    async def work(self) -> None:
        """Work until the deployment has ended, the lease is lost (LeaseLostError), or it was handed over."""
        await self._read()
        try:
            while self._check_lease() and not isinstance(action := do.decide(self.state, self._now()), do.Rest):
                await self._act(action)
                if self.state.held and not self.state.status.terminal:
                    self._go_on_if_we_may(waits=True)
        except HandOver as why:
            await self._fact(ev.HandedOver(cause=str(why)), release=True)
        else:
            if not self._released:
                await self._fact(ev.HandedOver(cause="nothing is left to do"), release=True)
            await self._performer.forget(self._job())

    async def _act(self, action: do.Action) -> None:
        job, perform = self._job(), self._performer
        match action:
            case do.Rest():
                pass
            case do.Write(event):
                await self._decision(event, release=isinstance(event, ev.Finished | ev.ResolveRefused))
            case do.Wait(seconds):
                self._note(f"next attempt in {seconds:.0f} s")
                await self._watch(asyncio.sleep(seconds), until=lambda s: s.stops_for_cancel, waits=True)
            case do.Preflight():
                await self._perform(perform.preflight(job))
            case do.RaiseFence():
                await self._perform(perform.raise_fence(job))
            case do.RunStep() as step:
                await self._step(job, step)
            case do.CheckHealth():
                await self._perform(perform.health(job))
            case do.RecordVersion(version):
                await self._perform(perform.record(job, version))
            case do.Survey():
                await self._perform(perform.survey(job))
            case do.Bake(seconds):
                await self._perform(perform.bake(job, seconds), waits=True)
            case do.Resolve(request):
                await self._resolve(perform.resolve(job, request))
            case _:
                assert_never(action)

    async def _resolve(self, check: Coroutine[Any, Any, ev.Resolved | ev.ResolveRefused]) -> None:
        """Answer the request that is open, and none that came after the look at hosts had begun."""
        asked = self.state.asked

        def over(s: Deployment) -> bool:
            return s.resolve is None or s.asked != asked

        answer = await self._watch(check, until=over)
        while answer is not None and not over(self.state):  # until it is written, or asked anew
            await self._decision(answer, release=True)

    async def _step(self, job: Job, action: do.RunStep) -> None:
        run = action.run
        if not await self._decision(ev.StepStarted(run.name, run.direction, action.attempt)):
            return
        outcome = await self._watch(
            self._performer.step(self._job(), action),
            until=lambda s: do.interrupts(s) is not None,
        )
        await self._came(outcome or ev.StepInterrupted(run.name, run.direction, action.attempt, "cancelled"))

    async def _perform(self, action: Coroutine[Any, Any, E], *, waits: bool = False) -> None:
        """Do what is not a step; a cancel ends it, and then it has no outcome."""
        outcome = await self._watch(action, until=lambda s: s.stops_for_cancel, waits=waits)
        if outcome is not None:
            await self._came(outcome)

    async def _came(self, outcome: ev.Event) -> None:
        """Write down what came of an action."""
        await self._fact(outcome)
        match outcome:
            case ev.NotBegun(failure) | ev.FenceFailed(failure) if failure.code in OF_THE_MACHINE:
                if self._unable is not None:
                    await self._unable(failure)

    async def _watch(
        self, action: Coroutine[Any, Any, E | None], *, until: Callable[[Deployment], bool], waits: bool = False
    ) -> E | None:
        """Run `action`; end it (and return None) when the journal says so, or when the lease or the agent ends.

        One that only `waits` may be left to another agent at any time.
        """
        task = asyncio.create_task(action)
        try:
            while True:
                if not task.done():
                    self._go_on_if_we_may(waits=waits)  # what was asked before is not announced again
                    await self._changed.next(LOOK_AGAIN, task, self._holding.lost, deployment=self.state.id)
                if task.done() and not task.cancelled():
                    return task.result()
                self._go_on_if_we_may(waits=waits)
                if task.done():
                    raise RuntimeError("what was under way ended as if it had been cancelled, and nobody did that")
                await self._refresh()
                if until(self.state) and not task.done():
                    return None
        finally:
            await _ended(task)

    def _go_on_if_we_may(self, *, waits: bool) -> None:
        """Raise LeaseLostError if the lease is lost, HandOver if the agent stops; and, while nothing is in flight that
        could not wait, if it gives way.
        """
        self._check_lease()
        if self._handover.is_set():
            raise HandOver("the agent stops")
        if waits and (why := self._gives_way()):
            raise HandOver(why)

    # -- the journal ---------------------------------------------------------------------------------

    def _now(self) -> float:
        """Return what has elapsed as of the last entry, moved on by our own monotonic clock: no wall clock decides."""
        return self.state.elapsed + asyncio.get_running_loop().time() - self._read_at

    def _absorb(self, entries: list[ev.Entry] | tuple[ev.Entry, ...]) -> None:
        for entry in entries:
            if entry.seq > self.state.seq:
                self._told(entry)
                self.state = fold([entry], self.state)
                self._read_at = asyncio.get_running_loop().time()
        if self.state.token > self._holding.grant.token:
            self._holding.lose(f"{self.state.agent} has taken over")

    async def _read(self) -> None:
        """Read what is new, trying until the lease is lost."""
        state = self.state
        self._absorb(await answered(self._access, self._check_lease, self._store.journal, state.id, state.seq))

    async def _refresh(self) -> None:
        """Read what is new if the store answers."""
        try:
            self._absorb(await self._access(self._store.journal, self.state.id, self.state.seq))
        except NewerStoreError:
            raise
        except StoreError as error:
            self._note(f"store: {error.message}")

    async def _decision(self, event: ev.Event, *, release: bool = False) -> bool:
        """Append what was decided; False if the journal has grown meanwhile and it must be decided anew."""
        if release:
            await self._performer.settle(self._job())
        try:
            await self._append(event, release)
        except ConflictError:
            await self._read()
            return False
        self._released = self._released or release
        return True

    async def _fact(self, event: ev.Event, *, release: bool = False) -> None:
        """Append what has happened, after whatever else has been appended meanwhile."""
        while not await self._decision(event, release=release):
            pass

    async def _append(self, event: ev.Event, release: bool) -> None:
        append = Append(self.state, (event,), grant=self._holding.grant, release=release)
        self._absorb(await answered(self._access, self._check_lease, self._store.append, append))

    def _check_lease(self) -> Literal[True]:
        if not self._holding.good:
            raise LeaseLostError(f"{self.state.id}: lease lost: {self._holding.why}")
        return True

    def _job(self) -> Job:
        return Job(self.state, self._holding, self._note, self._fact)


class Changes:
    """Wakes whoever waits for the store to change."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._waiting: dict[asyncio.Future[None], str | None] = {}

    def announce(self, asked: frozenset[str] | None = None) -> None:
        """Wake all that wait now, but of those that wait for one deployment only those of which something was asked
        (None: of any).
        """
        for change, deployment in self._waiting.items():
            if deployment is None or asked is None or deployment in asked:
                _wake(change)

    async def next(self, timeout: float, *ends: asyncio.Future[Any], deployment: str | None = None) -> None:
        """Return at the next announcement (that concerns a deployment, if one is given), when one of `ends` is done, or
        after `timeout` seconds.
        """
        loop = asyncio.get_running_loop()
        change: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(timeout, _wake, change)
        wake = functools.partial(_wake, change)
        self._waiting[change] = deployment
        for end in ends:
            end.add_done_callback(wake)
        try:
            await change
        finally:
            timer.cancel()
            del self._waiting[change]
            for end in ends:
                end.remove_done_callback(wake)


def _wake(change: asyncio.Future[None], _: object = None) -> None:
    if not change.done():
        change.set_result(None)


async def _ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it is over, however often we are cancelled ourselves meanwhile."""
    cancelled = False
    task.cancel()
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if not task.cancelled() and (error := task.exception()) is not None and not cancelled:
        raise error
    if cancelled:
        raise asyncio.CancelledError
