# SPDX-License-Identifier: Apache-2.0
"""All kinds of checks, by the name that the config calls them, and how many of them are run at once.

Guarantees: no check outlives its deadline; what a check does wrong (a bug too) is its own failure and no other's; a
check that is about hosts where there are none fails, it does not pass for lack of anything to look at. Importing this
is cheap: what a kind needs is imported when it looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError

from surefoot.checks.command import Command
from surefoot.checks.http import Http
from surefoot.checks.model import CheckFailed, CheckOptions, CheckResult, CheckStatus, Context, Kind, placeholders
from surefoot.checks.tcp import Tcp
from surefoot.core.plan import Check

_KINDS: dict[str, Kind] = {kind.name: kind for kind in (Http(), Tcp(), Command())}

#: The options of each kind, for the config's validation and reference.
KINDS: dict[str, type[CheckOptions]] = {name: kind.options for name, kind in _KINDS.items()}

#: Checks that run at the same time; the rest wait their turn.
AT_ONCE = 200
#: Seconds that a check gets beside its own time-out.
SPARE = 2.0
_HOST_NAMES = {"host", "host_name"}


async def run_all(checks: Sequence[Check], context: Context) -> list[CheckResult]:
    """Run checks side by side, those that are about hosts once for each; results come in the checks' order."""
    gate = asyncio.Semaphore(AT_ONCE)
    runs = [(check, each) for check in checks for each in _contexts(check, context)]
    return list(await asyncio.gather(*(_run(check, each, gate) for check, each in runs)))


def _contexts(check: Check, context: Context) -> list[Context]:
    about_hosts = _HOST_NAMES.union(*(host.variables for host in context.hosts)) - set(context.values)
    if not placeholders(check.options) & about_hosts or not context.hosts:
        return [context]
    return [replace(context, host=host) for host in context.hosts]


async def _run(check: Check, context: Context, gate: asyncio.Semaphore) -> CheckResult:
    async with gate:
        loop = asyncio.get_running_loop()
        start = loop.time()
        status, hint = CheckStatus.FAIL, ""
        try:
            message, status = await _probe(check, context), CheckStatus.PASS
        except CheckFailed as failure:
            message, hint = str(failure), failure.hint
        except TimeoutError:
            message = "no result in time"
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False, include_context=False)[0]
            message = f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}"
        except Exception as error:  # a check that breaks is a check that failed
            message = f"{type(error).__name__}: {error}"
        host = context.host.name if context.host else None
        return CheckResult(check.name or check.kind, status, message, hint, loop.time() - start, host)


async def _probe(check: Check, context: Context) -> str:
    if (kind := _KINDS.get(check.kind)) is None:
        raise CheckFailed(f"this agent knows no checks of kind {check.kind!r}", "let all agents run the same version")
    if context.host is None and placeholders(check.options) & _HOST_NAMES:
        raise CheckFailed("it is about hosts, and none are known", "see that the inventory names some: surefoot plan")
    options = kind.options.model_validate(check.options)
    async with asyncio.timeout(getattr(options, "timeout", kind.deadline) + SPARE):
        return await kind.probe(options, context)
