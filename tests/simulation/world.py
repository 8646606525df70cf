# SPDX-License-Identifier: Apache-2.0
"""What the simulated agents act upon: hosts with fences, processes under a switch, a store that can fail. Real agent
code, pretended world.

Everything that happened to a host is in its log, and the promises are judged from these logs and from the journal;
nothing is asked of the code under test.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from surefoot.agent.performer import Job
from surefoot.core import events as ev
from surefoot.core.decide import RunStep
from surefoot.core.errors import Code, Failure, LeaseLostError, StoreError
from surefoot.core.plan import Direction
from tests.simulation.loop import GROUP, VirtualLoop


class StaleTokenError(Exception):
    """A host refused."""


@dataclass(frozen=True)
class Touch:
    """One change of one host."""

    at: float
    deployment: str
    token: int
    what: str


@dataclass
class Host:
    """A host: the version it runs (None: none; half-way: two joined by a slash), and its fence."""

    name: str
    version: str | None = None
    token: int = 0
    down: bool = False
    log: list[Touch] = field(default_factory=list)
    running: list[Process] = field(default_factory=list)

    def raise_fence(self, token: int) -> None:
        if token < self.token:
            raise StaleTokenError(f"{self.name}: {token} is behind {self.token}")
        self.token = token

    def touch(self, at: float, deployment: str, token: int, what: str, version: str | None) -> None:
        if token != self.token:
            if token < self.token:
                raise StaleTokenError(f"{self.name}: {token} is behind {self.token}")
            self.raise_fence(token)
        self.log.append(Touch(at, deployment, token, what))
        self.version = version


class Process:
    """A step's processes on an agent's machine, and their switch: ended at the deadline, on request, or with the
    agent.
    """

    def __init__(self, loop: VirtualLoop, machine: str, clock: Callable[[], float], body: Any, until: float) -> None:
        self.loop = loop
        self.clock = clock
        self.until = until
        self.done: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()
        context.run(GROUP.set, machine)
        self.body = loop.create_task(body, context=context)
        self.switch = loop.create_task(self._switch(), context=context)
        self.body.add_done_callback(self._ended)

    def extend(self, until: float) -> None:
        self.until = until

    def kill(self, why: str) -> None:
        self.body.cancel(why)

    async def _switch(self) -> None:
        while not self.body.done():
            left = self.until - self.clock()
            if left <= 0:
                self.expired = True
                self.body.cancel("expired")
                return
            await asyncio.sleep(min(left, 0.5))

    expired = False

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


class SimAccess:
    """The store, as one agent reaches it: slow, cut off, or losing replies."""

    def __init__(self, world: World, agent: str) -> None:
        self.world = world
        self.agent = agent

    async def __call__(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        world, rng = self.world, self.world.loop.random
        if call.__name__ == "wait":
            return await world.wait(args[0])
        if self.agent in world.cut or world.store_down:
            await asyncio.sleep(rng.choice([0.001, 1.0]))
            raise StoreError("no answer")
        fault = rng.random()
        await asyncio.sleep(rng.uniform(0.1, 1.5) if fault > 1 - world.faults else rng.uniform(0.0005, 0.02))
        if fault < world.faults:
            raise StoreError("connection lost before the call")
        result = call(*args, **kwargs)
        if call.__name__ in ("append", "claim"):
            world.announce()
        if fault < 2 * world.faults:
            await asyncio.sleep(rng.choice([0.001, 0.5]))
            raise StoreError("connection lost before the reply")
        if rng.random() < 0.2:
            await asyncio.sleep(rng.uniform(0.0005, 0.02))
        return result


class SimPerformer:
    """Does actions to the simulated hosts, through processes that live on a machine of their own group."""

    def __init__(self, world: World, agent: str, clock: Callable[[], float]) -> None:
        self.world = world
        self.agent = agent
        self.clock = clock

    async def preflight(self, job: Job) -> ev.PreflightPassed | ev.PreflightFailed:
        await asyncio.sleep(0.01)
        return ev.PreflightPassed()

    async def raise_fence(self, job: Job) -> ev.FenceRaised | ev.FenceFailed:
        return await self._process(job, self._raise_all(job.token))

    async def step(self, job: Job, action: RunStep) -> ev.StepSucceeded | ev.StepFailed | ev.FenceFailed:
        run = action.run
        key = (run.name, run.direction, action.attempt)
        if action.raises_fence:
            raised = await self._process(job, self._raise_all(job.token))
            if not isinstance(raised, ev.FenceRaised):
                return raised
            await job.fence_raised(raised)
        failure = await self._process(job, self._change(job, action))
        if isinstance(failure, Failure):
            return ev.StepFailed(*key, failure)
        return ev.StepSucceeded(*key)

    async def health(self, job: Job) -> ev.HealthPassed | ev.HealthFailed:
        direction = job.state.direction
        await asyncio.sleep(self.world.loop.random.uniform(0.01, 0.3))
        want = job.state.version if direction is Direction.FORWARD else job.state.previous_version
        wrong = [
            h.name for h in self.world.hosts.values() if h.down or h.version != want or h.version in self.world.broken
        ]
        if wrong:
            return ev.HealthFailed(direction, Failure(Code.HEALTH_FAILED, f"{wrong} unhealthy"))
        return ev.HealthPassed(direction)

    async def record(self, job: Job, version: str | None) -> ev.VersionsRecorded | ev.VersionsMixed:
        direction = job.state.direction
        await asyncio.sleep(self.world.loop.random.uniform(0.01, 0.1))
        versions = {h.name: None if h.down else h.version for h in self.world.hosts.values()}
        if set(versions.values()) == {version}:
            return ev.VersionsRecorded(direction, version, tuple(versions))
        return ev.VersionsMixed(direction, Failure(Code.VERSIONS_MIXED, f"{versions}"), versions)

    async def resolve(self, job: Job, request: ev.ResolveRequested) -> ev.Resolved | ev.ResolveRefused:
        await asyncio.sleep(0.01)
        versions = {h.version for h in self.world.hosts.values()}
        if len(versions) == 1:
            return ev.Resolved(versions.pop())
        return ev.ResolveRefused(Failure(Code.VERSIONS_MIXED, f"{versions}"))

    async def settle(self, job: Job) -> None:
        pass

    async def forget(self, job: Job) -> None:
        pass

    async def _process(self, job: Job, body: Any) -> Any:
        process = Process(self.world.loop, f"machine-{self.agent}", self.clock, body, job.holding.deadline)
        self.world.processes.setdefault(self.agent, []).append(process)
        silence = job.holding.tell(process.extend)
        try:
            result = await asyncio.shield(process.done)
        except asyncio.CancelledError:
            process.kill("stopped")
            while not process.done.done():
                try:
                    await asyncio.shield(process.done)
                except asyncio.CancelledError:
                    continue
            raise
        finally:
            silence()
        if process.expired:
            job.holding.lose("expired")
            raise LeaseLostError("expired")
        if isinstance(result, StaleTokenError):
            return Failure(Code.FENCE_STALE, str(result))
        if isinstance(result, BaseException):
            raise result
        return result

    async def _raise_all(self, token: int) -> ev.FenceRaised | ev.FenceFailed:
        for host in self.world.hosts.values():
            await asyncio.sleep(self.world.loop.random.uniform(0.01, 0.1))
            if host.down:
                return ev.FenceFailed(Failure(Code.HOST_UNREACHABLE, f"{host.name} is down", host=host.name))
            try:
                host.raise_fence(token)
            except StaleTokenError as error:
                return ev.FenceFailed(Failure(Code.FENCE_STALE, str(error), host=host.name))
        return ev.FenceRaised(tuple(self.world.hosts))

    async def _change(self, job: Job, action: RunStep) -> Failure | None:
        rng, state = self.world.loop.random, job.state
        what = f"{action.run.name}/{action.run.direction}/{action.attempt}"
        want = state.version if action.run.direction is Direction.FORWARD else state.previous_version
        for host in self.world.hosts.values():
            await asyncio.sleep(rng.uniform(0.01, 1.5))
            if host.down:
                return Failure(Code.HOST_UNREACHABLE, f"{host.name} is down", host=host.name)
            if action.run.direction is Direction.FORWARD and rng.random() < self.world.step_faults:
                return Failure(Code.STEP_FAILED, "exit 1", step=action.run.name)
            host.touch(self.world.loop.time(), state.id, job.token, what, want)
        return None


class World:
    """All that agents share: the store, the hosts, and what is wrong with them just now."""

    def __init__(self, loop: VirtualLoop, hosts: int = 2) -> None:
        self.loop = loop
        self.hosts = {f"web-{i}": Host(f"web-{i}") for i in range(1, hosts + 1)}
        self.cut: set[str] = set()
        self.store_down = False
        self.faults = 0.0
        self.step_faults = 0.0
        self.broken: set[str | None] = set()
        self.waiting: list[asyncio.Future[None]] = []
        self.processes: dict[str, list[Process]] = {}

    async def wait(self, timeout: float) -> bool:
        """Wait for a change of the store, as its listeners do."""
        changed = self.loop.create_future()
        self.waiting.append(changed)
        try:
            async with asyncio.timeout(timeout):
                await changed
        except TimeoutError:
            return False
        return True

    def announce(self) -> None:
        """Wake all that wait for a change."""
        for changed in self.waiting:
            if not changed.done():
                changed.set_result(None)
        self.waiting = []

    def orphan(self, agent: str) -> None:
        """End what an agent that was killed had started, as its shim does."""
        for process in self.processes.get(agent, []):
            process.kill("orphaned")
