# SPDX-License-Identifier: Apache-2.0
"""What an agent does to the world, one method for each action of the core.

A performer never decides and never writes to the journal: it returns the event that says what came of the action.
Cancelling the task that runs a method ends whatever the method started, and returns only when nothing of it runs any
more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from surefoot.agent.holding import Holding
from surefoot.core import events as ev
from surefoot.core.decide import RunStep
from surefoot.core.deployment import Deployment
from surefoot.core.errors import SurefootError


class Job(msgspec.Struct, frozen=True):
    """What an action is done for: the state it was decided in, and the lease that allows it."""

    state: Deployment
    holding: Holding
    note: Callable[[str], None]  #: says something in the deployment's log
    fence_raised: Callable[
        [ev.FenceRaised], Awaitable[None]
    ]  #: told when a step has raised the fence, before its own work

    @property
    def agent(self) -> str:
        """The agent that does it."""
        return self.holding.grant.agent

    @property
    def token(self) -> int:
        """The token it is done with."""
        return self.holding.grant.token

    @property
    def fence(self) -> int:
        """What hosts are asked to let it in by; see `Deployment.fence`."""
        return self.state.fence


class CannotBeginError(SurefootError):
    """An action could not even be begun on this machine: nothing of it has happened."""


class Performer(Protocol):
    """See the module's docstring. `NotBegun` is returned where this machine is what kept an action from beginning."""

    async def preflight(self, job: Job) -> ev.PreflightPassed | ev.PreflightFailed | ev.NotBegun:
        """Run the preflight checks side by side."""

    async def raise_fence(self, job: Job) -> ev.FenceRaised | ev.FenceFailed:
        """Raise the fence on every host of the inventory to the job's token."""

    async def step(self, job: Job, action: RunStep) -> ev.StepSucceeded | ev.StepFailed | ev.FenceFailed | ev.NotBegun:
        """Run one attempt of a step."""

    async def health(self, job: Job) -> ev.HealthPassed | ev.HealthFailed | ev.NotBegun:
        """Run the health checks as the plan's policy asks."""

    async def bake(self, job: Job, seconds: float) -> ev.BakePassed | ev.BakeFailed | ev.NotBegun:
        """Watch health for so many seconds; come back as soon as it is lost."""

    async def record(self, job: Job, version: str | None) -> ev.VersionsRecorded | ev.VersionsMixed | ev.NotBegun:
        """Tell every host its version, and ask each which one it runs."""

    async def survey(self, job: Job) -> ev.VersionsSurveyed:
        """Ask each host which version it runs; changes nothing, and needs no fence."""

    async def resolve(self, job: Job, request: ev.ResolveRequested) -> ev.Resolved | ev.ResolveRefused:
        """Check health and versions of an environment that a person says is repaired."""

    async def settle(self, job: Job) -> None:
        """Write down what still waits to be logged: the lease is about to be given back, and with it the right to
        log.
        """

    async def forget(self, job: Job) -> None:
        """Drop what was kept on this machine for the deployment (its unpacked bundle)."""
