# SPDX-License-Identifier: Apache-2.0
"""Runs a plan's checks for the agent: preflight once, health as its policy asks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from surefoot.agent.redact import SHORTEST
from surefoot.checks.model import CheckResult, CheckStatus, Context
from surefoot.checks.policy import failed, stays_healthy, until_healthy
from surefoot.checks.registry import run_all
from surefoot.core import events as ev
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Check, HealthPolicy

_REFERENCE = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)

#: What to do where a check does not say.
FIX = "repair what it looks at, or correct the check in surefoot.yml"


def secrets_results(
    names: Sequence[str], failures: Sequence[Failure], unprotected: Sequence[str], in_files: Sequence[str]
) -> list[CheckResult]:
    """Return how the secrets that steps need came out: `unprotected` are too short, and `in_files` says which of them
    are in the project's files.
    """
    if failures:
        return [CheckResult("secrets", CheckStatus.FAIL, failure.message, failure.hint) for failure in failures]
    warned = [
        *((f"the secret {name} is shorter than {SHORTEST} characters: output may show it", "use a longer one")
          for name in unprotected),
        *((said, "take it out of the files and of git's history, and renew it") for said in in_files),
    ]  # fmt: skip
    passed = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} set"
    return [
        CheckResult("secrets", CheckStatus.PASS, passed),
        *(CheckResult("secrets", CheckStatus.WARN, message, hint) for message, hint in warned),
    ]


def waits_for(check: Check, missing: Sequence[str]) -> CheckResult | None:
    """Return that a check can't be run for want of a secret that it would send, if that is so."""
    wanted = next((name for name in missing if name in _references(check.options)), None)
    if wanted is None:
        return None
    return CheckResult(check.name or check.kind, CheckStatus.SKIP, f"it needs {wanted}, which is not set")


def preflight_outcome(
    results: Sequence[CheckResult], missing: Failure | None
) -> ev.PreflightPassed | ev.PreflightFailed:
    """Return what became of the preflight as a whole."""
    checks = tuple(map(checked, results))
    failure = failed(results, Code.PREFLIGHT_FAILED if missing is None else missing.code)
    if failure is not None:
        return ev.PreflightFailed(failure, checks)
    warnings = tuple(f"{r.name}: {r.message}" for r in results if r.status is CheckStatus.WARN)
    pins = {name: value for result in results for name, value in result.pins.items()}
    return ev.PreflightPassed(warnings, checks, pins)


def checked(result: CheckResult) -> ev.Checked:
    """Return a result as the journal holds it: with something to do for each that failed."""
    seconds = round(result.duration_seconds, 3)
    hint = result.hint or (FIX if result.status is CheckStatus.FAIL else "")
    return ev.Checked(result.name, str(result.status), result.message, hint, seconds, result.host)


async def healthy(
    checks: Sequence[Check], policy: HealthPolicy, context: Context, note: Callable[[str], None]
) -> tuple[Failure | None, int]:
    """Run the health checks until they pass as often as they must; return what failed at last, and how many there
    are.
    """
    teller = _Teller(note)
    failure = await until_healthy(lambda end: run_all(checks, context, until=end), policy, teller.told)
    return failure, teller.count


async def still_healthy(
    checks: Sequence[Check],
    policy: HealthPolicy,
    seconds: float,
    context: Context,
    note: Callable[[str], None],
) -> Failure | None:
    """Watch health for so long; return what failed, as soon as it did for good."""
    teller = _Teller(note)
    return await stays_healthy(lambda end: run_all(checks, context, until=end), policy, seconds, teller.told)


class _Teller:
    """Tells how checks come out; what does not change is said once."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._last: list[str] = []
        self.count = 0

    def told(self, results: Sequence[CheckResult]) -> None:
        self.count = len(results)
        lines = [line(result) for result in results]
        # Measured values (how long an answer took) are no change.
        kinds = [f"{result.status} {result.name} {result.host}" for result in results]
        if kinds != self._last:
            for text in lines:
                self._note(f"health {text}")
        self._last = kinds


def line(result: CheckResult) -> str:
    """Return a result as the log tells it."""
    where = f" on {result.host}" if result.host else ""
    fix = f" (fix: {result.hint})" if result.hint and result.status is CheckStatus.FAIL else ""
    return f"{result.status}: {result.name}{where}: {result.message}{fix}"


def _references(options: Any) -> set[str]:
    """Return the names of secrets that options speak of; in `run`, `$` is the shell's."""
    match options:
        case str():
            return set(_REFERENCE.findall(options))
        case dict():
            return set().union(*(_references(value) for key, value in options.items() if key != "run"))
        case list() | tuple():
            return set().union(*map(_references, options))
        case _:
            return set()
