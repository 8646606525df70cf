# SPDX-License-Identifier: Apache-2.0
"""Why one deployment is where it is: queued behind what, waiting for whom, at which step, ended for what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from surefoot.core.deployment import Deployment
from surefoot.core.status import Status
from surefoot.core.wording import duration
from surefoot.doctor.facts import EnvironmentFacts, Facts
from surefoot.doctor.rules.agents import nobody_left


def where(facts: Facts) -> list[str]:
    """Return sentences about the deployment that was asked after."""
    if facts.focus is None:
        return []
    environment = next((e for e in facts.environments if e.row.name == facts.focus.environment), None)
    return list(_told(facts, facts.focus, environment)) if environment is not None else []


def _told(facts: Facts, asked: Deployment, environment: EnvironmentFacts) -> Iterator[str]:
    status = asked.status
    match status:
        case Status.QUEUED:
            yield from _queued(facts, asked, environment)
        case Status.WAITING:
            for wait in asked.waits:
                yield f"{asked.id} waits ({wait.gate}): {wait.message}"
        case Status.RUNNING | Status.ROLLING_BACK:
            yield from _at_work(facts, asked)
        case Status.SUCCEEDED:
            yield f"{asked.id} has succeeded: the health checks passed on every host after the last change"
            now = environment.row.current_version
            if now != asked.version:
                yield f"meanwhile {environment.row.name} runs {now}"
        case Status.FAILED:
            yield f"{asked.id} was refused before anything was touched{_because(asked)}"
        case Status.ROLLED_BACK:
            yield f"{asked.id} failed, and {asked.previous_version or 'what was before'} was put back{_because(asked)}"
        case Status.CANCELLED:
            who = f" by {asked.cancel.by}" if asked.cancel is not None and asked.cancel.by else ""
            yield f"{asked.id} was cancelled{who}, and what was begun was put back"
        case Status.STRANDED:
            yield from _stranded(asked, environment)
        case _:
            assert_never(status)


def _queued(facts: Facts, asked: Deployment, environment: EnvironmentFacts) -> Iterator[str]:
    order = [deployment.id for deployment in environment.queued]
    ahead = order[: order.index(asked.id)] if asked.id in order else []
    yield f"{asked.id} is queued since {duration(facts.now - asked.requested_at)}, number {len(ahead) + 1}"
    if ahead:
        yield f"before it: {', '.join(ahead)}"
    if environment.row.locked_by is not None:
        yield f"{environment.row.name} is locked by {environment.row.locked_by}, which is stranded"
    elif environment.running is not None:
        yield from _at_work(facts, environment.running)
    elif environment.row.freeze is not None:
        yield f"{environment.row.name} is frozen by {environment.row.freeze.by}: {environment.row.freeze.reason}"
    elif nobody_left(facts):
        yield "no agent can take work"
    else:
        yield "an agent should begin with it in a moment"


def _at_work(facts: Facts, deployment: Deployment) -> Iterator[str]:
    run, since = deployment.running_step, deployment.started_at or deployment.requested_at
    way = "putting back" if deployment.status is Status.ROLLING_BACK else "running"
    held = f"on {deployment.agent} (token {deployment.token})" if deployment.held else "and held by no agent now"
    yield f"{deployment.id} is {way} since {duration(facts.now - since)} {held}"
    if run is not None and run.started_at is not None:
        timeout = deployment.plan.step(run.name).retry.timeout
        undo = "undo of " if run.direction == "undo" else ""
        yield (
            f"{undo}step {run.name}, attempt {run.attempt}, runs since {duration(facts.now - run.started_at)} "
            f"(it is ended after {duration(timeout)})"
        )
    if deployment.takeovers:
        yield f"it was taken over {deployment.takeovers} times"
    if deployment.cancel is not None:
        yield f"a cancel was asked for by {deployment.cancel.by or 'someone'}"
    if deployment.cause is not None:
        yield f"it is put back because {deployment.cause.message}"


def _stranded(asked: Deployment, environment: EnvironmentFacts) -> Iterator[str]:
    yield f"{asked.id} could not be put back{_because(asked)}"
    if asked.cause is not None and asked.cause is not asked.outcome:
        yield f"it had failed of: {asked.cause.message}"
    for host in environment.hosts:
        if not host.answered or environment.state_file is not None:
            yield f"{host.name} {host.runs}"
    if asked.resolved is not None:
        yield f"it was resolved: {environment.row.name} runs {asked.resolved.version or 'no version'}"


def _because(asked: Deployment) -> str:
    failure = asked.outcome or asked.cause
    return f": {failure.message}" if failure is not None else ""
