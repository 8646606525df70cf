# SPDX-License-Identifier: Apache-2.0
"""A lease while it is held: renewed in time, or given up before anyone else can have it.

Invariant: `deadline` is counted from before the last good renewal was *sent*, so it passes here before any observer
may claim (core/lease.py). Once passed, the lease counts as lost for good, even if the store would still renew it:
whatever woke up after a pause must not go on with what it believed before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from surefoot.agent.access import StoreAccess
from surefoot.core.errors import LeaseLostError, StoreError
from surefoot.core.lease import LeaseTiming
from surefoot.store.protocol import Grant, Store

#: Seconds until a failed renewal is tried again.
RETRY_AFTER = 0.2

#: A shorter sleep may end at the same instant, for ever.
SHORTEST_SLEEP = 0.001


class Holding:
    """One granted lease. `lost` is done as soon as it may not be relied upon any more."""

    def __init__(
        self,
        grant: Grant,
        timing: LeaseTiming,
        sent: float,
        *,
        store: Store,
        access: StoreAccess,
        clock: Callable[[], float],
    ) -> None:
        """Begin with the claim that was sent at `sent` on `clock` (a monotonic one that goes on in suspend)."""
        self.grant = grant
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.why = ""
        self.deadline = timing.deadline(sent)
        self._timing = timing
        self._store = store
        self._access = access
        self._clock = clock
        self._listeners: set[Callable[[float], None]] = set()

    @property
    def good(self) -> bool:
        """Whether the lease may be relied upon at this instant."""
        if self.lost.done():
            return False
        if self._clock() < self.deadline:
            return True
        self.lose("not renewed in time")
        return False

    def check(self) -> None:
        """Raise LeaseLostError if the lease may not be relied upon."""
        if not self.good:
            raise LeaseLostError(f"lease lost: {self.why}")

    def tell(self, listener: Callable[[float], None]) -> Callable[[], None]:
        """Tell `listener` each new deadline, beginning with the present one; return what ends that."""
        self._listeners.add(listener)
        listener(self.deadline)
        return lambda: self._listeners.discard(listener)

    def lose(self, why: str) -> None:
        """Stop relying on the lease."""
        if not self.lost.done():
            self.why = why
            self.lost.set_result(None)

    async def keep(self) -> None:
        """Renew until the lease is lost or this task is cancelled."""
        pause = self._timing.renew_every
        while self.good:
            await asyncio.sleep(max(SHORTEST_SLEEP, min(pause, self.deadline - self._clock())))
            # After a failure sooner again, but without hammering a store that refuses at once.
            pause = self._timing.renew_every if await self._renewed() else RETRY_AFTER

    async def _renewed(self) -> bool:
        if not self.good:
            return False
        sent = self._clock()
        try:
            async with asyncio.timeout(self.deadline - sent):
                await self._access(self._store.renew, self.grant)
        except LeaseLostError as error:
            self.lose(error.message)
            return False
        except (StoreError, TimeoutError):
            return False
        if self.good:
            self.deadline = self._timing.deadline(sent)
            for listener in tuple(self._listeners):
                listener(self.deadline)
        return True
