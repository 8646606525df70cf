# SPDX-License-Identifier: Apache-2.0
"""Hosts."""

from __future__ import annotations
from typing import Any
from surefoot.checks.model import Host
from surefoot.core import events as ev
from surefoot.core.errors import Failure


class Hosts:
    def __init__(self, world: Any) -> None:
        self.world = world

    async def raise_fence(self, job: Any) -> ev.FenceRaised | ev.FenceFailed:
        raise NotImplementedError

    async def playbook(self, job: Any, action: Any, playbook: str) -> ev.StepSucceeded | ev.StepFailed | ev.FenceFailed:
        raise NotImplementedError

    async def record(self, job: Any, version: str | None) -> ev.VersionsRecorded | ev.VersionsMixed:
        raise NotImplementedError

    async def one_version(self, job: Any, named: str | None) -> tuple[str | None, Failure | None]:
        return named or job.state.previous_version, None

    async def known(self, job: Any) -> tuple[Host, ...]:
        return ()
