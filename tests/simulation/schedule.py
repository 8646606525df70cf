# SPDX-License-Identifier: Apache-2.0
"""One simulated schedule: a script played to its end by real agents, and judged as it goes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
import sys
from collections.abc import Callable
from typing import Any

from surefoot.agent.agent import Agent, AgentSettings
from surefoot.agent.machine import Vitals
from surefoot.core import events as ev
from surefoot.core.decide import Write, decide
from surefoot.core.deployment import Deployment, fold, summarise
from surefoot.core.errors import ConflictError, NotAllowedError, NotFoundError, RefusedError
from surefoot.core.lease import LeaseTiming
from surefoot.core.plan import Check, Command, Plan, Playbook, Retry, Step
from surefoot.core.status import Status
from surefoot.store.memory import MemoryStore
from surefoot.store.protocol import Append, Submission
from tests.simulation.judge import PromiseBrokenError
from tests.simulation.loop import GROUP, VirtualLoop
from tests.simulation.script import Fault, Kind, Limb, Script, Version, draw
from tests.simulation.world import SimAccess, SimPerformer, World

TTL = 5.0
#: Virtual seconds in which every schedule must have come to its end once all faults are over.
PATIENCE = 900.0
#: What a command may take; what hangs is ended then.
TIMEOUT = 45.0


class Schedule:
    """See the module's docstring."""

    def __init__(self, script: Script | int) -> None:
        """Take a script, or the seed of one."""
        self.script = script if isinstance(script, Script) else draw(script)
        self.loop = VirtualLoop(self.script.seed)
        self.random = self.loop.random
        self.story: list[str] = []
        self.jumped = 0.0
        self.store: Any = MemoryStore(clock=lambda: self.loop.time() + self.jumped, monotonic=self.loop.time)
        self.world = World(self.loop, self.script, self.store, self._tell)
        self.world.poisoned = self._poisoned
        self.judge = self.world.judge
        self.groups: dict[str, str] = {}
        self.agents: dict[str, Agent] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.starts = 0
        self.submitting = True

    def run(self) -> None:
        """Run the schedule to its end and judge it. Raises PromiseBrokenError."""
        asyncio.set_event_loop(self.loop)
        # Groups that were killed leave tasks that never end; that is what a kill is.
        self.loop.set_exception_handler(lambda *_: None)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        try:
            self.loop.run_until_complete(self._play())
        except PromiseBrokenError:
            raise
        except Exception as error:
            raise self._broken(self.judge.broken or f"{type(error).__name__}: {error}") from error
        finally:
            asyncio.set_event_loop(None)
            self._drop()

    def _drop(self) -> None:
        """Let go of the tasks that were killed or still run: without a word, and without effect."""
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            for task in self.loop.tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with contextlib.suppress(RuntimeError):
                    task.get_coro().close()  # type: ignore[union-attr]
            self.loop.tasks.clear()
        finally:
            sys.unraisablehook = hook

    def _broken(self, promise: str) -> PromiseBrokenError:
        return PromiseBrokenError(promise, f"{self.script}\n" + "\n".join(self.story))

    def _tell(self, text: str) -> None:
        self.story.append(f"{self.loop.time():9.3f} {text}")

    # -- agents --------------------------------------------------------------------------------------

    def _start(self, limb: Limb) -> None:
        self.starts += 1
        group = self.groups[limb.name] = f"{limb.name}#{self.starts}"
        context = contextvars.copy_context()
        context.run(GROUP.set, group)

        def clock() -> float:
            return self.loop.time() * limb.rate

        access = SimAccess(self.world, limb.name)
        agent = self.agents[limb.name] = Agent(
            AgentSettings(limb.name, limb.role, timing=LeaseTiming(TTL), look_every=1.0),
            store=self.store,
            access=access,
            vital_access=access,
            performer=SimPerformer(self.world, limb.name, group, clock),
            clock=clock,
            vitals=Vitals,
            note=lambda text, _: self._note(group, text),
        )
        self.tasks[limb.name] = self.loop.create_task(agent.run(), context=context)
        self._tell(f"{group} starts")

    def _note(self, group: str, text: str) -> None:
        self._tell(f"{group}: {text}")
        self.judge.hold(f"no agent meets what it can't explain: {text}", holds="after an error" not in text)

    def _kill(self, limb: Limb, why: str = "is killed") -> None:
        group = self.groups[limb.name]
        self._tell(f"{group} {why}")
        self.loop.kill(group)
        self.store.depart(limb.name)
        self.world.orphan(group)

    def _poisoned(self, group: str) -> None:
        """A version kills the agent that works on it; whatever supervises agents starts it again."""
        limb = next((limb for limb in self.script.agents if self.groups[limb.name] == group), None)
        if limb is not None:
            self._kill(limb, "is killed by what it runs")
            self.loop.call_later(1.0, self._start, limb, context=contextvars.Context())

    def _limb(self, fault: Fault) -> Limb:
        """Return the agent that a fault is for: faults that hit idle agents teach little."""
        limbs = self.script.agents
        if fault.agent:
            return limbs[(fault.agent - 1) % len(limbs)]
        lease = self.store.environment("production").lease
        holder = lease.holder if lease else None
        return next((limb for limb in limbs if limb.name == holder), limbs[0])

    # -- playing -------------------------------------------------------------------------------------

    async def _play(self) -> None:
        for limb in self.script.agents:
            self._start(limb)
        faults = [self.loop.create_task(self._fault(fault)) for fault in self.script.faults]
        began = self.loop.time()
        for number, version in enumerate(self.script.versions, 1):
            await asyncio.sleep(began + version.at - self.loop.time())
            self._submit(number, version)
        self.submitting = False
        await self._settle(faults)
        if self.judge.broken is None:
            self._compare()
            self.judge.final(self.store)
        if self.judge.broken is not None:
            raise self._broken(self.judge.broken)

    def _submit(self, number: int, version: Version) -> None:
        """Submit a version under a key of its own; once more is the same deployment."""
        plan = self._plan(version)
        submission = Submission("production", f"v{number}", plan, requested_by="sim", key=f"key-{number}")
        try:
            deployment, new = self.store.submit(submission)
        except RefusedError:
            self._tell(f"v{number} refused: the environment is locked")
            self.judge.hold("4, nothing is lost: refused, and nothing is stranded", holds=bool(self.judge.locked_by))
            return
        self._tell(f"{deployment} (v{number}, {version.wrong or 'good'}) {'accepted' if new else 'known'}")
        self.judge.hold(f"4, nothing is lost: {deployment} twice", holds=new == (deployment not in self.judge.journals))
        self.judge.accepted(deployment)
        self.world.committed("submit")

    def _plan(self, version: Version) -> Plan:
        script = self.script
        retry = Retry(attempts=script.attempts, delay=script.delay, timeout=TIMEOUT)
        steps = tuple(
            Step(
                f"step-{i}",
                Playbook("x.yml") if fenced else Command("x"),
                undo=Playbook("undo.yml") if fenced else Command("undo"),
                retry=retry,
            )
            for i, fenced in enumerate(script.steps)
        )
        return Plan(
            project="p",
            environment="production",
            inventory="hosts",
            steps=steps,
            retry=Retry(attempts=script.attempts, delay=1.0),
            preflight=(Check("command"),) if version.wrong == "refused" else (),
            health=(Check("tcp"),),
            state_file="/state",
            takeover_limit=script.takeover_limit,
        )

    def _states(self) -> list[Deployment]:
        return [fold(entries) for entries in self.judge.journals.values()]

    @property
    def _over(self) -> bool:
        return not self.submitting and len(self.judge.ended) == len(self.judge.journals)

    async def _settle(self, faults: list[asyncio.Task[None]]) -> None:
        """Wait for the end. A stranded environment is repaired by a person, as the docs say."""
        end = None
        while self.judge.broken is None:
            if self._over and not self.judge.locked_by:
                return
            if end is None and all(fault.done() for fault in faults):
                end = self.loop.time() + PATIENCE
                self.world.faults = self.world.step_faults = 0.0
            if end is not None and self.loop.time() > end:
                waiting = ", ".join(f"{s.id} {s.status}" for s in self._states() if not s.status.terminal)
                raise self._broken(f"2, it ends: {waiting}")
            if self.judge.locked_by:
                self._repair(self.judge.locked_by)
            await asyncio.sleep(1.0)

    def _repair(self, deployment: str) -> None:
        """Be the person: put all hosts on what the environment ran, and say so, or have it checked by an agent."""
        state = fold(self.judge.journals[deployment])
        if state.resolve is not None:
            return  # an agent is to check it
        world = self.world
        if repaired := self.random.random() < 0.7:
            for host in world.hosts.values():
                host.end_older(math.inf)
                host.applied = dict.fromkeys(world.steps, self.judge.version)
        unchecked = repaired and self.random.random() < 0.5
        self._tell(f"a person {'repairs' if repaired else 'asks to check'} {deployment}")
        ask = ev.ResolveRequested("sim", "repaired", unchecked=unchecked)
        done = (ev.Resolved(self.judge.version, unchecked=True),) if unchecked else ()
        with contextlib.suppress(ConflictError, NotAllowedError):
            self.store.append(Append(state, (ask, *done), f"resolve-{deployment}-{self.loop.time()}"))
        world.committed("append")

    def _compare(self) -> None:
        for state in self._states():
            holds = summarise(state) == self.store.summary(state.id)
            self.judge.hold(f"4, nothing is lost: the summary of {state.id} differs from its journal", holds=holds)

    # -- faults --------------------------------------------------------------------------------------

    async def _fault(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        if self._over or self.judge.broken:
            return
        limb, world = self._limb(fault), self.world
        host = list(world.hosts.values())[fault.host % len(world.hosts)]
        group = self.groups[limb.name]
        self._tell(f"{fault.kind}: {group}, {host.name}, {fault.seconds:.1f} s")
        match fault.kind:
            case Kind.KILL:
                await self._killed(limb, fault.seconds)
            case Kind.CRASH:
                self.loop.kill_after(group, fault.steps, lambda: self._kill(limb, "crashes"))
                await asyncio.sleep(fault.seconds)
                await self._killed(limb, 0.0)
            case Kind.STOP:
                self.agents[limb.name].stop.set()
                await asyncio.wait({self.tasks[limb.name]}, timeout=fault.seconds + 10)
                if self.groups[limb.name] == group:
                    await self._killed(limb, 0.0)
            case Kind.FREEZE:
                await self._frozen([group], fault.seconds)
            case Kind.MACHINE:
                await self._frozen([group, f"step-{group}", f"shim-{group}"], fault.seconds)
            case Kind.CUT:
                await self._while(world.cut, limb.name, fault.seconds)
            case Kind.UNPLUG:
                await self._while(world.unplugged, (limb.name, host.name), fault.seconds)
            case Kind.STORE:
                world.store_down = True
                await asyncio.sleep(fault.seconds)
                world.store_down = False
            case Kind.CLOCK:
                self.jumped += self.random.choice([-3600.0, 3600.0])
            case Kind.HOST:
                host.power(on=False)
                await asyncio.sleep(fault.seconds)
                host.power(on=True)
            case Kind.OLD_DISK:
                host.power(on=False)
                await asyncio.sleep(fault.seconds)
                host.power(on=True, disk=fault.steps if self._step_runs() else None)
            case Kind.CANCEL:
                self._cancel(fault.steps)
            case Kind.DRAIN:
                with contextlib.suppress(NotFoundError):
                    self.store.set_drain(limb.name, True)
                    await asyncio.sleep(fault.seconds)
                    self.store.set_drain(limb.name, False)
            case Kind.AGAIN:
                number = 1 + fault.steps % len(self.script.versions)
                if f"production-{number}" in self.judge.journals and not self.judge.locked_by:
                    self._submit(number, self.script.versions[number - 1])

    async def _killed(self, limb: Limb, seconds: float) -> None:
        self._kill(limb)
        group = self.groups[limb.name]
        await asyncio.sleep(seconds)
        if self.groups[limb.name] == group:  # nobody else has started it meanwhile
            self._start(limb)

    async def _frozen(self, groups: list[str], seconds: float) -> None:
        for group in groups:
            self.loop.freeze(group)
        await asyncio.sleep(seconds)
        self._tell(f"{groups} thaw")
        for group in groups:
            self.loop.thaw(group)

    @staticmethod
    async def _while(book: set[Any], entry: Any, seconds: float) -> None:
        book.add(entry)
        await asyncio.sleep(seconds)
        book.discard(entry)

    def _step_runs(self) -> bool:
        return any(state.running_step is not None for state in self._states())

    def _cancel(self, which: int) -> None:
        ids = list(self.judge.journals)
        if not ids:
            return
        deployment = ids[which % len(ids)]
        state = fold(self.judge.journals[deployment])
        asked: tuple[ev.Event, ...] = (ev.CancelRequested("sim"),)
        if state.status is Status.QUEUED and state.token == 0:
            after = fold([ev.Entry(state.seq + 1, state.last_at, asked[0])], state)
            action = decide(after, after.elapsed)
            asked = (*asked, action.event) if isinstance(action, Write) else asked
        with contextlib.suppress(ConflictError, NotAllowedError):
            self.store.append(Append(state, asked, f"cancel-{deployment}-{self.loop.time()}"))
        self.world.committed("append")


def broken_by(script: Script | int, around: Callable[[], contextlib.AbstractContextManager[Any]]) -> str | None:
    """Play a script within a context; return the promise that it broke, if it broke one."""
    with around():  # the context is entered anew each time: patches hold for one schedule
        try:
            Schedule(script).run()
        except PromiseBrokenError as error:
            return error.promise
    return None
