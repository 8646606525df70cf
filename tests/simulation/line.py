# SPDX-License-Identifier: Apache-2.0
"""The line between an agent and the store: slow, cut, or losing what is on it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from surefoot.core.errors import StoreError, SurefootError

if TYPE_CHECKING:
    from tests.simulation.world import World

#: Seconds until an agent stops waiting for an answer; the call may happen for as long again after that.
GIVEN_UP = 5.0
#: This share of signs of life takes as long as other calls do. Little can come between one and what follows it, and
#: they were a fifth of all that happened in a schedule.
AT_ONCE = 0.25
#: Calls that others may have to hear of.
WRITES = frozenset({"append", "claim", "submit", "set_drain"})


class SimAccess:
    """The store, as one agent reaches it: slow, cut off, losing calls or replies, or making calls long after the agent
    has stopped waiting for them.
    """

    def __init__(self, world: World, agent: str) -> None:
        self.world = world
        self.agent = agent

    async def __call__(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        world, loop, rng = self.world, self.world.loop, self.world.loop.random
        name = call.__name__
        if name == "wait_as_agent":
            return await world.wait()
        if self.agent in world.cut or world.store_down:
            await loop.nap(rng.choice((0.001, 1.0)))
            raise StoreError("no answer")
        fault = rng.random()
        at_once = name == "report" and AT_ONCE < fault < 1 - world.faults
        try:
            if not at_once:
                await loop.nap(rng.uniform(0.1, 1.5) if fault > 1 - world.faults else 0.0005 + 0.02 * rng.random())
        except asyncio.CancelledError:
            # What is on its way to the store can't be called back.
            if rng.random() < 0.5:
                self._later(call, args, kwargs, rng.uniform(0.0, 1.0))
            raise
        if fault < world.faults:
            if fault < world.faults / 4:
                self._later(call, args, kwargs, rng.uniform(0.0, 2 * GIVEN_UP))
            await loop.nap(rng.choice((0.0, 0.5, GIVEN_UP)))
            raise StoreError("connection lost before the call")
        try:
            result = call(*args, **kwargs)
        finally:
            if name in WRITES:
                world.committed(name, args)
        if fault < 2 * world.faults or self.agent in world.deaf:
            await loop.nap(rng.choice((0.001, 0.5, GIVEN_UP)))
            raise StoreError("connection lost before the reply")
        if self.agent in world.slow:
            await loop.nap(rng.uniform(0.2, 2.0))
        elif not at_once and rng.random() < 0.2:
            await loop.nap(rng.uniform(0.5, 3.0) if rng.random() < 2 * world.faults else rng.uniform(0.0005, 0.02))
        return result

    def _later(self, call: Callable[..., Any], args: Any, kwargs: Any, seconds: float) -> None:
        """Have a call happen when nobody waits for it any more: its agent's process may be long dead."""

        def happen() -> None:
            self.world.under_way -= 1
            with contextlib.suppress(SurefootError):
                call(*args, **kwargs)
            if call.__name__ in WRITES:
                self.world.committed(call.__name__, args)

        if call.__name__ != "enter":  # the presence falls with the process, so it is no process's that is dead
            self.world.under_way += 1
            self.world.loop.call_later(seconds, happen, context=contextvars.Context())
