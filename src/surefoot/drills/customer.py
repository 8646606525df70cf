# SPDX-License-Identifier: Apache-2.0
"""A customer who asks the service 50 times a second, each host in turn, and counts what was not answered.

The pace does not wait for answers: a service that hangs is asked on. Each request has a connection of its own, as a
new visitor's has.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

EVERY = 0.02
#: A request that takes longer has failed; generous, since the machine has deploys to do at the same time.
ANSWER_WITHIN = 10.0


@dataclass
class Tally:
    """What a customer saw."""

    requests: int = 0
    failed: int = 0
    slowest: float = 0.0
    failures: list[tuple[float, str]] = field(default_factory=list)  #: when, and what instead of an answer


class Customer:
    """Asks from `start` to `stop`."""

    def __init__(self, urls: Sequence[str]) -> None:
        """Ask these in turn."""
        self.tally = Tally()
        self._urls = urls
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="customer", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> Tally:
        """Ask no more, and return what was seen."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        return self.tally

    async def _run(self) -> None:
        import aiohttp

        limit = aiohttp.ClientTimeout(total=ANSWER_WITHIN)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(timeout=limit, connector=connector) as session, asyncio.TaskGroup() as asked:
            due = time.monotonic()
            while not self._over.is_set():
                url = self._urls[self.tally.requests % len(self._urls)]
                self.tally.requests += 1
                asked.create_task(self._ask(session, url))
                due += EVERY
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _ask(self, session: object, url: str) -> None:
        import aiohttp

        assert isinstance(session, aiohttp.ClientSession)
        began = time.monotonic()
        said = ""
        try:
            async with session.get(url) as answer:
                await answer.read()
                said = "" if answer.status == 200 else f"HTTP {answer.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = f"{type(error).__name__}: {error}"
        self.tally.slowest = max(self.tally.slowest, time.monotonic() - began)
        if said:
            self.tally.failed += 1
            self.tally.failures.append((time.time(), f"{url}: {said}"))
