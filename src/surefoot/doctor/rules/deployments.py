# SPDX-License-Identifier: Apache-2.0
"""What deployments themselves ran into: failures in the journal, steps that do not move, fences that do not rise."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from surefoot.checks.model import CheckStatus
from surefoot.core.codes import ADVICE
from surefoot.core.deployment import Deployment
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Retry
from surefoot.core.status import Status
from surefoot.core.wording import duration
from surefoot.doctor.facts import EnvironmentFacts, Facts
from surefoot.doctor.findings import Depth, Finding, Severity

#: Seconds without a word after which a running step is worth a look, and the share of its timeout.
SILENT = 120.0
NEAR = 0.8
#: Takeovers of one deployment that are too many to be chance.
TAKEOVERS = 3


def failed(facts: Facts) -> Iterator[Finding]:
    """What the newest deployment (or the one that was asked after) failed of, in its own words."""
    for environment in facts.environments:
        deployment = _asked(facts, environment)
        if deployment is None or deployment.status not in (Status.FAILED, Status.ROLLED_BACK, Status.STRANDED):
            continue
        failure = deployment.outcome or deployment.cause
        root = deployment.cause if deployment.status is Status.STRANDED and deployment.cause else failure
        if root is not None and root.code is not Code.CANCELLED and not _still(facts, environment, root):
            yield _of_failure(deployment, root, again=_may_pass_now(facts, environment, deployment, root))


def _still(facts: Facts, environment: EnvironmentFacts, failure: Failure) -> bool:
    """Whether the cause is still there, so that another rule tells it."""
    if failure.code is Code.SECRET_MISSING:
        return bool(facts.secrets.missing and facts.secrets.certain)
    if any(host.failure is not None and host.failure.code is failure.code for host in environment.hosts):
        return True
    return any(
        found.result.status is CheckStatus.FAIL and found.result.message in failure.message
        for found in environment.checks
    )


def _may_pass_now(facts: Facts, environment: EnvironmentFacts, deployment: Deployment, failure: Failure) -> bool:
    """Whether what a refused deployment wanted is there by now, as far as its checks tell."""
    return (
        deployment is environment.last
        and failure.code in (Code.PREFLIGHT_FAILED, Code.SECRET_MISSING)
        and environment.looked
        and not facts.secrets.missing
        and not any(found.result.status is CheckStatus.FAIL for found in environment.checks if not found.health)
    )


def _asked(facts: Facts, environment: EnvironmentFacts) -> Deployment | None:
    if facts.focus is not None and facts.focus.environment == environment.row.name:
        return facts.focus
    return environment.last


def _of_failure(deployment: Deployment, failure: Failure, *, again: bool) -> Finding:
    where = ", ".join(
        f"{kind} {name}"
        for kind, name in (("step", failure.step), ("host", failure.host), ("agent", failure.agent))
        if name
    )
    ended = "was refused" if deployment.status is Status.FAILED else "failed"
    severity = Severity.WARNING if deployment.status is Status.FAILED else Severity.BROKEN
    deploy = f"surefoot deploy {quote(deployment.environment)} {quote(deployment.version)}"
    return Finding(
        "deployment-failed",
        Severity.NOTE if again else severity,
        Depth.DEPLOYMENT,
        f"{deployment.id} ({deployment.version}) {ended}: {failure.message}",
        (
            *((where,) if where else ()),
            *failure.evidence.splitlines()[-5:],
            *(("every preflight check passes now",) if again else ()),
        ),
        deploy if again else failure.hint or f"surefoot logs {deployment.id}",
        environment=deployment.environment,
        code=failure.code,
        runbook=ADVICE[failure.code].runbook,
        agent=failure.agent,
        host=failure.host,
    )


def stuck(facts: Facts) -> Iterator[Finding]:
    """A step that has said nothing for long, or comes near its timeout."""
    for environment in facts.environments:
        deployment = environment.running
        run = deployment.running_step if deployment is not None else None
        if deployment is None or run is None or run.started_at is None:
            continue
        timeout = _retry(deployment, run.name).timeout
        taken = facts.now - run.started_at
        silent = environment.silent_for if environment.silent_for is not None else 0.0
        near = taken > NEAR * timeout
        if not near and silent < min(SILENT, NEAR * timeout):
            continue
        yield Finding(
            "step-stuck",
            Severity.WARNING,
            Depth.DEPLOYMENT,
            f"{deployment.id}: step {run.name} has run for {duration(taken)} and said nothing for {duration(silent)}",
            (f"attempt {run.attempt} on agent {run.agent}", f"it is ended after {duration(timeout)} by itself"),
            f"surefoot cancel {deployment.id}",
            environment=environment.row.name,
            code=Code.STEP_TIMED_OUT,
            runbook="health-checks-failing",
            agent=run.agent,
        )


def _retry(deployment: Deployment, step: str) -> Retry:
    return deployment.plan.step(step).retry


def fence_does_not_rise(facts: Facts) -> Iterator[Finding]:
    """A takeover that waits until every host has let it in."""
    for environment in facts.environments:
        deployment = environment.running
        if deployment is None or not deployment.fence_failures or deployment.outcome is None:
            continue
        failure = deployment.outcome
        yield Finding(
            "fence-not-raised",
            Severity.BROKEN,
            Depth.HOSTS,
            f"{deployment.id} can't go on: the fence can't be raised: {failure.message}",
            (f"tried {deployment.fence_failures} times", *failure.evidence.splitlines()[-5:]),
            failure.hint or f"surefoot logs {deployment.id}",
            environment=environment.row.name,
            code=failure.code,
            runbook="network-partition",
            host=failure.host,
        )


def nothing_begins(facts: Facts) -> Iterator[Finding]:
    """The agent's machine can't even begin what is to be done next."""
    for environment in facts.environments:
        deployment = environment.running
        if deployment is None or not deployment.misses or deployment.outcome is None:
            continue
        failure = deployment.outcome
        yield Finding(
            "nothing-begins",
            Severity.BROKEN,
            Depth.AGENTS,
            f"{deployment.id} can't go on: nothing could be begun: {failure.message}",
            (f"tried {deployment.misses} times", *failure.evidence.splitlines()[-5:]),
            failure.hint or f"surefoot logs {deployment.id}",
            environment=environment.row.name,
            code=failure.code,
            runbook=ADVICE[failure.code].runbook or "runner-degraded",
            agent=deployment.agent,
        )


def retried(facts: Facts) -> Iterator[Finding]:
    """The last attempt of the step that runs, or waits to run again, has failed: the next one may, too."""
    for environment in facts.environments:
        deployment = environment.running
        if deployment is None:
            continue
        for run in deployment.steps:
            if run.failure is not None and run.failures and run.status in ("failed", "running"):
                yield Finding(
                    "step-retried",
                    Severity.WARNING,
                    Depth.DEPLOYMENT,
                    f"{deployment.id}: step {run.name} has failed {run.failures} times: {run.failure.message}",
                    tuple(run.failure.evidence.splitlines()[-5:]),
                    run.failure.hint or f"surefoot logs {deployment.id}",
                    environment=environment.row.name,
                    code=run.failure.code,
                    runbook=ADVICE[run.failure.code].runbook,
                    agent=run.failure.agent,
                    host=run.failure.host,
                )


def passed_on(facts: Facts) -> Iterator[Finding]:
    """A deployment that goes from agent to agent may be what kills them."""
    for environment in facts.environments:
        deployment = environment.running
        if deployment is not None and deployment.takeovers >= TAKEOVERS:
            yield Finding(
                "taken-over-often",
                Severity.WARNING,
                Depth.DEPLOYMENT,
                f"{deployment.id} was taken over {deployment.takeovers} times: it may be what kills agents",
                (f"it is put back by itself after {deployment.plan.takeover_limit}",),
                f"surefoot cancel {deployment.id}",
                environment=environment.row.name,
                code=Code.TAKEN_OVER_TOO_OFTEN,
                runbook="runner-degraded",
            )


def held_by_nobody(facts: Facts) -> Iterator[Finding]:
    """A lease whose holder is silent: the next agent takes it by itself, if there is one."""
    for environment in facts.environments:
        lease, deployment = environment.row.lease, environment.running
        if lease is None or deployment is None or lease.holder is None or lease.age < 4 * lease.ttl:
            continue
        yield Finding(
            "lease-stale",
            Severity.BROKEN,
            Depth.SYMPTOM,
            f"{deployment.id} is held by {lease.holder}, which is silent, and no agent has taken over",
            (
                f"last heard of {duration(lease.age)} ago",
                f"lease of {environment.row.name}: token {lease.token}, ttl {duration(lease.ttl)}",
            ),
            "surefoot agent run emergency --role emergency",
            environment=environment.row.name,
            code=Code.LEASE_LOST,
            runbook="both-runners-offline",
            agent=lease.holder,
        )


def never_deployed_with(facts: Facts) -> Iterator[Finding]:
    """The newest version did not make it, and the one before runs: say so, once, since people ask just that."""
    for environment in facts.environments:
        last, row = environment.last, environment.row
        if last is None or last.status is not Status.ROLLED_BACK or row.current_version is None:
            continue
        yield Finding(
            "put-back",
            Severity.NOTE,
            Depth.SYMPTOM,
            f"{row.name} runs {row.current_version}: {last.version} was put back",
            (),
            f"surefoot report postmortem {quote(last.id)}",
            environment=row.name,
        )


RULES = (failed, stuck, fence_does_not_rise, nothing_begins, retried, passed_on, held_by_nobody, never_deployed_with)
