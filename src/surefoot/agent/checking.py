# SPDX-License-Identifier: Apache-2.0
"""Runs a plan's checks for the agent: preflight once, health as its policy asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from surefoot.checks.model import CheckResult, CheckStatus, Context
from surefoot.checks.policy import failed, until_healthy
from surefoot.checks.registry import run_all
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Check, HealthPolicy


async def preflight(
    checks: Sequence[Check], context: Context, note: Callable[[str], None]
) -> tuple[Failure | None, tuple[str, ...]]:
    """Run the preflight checks side by side; return what failed, and what warned."""
    results = await run_all(checks, context)
    for result in results:
        note(f"preflight {_line(result)}")
    warnings = tuple(r.message for r in results if r.status is CheckStatus.WARN)
    return failed(results, Code.PREFLIGHT_FAILED), warnings


async def healthy(
    checks: Sequence[Check], policy: HealthPolicy, context: Context, note: Callable[[str], None]
) -> tuple[Failure | None, int]:
    """Run the health checks until they pass as often as they must; return what failed at last, and how many there
    are.
    """
    last: list[str] = []
    count = 0

    def told(results: Sequence[CheckResult]) -> None:
        nonlocal last, count
        count = len(results)
        lines = [_line(result) for result in results]
        if lines != last:  # what does not change is said once
            for line in lines:
                note(f"health {line}")
        last = lines

    failure = await until_healthy(lambda: run_all(checks, context), policy, told)
    return failure, count


def _line(result: CheckResult) -> str:
    where = f" on {result.host}" if result.host else ""
    return f"{result.status}: {result.name}{where}: {result.message}"
