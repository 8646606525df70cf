# SPDX-License-Identifier: Apache-2.0
"""What a simulated agent does to hosts: the actions of a real one, with processes and hosts that are pretended."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import structs

from surefoot.agent.logs import LogSink, StepOutput
from surefoot.agent.performer import Job
from surefoot.agent.secrets import Secrets
from surefoot.core import events as ev
from surefoot.core.decide import RunStep
from surefoot.core.deployment import StepRun
from surefoot.core.errors import Code, Failure, LeaseLostError
from surefoot.core.plan import ROLLBACK, Direction, Playbook
from surefoot.store.protocol import LogLine
from tests.simulation.hosts import WHOLE, Host, Process, StaleTokenError, Touch
from tests.simulation.judge import MIXED
from tests.simulation.script import CANARY

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")

#: What can't be begun on a machine whose disk is full ends with.
FULL = Failure(Code.AGENT_FOLDER, "No space left on device")
NOT_BEGUN = ev.NotBegun(FULL)


class SimPerformer:
    """Does actions to the simulated hosts, through processes that live on a machine of their own group."""

    def __init__(self, world: World, agent: str, group: str, logs: LogSink | None) -> None:
        self.world = world
        self.agent = agent
        self.group = group
        self.logs = logs
        self.secrets = Secrets({"CANARY": CANARY})
        self.works_on: str | None = None

    def _hosts(self, job: Job) -> list[Host]:
        """Return the hosts that the inventory names now: it is of one environment."""
        return [host for host in self._all(job) if host.name not in self.world.hidden]

    def _all(self, job: Job) -> list[Host]:
        return list(self.world.environments[job.state.plan.environment].hosts.values())

    def _known(self, job: Job) -> list[Host] | Failure:
        """Return the hosts that the fence was raised on, or those of the inventory, if they may be others."""
        if job.state.raised and job.state.behind_fence:
            hosts = self.world.environments[job.state.plan.environment].hosts
            return [hosts[name] for name in job.state.raised]
        return self._others(job, raises=True) or self._hosts(job)

    def _others(self, job: Job, *, raises: bool) -> Failure | None:
        """Say that the inventory names other hosts than it has to, as a run of Ansible finds before it begins."""
        wanted, names = set(job.state.hosts_wanted(raises=raises)), {host.name for host in self._hosts(job)}
        more = job.state.hosts_may_be_more(raises=raises)
        if not wanted or (wanted <= names if more else wanted == names):
            return None
        return Failure(Code.HOSTS_CHANGED, "the inventory names other hosts")

    def _reaches(self, host: Host) -> bool:
        return not host.down and (self.agent, host.name) not in self.world.unplugged

    def _trips(self) -> bool:
        """Whether something goes wrong just now that nobody would have expected."""
        return self.world.loop.random.random() < self.world.step_faults

    async def preflight(self, job: Job) -> ev.PreflightPassed | ev.PreflightFailed | ev.NotBegun:
        await self.world.loop.nap(self._while())
        if self.agent in self.world.full:
            return NOT_BEGUN
        if job.state.version in self.world.refused:
            return ev.PreflightFailed(Failure(Code.PREFLIGHT_FAILED, "no such image"))
        return ev.PreflightPassed()

    async def raise_fence(self, job: Job) -> ev.FenceRaised | ev.FenceFailed:
        if self.agent in self.world.full:
            return ev.FenceFailed(FULL)
        return await self._process(job, self._raise_all(job, self._hosts(job)))

    async def step(self, job: Job, action: RunStep) -> ev.StepSucceeded | ev.StepFailed | ev.FenceFailed | ev.NotBegun:
        run = action.run
        key = (run.name, run.direction, action.attempt)
        if self.agent in self.world.full:
            return NOT_BEGUN
        unreadable, plays = self._unreadable(job, action), isinstance(job.state.work(run), Playbook)
        # A play reads the inventory once; how a command knows its hosts is its own matter.
        hosts = self._hosts(job) if plays else self._all(job)
        others = self._others(job, raises=False) if plays and not action.raises_fence else None
        if others is not None:
            return ev.NotBegun(others)
        if action.raises_fence:
            raised = await self._process(job, self._raise_all(job, hosts))
            if not isinstance(raised, ev.FenceRaised):
                return raised
            if not unreadable:
                await job.fence_raised(raised)
        if unreadable:
            await self.world.loop.nap(self._while())
            return ev.NotBegun(Failure(Code.STEP_FAILED, "the role 'web' was not found", step=run.name))
        output = None if self.logs is None else self._output(job, action)
        failure = await self._process(job, self._change(job, action, hosts, output), timeout=action.retry.timeout)
        if output is not None:
            output.close()
            if isinstance(failure, Failure):
                failure = structs.replace(failure, evidence="\n".join(output.tail))
        if isinstance(failure, Failure):
            return ev.StepFailed(*key, failure)
        return ev.StepSucceeded(*key)

    def _output(self, job: Job, action: RunStep) -> StepOutput:
        assert self.logs is not None
        logs, run = self.logs, action.run
        template = LogLine("", agent=job.agent, token=job.token, step=run.name, attempt=action.attempt)
        names = job.state.plan.hidden
        return StepOutput(
            lambda line: logs.add(job.state.id, line, job.holding.grant), template, lambda: self.secrets.redactor(names)
        )

    async def health(self, job: Job) -> ev.HealthPassed | ev.HealthFailed | ev.NotBegun:
        return await self._look(lambda: self._health(job))

    def _health(self, job: Job) -> ev.HealthPassed | ev.HealthFailed | ev.NotBegun:
        direction = job.state.direction
        if self.agent in self.world.full:
            return NOT_BEGUN
        want = job.state.version if direction is Direction.FORWARD else job.state.previous_version
        hosts = self._known(job)
        if isinstance(hosts, Failure):
            return ev.HealthFailed(direction, hosts)
        wrong = [
            h.name
            for h in hosts
            if not self._reaches(h)
            or (h.tells("health") != want and self.world.script.sees)
            or h.version in self.world.unhealthy
        ]
        if wrong or self._trips():
            return ev.HealthFailed(direction, Failure(Code.HEALTH_FAILED, f"{wrong} unhealthy"))
        return ev.HealthPassed(direction)

    async def bake(self, job: Job, seconds: float) -> ev.BakePassed | ev.BakeFailed | ev.NotBegun:
        await asyncio.sleep(seconds)
        found = await self.health(job)
        match found:
            case ev.HealthPassed():
                return ev.BakePassed()
            case ev.HealthFailed(failure=failure):
                return ev.BakeFailed(failure)
            case _:
                return found

    async def record(self, job: Job, version: str | None) -> ev.VersionsRecorded | ev.VersionsMixed | ev.NotBegun:
        direction = job.state.direction
        if self.agent in self.world.full:
            return NOT_BEGUN
        hosts = self._known(job)
        if isinstance(hosts, Failure):
            return ev.VersionsMixed(direction, hosts)
        if not self.world.script.sees:
            failure = await self._process(job, self._tell_all(job, hosts, version), timeout=60.0)
            if failure is not None:
                return ev.VersionsMixed(direction, failure)
        versions = await self._look(lambda: {h.name: self._asked(h) if self._reaches(h) else MIXED for h in hosts})
        if set(versions.values()) == {version} and not self._trips():
            return ev.VersionsRecorded(direction, version, tuple(versions))
        return ev.VersionsMixed(direction, Failure(Code.VERSIONS_MIXED, f"{versions}"), versions)

    async def survey(self, job: Job) -> ev.VersionsSurveyed:
        return await self._look(lambda: self._surveyed(job))

    def _surveyed(self, job: Job) -> ev.VersionsSurveyed:
        if self.agent in self.world.full:
            return ev.VersionsSurveyed({}, {"the hosts": FULL.message})
        hosts = self._hosts(job)
        known = {h.name: self._asked(h) for h in hosts if self._reaches(h)}
        return ev.VersionsSurveyed(known, {h.name: "down" for h in hosts if h.name not in known})

    async def resolve(self, job: Job, request: ev.ResolveRequested) -> ev.Resolved | ev.ResolveRefused:
        return await self._look(lambda: self._resolved(job, request))

    def _resolved(self, job: Job, request: ev.ResolveRequested) -> ev.Resolved | ev.ResolveRefused:
        if self.agent in self.world.full:
            return ev.ResolveRefused(FULL)
        if not self.world.script.shown_by:
            return ev.Resolved(request.version or job.state.previous_version)
        versions = {self._asked(h) if self._reaches(h) else MIXED for h in self._hosts(job)}
        named = {request.version or version for version in versions}
        if len(versions) == 1 and MIXED not in versions and versions == named and not self._trips():
            return ev.Resolved(versions.pop())
        return ev.ResolveRefused(Failure(Code.VERSIONS_MIXED, str(sorted(map(str, versions)))))

    def _asked(self, host: Host) -> str | None:
        said = host.tells("version")
        return said if self.world.script.sees else host.file

    async def _look(self, look: Callable[[], T]) -> T:
        """Look at hosts, which takes a while; what is seen is told at once, or was seen long before."""
        seconds, late = self._while(), self.world.loop.random.random() < 0.5
        if not late:
            await self.world.loop.nap(seconds)
        found = look()
        if late:
            await self.world.loop.nap(seconds)
        return found

    async def _tell_all(self, job: Job, hosts: list[Host], version: str | None) -> Failure | None:
        """Write on all hosts, side by side, what they run; what goes unheard may be written yet."""

        async def tell(host: Host) -> Failure | None:
            await self.world.loop.nap(self._while())
            if not self._reaches(host):
                return Failure(Code.HOST_UNREACHABLE, f"{host.name} is down", host=host.name)
            change = partial(host.be_told, job.state.id, job.fence, version)
            task = host.run(job.fence, self._while(), change, late=self._late())
            if self._trips():
                return Failure(Code.HOST_UNREACHABLE, f"{host.name} did not answer", host=host.name)
            return await self._done(task)

        return await self._side_by_side(hosts, tell)

    async def _side_by_side(
        self, hosts: list[Host], do: Callable[[Host], Coroutine[Any, Any, Failure | None]]
    ) -> Failure | None:
        """Do something with each host, all to the end, and return the first failure."""
        found = await asyncio.gather(*map(do, hosts), return_exceptions=True)
        for failure in found:
            if isinstance(failure, BaseException):
                raise failure
        return next((failure for failure in found if isinstance(failure, Failure)), None)

    async def _done(self, task: asyncio.Task[None]) -> Failure | None:
        """Wait for what runs on a host."""
        await asyncio.wait({task})
        if task.cancelled():
            return Failure(Code.STEP_FAILED, "the connection was closed")
        return task.result()  # raises what a host refuses

    def _late(self) -> float:
        """Return how long a command is on its way to a host: mostly it is there at once, where not, at times long."""
        late, rng = self.world.script.late, self.world.loop.random
        return rng.uniform(0.0, late) if late and rng.random() < 0.4 else 0.0

    async def settle(self, job: Job) -> None:
        if self.logs is not None:
            await self.logs.last_words()

    async def forget(self, job: Job) -> None:
        pass

    async def _process(self, job: Job, body: Any, timeout: float = math.inf) -> Any:
        one, other = self.works_on or job.state.id, job.state.id
        self.world.judge_of(other).hold(
            "1, one at a time: {} works on {} and {} at once", self.group, one, other, holds=one == other
        )
        self.works_on = other
        end = self.world.loop.time_of(self.group) + timeout
        process = Process(self.world.loop, self.group, body, job.holding.deadline, end)
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
            self.works_on = None
        if process.expired:
            job.holding.lose("expired")
            raise LeaseLostError("expired")
        if isinstance(result, StaleTokenError):
            return Failure(Code.FENCE_STALE, str(result))
        if isinstance(result, BaseException):
            raise result
        return Failure(Code.STEP_TIMED_OUT, "no end in sight") if process.late else result

    async def _raise_all(self, job: Job, hosts: list[Host]) -> ev.FenceRaised | ev.FenceFailed:
        """Raise what can be raised; whatever could not be is a failure, and so is a raise whose answer is lost."""
        failure = self._others(job, raises=True)
        if failure is not None:
            return ev.FenceFailed(failure)
        for host in hosts:
            await self.world.loop.nap(self.world.loop.random.uniform(0.01, 0.1))
            try:
                if self._reaches(host):
                    host.raise_fence(job.fence)
                    if self._trips() and self._trips():
                        failure = Failure(Code.HOST_UNREACHABLE, f"{host.name} did not answer", host=host.name)
                else:
                    failure = Failure(Code.HOST_UNREACHABLE, f"{host.name} is down", host=host.name)
            except StaleTokenError as error:
                failure = Failure(Code.FENCE_STALE, str(error), host=host.name)
        return ev.FenceFailed(failure) if failure else ev.FenceRaised(tuple(host.name for host in hosts))

    async def _change(self, job: Job, action: RunStep, hosts: list[Host], output: StepOutput | None) -> Failure | None:
        """Change each host in turn, as a play with `serial: 1` does, or a script with a loop. It may fail before, hang,
        end half way, or end well without anybody being told.
        """
        rng, state, world = self.world.loop.random, job.state, self.world
        run, forward = action.run, action.run.direction is Direction.FORWARD
        number = WHOLE if run.name == ROLLBACK else int(run.name.removeprefix("step-"))
        touch = Touch(state.id, job.fence, number, run.direction, state.version if forward else state.previous_version)
        trouble = rng.choice(("fails", "hangs", "goes unheard")) if self._trips() and (forward or self._trips()) else ""
        last = rng.randrange(len(hosts)) if trouble else -1
        if world.script.forks and isinstance(state.work(run), Playbook):
            played = await self._play_on_all(hosts, touch, trouble, last)
            return played or await self._in_the_end(job, run, number)
        for place, host in enumerate(hosts):
            if output is not None:
                output.feed("stdout", f"token {CANARY[:7]}".encode())
            await world.loop.nap(self._while())
            if output is not None:
                output.feed("stdout", f"{CANARY[7:]} on {host.name}\n".encode())
            if not self._reaches(host):
                return Failure(Code.HOST_UNREACHABLE, f"{host.name} is down", host=host.name)
            if place == last and trouble == "fails":
                return Failure(Code.STEP_FAILED, "exit 1", step=run.name)
            if isinstance(state.work(run), Playbook):
                task = host.run(touch.token, self._while(), partial(host.change, touch), late=self._late())
                stuck = not forward and state.version in world.stuck
                if stuck and rng.random() < 0.5:  # it goes on there, and nobody hears of it
                    return Failure(Code.STEP_FAILED, "the connection was lost", step=run.name)
                if (failure := await self._done(task)) is not None:
                    return failure
            else:
                for _ in range(world.busy):
                    host.change(touch)
                    await world.loop.nap(0.2 + 0.2 * rng.random())
                host.change(touch)
            if place == last and trouble == "hangs":
                await world.loop.nap(10_000)
            if (failure := await self._in_the_end(job, run, number)) is not None:
                return failure
        return Failure(Code.STEP_FAILED, "the connection was closed", step=run.name) if trouble else None

    async def _in_the_end(self, job: Job, run: StepRun, number: int) -> Failure | None:
        """Return what a version makes of a step that has changed a host."""
        world, version = self.world, job.state.version
        if run.direction is Direction.UNDO:
            return Failure(Code.STEP_FAILED, "exit 1", step=run.name) if version in world.stuck else None
        if number == len(world.steps) - 1:
            await self._trouble(version)
            if version in world.failing:
                return Failure(Code.STEP_FAILED, "exit 1", step=run.name)
        return None

    async def _play_on_all(self, hosts: list[Host], touch: Touch, trouble: str, last: int) -> Failure | None:
        """Change all hosts side by side, as a play does on its own: whatever ends it may leave a task on each."""
        lost = Failure(Code.STEP_FAILED, "the connection was closed")

        async def play(host: Host) -> Failure | None:
            await self.world.loop.nap(self._while())
            here = bool(trouble) and host is hosts[last]
            if not self._reaches(host):
                return Failure(Code.HOST_UNREACHABLE, f"{host.name} is down", host=host.name)
            if here and trouble == "fails":
                return lost
            task = host.run(touch.token, self._while(), partial(host.change, touch), late=self._late())
            if here and trouble == "goes unheard":
                return lost
            failure = await self._done(task)
            if here and trouble == "hangs":
                await self.world.loop.nap(10_000)
            return failure

        return await self._side_by_side(hosts, play)

    def _unreadable(self, job: Job, action: RunStep) -> bool:
        """Whether Ansible can't even read the playbook of a step."""
        run, state, world = action.run, job.state, self.world
        if not isinstance(state.work(run), Playbook):
            return False
        if run.direction is Direction.UNDO:
            return state.version in world.no_way_back
        return state.version in world.unreadable and run.name == state.plan.steps[-1].name

    def _while(self) -> float:
        """Return how long something takes: mostly short, at times long, in seconds."""
        world, chance = self.world, self.world.loop.random.random()
        return 0.01 * world.pace**chance

    async def _trouble(self, version: str) -> None:
        """Do what is wrong with the version itself."""
        if version in self.world.hanging:
            await self.world.loop.nap(10_000)
        if version in self.world.poison:
            self.world.poisoned(self.group)
            await self.world.loop.nap(10_000)
