# SPDX-License-Identifier: Apache-2.0
"""Hosts with fences, and steps' processes under a switch: what lives on, or dies, apart from the agent that uses it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from surefoot.core.plan import ROLLBACK, Direction
from tests.simulation.judge import MIXED, Judge
from tests.simulation.loop import VirtualLoop, in_group
from tests.simulation.script import PRODUCTION

if TYPE_CHECKING:
    from tests.simulation.world import World


#: The step that puts everything back.
WHOLE = -1


class StaleTokenError(Exception):
    """A host refused."""


class Touch(msgspec.Struct, frozen=True):
    """One change of one host: a step sets its part of the host to a version."""

    deployment: str
    token: int
    step: int  #: or `WHOLE`
    direction: Direction
    version: str | None

    @property
    def name(self) -> str:
        """What the plan calls the step."""
        return ROLLBACK if self.step == WHOLE else f"step-{self.step}"


@dataclass
class Host:
    """A host: which version each step has left on it, its fence, and what runs on it for whom."""

    name: str
    environment: Environment
    applied: dict[int, str | None] = field(default_factory=dict)
    token: int = 0
    down: bool = False
    disks: list[tuple[dict[int, str | None], int]] = field(default_factory=list)
    running: list[tuple[int, asyncio.Task[None]]] = field(default_factory=list)
    coming: list[asyncio.Task[None]] = field(default_factory=list)  #: what is on its way, and has not been let in yet
    file: str | None = None  #: what it was told that it runs

    @property
    def version(self) -> str | None:
        """The version that it runs; `MIXED` if its parts disagree. What nobody can put back does not tell."""
        found = {self.applied.get(step) for step in self.environment.world.undone}
        return found.pop() if len(found) == 1 else MIXED

    def tells(self, what: str) -> str | None:
        """Say which version it runs to whoever asks for its health, or for its version."""
        self.environment.judge.was_asked(self, what)
        return self.version

    def raise_fence(self, token: int) -> None:
        """Refuse smaller tokens from now on, and end what they still run here."""
        if token < self.token:
            raise StaleTokenError(f"{self.name}: {token} is behind {self.token}")
        self.environment.judge.fenced(self, token)
        self.token = token
        self.end_older(token)

    def end_older(self, token: float) -> None:
        """End what smaller tokens run here; if it is to be all of it, what is on its way, too."""
        for owner, task in self.running:
            if owner < token:
                task.cancel("fenced")
        for task in self.coming if token == math.inf else ():
            task.cancel("ended")

    def admit(self, token: int) -> None:
        """Let a command in, as the guard before each one does."""
        if token > self.token:
            self.raise_fence(token)
        elif token < self.token:
            raise StaleTokenError(f"{self.name}: {token} is behind {self.token}")

    def change(self, touch: Touch) -> None:
        """Be changed."""
        self.environment.judge.saw(self, touch)
        self.disks.append((dict(self.applied), self.token))
        steps = self.environment.world.steps if touch.step == WHOLE else (touch.step,)
        self.applied |= dict.fromkeys(steps, touch.version)

    def be_told(self, deployment: str, token: int, version: str | None) -> None:
        """Have the file written that says what it runs."""
        self.environment.judge.saw_told(self, deployment, token, version)
        self.file = version

    def run(self, token: int, seconds: float, change: Callable[[], None], *, late: float = 0.0) -> asyncio.Task[None]:
        """Start a task of a playbook: it lives on here, whatever becomes of whoever started it. Until it is let in,
        after so many seconds, no fence that is raised finds it.
        """
        loop = self.environment.world.loop
        if not late:
            self.admit(token)

        async def work() -> None:
            if late:
                await loop.nap(late)
                self.admit(token)
                self.running.append((token, task))
            await loop.nap(seconds)
            change()

        task = loop.create_task(work(), context=in_group(self.name))
        if late:
            self.coming.append(task)
        else:
            self.running.append((token, task))
        return task

    def power(self, *, on: bool, disk: int | None = None) -> None:
        """Go off, or on: with the disk that it had so many changes ago, if one is given."""
        self.down = not on
        if not on:
            self.end_older(math.inf)
        elif disk is not None and self.disks:
            self.applied, self.token = self.disks[-1 - disk % len(self.disks)]
            self.applied = dict(self.applied)
            self.environment.world.restored.add(self.name)
            self.environment.judge.forgot.add(self.name)


class Environment:
    """An environment: hosts that belong to no other, and the judge of what becomes of them."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        prefix = "" if name == PRODUCTION else f"{name}-"
        names = [f"{prefix}web-{i}" for i in range(1, world.script.hosts + 1)]
        self.hosts = {host: Host(host, self) for host in names}
        self.judge = Judge(self)


class Process:
    """A step's processes on an agent's machine, and their switch: ended at the deadline, on request, or with the
    agent.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        machine: str,
        body: Any,
        until: float,
        end: float,
    ) -> None:
        self.loop = loop
        self.until = until
        self.end = end
        self.expired = self.late = False
        self.done: asyncio.Future[Any] = loop.create_future()
        # Two processes: after a freeze of the machine, nobody knows which of them runs first.
        clock = loop.clocks[machine]
        for part in (f"step-{machine}", f"shim-{machine}"):
            loop.clocks[part] = clock
        self.body = loop.create_task(body, context=in_group(f"step-{machine}"))
        self.switch = loop.create_task(self._switch(), context=in_group(f"shim-{machine}"))
        self.body.add_done_callback(self._ended)

    def extend(self, until: float) -> None:
        self.until = until

    def kill(self, why: str) -> None:
        self.body.cancel(why)

    async def _switch(self) -> None:
        while not self.body.done():
            left = min(self.until, self.end) - self.loop.time()
            if left <= 0:
                self.expired = self.until <= self.loop.time()
                self.late = not self.expired
                self.body.cancel("over")
                return
            await asyncio.sleep(max(0.001, left))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.switch.cancel()
        if self.done.done():
            return
        if task.cancelled():
            self.done.set_result(None)
        elif (error := task.exception()) is not None:
            self.done.set_result(error)
        else:
            self.done.set_result(task.result())
