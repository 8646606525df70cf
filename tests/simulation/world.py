# SPDX-License-Identifier: Apache-2.0
"""What the simulated agents act upon: hosts with fences, processes under a switch, a store that can fail. Real agent
code, pretended world.

Everything that happened to a host is in its log, and the promises are judged from these logs and from the journal;
nothing is asked of the code under test.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from surefoot.agent.performer import Job
from surefoot.core import events as ev
from surefoot.core.decide import RunStep
from surefoot.core.errors import Code, Failure, LeaseLostError, StoreError
from surefoot.core.plan import Direction, Playbook
from surefoot.store.protocol import News
from tests.simulation.judge import MIXED, Judge
from tests.simulation.loop import GROUP, VirtualLoop
from tests.simulation.script import Script

#: What can be wrong with a version.
WRONGS = ("unhealthy", "fails", "hangs", "poison", "refused")


class StaleTokenError(Exception):
    """A host refused."""


def _in_group(group: str) -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(GROUP.set, group)
    return context


@dataclass(frozen=True)
class Touch:
    """One change of one host: a step sets its part of the host to a version."""

    deployment: str
    token: int
    step: int
    direction: Direction
    version: str | None


@dataclass
class Host:
    """A host: which version each step has left on it, its fence, and what runs on it for whom."""

    name: str
    world: World
    applied: dict[int, str | None] = field(default_factory=dict)
    token: int = 0
    down: bool = False
    disks: list[tuple[dict[int, str | None], int]] = field(default_factory=list)
    running: list[tuple[int, asyncio.Task[None]]] = field(default_factory=list)

    @property
    def version(self) -> str | None:
        """The version that it runs; `MIXED` if its parts disagree."""
        found = {self.applied.get(step) for step in self.world.steps}
        return found.pop() if len(found) == 1 else MIXED

    def raise_fence(self, token: int) -> None:
        """Refuse smaller tokens from now on, and end what they still run here."""
        if token < self.token:
            raise StaleTokenError(f"{self.name}: {token} is behind {self.token}")
        self.token = token
        self.end_older(token)

    def end_older(self, token: float) -> None:
        """End what smaller tokens run here."""
        for owner, task in self.running:
            if owner < token:
                task.cancel("fenced")

    def admit(self, token: int) -> None:
        """Let a command in, as the guard before each one does."""
        if token > self.token:
            self.raise_fence(token)
        elif token < self.token:
            raise StaleTokenError(f"{self.name}: {token} is behind {self.token}")

    def change(self, touch: Touch) -> None:
        """Be changed."""
        self.world.judge.saw(self, touch)
        self.disks.append((dict(self.applied), self.token))
        self.applied[touch.step] = touch.version

    def run(self, touch: Touch, seconds: float) -> asyncio.Task[None]:
        """Start a task of a playbook: it lives on here, whatever becomes of whoever started it."""
        self.admit(touch.token)

        async def work() -> None:
            await asyncio.sleep(seconds)
            self.change(touch)

        task = self.world.loop.create_task(work(), context=_in_group(self.name))
        self.running.append((touch.token, task))
        return task

    def power(self, *, on: bool, disk: int | None = None) -> None:
        """Go off, or on: with the disk that it had so many changes ago, if one is given."""
        self.down = not on
        if not on:
            self.end_older(math.inf)
        elif disk is not None and self.disks:
            self.applied, self.token = self.disks[-1 - disk % len(self.disks)]
            self.applied = dict(self.applied)
            self.world.restored.add(self.name)


class Process:
    """A step's processes on an agent's machine, and their switch: ended at the deadline, on request, or with the
    agent.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        machine: str,
        clock: Callable[[], float],
        body: Any,
        until: float,
        end: float,
    ) -> None:
        self.loop = loop
        self.clock = clock
        self.until = until
        self.end = end
        self.expired = self.late = False
        self.done: asyncio.Future[Any] = loop.create_future()
        # Two processes: after a freeze of the machine, nobody knows which of them runs first.
        self.body = loop.create_task(body, context=_in_group(f"step-{machine}"))
        self.switch = loop.create_task(self._switch(), context=_in_group(f"shim-{machine}"))
        self.body.add_done_callback(self._ended)

    def extend(self, until: float) -> None:
        self.until = until

    def kill(self, why: str) -> None:
        self.body.cancel(why)

    async def _switch(self) -> None:
        while not self.body.done():
            left = min(self.until, self.end) - self.clock()
            if left <= 0:
                self.expired = self.until <= self.clock()
                self.late = not self.expired
                self.body.cancel("over")
                return
            await asyncio.sleep(max(0.001, min(left, 0.5)))

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
        if call.__name__ == "wait_as_agent":
            return News() if await world.wait(args[0]) else None
        if self.agent in world.cut or world.store_down:
            await asyncio.sleep(rng.choice([0.001, 1.0]))
            raise StoreError("no answer")
        fault = rng.random()
        await asyncio.sleep(rng.uniform(0.1, 1.5) if fault > 1 - world.faults else rng.uniform(0.0005, 0.02))
        if fault < world.faults:
            raise StoreError("connection lost before the call")
        try:
            result = call(*args, **kwargs)
        finally:
            world.committed(call.__name__)
        if fault < 2 * world.faults:
            await asyncio.sleep(rng.choice([0.001, 0.5]))
            raise StoreError("connection lost before the reply")
        if rng.random() < 0.2:
            await asyncio.sleep(rng.uniform(0.5, 3.0) if rng.random() < 2 * world.faults else rng.uniform(0.0005, 0.02))
        return result


