# SPDX-License-Identifier: Apache-2.0
"""All kinds of checks, by the name that the config calls them, and how many of them are run at once.

Guarantees: no check outlives its deadline; what a check does wrong (a bug too) is its own failure and no other's; a
check that is about hosts where there are none fails, it does not pass for lack of anything to look at. Importing this
is cheap: what a kind needs is imported when it looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import ValidationError

from surefoot.checks import plugins
from surefoot.checks.command import Command
from surefoot.checks.disk import Disk
from surefoot.checks.file import File
from surefoot.checks.git import Git
from surefoot.checks.github_artifact import GithubArtifact
from surefoot.checks.host import Host
from surefoot.checks.http import Http
from surefoot.checks.image import Image
from surefoot.checks.memory import Memory
from surefoot.checks.model import (
    NO_HOSTS_HINT,
    REDACT,
    CheckFailed,
    CheckOptions,
    CheckResult,
    CheckStatus,
    Context,
    Found,
    Kind,
    Outcome,
    excerpt,
    placeholders,
)
from surefoot.checks.postgres import Postgres
from surefoot.checks.prometheus import Prometheus
from surefoot.checks.redis import Redis
from surefoot.checks.saml_metadata import SamlMetadata
from surefoot.checks.secret import Secret
from surefoot.checks.systemd import Systemd
from surefoot.checks.tcp import Tcp
from surefoot.checks.url import Url
from surefoot.checks.window import TimeWindow
from surefoot.core.plan import Check

_OURS: tuple[Kind, ...] = (
    Command(),
    Disk(),
    File(),
    Git(),
    GithubArtifact(),
    Host(),
    Http(),
    Image(),
    Memory(),
    Postgres(),
    Prometheus(),
    Redis(),
    SamlMetadata(),
    Secret(),
    Systemd(),
    Tcp(),
    TimeWindow(),
    Url(),
)
_KINDS: dict[str, Kind] = {kind.name: kind for kind in _OURS}

#: The options of each of our own kinds, for the reference.
KINDS: dict[str, type[CheckOptions]] = {name: kind.options for name, kind in _KINDS.items()}


def kind_of(name: str) -> Kind | None:
    """Return a kind by its name: one of ours, else one that a package brings."""
    return _KINDS.get(name) or plugins.kind(name)


class _All(Mapping[str, type[CheckOptions]]):
    """The options of all kinds, of packages too, which are only looked for when somebody asks for what is not ours."""

    def __getitem__(self, name: str) -> type[CheckOptions]:
        if (kind := kind_of(name)) is None:
            raise KeyError(name)
        return kind.options

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*KINDS, *plugins.names())))

    def __len__(self) -> int:
        return len(list(iter(self)))


#: The options of each kind that a config may name.
ALL_KINDS: Mapping[str, type[CheckOptions]] = _All()

#: Checks that run at the same time; the rest wait their turn.
AT_ONCE = 200
#: Seconds below which a check had no time at all.
SHORTEST = 0.001
#: Seconds that a check gets beside its own time-out.
SPARE = 2.0
_HOST_NAMES = {"host", "host_name"}

T = TypeVar("T")


def about_hosts(check: Check) -> bool:
    """Whether a check looks at each host, if there are any, whatever its options speak of."""
    kind = kind_of(check.kind)
    return kind is not None and kind.options.about_hosts(check.options)


def named_secrets(checks: Sequence[Check]) -> tuple[str, ...]:
    """Return the secrets that checks name in their options otherwise than by `${NAME}`."""
    known = ((kind, check) for check in checks if (kind := kind_of(check.kind)) is not None)
    found = (name for kind, check in known for name in (*kind.secrets(check.options), *check.secrets))
    return tuple(dict.fromkeys(found))


async def run_all(
    checks: Sequence[Check], context: Context, gate: asyncio.Semaphore | None = None, *, until: float | None = None
) -> list[CheckResult]:
    """Run checks side by side, those that are about hosts once for each; results come in the checks' order.

    `gate` is for those who run more than these at the same time. What has no result at `until`, by the loop's clock, is
    given up.
    """
    gate = gate or asyncio.Semaphore(AT_ONCE)
    runs = [(check, each) for check in checks for each in _contexts(check, context)]
    return _pinned_once(await asyncio.gather(*(_run(check, each, gate, until) for check, each in runs)))


def _pinned_once(results: Sequence[CheckResult]) -> list[CheckResult]:
    """Return the results; one that pins something else in the variable of an earlier one has failed: steps would get
    only one of the two.
    """
    first: dict[str, tuple[str, str]] = {}

    def held(result: CheckResult) -> CheckResult:
        name = f"{result.name} on {result.host}" if result.host else result.name
        for variable, value in result.pins.items():
            other, by = first.setdefault(variable, (value, name))
            if other != value:
                message = f"{value} would be pinned in {variable}, as {other} is by {by}"
                hint = "give one of them a name of its own: as: NAME"
                return replace(result, status=CheckStatus.FAIL, message=message, hint=hint, pins={})
        return result

    return [held(result) for result in results]


def _contexts(check: Check, context: Context) -> list[Context]:
    names = _HOST_NAMES.union(*(host.variables for host in context.hosts)) - set(context.values)
    if not (about_hosts(check) or placeholders(check.options) & names) or not context.hosts:
        return [context]
    return [replace(context, host=host) for host in context.hosts]


async def _run(check: Check, context: Context, gate: asyncio.Semaphore, until: float | None) -> CheckResult:
    async with gate:
        loop = asyncio.get_running_loop()
        start = loop.time()
        redacted = REDACT.set(context.redact)
        status, hint = CheckStatus.FAIL, ""
        found: str | Found = ""
        given_up = False
        try:
            found, status = await _probe(check, context, until), CheckStatus.PASS
            message = found.message if isinstance(found, Found) else found
        except Outcome as outcome:
            message, hint, status = str(outcome), outcome.hint, outcome.status
        except TimeoutError:
            took = loop.time() - start
            given_up = until is not None and loop.time() >= until
            message = f"no result within {took:.1f} s" if took > SHORTEST else "there was no time left to look"
            hint = "see why what it looks at does not answer, or give the check a longer timeout"
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False, include_context=False)[0]
            message = f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}"
        except Exception as error:  # a check that breaks is a check that failed
            message = excerpt(f"{type(error).__name__}: {error}")
        finally:
            REDACT.reset(redacted)
        host = context.host.name if context.host else None
        pins = found.pins if isinstance(found, Found) else {}
        return CheckResult(check.name or check.kind, status, message, hint, loop.time() - start, host, pins, given_up)


async def _probe(check: Check, context: Context, until: float | None) -> str | Found:
    if (kind := kind_of(check.kind)) is None:
        raise CheckFailed(
            f"this agent knows no checks of kind {check.kind!r}",
            "let all agents run the same version, and have the same packages",
        )
    if context.host is None and (kind.options.needs_hosts(check.options) or placeholders(check.options) & _HOST_NAMES):
        raise CheckFailed("it is about hosts, and none are known", NO_HOSTS_HINT)
    options = kind.options.model_validate(check.options)
    seconds = kind.seconds(options) + SPARE
    if until is not None:
        seconds = max(0.0, min(seconds, until - asyncio.get_running_loop().time()))
    return await _within(seconds, kind.probe(options, context))


async def _within(seconds: float, probe: Coroutine[Any, Any, T]) -> T:
    """Return what a probe returns; TimeoutError when its time is over, even if it does not let itself be cancelled."""
    task = asyncio.create_task(_guarded(probe))
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait({task}, timeout=SPARE)
        raise TimeoutError
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=SPARE)
        raise
    finally:
        if task.done() and not task.cancelled():
            task.exception()  # it was told, or came too late to be


async def _guarded(probe: Coroutine[Any, Any, T]) -> T:
    """Wait for a probe; one that wants to end the process, or ends as cancelled and was not, fails instead."""
    try:
        return await probe
    except (SystemExit, KeyboardInterrupt, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
