# SPDX-License-Identifier: Apache-2.0
"""Small steps for tests of stores: what an agent does with a journal, in one line each."""

from __future__ import annotations

from msgspec import structs

from surefoot.core import events as ev
from surefoot.core.deployment import Deployment, fold
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Command, Plan, Step
from surefoot.core.status import Status
from surefoot.store.protocol import Append, Claim, Grant, LeaseRow, Store, Submission

PLAN = Plan(project="test", environment="prod", steps=(Step("only", Command("true")),))


def submission(version: str = "1.0", environment: str = "prod", key: str | None = None) -> Submission:
    return Submission(environment, version, replace_environment(environment), key=key, requested_by="a test")


def replace_environment(environment: str) -> Plan:
    return Plan(project=PLAN.project, environment=environment, steps=PLAN.steps)


def submit(store: Store, version: str = "1.0", environment: str = "prod") -> str:
    return store.submit(submission(version, environment))[0]


def state(store: Store, deployment: str) -> Deployment:
    return fold(store.journal(deployment))


def seen(store: Store, environment: str = "prod") -> LeaseRow:
    lease = store.environment(environment).lease
    assert lease is not None
    return lease


def a_claim(
    store: Store, deployment: str, agent: str = "a", *, lease: LeaseRow | None = None, ttl: float = 5.0
) -> Claim:
    """The claim of a deployment, as an agent makes it from what it sees now (or saw: `lease`)."""
    at = state(store, deployment)
    lease = lease or seen(store, at.environment)
    previous = store.environment(at.environment).current_version
    event = ev.LeaseGranted(agent=agent, token=lease.token + 1, reasons=("a test",), previous_version=previous)
    return Claim(agent, f"{agent}-1", ttl, lease, Append(at, (event,)))


def claim(store: Store, deployment: str, agent: str = "a") -> Grant:
    grant = store.claim(a_claim(store, deployment, agent))
    assert grant is not None
    return grant


def append(store: Store, deployment: str, grant: Grant | None, *events: ev.Event, release: bool = False) -> Deployment:
    before = state(store, deployment)
    entries = store.append(Append(before, events, grant=grant, release=release))
    return fold(entries, before)


def finish(store: Store, deployment: str, grant: Grant, status: Status = Status.SUCCEEDED) -> Deployment:
    reason = None if status is Status.SUCCEEDED else Failure(Code.UNDO_FAILED, "it broke")
    return append(store, deployment, grant, ev.Finished(status, reason), release=True)


def deployed(store: Store, version: str, environment: str = "prod", status: Status = Status.SUCCEEDED) -> str:
    """A whole deployment, from its submission to its end."""
    deployment = submit(store, version, environment)
    finish(store, deployment, claim(store, deployment), status)
    return deployment


def without_age(lease: LeaseRow) -> LeaseRow:
    return structs.replace(lease, age=0.0)