class SimPerformer:
    """Does actions to the simulated hosts, through processes that live on a machine of their own group."""

    def __init__(self, world: World, agent: str, group: str, clock: Callable[[], float]) -> None:
        self.world = world
        self.agent = agent
        self.group = group
        self.clock = clock

    def _hosts(self) -> list[Host]:
        return list(self.world.hosts.values())

    def _reaches(self, host: Host) -> bool:
        return not host.down and (self.agent, host.name) not in self.world.unplugged

    async def preflight(self, job: Job) -> ev.PreflightPassed | ev.PreflightFailed:
        await asyncio.sleep(0.01)
        if job.state.version in self.world.refused:
            return ev.PreflightFailed(Failure(Code.PREFLIGHT_FAILED, "no such image"))
        return ev.PreflightPassed()

    async def raise_fence(self, job: Job) -> ev.FenceRaised | ev.FenceFailed:
        return await self._process(job, self._raise_all(job.fence))

    async def step(self, job: Job, action: RunStep) -> ev.StepSucceeded | ev.StepFailed | ev.FenceFailed:
        run = action.run
        key = (run.name, run.direction, action.attempt)
        if action.raises_fence:
            raised = await self._process(job, self._raise_all(job.fence))
            if not isinstance(raised, ev.FenceRaised):
                return raised
            await job.fence_raised(raised)
        failure = await self._process(job, self._change(job, action), timeout=action.retry.timeout)
        if isinstance(failure, Failure):
            return ev.StepFailed(*key, failure)
        return ev.StepSucceeded(*key)

    async def health(self, job: Job) -> ev.HealthPassed | ev.HealthFailed:
        direction = job.state.direction
        await asyncio.sleep(self.world.loop.random.uniform(0.01, 0.3))
        want = job.state.version if direction is Direction.FORWARD else job.state.previous_version
        wrong = [
            h.name
            for h in self._hosts()
            if not self._reaches(h) or h.version != want or h.version in self.world.unhealthy
        ]
        if wrong:
            return ev.HealthFailed(direction, Failure(Code.HEALTH_FAILED, f"{wrong} unhealthy"))
        return ev.HealthPassed(direction)

    async def bake(self, job: Job, seconds: float) -> ev.BakePassed | ev.BakeFailed:
        await asyncio.sleep(seconds)
        found = await self.health(job)
        return ev.BakePassed() if isinstance(found, ev.HealthPassed) else ev.BakeFailed(found.failure)

    async def record(self, job: Job, version: str | None) -> ev.VersionsRecorded | ev.VersionsMixed:
        direction = job.state.direction
        await asyncio.sleep(self.world.loop.random.uniform(0.01, 0.1))
        versions = {h.name: h.version if self._reaches(h) else MIXED for h in self._hosts()}
        if set(versions.values()) == {version}:
            return ev.VersionsRecorded(direction, version, tuple(versions))
        return ev.VersionsMixed(direction, Failure(Code.VERSIONS_MIXED, f"{versions}"), versions)

    async def resolve(self, job: Job, request: ev.ResolveRequested) -> ev.Resolved | ev.ResolveRefused:
        await asyncio.sleep(0.01)
        versions = {h.version if self._reaches(h) else MIXED for h in self._hosts()}
        if len(versions) == 1 and MIXED not in versions:
            return ev.Resolved(versions.pop())
        return ev.ResolveRefused(Failure(Code.VERSIONS_MIXED, f"{versions}"))

    async def settle(self, job: Job) -> None:
        pass

    async def forget(self, job: Job) -> None:
        pass

    async def _process(self, job: Job, body: Any, timeout: float = math.inf) -> Any:
        process = Process(self.world.loop, self.group, self.clock, body, job.holding.deadline, self.clock() + timeout)
        self.world.processes.setdefault(self.group, []).append(process)
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
        return Failure(Code.STEP_TIMED_OUT, "no end in sight") if process.late else result

    async def _raise_all(self, token: int) -> ev.FenceRaised | ev.FenceFailed:
        """Raise what can be raised; whatever could not be is a failure."""
        failure = None
        for host in self._hosts():
            await asyncio.sleep(self.world.loop.random.uniform(0.01, 0.1))
            try:
                if self._reaches(host):
                    host.raise_fence(token)
                else:
                    failure = Failure(Code.HOST_UNREACHABLE, f"{host.name} is down", host=host.name)
            except StaleTokenError as error:
                failure = Failure(Code.FENCE_STALE, str(error), host=host.name)
        return ev.FenceFailed(failure) if failure else ev.FenceRaised(tuple(self.world.hosts))

    async def _change(self, job: Job, action: RunStep) -> Failure | None:
        """Change each host in turn, as a play with `serial: 1` does, or a script with a loop."""
        rng, state, world = self.world.loop.random, job.state, self.world
        run, forward = action.run, action.run.direction is Direction.FORWARD
        number = int(run.name.removeprefix("step-"))
        touch = Touch(state.id, job.fence, number, run.direction, state.version if forward else state.previous_version)
        for host in self._hosts():
            await asyncio.sleep(self._while())
            if not self._reaches(host):
                return Failure(Code.HOST_UNREACHABLE, f"{host.name} is down", host=host.name)
            if forward and rng.random() < world.step_faults:
                return Failure(Code.STEP_FAILED, "exit 1", step=run.name)
            if isinstance(state.work(run), Playbook):
                await asyncio.wait({task := host.run(touch, self._while())})
                if task.cancelled():
                    return Failure(Code.STEP_FAILED, "the connection was closed", step=run.name)
            else:
                host.change(touch)
            if forward and number == len(world.steps) - 1:
                await self._trouble(state.version)
                if state.version in world.failing:
                    return Failure(Code.STEP_FAILED, "exit 1", step=run.name)
        return None

    def _while(self) -> float:
        """Return how long something takes: mostly short, at times long, in seconds."""
        return 0.01 * 1500.0 ** self.world.loop.random.random()

    async def _trouble(self, version: str) -> None:
        """Do what is wrong with the version itself."""
        if version in self.world.hanging:
            await asyncio.sleep(10_000)
        if version in self.world.poison:
            self.world.poisoned(self.group)
            await asyncio.sleep(10_000)


