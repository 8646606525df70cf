# SPDX-License-Identifier: Apache-2.0
"""The preflight checks alone, from this machine, by the code that runs them in a deployment.

Guarantees: nothing is written to the project's store, no fence is raised, and no process is left; checks see what a
deployment's would see: a fresh copy of the project's files, the same variables, this process's environment. What it
can't know is whether another agent sees the same from where it runs.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from surefoot.agent.bundle import Bundle
from surefoot.agent.folders import attempts_folder
from surefoot.agent.holding import Holding
from surefoot.agent.logs import LogSink
from surefoot.agent.performer import Job
from surefoot.agent.processes import ShimRunner
from surefoot.agent.secrets import Secrets
from surefoot.agent.service import boottime
from surefoot.agent.world import World
from surefoot.core import events as ev
from surefoot.core.deployment import fold
from surefoot.core.errors import SurefootError
from surefoot.core.lease import LeaseTiming
from surefoot.store.memory import MemoryStore
from surefoot.store.protocol import Append, Claim, Submission

P = ParamSpec("P")
T = TypeVar("T")

Outcome = ev.PreflightPassed | ev.PreflightFailed
#: Nobody else wants this lease, so that a machine which is too busy to renew it every other second may still look.
UNHURRIED = LeaseTiming(60.0)


async def rehearse(
    submission: Submission, files: Bundle, *, agent: str, previous_version: str | None, note: Callable[[str], None]
) -> Outcome:
    """Run the preflight checks of what is submitted; `note` is told each as the log would be."""
    async with stage(
        submission,
        files.digest,
        files.chunks(),
        agent=agent,
        previous_version=previous_version,
        environ=os.environ,
        note=note,
    ) as (world, job):
        outcome = await world.preflight(job)
    if isinstance(outcome, ev.NotBegun):
        raise SurefootError(outcome.failure.message, code=outcome.failure.code, hint=outcome.failure.hint)
    return outcome


@asynccontextmanager
async def stage(
    submission: Submission,
    digest: str,
    chunks: Iterable[bytes],
    *,
    agent: str,
    previous_version: str | None,
    environ: Mapping[str, str],
    note: Callable[[str], None],
) -> AsyncIterator[tuple[World, Job]]:
    """Have a world and a job for looking only, in a store of its own, in memory, where this process holds the lease."""
    store = MemoryStore()
    store.put_bundle(digest, chunks)
    deployment, _ = store.submit(replace(submission, bundle=digest))
    timing, incarnation, sent = UNHURRIED, uuid.uuid4().hex, boottime()
    store.enter(agent, incarnation)
    (work,) = store.work()
    granted = ev.LeaseGranted(agent=agent, token=work.lease.token + 1, previous_version=previous_version)
    append = Append(fold(store.journal(deployment)), (granted,))
    grant = store.claim(Claim(agent, incarnation, timing.ttl, work.lease, append))
    assert grant is not None, "nobody else knows of this store"
    holding = Holding(grant, timing, sent, store=store, access=_at_once, clock=boottime)
    state = fold(store.journal(deployment))

    async def nothing(_: ev.FenceRaised) -> None:
        """Look without raising any fence."""

    attempts = attempts_folder()
    with tempfile.TemporaryDirectory(prefix="surefoot-look-") as folder:
        world = World(
            store=store,
            access=_at_once,
            logs=LogSink(store, _at_once),
            runner=ShimRunner(attempts),
            attempts=attempts,
            folder=Path(folder),
            identity=store.identity(),
            environ=environ,
            secrets=Secrets(environ),
        )
        renewals = asyncio.create_task(holding.keep())
        try:
            yield world, Job(state, holding, note, nothing)
        finally:
            renewals.cancel()
            await asyncio.gather(renewals, return_exceptions=True)


async def _at_once(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the store in memory, which keeps nobody waiting."""
    return call(*args, **kwargs)
