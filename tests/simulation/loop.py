# SPDX-License-Identifier: Apache-2.0
"""An event loop on virtual time with a seeded scheduler, on which groups of tasks (agents) can be frozen, thawed and
killed.

Waiting costs nothing: when nothing is ready, time jumps to the next timer. Among what is ready at the same instant,
the seed decides the order. What runs belongs to the group in whose context it was scheduled (asyncio copies contexts
into tasks and callbacks), so a group can be held back as SIGSTOP holds back a process, or dropped as SIGKILL drops
it: without any `finally` having an effect.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from typing import Any

GROUP: contextvars.ContextVar[str | None] = contextvars.ContextVar("group", default=None)


#: No schedule that comes to an end takes so many.
MOST_STEPS = 200_000


class Handle:
    """A callback to run; what `asyncio.Handle` is, without its bookkeeping (which was half of a schedule's time)."""

    __slots__ = ("args", "callback", "context", "dropped", "time")

    def __init__(self, callback: Any, args: Any, context: contextvars.Context | None, time: float) -> None:
        self.callback = callback
        self.args = args
        self.context = contextvars.copy_context() if context is None else context
        self.dropped = False
        self.time = time

    def cancel(self) -> None:
        self.dropped = True
        self.callback = self.args = None

    def cancelled(self) -> bool:
        return self.dropped

    def when(self) -> float:
        return self.time


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module's docstring."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.now = 1000.0
        self.frozen: set[str] = set()
        self.dead: set[str] = set()
        self.steps = 0
        self.fuses: dict[str, tuple[int, Any]] = {}
        #: All tasks ever: a killed group's must stay as they are, not be collected (which would run their `finally`).
        self.tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._make_task)
        self._ready: list[Handle] = []  # type: ignore[assignment]
        self._held: list[Handle] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._count = 0

    @staticmethod
    def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        assert isinstance(loop, VirtualLoop)
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **kwargs)
        loop.tasks.append(task)
        return task

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = Handle(callback, args, context, self.now)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = Handle(callback, args, context, when)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def kill(self, group: str) -> None:
        """Drop all that a group would ever do."""
        self.dead.add(group)

    def kill_after(self, group: str, steps: int, kill: Any) -> None:
        """Call `kill` when a group has taken so many more steps: between any two of them."""
        self.fuses[group] = (steps, kill)

    def freeze(self, group: str) -> None:
        """Hold back all that a group would do."""
        self.frozen.add(group)

    def thaw(self, group: str) -> None:
        """Let a frozen group go on."""
        self.frozen.discard(group)
        self._ready.extend(self._held)
        self._held = []

    def _interleaved(self, ready: list[Handle]) -> list[Handle]:
        """Return the handles in a random order that keeps each group's own (within a process, asyncio is first in,
        first out).
        """
        queues: dict[str | None, list[Handle]] = {}
        for handle in reversed(ready):
            queues.setdefault(handle.context.get(GROUP), []).append(handle)
        if len(queues) == 1:
            return ready
        order = [group for group, handles in queues.items() for _ in handles]
        self.random.shuffle(order)
        return [queues[group].pop() for group in order]

    def _run_once(self) -> None:
        timers = self._timers
        if not self._ready:
            while timers and timers[0][2].dropped:
                heapq.heappop(timers)
            if not timers:
                raise AssertionError("nothing is ready and nothing is scheduled: a deadlock")
            self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            handle = heapq.heappop(timers)[2]
            if not handle.dropped:
                self._ready.append(handle)
        ready, self._ready = self._ready, []
        for handle in ready if len(ready) == 1 else self._interleaved(ready):
            if handle.dropped:
                continue
            group = handle.context.get(GROUP)
            if group in self.dead:
                continue
            if group in self.frozen:
                self._held.append(handle)
                continue
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise AssertionError("somebody runs in circles")
            if self.fuses and group in self.fuses:
                self._burn(group)
                if group in self.dead:
                    continue
            handle.context.run(handle.callback, *handle.args)

    def _burn(self, group: str) -> None:
        steps, kill = self.fuses[group]
        self.fuses[group] = (steps - 1, kill)
        if steps <= 0:
            del self.fuses[group]
            kill()
