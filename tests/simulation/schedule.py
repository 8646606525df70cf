# SPDX-License-Identifier: Apache-2.0
"""One simulated schedule: a script played to its end by real agents, and judged as it goes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import itertools
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from surefoot.agent.agent import Agent, AgentSettings
from surefoot.agent.logs import LogSink
from surefoot.agent.machine import Vitals
from surefoot.api import requests
from surefoot.core.errors import NotAllowedError, NotFoundError
from surefoot.core.lease import LeaseTiming
from surefoot.core.summary import summarise
from surefoot.store.memory import MemoryStore
from tests.simulation.commands import Commands
from tests.simulation.draw import draw
from tests.simulation.hosts import Host
from tests.simulation.judge import Judge, PromiseBrokenError
from tests.simulation.line import SimAccess
from tests.simulation.listener import Listener
from tests.simulation.loop import VirtualLoop, in_group
from tests.simulation.people import People
from tests.simulation.performer import SimPerformer
from tests.simulation.script import DRIFT, STAGING, Fault, Kind, Limb, Script
from tests.simulation.world import World

TTL = 5.0
#: When virtual time begins by the store's clock: long enough after 1970 for any jump back.
EPOCH = 1_700_000_000.0
#: Virtual seconds in which every schedule must have come to its end once all faults are over.
PATIENCE = 900.0
FIT, UNFIT = Vitals(), Vitals(disk_percent=97.0, degraded="disk 97 % > 95 %")


class Schedule:
    """See the module's docstring."""

    def __init__(self, script: Script | int) -> None:
        """Take a script, or the seed of one."""
        self.script = script if isinstance(script, Script) else draw(script)
        self.loop = VirtualLoop(self.script.seed)
        self.random = self.loop.random
        self._told: list[tuple[float, object]] = []
        self.jumped = 0.0
        self.folder: Path | None = None
        self.store: Any = self._make_store()
        self.world = World(self.loop, self.script, self.store, self._tell)
        self.world.poisoned = self._poisoned
        self.judges = self.world.judges
        self.commands = Commands(self.world, self._start)
        follows, ends = self.commands.follows, self.commands.leave_nothing
        nobody = (lambda *_, **__: None, lambda: None)
        self.people = People(self.world, *((follows, ends) if self.script.alone else nobody))
        self.listener = Listener(self.world)
        self.groups: dict[str, str] = {}
        self.agents: dict[str, Agent] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.gone: set[str] = set()
        self.starts = 0
        self.dropped = False

    def _make_store(self) -> Any:
        loop = self.loop
        clock, monotonic = (lambda: EPOCH + loop.now + self.jumped), (lambda: loop.now)
        if self.script.store == "memory":
            return MemoryStore(clock, monotonic)
        from tests.simulation.stores import SHARED_MEMORY, SimSqliteStore

        shared = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="surefoot-simulation-", dir=shared))
        return SimSqliteStore(self.folder / "surefoot.db", clock, monotonic)

    def run(self) -> None:
        """Run the schedule to its end and judge it. Raises PromiseBrokenError."""
        collects, again, sleep = gc.isenabled(), requests.AGAIN, asyncio.sleep
        gc.disable()  # what a schedule makes is let go of as a whole
        requests.AGAIN = 0.0  # real seconds
        asyncio.sleep = self.loop.sleep
        asyncio.set_event_loop(self.loop)
        # Groups that were killed leave tasks that never end; that is what a kill is.
        self.loop.set_exception_handler(lambda *_: None)
        try:
            with self.listener.listening() if self.script.told else contextlib.nullcontext():
                self.loop.run_until_complete(self._play())
        except PromiseBrokenError:
            raise
        except Exception as error:
            raise self._broken(self.world.broken or f"{type(error).__name__}: {error}") from error
        finally:
            asyncio.set_event_loop(None)
            requests.AGAIN, asyncio.sleep = again, sleep
            self._drop()
            if self.folder is not None:
                self.store.close()
                shutil.rmtree(self.folder)
            if collects:
                gc.enable()

    def _drop(self) -> None:
        """Let go of the tasks that were killed or still run: without a word, and without effect."""
        self.dropped = True
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            for task in self.loop.tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    with contextlib.suppress(Exception):  # of what it had awaited, or a wait in its `finally`
                        task.get_coro().close()
                    if (awaited := task._fut_waiter) is not None:  # type: ignore[attr-defined]
                        awaited.cancel()  # so that it knows of the task no more
            self.loop.close()
        finally:
            sys.unraisablehook = hook

    def free(self) -> None:
        """Break the circles in which all of it refers to itself: to find them takes the collector of garbage a tenth of
        a schedule's time.
        """
        world = self.world
        processes = itertools.chain.from_iterable(world.processes.values())
        for hub in (*processes, *world.environments.values(), *self.agents.values(), self.store, world, self):
            vars(hub).clear()

    def _broken(self, promise: str) -> PromiseBrokenError:
        return PromiseBrokenError(promise, f"{self.script}\n" + "\n".join(self.story))

    def _tell(self, what: object) -> None:
        if not self.dropped:
            self._told.append((self.loop.now, what))

    @property
    def story(self) -> list[str]:
        """All that happened, to the last event: faults, requests, journal entries, changes of hosts."""
        return [f"{at:9.3f} {what}" for at, what in self._told]

    # -- agents --------------------------------------------------------------------------------------

    def _start(self, limb: Limb) -> None:
        if limb.name in self.gone or (self.script.alone and limb not in self.commands.limbs):
            return
        self.starts += 1
        group = self.groups[limb.name] = f"{limb.name}#{self.starts}"
        context = in_group(group)
        self.loop.clocks[group] = (limb.rate, 0.0)
        access = SimAccess(self.world, limb.name)
        logs = LogSink(self.store, access) if self.script.talks else None
        agent = self.agents[limb.name] = Agent(
            AgentSettings(
                limb.name,
                limb.role,
                timing=LeaseTiming(TTL),
                look_every=self.script.look_every,
                once=limb.once,
                until=limb.until,
                passing=self.script.alone,
            ),
            store=self.store,
            access=access,
            vital_access=access,
            performer=SimPerformer(self.world, limb.name, group, logs),
            clock=functools.partial(self.loop.time_of, group),
            vitals=lambda: UNFIT if limb.name in self.world.unfit or limb.name in self.world.full else FIT,
            note=lambda note: self._note(group, note.text),
            strays=self.commands.interrupted,
        )
        self.tasks[limb.name] = task = self.loop.create_task(agent.run(), context=context)
        if self.script.alone:
            task.add_done_callback(lambda task: self._ended(limb, agent, task), context=contextvars.Context())
            if limb.until is not None:
                self.loop.create_task(self.commands.follow(limb, agent), context=contextvars.Context())
        if logs is not None:
            self.loop.create_task(logs.run(), context=context)
        if self.script.told:
            courier = self.listener.courier(limb.name, access, lambda note: self._note(group, note.text))
            self.loop.create_task(courier.run(), context=context)
        self._tell(f"{group} starts")

    def _note(self, group: str, text: str) -> None:
        self._tell(f"{group}: {text}")
        self.judges[0].hold(f"no agent meets what it can't explain: {text}", holds="after an error" not in text)

    def _kill(self, limb: Limb, why: str = "is killed", *, noticed: bool = True) -> None:
        group = self.groups.get(limb.name)
        if group is None:
            return
        if self.script.alone:
            if limb not in self.commands.limbs:  # it has ended by itself
                return
            self.commands.limbs.remove(limb)
        self._tell(f"{group} {why}")
        self.loop.kill(group)
        if noticed:
            self.store.depart(limb.name)
        self.world.orphan(group)

    def _poisoned(self, group: str) -> None:
        """A version kills the agent that works on it; whatever supervises agents starts it again."""
        limb = next((limb for limb in self.limbs if self.groups.get(limb.name) == group), None)
        if limb is not None:
            self._kill(limb, "is killed by what it runs")
            self.loop.call_later(1.0, self._start, limb, context=contextvars.Context())

    @property
    def limbs(self) -> Sequence[Limb]:
        return self.commands.limbs if self.script.alone else self.script.agents

    def _limb(self, fault: Fault, host: Host) -> Limb | None:
        """Return the agent that a fault is for: faults that hit idle agents teach little."""
        limbs = self.limbs
        if not limbs:
            return None
        if fault.agent:
            return limbs[(fault.agent - 1) % len(limbs)]
        lease = self.store.environment(host.environment.name).lease
        holder = lease.holder if lease else None
        return next((limb for limb in limbs if limb.name == holder), limbs[0])

    def _ended(self, limb: Limb, agent: Agent, task: asyncio.Task[None]) -> None:
        if self.dropped or limb not in self.commands.limbs:
            return
        self._tell(f"{limb.name} ends")
        steady = self.groups[limb.name] not in self.loop.touched  # it was never held back, and saw what there was
        self.commands.ended(limb, agent, task, asked=agent.stop.is_set() or not steady)

    # -- playing -------------------------------------------------------------------------------------

    async def _play(self) -> None:
        for limb in self.script.agents:
            if limb.starts:
                self.loop.call_later(limb.starts, self._start, limb)
            else:
                self._start(limb)
        faults = [self.loop.create_task(self._fault(fault)) for fault in self.script.faults]
        faults += [self.loop.create_task(self.people.freeze(at, seconds)) for at, seconds in self.script.freezes]
        if self.script.alone:
            self.loop.create_task(self.commands.come_by())
        if self.script.halted is not None and STAGING in self.world.environments:
            self.loop.create_task(self.people.halt(self.script.halted))
        began = self.loop.time()
        for number, version in enumerate(self.script.versions, 1):
            await self.loop.nap(began + version.at - self.loop.time())
            self.people.submit(number, version)
            if version.decided:
                faults.append(self.loop.create_task(self.people.decide(number, version)))
            if version.withdrawn:
                faults.append(self.loop.create_task(self.people.withdraw(number, version)))
        self.people.submitting = False
        await self._settle(faults)
        await self._aftermath()
        for fault in faults:
            if fault.done():
                fault.result()
        if self.world.broken is None:
            for judge in self.judges:
                self._compare(judge)
                judge.final(self.store)
        if self.world.broken is not None:
            raise self._broken(self.world.broken)

    @property
    def _over(self) -> bool:
        return not self.people.submitting and all(len(judge.ended) == len(judge.journals) for judge in self.judges)

    async def _settle(self, faults: list[asyncio.Task[None]]) -> None:
        """Wait for the end. A stranded environment is repaired by a person, as the docs say; staging once production
        has ended, which must not wait for it.
        """
        end = None
        while self.world.broken is None:
            if all(judge.rests and not judge.untold for judge in self.judges) and self.commands.rest:
                return
            if end is None and all(fault.done() for fault in faults):
                end = self.loop.time() + PATIENCE
                self.world.faults = self.world.step_faults = 0.0
            if end is not None and self.loop.time() > end:
                states = [state for judge in self.judges for state in judge.states()]
                waiting = ", ".join(f"{s.id} {s.status}" for s in states if not s.status.terminal)
                untold = ", ".join(f"entry {seq} of {id_}" for judge in self.judges for id_, seq in judge.untold)
                idle = ", ".join(limb.name for limb in self.commands.limbs)
                if waiting or not untold:
                    raise self._broken(f"2, it ends: {waiting or idle}")
                raise self._broken(f"4, nothing is lost: untold: {untold}")
            for judge in self.judges:
                if judge.locked_by:
                    self.people.repair(judge.locked_by)
                if not judge.rests:
                    break
            await self.loop.nap(1.0)

    async def _aftermath(self) -> None:
        """Let come what is still to come, now that all has ended: commands that are on their way to hosts, calls on
        their way to the store, machines that wake up and go on for as long as they may rely on a lease. Nothing of it
        may change a host.
        """
        over = self.loop.now if self.world.moves else -math.inf
        while self.loop.now - over < TTL / (1 - DRIFT) and self.world.broken is None:
            await self.loop.nap(1.0)
            if self.world.moves:
                over = self.loop.now

    def _compare(self, judge: Judge) -> None:
        for state in judge.states():
            holds = summarise(state) == self.store.summary(state.id)
            judge.hold(f"4, nothing is lost: the summary of {state.id} differs from its journal", holds=holds)

    # -- faults --------------------------------------------------------------------------------------

    async def _fault(self, fault: Fault) -> None:
        await self.loop.nap(fault.at)
        if self._over or self.world.broken:
            return
        hosts = [host for judge in self.judges for host in judge.environment.hosts.values()]
        host = hosts[fault.host % len(hosts)]
        limb = self._limb(fault, host)
        group = limb and self.groups.get(limb.name)
        if limb is None or group is None:
            return  # it has not been started yet
        self._tell(f"{fault.kind}: {group}, {host.name}, {fault.seconds:.1f} s")
        self.world.under_way += 1
        try:
            await self._befall(fault, host, limb, group)
        finally:
            self.world.under_way -= 1

    async def _befall(self, fault: Fault, host: Host, limb: Limb, group: str) -> None:
        world = self.world
        match fault.kind:
            case Kind.KILL:
                await self._killed(limb, fault.seconds)
            case Kind.CRASH:
                self.loop.kill_after(group, fault.steps, lambda: self._kill(limb, "crashes"))
                await self.loop.nap(fault.seconds)
                await self._killed(limb, 0.0)
            case Kind.STOP:
                if limb.until is not None:  # by Ctrl-C; SIGTERM to those in the background leaves it to who comes by
                    self.commands.interrupted()
                self.agents[limb.name].stop.set()
                await asyncio.wait({self.tasks[limb.name]}, timeout=fault.seconds + 10)
                if self.groups[limb.name] == group:
                    await self._killed(limb, 0.0)
            case Kind.FREEZE:
                await self._frozen([group], fault.seconds)
            case Kind.MACHINE:
                await self._frozen([group, f"step-{group}", f"shim-{group}"], fault.seconds)
            case Kind.PAUSE:
                await self._frozen([group, f"step-{group}", f"shim-{group}"], fault.seconds, clock=True)
            case Kind.GONE:
                self._kill(limb, "is gone for good")
                self.gone.add(limb.name)
            case Kind.CUT:
                await self._while(world.cut, limb.name, fault.seconds)
            case Kind.SLOW:
                await self._while(world.slow, limb.name, fault.seconds)
            case Kind.DEAF:
                await self._while(world.deaf, limb.name, fault.seconds)
            case Kind.UNPLUG:
                await self._while(world.unplugged, (limb.name, host.name), fault.seconds)
            case Kind.STORE:
                world.store_down = True
                await self.loop.nap(fault.seconds)
                world.store_down = False
            case Kind.CLOCK:
                self.jumped += self.random.choice([-3600.0, 3600.0])
            case Kind.HOST:
                host.power(on=False)
                await self.loop.nap(fault.seconds)
                host.power(on=True)
            case Kind.OLD_DISK:
                host.power(on=False)
                await self.loop.nap(fault.seconds)
                runs = any(state.running_step is not None for state in host.environment.judge.states())
                host.power(on=True, disk=fault.steps if runs else None)
            case Kind.CANCEL:
                self.people.at_any(requests.cancel, fault.steps)
            case Kind.RESOLVE:
                self.people.at_any(requests.resolve, fault.steps, reason="it looks well")
            case Kind.POWER:
                dead = self.agents[limb.name].incarnation
                self._kill(limb, "loses its power", noticed=False)
                await self.loop.nap(fault.seconds / 2)
                if self.groups[limb.name] == group:
                    self._start(limb)
                await self.loop.nap(fault.seconds / 2)
                with contextlib.suppress(NotAllowedError):  # another has its name by now
                    self.store.enter(limb.name, dead)
                    self.store.depart(limb.name)
                if self.tasks[limb.name].done():  # it found its name taken, and gave up
                    self._start(limb)
            case Kind.PRESENCE:
                self.store.depart(limb.name)
                await self.loop.nap(fault.seconds / 5)
                if group not in self.loop.dead:
                    self.store.enter(limb.name, self.agents[limb.name].incarnation)
            case Kind.HIDDEN:
                if any(state.changed and state.hosts for state in host.environment.judge.states()):
                    await self._while(world.hidden, host.name, fault.seconds)
            case Kind.UNFIT:
                await self._while(world.unfit, limb.name, fault.seconds)
            case Kind.FULL:
                await self._while(world.full, limb.name, fault.seconds)
            case Kind.DRAIN:
                with contextlib.suppress(NotFoundError):
                    self.store.set_drain(limb.name, True)
                    await self.loop.nap(fault.seconds)
                    self.store.set_drain(limb.name, False)
            case Kind.AGAIN:
                number = 1 + fault.steps % len(self.script.versions)
                version = self.script.versions[number - 1]
                known = sum(len(judge.journals) for judge in self.judges)
                if number <= known and not world.environments[version.environment].judge.locked_by:
                    self.people.submit(number, version)

    async def _killed(self, limb: Limb, seconds: float) -> None:
        self._kill(limb)
        group = self.groups[limb.name]
        await self.loop.nap(seconds)
        if self.groups[limb.name] == group:  # nobody else has started it meanwhile
            self._start(limb)

    async def _frozen(self, groups: list[str], seconds: float, *, clock: bool = False) -> None:
        for group in groups:
            if clock:
                self.loop.pause(group)
            else:
                self.loop.freeze(group)
        await self.loop.nap(seconds)
        self._tell(f"{groups} thaw")
        for group in groups:
            self.loop.thaw(group)

    async def _while(self, book: set[Any], entry: Any, seconds: float) -> None:
        book.add(entry)
        await self.loop.nap(seconds)
        book.discard(entry)


def broken_by(
    script: Script | int, around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
) -> str | None:
    """Play a script within a context; return the promise that it broke, if it broke one."""
    with around():  # the context is entered anew each time: patches hold for one schedule
        schedule = Schedule(script)
        try:
            schedule.run()
        except PromiseBrokenError as error:
            return error.promise
        finally:
            schedule.free()
    return None