class World:
    """All that agents share: the store, the hosts, and what is wrong with them just now."""

    def __init__(self, loop: VirtualLoop, script: Script, store: Any, tell: Callable[[str], None]) -> None:
        self.loop = loop
        self.store = store
        self.steps = range(len(script.steps))
        self.judge = Judge(self, tell)
        self.hosts = {f"web-{i}": Host(f"web-{i}", self) for i in range(1, script.hosts + 1)}
        self.cut: set[str] = set()
        self.unplugged: set[tuple[str, str]] = set()
        self.restored: set[str] = set()
        self.store_down = False
        self.faults = script.store_faults
        self.step_faults = script.step_faults
        wrong = {what: {f"v{n}" for n, v in enumerate(script.versions, 1) if v.wrong == what} for what in WRONGS}
        self.unhealthy, self.failing, self.hanging, self.poison, self.refused = (wrong[what] for what in WRONGS)
        self.poisoned: Callable[[str], None] = lambda _: None
        self.waiting: list[asyncio.Future[None]] = []
        self.processes: dict[str, list[Process]] = {}

    def committed(self, call: str) -> None:
        """Judge what a call may have written, and tell all who wait for changes."""
        if call in ("append", "claim", "submit"):
            for deployment in list(self.judge.journals):
                self.judge.wrote(self.store, deployment)
            self.announce()

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

    def orphan(self, group: str) -> None:
        """End what an agent that was killed had started, as its shim does."""
        for process in self.processes.get(group, []):
            process.kill("orphaned")
