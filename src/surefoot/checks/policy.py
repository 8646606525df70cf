# SPDX-License-Identifier: Apache-2.0
"""When checks count as passed: so often running, so far apart, within so long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from surefoot.checks.model import CheckResult, CheckStatus
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import HealthPolicy

#: Failures that a message names; the rest are counted.
NAMED = 3


async def until_healthy(
    once: Callable[[], Awaitable[Sequence[CheckResult]]],
    policy: HealthPolicy,
    told: Callable[[Sequence[CheckResult]], None] = lambda _: None,
) -> Failure | None:
    """Run rounds of checks until `successes` in a row passed (None), or the time is over (the last failing round's
    failure).

    `told` hears of each round. A round that is under way when the time is over is ended.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + policy.within
    passed, failing = 0, Failure(Code.HEALTH_FAILED, f"no round of health checks was done within {policy.within:g} s")
    while True:
        start = loop.time()
        try:
            async with asyncio.timeout_at(end):
                results = await once()
        except TimeoutError:
            return failing
        told(results)
        failure = failed(results)
        passed, failing = (passed + 1, failing) if failure is None else (0, failure)
        if passed >= policy.successes:
            return None
        if loop.time() + policy.interval >= end:
            return failing
        await asyncio.sleep(max(0.0, start + policy.interval - loop.time()))


def failed(results: Sequence[CheckResult], code: Code = Code.HEALTH_FAILED) -> Failure | None:
    """Return what failed in a round; None if nothing did."""
    failures = [result for result in results if result.status is CheckStatus.FAIL]
    if not failures:
        return None
    named = "; ".join(f"{r.name}{f' on {r.host}' if r.host else ''}: {r.message}" for r in failures[:NAMED])
    more = f"; and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
    return Failure(code, named + more, hint=failures[0].hint, host=failures[0].host)
