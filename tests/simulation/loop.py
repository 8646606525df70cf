# SPDX-License-Identifier: Apache-2.0
"""An event loop on virtual time with a seeded scheduler, on which groups of tasks (agents) can be frozen, thawed and
killed.

Waiting costs nothing: when nothing is ready, time jumps to the next timer. Among what is ready at the same instant,
the seed decides the order. What runs belongs to the group in whose context it was scheduled (asyncio copies contexts
into tasks and callbacks), so a group can be held back as SIGSTOP holds back a process, or dropped as SIGKILL drops
it: without any `finally` having an effect.

Each group lives by a clock of its own, as machines do: `time()` and every timer go at the group's rate, and stand still
while a machine is paused together with its clock.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import types
from collections.abc import Generator
from heapq import heapify, heappop, heappush
from typing import Any

import msgspec

GROUP: contextvars.ContextVar[str | None] = contextvars.ContextVar("group", default=None)
REAL_SLEEP = asyncio.sleep

#: No schedule that comes to an end takes so many.
MOST_STEPS = 200_000


def in_group(group: str) -> contextvars.Context:
    """Return a context in which what runs belongs to a group."""
    context = contextvars.copy_context()
    context.run(GROUP.set, group)
    return context


class Handle(msgspec.Struct, eq=False):
    """A callback to run; what `asyncio.Handle` is, without its bookkeeping (which was half of a schedule's time)."""

    callback: Any
    args: Any
    context: contextvars.Context
    group: str | None
    time: float
    timer: bool
    dropped: bool = False

    def cancel(self) -> None:
        self.dropped = True
        self.callback = self.args = None

    def cancelled(self) -> bool:
        return self.dropped

    def when(self) -> float:
        return self.time


class Task(asyncio.Task[Any]):
    """A task that a cancellation wakes up from its sleep: to asyncio, it does not wait for anything."""

    def cancel(self, msg: Any = None) -> bool:
        loop = self.get_loop()
        assert isinstance(loop, VirtualLoop)
        cancels = super().cancel(msg)
        if cancels and self._fut_waiter is None:  # type: ignore[attr-defined]
            loop.wake(self)
        return cancels


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module's docstring."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.now = 1000.0
        self.frozen: set[str] = set()
        self.dead: set[str] = set()
        self.steps = 0
        self.fuses: dict[str | None, tuple[int, Any]] = {}
        #: All groups that have ever been in one of these three; most never are.
        self.touched: set[str | None] = set()
        #: All tasks ever: a killed group's must stay as they are, not be collected (which would run their `finally`).
        self.tasks: list[asyncio.Task[Any]] = []
        #: How a group's clock goes: local time is `now * rate - lag`.
        self.clocks: dict[str | None, tuple[float, float]] = {}
        self.paused: dict[str, float] = {}
        #: Of the callback that runs now: its group, that one's clock, and the context that what it schedules runs in.
        self._clock: tuple[float, float] | None = None
        self._context: contextvars.Context | None = None
        self._group: str | None = None
        self._until: float | None = None  # when the task that runs now goes on, if it sleeps
        self._ready: list[Handle] = []
        self._held: list[Handle] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._count = 0

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> Task:
        task = Task(coro, loop=self, name=name or "task", context=context)
        self.tasks.append(task)
        return task

    def time(self) -> float:
        """Return the time by the clock of whoever asks."""
        if self._clock is None:
            return self.now
        return self.now * self._clock[0] - self._clock[1]

    def time_of(self, group: str) -> float:
        """Return the time by a group's clock."""
        rate, lag = self.clocks.get(group, (1.0, 0.0))
        return self.now * rate - lag

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        until, self._until = self._until, None
        if until is not None and callback.__self__._must_cancel:
            until = None
        return self._schedule(until, callback, args, context)

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        if self._clock is not None:
            delay /= self._clock[0]
        return self._schedule(self.now + delay, callback, args, context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        if self._clock is not None:
            when = (when + self._clock[1]) / self._clock[0]
        return self._schedule(when, callback, args, context)

    def _schedule(self, when: float | None, callback: Any, args: Any, context: contextvars.Context | None) -> Handle:
        """Have a callback run at a time, or next, in the context that is given, or else in the one that runs now:
        nobody sets anything in it but groups' names, so it needs no copy.
        """
        if context is None:
            context = contextvars.copy_context() if self._context is None else self._context
        group = self._group if context is self._context else context.get(GROUP)
        if when is None:
            handle = Handle(callback, args, context, group, self.now, False)
            self._ready.append(handle)
        else:
            handle = Handle(callback, args, context, group, when, True)
            self._count += 1
            heappush(self._timers, (when, self._count, handle))
        return handle

    @types.coroutine
    def nap(self, seconds: float) -> Generator[None, None, None]:
        """Sleep by true time; for the world, not for agents.

        What a task awaits when it awaits nothing is another turn: `call_soon` has that come later, which is cheaper
        than a future for each sleep.
        """
        self._until = self.now + seconds
        yield

    async def sleep(self, delay: float, result: Any = None) -> Any:
        """Do what `asyncio.sleep` does, by the clock of whoever asks, in one step instead of two."""
        if delay <= 0:
            return await REAL_SLEEP(delay, result)
        await self.nap(delay / (self._clock[0] if self._clock else 1.0))
        return result

    def wake(self, task: Task) -> None:
        """Have a task go on now that sleeps; one that is frozen goes on when it thaws."""
        for _, _, handle in self._timers:
            if not handle.dropped and getattr(handle.callback, "__self__", None) is task:
                self.call_soon(handle.callback, context=handle.context)
                handle.cancel()
                return
        for handle in self._held:
            if getattr(handle.callback, "__self__", None) is task:
                handle.timer = False  # to be put off no more

    def get_debug(self) -> bool:
        return False

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def close(self) -> None:
        """Let go of all that was to be done."""
        super().close()
        self.tasks.clear()
        self._timers.clear()
        self._held.clear()
        self.fuses.clear()

    def kill(self, group: str) -> None:
        """Drop all that a group would ever do."""
        self.dead.add(group)
        self.touched.add(group)

    def kill_after(self, group: str, steps: int, kill: Any) -> None:
        """Call `kill` when a group has taken so many more steps: between any two of them."""
        self.fuses[group] = (steps, kill)
        self.touched.add(group)

    def freeze(self, group: str) -> None:
        """Hold back all that a group would do."""
        self.frozen.add(group)
        self.touched.add(group)

    def thaw(self, group: str) -> None:
        """Let a frozen group go on."""
        self.frozen.discard(group)
        if (since := self.paused.pop(group, None)) is not None:
            self._shift(group, self.now - since)
        self._ready += [handle for handle in self._held if handle.group == group]
        self._held = [handle for handle in self._held if handle.group != group]

    def pause(self, group: str) -> None:
        """Freeze a group together with its clock, as a virtual machine is paused: it will not know how long."""
        self.paused.setdefault(group, self.now)
        self.freeze(group)

    def _shift(self, group: str, seconds: float) -> None:
        """Set a group's clock back, and put off all that it waits for."""
        rate, lag = self.clocks.get(group, (1.0, 0.0))
        self.clocks[group] = (rate, lag + seconds * rate)
        for _, _, handle in self._timers:
            if handle.group == group:
                handle.time += seconds
        timers = [(handle.time, count, handle) for _, count, handle in self._timers]
        overdue = [handle for handle in self._held if handle.timer and handle.group == group]
        for handle in overdue:
            self._count += 1
            handle.time += seconds
            timers.append((handle.time, self._count, handle))
        self._held = [handle for handle in self._held if handle not in overdue]
        heapify(timers)
        self._timers = timers

    def _interleaved(self, ready: list[Handle]) -> list[Handle]:
        """Return the handles in a random order that keeps each group's own (within a process, asyncio is first in,
        first out).
        """
        order = [handle.group for handle in ready]
        if order.count(order[0]) == len(order):
            return ready
        queues: dict[str | None, list[Handle]] = {}
        for group, handle in zip(reversed(order), reversed(ready), strict=True):
            queues.setdefault(group, []).append(handle)
        random = self.random.random
        for place in range(len(order) - 1, 0, -1):  # what `Random.shuffle` does, in a third of the time
            other = int(random() * (place + 1))
            order[place], order[other] = order[other], order[place]
        return [queues[group].pop() for group in order]

    def _run_once(self) -> None:
        """Run all there is, until the loop is stopped: what is ready at one instant, then at the next."""
        while not self._stopping:  # type: ignore[attr-defined]
            timers, ready = self._timers, self._ready
            if not ready:
                while timers and timers[0][2].dropped:
                    heappop(timers)
                if not timers:
                    raise AssertionError("nothing is ready and nothing is scheduled: a deadlock")
                if timers[0][0] > self.now:
                    self.now = timers[0][0]
            while timers and timers[0][0] <= self.now:
                handle = heappop(timers)[2]
                if not handle.dropped:
                    ready.append(handle)
            self._ready = []
            for handle in ready if len(ready) == 1 else self._interleaved(ready):
                group = handle.group
                if handle.dropped or (group in self.touched and not self._may_run(group, handle)):
                    continue
                self.steps += 1
                self._group = group
                self._clock = self.clocks.get(group)
                self._context = context = handle.context
                if handle.args:
                    context.run(handle.callback, *handle.args)
                else:  # most are tasks' turns
                    context.run(handle.callback)
            self._clock = self._context = None
            if self.steps > MOST_STEPS:
                raise AssertionError("somebody runs in circles")

    def _may_run(self, group: str | None, handle: Handle) -> bool:
        """Whether a group can take a step; what it can't run now is held for later, or never run."""
        if group in self.dead:
            return False
        if group in self.frozen:
            self._held.append(handle)
            return False
        if group in self.fuses:
            self._burn(group)
        return group not in self.dead

    def _burn(self, group: str | None) -> None:
        steps, kill = self.fuses[group]
        self.fuses[group] = (steps - 1, kill)
        if steps <= 0:
            del self.fuses[group]
            kill()
