# SPDX-License-Identifier: Apache-2.0
"""How the agent's tasks reach the blocking store: from threads, each call with a deadline.

A call whose deadline passes may still happen later; its caller must not conclude that it didn't. Appends carry an id
and renewals are harmless when late, so repeating is always safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Protocol, TypeVar

from surefoot.core.errors import Code, NewerStoreError, StoreError

P = ParamSpec("P")
T = TypeVar("T")

#: Threads for store calls. Renewals and heartbeats have their own, so that nothing slow can stand in their way.
WORKERS = 6
COURIERS = 2
RENEWERS = 3
#: Seconds between tries while the store does not answer.
AGAIN = 0.2


class StoreAccess(Protocol):
    """Calls a blocking method of the store without blocking the caller's loop."""

    async def __call__(
        self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:  # pragma: no cover - protocol
        """Return what the call returned, or raise what it raised; StoreError if it took too long."""
        ...


async def answered(
    access: StoreAccess, may: Callable[[], object], call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call the store until it answers, or turns out to be too new. `may` is asked before each try, and raises once that
    is of no use.
    """
    while True:
        may()
        try:
            return await access(call, *args, **kwargs)
        except NewerStoreError:
            raise
        except StoreError:
            await asyncio.sleep(AGAIN)


class ThreadAccess:
    """Calls the store from a pool of threads."""

    def __init__(self, deadline: float, threads: int = WORKERS) -> None:
        """Give each call `deadline` seconds."""
        self._deadline = deadline
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="store")

    async def __call__(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See StoreAccess."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, lambda: call(*args, **kwargs))
        try:
            async with asyncio.timeout(self._deadline):
                return await future
        except TimeoutError:
            raise StoreError(
                f"the store did not answer within {self._deadline:g} s",
                code=Code.STORE_UNREACHABLE,
                hint="check the store's server and the network between",
            ) from None

    def close(self) -> None:
        """Stop taking calls; ones that hang are left to their sockets' own time-outs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
