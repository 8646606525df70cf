# SPDX-License-Identifier: Apache-2.0
"""Deployments that end in every way, and an agent's courier that tells of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

from msgspec import structs

from surefoot.agent.courier import Courier
from surefoot.agent.secrets import Reach, Secrets
from surefoot.core import events as ev
from surefoot.core.deployment import Deployment
from surefoot.core.errors import Code, Failure
from surefoot.core.notes import Note
from surefoot.core.plan import Command, Direction, Plan, Step
from surefoot.core.status import Status
from surefoot.core.targets import Target
from surefoot.store.protocol import LogLine, Store, Submission
from tests.store import journal as j

P = ParamSpec("P")
T = TypeVar("T")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BROKE = Failure(
    Code.STEP_FAILED, "step activate exited with 2", hint="look at the unit", host="web-2", step="activate",
    evidence="fatal: web-2 | said ``` <b>no</b>",
)  # fmt: skip
PLAN = Plan(
    project="paws360",
    environment="production",
    steps=(Step("stage", Command("true")), Step("activate", Command("false"), undo=Command("true"))),
)
ORIGIN = ev.Origin(
    run_url="https://github.invalid/acme/paws360/actions/runs/42",
    repository="acme/paws360",
    since="f" * 40,
    changes=(ev.Change("a" * 40, "Ann @ann", "Fix |the| <login>"), ev.Change("b" * 40, "Bob", "Add a page")),
)


def submit(store: Store, *targets: Target, version: str = "2.0") -> str:
    plan = structs.replace(PLAN, targets=targets)
    submission = Submission(
        "production", version, plan, requested_by="ann", reason="why @not", commit=COMMIT, origin=ORIGIN
    )
    return store.submit(submission)[0]


def broken(store: Store, *targets: Target, end: Status = Status.ROLLED_BACK, lines: int = 60) -> str:
    """A deployment whose second step fails and is put back (or can't be)."""
    deployment = submit(store, *targets)
    grant = j.claim(store, deployment, "production-runner-01")
    forward, undo = Direction.FORWARD, Direction.UNDO
    j.append(store, deployment, grant, ev.StepStarted("stage", forward, 1))
    j.append(store, deployment, grant, ev.StepSucceeded("stage", forward, 1))
    store.append_log(deployment, [LogLine(f"line {n} @someone", step="activate") for n in range(lines)])
    for attempt in (1, 2, 3):
        j.append(store, deployment, grant, ev.StepStarted("activate", forward, attempt))
        j.append(store, deployment, grant, ev.StepFailed("activate", forward, attempt, BROKE))
    j.append(store, deployment, grant, ev.UndoStarted(BROKE), ev.StepStarted("activate", undo, 1))
    if end is Status.STRANDED:
        lost = Failure(Code.UNDO_FAILED, "web-1 runs 2.0, web-2 runs 1.9", hint="ssh web-1", host="web-1")
        j.append(store, deployment, grant, ev.StepFailed("activate", undo, 1, lost))
        j.append(store, deployment, grant, ev.Finished(end, lost), release=True)
    else:
        j.append(store, deployment, grant, ev.StepSucceeded("activate", undo, 1), ev.HealthPassed(undo, 2))
        j.append(store, deployment, grant, ev.VersionsRecorded(undo, None, ("web-1", "web-2")))
        j.append(store, deployment, grant, ev.Finished(end, BROKE), release=True)
    return deployment


def resolved(store: Store, deployment: str) -> None:
    """A person says that it is repaired; first it is not, then it is."""
    refusal = Failure(Code.HEALTH_FAILED, "web-1 answers 500")
    j.append(store, deployment, None, ev.ResolveRequested("ann", "restored"))
    grant = j.claim(store, deployment)
    j.append(store, deployment, grant, ev.ResolveRefused(refusal), release=True)
    j.append(store, deployment, None, ev.ResolveRequested("ann", "restored again"))
    grant = j.claim(store, deployment)
    j.append(store, deployment, grant, ev.Resolved("1.9"), release=True)


async def directly(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.to_thread(call, *args, **kwargs)


@asynccontextmanager
async def by_environment(agent: str) -> AsyncIterator[Reach]:
    """The way to secrets that are all in the environment."""

    async def none(*_: object) -> Any:
        raise AssertionError("nothing has to be run")

    yield Reach(agent, none, none)


def courier(store: Store, environ: Mapping[str, str], agent: str = "a", notes: list[Note] | None = None) -> Courier:
    return Courier(
        store, directly, agent=agent, identity="store-1", secrets=Secrets(environ),
        note=(notes if notes is not None else []).append, reach=lambda state: by_environment(agent), first_pause=0.05,
    )  # fmt: skip


async def told(
    store: Store, environ: Mapping[str, str], *, within: float = 60.0, notes: list[Note] | None = None
) -> None:
    """Have one agent tell all that is in the outbox."""
    await courier(store, environ, notes=notes).finish(within)
    assert store.deliveries(within=1e9) == [], notes


def deliveries(store: Store, deployment: str) -> list[ev.Delivered]:
    return list(j.state(store, deployment).deliveries)


def failures(store: Store, deployment: str) -> list[ev.DeliveryFailed]:
    return [e for e in (entry.event for entry in store.journal(deployment)) if isinstance(e, ev.DeliveryFailed)]


def state(store: Store, deployment: str) -> Deployment:
    return j.state(store, deployment)
