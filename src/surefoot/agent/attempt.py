# SPDX-License-Identifier: Apache-2.0
"""One process tree under the dead man's switch, from its first process to its last.

Guarantees: when `run_attempt` returns or raises (cancelled too), nothing that it started runs any more, save what a
step may leave; each new deadline of the lease reaches the shim; a lease that was lost meanwhile is an error, never an
outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from surefoot.agent.holding import Holding
from surefoot.agent.processes import Ended, EndReason, ProcessRunner, Spawn
from surefoot.core.errors import LeaseLostError

T = TypeVar("T")

#: Seconds between SIGTERM and SIGKILL when an attempt is ended from outside: what is cancelled is gone within a second.
STOP_GRACE = 0.3


@dataclass(frozen=True, slots=True)
class Ran:
    """How a process tree ended."""

    ended: Ended
    timed_out: bool = False

    @property
    def began(self) -> bool:
        """Whether there was a process at all."""
        return self.ended.reason is not EndReason.FAILED

    @property
    def succeeded(self) -> bool:
        """Whether the command ended by itself, with status 0."""
        return not self.timed_out and self.ended.reason is EndReason.EXITED and self.ended.exit_code == 0


async def run_attempt(
    runner: ProcessRunner,
    holding: Holding,
    spawn: Spawn,
    output: Callable[[str, bytes], None],
    timeout: float | asyncio.Timeout | None,
) -> Ran:
    """Run `spawn` for at most `timeout` seconds, or while a timeout that the caller may yet move lasts, and while the
    lease holds. LeaseLostError if it did not.
    """
    limit = timeout if isinstance(timeout, asyncio.Timeout) else asyncio.timeout(timeout)
    holding.check()
    attempt = await runner.run(spawn, output=output, until=holding.deadline)
    silence = holding.tell(attempt.extend)
    timed_out = False
    try:
        try:
            async with limit:
                ended = await attempt.wait()
        except TimeoutError:
            timed_out = True
            await attempt.stop(STOP_GRACE)
            ended = await attempt.wait()
    except asyncio.CancelledError:
        await undisturbed(_end(attempt.stop(STOP_GRACE if holding.good else 0.0), attempt.wait()))
        raise
    finally:
        silence()
    if ended.reason is EndReason.EXPIRED:
        holding.lose("not renewed in time")
        raise LeaseLostError("the lease ran out while a step ran, and the step was ended")
    return Ran(ended, timed_out)


async def _end(stop: Coroutine[Any, Any, None], wait: Coroutine[Any, Any, Ended]) -> None:
    await stop
    await wait


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Do `work` to its end, even if the waiting task is cancelled (again) meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue  # we are in the middle of being cancelled: the caller raises when this is done
    return task.result()
