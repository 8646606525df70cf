# SPDX-License-Identifier: Apache-2.0
"""When checks count as passed: so often running, so far apart, within so long.

Guarantees: it ends when its time is over, whatever a check does; it never says that all is well but after that many
rounds in which every check passed, one right after the other. Only the loop's clock counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from surefoot.checks.model import CheckResult, CheckStatus
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import HealthPolicy

#: Seconds, at the end of a round's time, to end checks that have no result and to say which they were.
LAST_WORDS = 1.0
#: Failures that a message names; the rest are counted.
NAMED = 3
#: Rounds in a row that must fail until what was healthy counts as healthy no more: one is a hiccup.
BREACH = 3


async def until_healthy(
    once: Callable[[float], Awaitable[Sequence[CheckResult]]],
    policy: HealthPolicy,
    told: Callable[[Sequence[CheckResult]], None] = lambda _: None,
) -> Failure | None:
    """Run rounds of checks until `successes` in a row passed (None), or the time is over (what failed last).

    `told` hears of each round. `once` is told until when it has time, so that it can say which checks had no result; a
    round that is still under way when the time is over is ended.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + policy.within
    passed, last = 0, None
    before: dict[tuple[str, str | None], CheckResult] = {}
    while True:
        start = loop.time()
        until = end - _last_words(end - start)
        try:
            async with asyncio.timeout_at(end):
                results = await once(until)
        except TimeoutError:
            return _not_in_time(policy, passed, last, "the next round was still under way")
        told(results)
        failure = failed(_known(results, before))
        before = {(result.name, result.host): result for result in results}
        passed, last = (passed + 1, last) if failure is None else (0, failure)
        if passed >= policy.successes:
            return None
        again = max(start + policy.interval, loop.time())
        if again >= end or (failure is not None and loop.time() >= until):
            return _not_in_time(policy, passed, last, "there was no time for another")
        await asyncio.sleep(again - loop.time())


async def stays_healthy(
    once: Callable[[float], Awaitable[Sequence[CheckResult]]],
    policy: HealthPolicy,
    seconds: float,
    told: Callable[[Sequence[CheckResult]], None] = lambda _: None,
) -> Failure | None:
    """Run rounds of checks for so long, and at least one; return what failed as soon as `BREACH` rounds in a row did.

    It does not end in the midst of a breach: the last round must pass. A round has as long as `policy.within`.
    """
    loop = asyncio.get_running_loop()
    end, in_a_row = loop.time() + seconds, 0
    while True:
        start = loop.time()
        try:
            async with asyncio.timeout(policy.within):
                results = await once(start + policy.within - _last_words(policy.within))
        except TimeoutError:
            return Failure(Code.HEALTH_FAILED, f"the health checks had no answer within {policy.within:g} s")
        told(results)
        failure = failed(results)
        in_a_row = 0 if failure is None else in_a_row + 1
        if failure is not None and in_a_row >= BREACH:
            return failure
        if failure is None and loop.time() >= end:
            return None
        again = start + policy.interval
        if failure is None:
            again = min(again, end)
        await asyncio.sleep(max(0.0, again - loop.time()))


def _known(
    results: Sequence[CheckResult], before: Mapping[tuple[str, str | None], CheckResult]
) -> Sequence[CheckResult]:
    """Return a round's results, with what is known of those that its end has cut off: how they failed in the round
    before. What only had no time to pass again comes last: it is not why health was lost.
    """

    def known(result: CheckResult) -> CheckResult:
        old = before.get((result.name, result.host)) if result.given_up else None
        return old if old is not None and old.status is CheckStatus.FAIL else result

    return sorted(map(known, results), key=lambda result: result.given_up)


def _last_words(seconds: float) -> float:
    return min(LAST_WORDS, seconds / 10)


def failed(results: Sequence[CheckResult], code: Code = Code.HEALTH_FAILED) -> Failure | None:
    """Return what failed in a round; None if nothing did."""
    failures = [result for result in results if result.status is CheckStatus.FAIL]
    if not failures:
        return None
    named = "; ".join(f"{r.name}{f' on {r.host}' if r.host else ''}: {r.message}" for r in failures[:NAMED])
    more = f"; and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
    hint = next((result.hint for result in failures if result.hint), "")
    return Failure(code, named + more, hint=hint, host=failures[0].host)


def _not_in_time(policy: HealthPolicy, passed: int, last: Failure | None, why: str) -> Failure:
    """Say what failed last; or, if the checks passed at the end, that this was too late."""
    if last and not passed:
        return last
    before = f"; before that: {last.message}" if last else ""
    return Failure(
        Code.HEALTH_FAILED,
        f"the health checks passed {passed} of {policy.successes} times running within {policy.within:g} s, "
        f"and {why}{before}",
        hint="give health_policy.within more time, or the checks a shorter timeout",
        host=last.host if last else None,
    )
