# SPDX-License-Identifier: Apache-2.0
"""Secrets and checks: what preflight and health checks say now, seen from here."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from surefoot.checks.model import CheckStatus
from surefoot.core.errors import Code
from surefoot.core.status import Status
from surefoot.doctor.facts import Checked, EnvironmentFacts, Facts
from surefoot.doctor.findings import Depth, Finding, Severity

#: Kinds of checks about what is deployed, and about what is needed beside it.
_ARTIFACTS = ("image", "file", "url")
_FIX = "repair what it looks at, or correct the check in surefoot.yml"


def secrets_missing(facts: Facts) -> Iterator[Finding]:
    """A secret that is not there stops every deployment before anything is touched."""
    secrets = facts.secrets
    if secrets.missing and secrets.certain:
        names = ", ".join(secrets.missing)
        yield Finding(
            "secret-missing",
            Severity.BROKEN,
            Depth.SECRETS,
            f"{names} {'is' if len(secrets.missing) == 1 else 'are'} not set",
            (f"looked for in {secrets.seen_in}",),
            f"set {secrets.missing[0]} where the agent is started, and start it again",
            code=Code.SECRET_MISSING,
            runbook="secrets-expired",
        )


def checks(facts: Facts) -> Iterator[Finding]:
    """Each check that fails now is a cause; one that only warns will be one."""
    for environment in facts.environments:
        unreached = {host.name for host in environment.hosts if host.failure is not None}
        for found in environment.checks:
            result = found.result
            if result.status not in (CheckStatus.FAIL, CheckStatus.WARN) or result.host in unreached:
                continue
            if found.check.kind == "secret" and str(found.check.options.get("name")) in facts.secrets.missing:
                continue  # told as missing, or as not to be looked at from here
            yield _finding(facts, environment, found)


def _finding(facts: Facts, environment: EnvironmentFacts, found: Checked) -> Finding:
    name, result = environment.row.name, found.result
    failed = result.status is CheckStatus.FAIL
    depth, rule, code, runbook = _kind(found)
    subject = f"{result.name} on {result.host}" if result.host else result.name
    what = "the health check" if found.health else "the preflight check"
    return Finding(
        rule,
        Severity.BROKEN if failed else Severity.WARNING,
        depth,
        f"{name}: {what} {subject} {'fails' if failed else 'warns'}: {result.message}",
        (f"looked at from {facts.here}", *_failed_of_it(environment, result.message)),
        _fix(facts, environment, found, result.hint),
        environment=name,
        code=code,
        runbook=runbook,
        host=result.host,
    )


def _failed_of_it(environment: EnvironmentFacts, message: str) -> tuple[str, ...]:
    """Return which deployment has failed of just that."""
    last = environment.last
    failure = (last.cause or last.outcome) if last is not None else None
    return (f"{last.id} failed of it",) if last is not None and failure and message in failure.message else ()


def _kind(found: Checked) -> tuple[Depth, str, Code, str]:
    kind = found.check.kind
    if kind == "secret":
        return Depth.SECRETS, "secret-invalid", Code.PREFLIGHT_FAILED, "secrets-expired"
    if found.health:
        return Depth.SERVICES, f"health-{kind}", Code.HEALTH_FAILED, "health-checks-failing"
    if kind in _ARTIFACTS:
        return Depth.SERVICES, f"artifact-{kind}", Code.PREFLIGHT_FAILED, "artifact-missing"
    if kind == "host":
        return Depth.HOSTS, "host-unfit", Code.PREFLIGHT_FAILED, "network-unreachable"
    runbook = "runner-offline" if kind == "prometheus" else "health-checks-failing"
    return Depth.SERVICES, f"preflight-{kind}", Code.PREFLIGHT_FAILED, runbook


def _fix(facts: Facts, environment: EnvironmentFacts, found: Checked, hint: str) -> str:
    """Return what mends it: the check's own advice; where health fails on a new version, the way back."""
    last = environment.last
    if (
        found.health
        and not hint
        and last is not None
        and last.status is Status.SUCCEEDED
        and environment.row.previous_version is not None
    ):
        return f"surefoot rollback {quote(environment.row.name)}"
    if found.health and not hint and found.result.host is not None:
        return f"on {found.result.host}: systemctl --failed; then restart what should answer there"
    return hint or _FIX


RULES = (secrets_missing, checks)
