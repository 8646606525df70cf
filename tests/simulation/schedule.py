# SPDX-License-Identifier: Apache-2.0
"""One simulated schedule: agents, deployments and faults chosen by a seed, run to the end, and judged."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from surefoot.agent.agent import Agent, AgentSettings
from surefoot.agent.machine import Vitals
from surefoot.core import events as ev
from surefoot.core.decide import decide
from surefoot.core.deployment import Deployment, fold, summarise
from surefoot.core.errors import ConflictError, NotAllowedError, RefusedError
from surefoot.core.lease import LeaseTiming, Role
from surefoot.core.plan import Check, Command, Plan, Playbook, Retry, Step
from surefoot.core.status import Status
from surefoot.store.memory import MemoryStore
from surefoot.store.protocol import Append, Submission
from tests.simulation.loop import GROUP, VirtualLoop
from tests.simulation.world import SimAccess, SimPerformer, World

TTL = 5.0
#: Virtual seconds in which every schedule must have come to its end once all faults are over.
PATIENCE = 600.0


class PromiseBrokenError(AssertionError):
    """A promise did not hold; the message names it, and the seed replays it."""


@dataclass
class Limb:
    """One agent process: its clock runs at a rate of its own, and it can be frozen, killed and started again."""

    name: str
    role: Role
    rate: float
    group: str = ""
    agent: Agent | None = None
    task: asyncio.Task[None] | None = None


class Schedule:
    """See the module's docstring."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.loop = VirtualLoop(seed)
        self.random = self.loop.random
        self.world = World(self.loop, hosts=self.random.choice([1, 2, 3]))
        self.store: Any = MemoryStore(clock=self.loop.time, monotonic=self.loop.time)
        self.limbs = [
            Limb("primary", Role.PRIMARY, self.random.uniform(0.95, 1.05)),
            Limb("secondary", Role.SECONDARY, self.random.uniform(0.95, 1.05)),
        ]
        if self.random.random() < 0.3:
            self.limbs.append(Limb("emergency", Role.EMERGENCY, 1.0))
        self.starts = 0
        self.story: list[str] = []
        self.ids: list[str] = []
        self.submitted = False

    def run(self) -> None:
        """Run the schedule to its end and judge it. Raises PromiseBrokenError."""
        asyncio.set_event_loop(self.loop)
        # Groups that were killed leave tasks that never end; that is what a kill is.
        self.loop.set_exception_handler(lambda *_: None)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        try:
            self.loop.run_until_complete(self._play())
            self._judge()
        except PromiseBrokenError:
            raise
        except Exception as error:
            raise PromiseBrokenError(f"seed {self.seed}: {error!r}") from error
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

    # -- playing -------------------------------------------------------------------------------------

    def _tell(self, text: str) -> None:
        self.story.append(f"{self.loop.time():9.3f} {text}")

    def _start(self, limb: Limb) -> None:
        self.starts += 1
        limb.group = f"{limb.name}#{self.starts}"
        context = contextvars.copy_context()
        context.run(GROUP.set, limb.group)

        def clock() -> float:
            return self.loop.time() * limb.rate

        access = SimAccess(self.world, limb.name)
        agent = limb.agent = Agent(
            AgentSettings(limb.name, limb.role, timing=LeaseTiming(TTL), look_every=1.0),
            store=self.store,
            access=access,
            vital_access=access,
            performer=SimPerformer(self.world, limb.group, clock),
            clock=clock,
            vitals=Vitals,
            note=lambda text, deployment: self._tell(f"{limb.group}: {text}"),
        )
        limb.task = self.loop.create_task(agent.run(), context=context)
        self._tell(f"{limb.group} starts")

    def _kill(self, limb: Limb) -> None:
        self._tell(f"{limb.group} is killed")
        self.loop.kill(limb.group)
        self.store.depart(limb.name)
        self.world.orphan(limb.group)

    def _plan(self) -> Plan:
        rng = self.random
        steps = tuple(
            Step(
                f"step-{i}",
                Playbook("x.yml") if rng.random() < 0.7 else Command("x"),
                undo=Playbook("undo.yml") if rng.random() < 0.5 else Command("undo"),
                retry=Retry(attempts=rng.choice([1, 2, 3]), delay=rng.choice([0.0, 2.0]), timeout=60),
            )
            for i in range(rng.choice([1, 2, 3]))
        )
        return Plan(
            project="p",
            environment="production",
            inventory="hosts",
            steps=steps,
            retry=Retry(attempts=3, delay=1.0),
            health=(Check("tcp"),),
            state_file="/state",
            takeover_limit=rng.choice([2, 5]),
        )

    async def _play(self) -> None:
        for limb in self.limbs:
            self._start(limb)
        chaos = self.loop.create_task(self._chaos())
        for number in range(self.random.choice([1, 2, 4])):
            await asyncio.sleep(self.random.uniform(0, 3))
            version = f"v{number + 1}"
            if self.random.random() < 0.15:
                self.world.broken.add(version)
            try:
                deployment, _ = self.store.submit(Submission("production", version, self._plan(), requested_by="sim"))
            except RefusedError:
                self._tell(f"{version} refused: the environment is locked")
                continue
            self._tell(f"{deployment} ({version}) accepted")
            self.ids.append(deployment)
            self.world.announce()
            if self.random.random() < 0.25:
                self.loop.call_later(self.random.uniform(0, 20), self._cancel, deployment)
        self.submitted = True
        await chaos
        await self._settle()

    def _busy(self) -> Limb:
        """Return the agent that holds the lease, where one does: faults that hit idle agents teach little."""
        lease = self.store.environment("production").lease
        holder = lease.holder if lease else None
        return next((limb for limb in self.limbs if limb.name == holder), self.limbs[0])

    def _cancel(self, deployment: str) -> None:
        for _ in range(10):
            state = self._state(deployment)
            if state.status.terminal:
                return
            events: tuple[ev.Event, ...] = (ev.CancelRequested("sim"),)
            after = fold([ev.Entry(state.seq + 1, state.last_at, events[0])], state)
            if state.status is Status.QUEUED and state.token == 0:
                action = decide(after, state.last_at)
                events = (*events, action.event)  # type: ignore[union-attr]
            with contextlib.suppress(ConflictError):
                self.store.append(Append(state, events, f"cancel-{deployment}"))
                self._tell(f"cancel of {deployment} requested")
                self.world.announce()
                return

    def _state(self, deployment: str) -> Deployment:
        return fold(self.store.journal(deployment))

    async def _chaos(self) -> None:
        rng, world = self.random, self.world
        world.faults = rng.choice([0.0, 0.0, 0.01, 0.05])
        world.step_faults = rng.choice([0.0, 0.0, 0.05, 0.2])
        for _ in range(rng.choice([1, 2, 4, 8])):
            await asyncio.sleep(rng.uniform(0, 3))
            if self.submitted and all(self._state(i).status.terminal for i in self.ids):
                break
            limb = self._busy() if rng.random() < 0.7 else rng.choice(self.limbs)
            match rng.choice(["kill", "freeze", "machine", "cut", "store", "host", "stop"]):
                case "kill":
                    self._kill(limb)
                    await asyncio.sleep(rng.uniform(0, 10))
                    self._start(limb)
                case "freeze":
                    await self._freeze(limb, [limb.group])
                case "machine":
                    await self._freeze(limb, [limb.group, f"machine-{limb.group}"])
                case "cut":
                    self._tell(f"{limb.name} is cut from the store")
                    world.cut.add(limb.name)
                    await asyncio.sleep(rng.uniform(0, 15))
                    world.cut.discard(limb.name)
                case "store":
                    self._tell("store down")
                    world.store_down = True
                    await asyncio.sleep(rng.uniform(0, 10))
                    world.store_down = False
                case "host":
                    host = rng.choice(list(world.hosts.values()))
                    self._tell(f"{host.name} down")
                    host.down = True
                    await asyncio.sleep(rng.uniform(0, 10))
                    host.down = False
                case "stop" if limb.agent is not None and limb.task is not None:
                    self._tell(f"{limb.group} is told to stop")
                    limb.agent.stop.set()
                    await asyncio.wait({limb.task}, timeout=30)
                    self._kill(limb)
                    self._start(limb)

    async def _freeze(self, limb: Limb, groups: list[str]) -> None:
        self._tell(f"{groups} freeze")
        for group in groups:
            self.loop.freeze(group)
        await asyncio.sleep(self.random.uniform(0, 20))
        self._tell(f"{groups} thaw")
        for group in groups:
            self.loop.thaw(group)

    async def _settle(self) -> None:
        """No more faults: everything must end. A stranded environment is repaired by a person, as the docs say."""
        world = self.world
        world.faults = world.step_faults = 0.0
        end = self.loop.time() + PATIENCE
        while self.loop.time() < end:
            states = [self._state(i) for i in self.ids]
            if all(s.status.terminal for s in states):
                return
            for state in states:
                if state.status is Status.STRANDED and state.resolved is None:
                    self._repair(state)
            await asyncio.sleep(2.0)
        waiting = [f"{s.id} {s.status}" for s in map(self._state, self.ids) if not s.status.terminal]
        raise PromiseBrokenError(f"seed {self.seed}: promise 2: it ends: {waiting}")

    def _repair(self, state: Deployment) -> None:
        self._check_end(state)
        self._tell(f"a person repairs {state.id}")
        current = self.store.environment("production").current_version
        for host in self.world.hosts.values():
            host.version = current
        ask = ev.ResolveRequested("sim", "repaired", unchecked=True)
        done = ev.Resolved(current, unchecked=True)
        with contextlib.suppress(ConflictError, NotAllowedError):
            self.store.append(Append(state, (ask, done), f"resolve-{state.id}"))

    # -- judging -------------------------------------------------------------------------------------

    def _broken(self, promise: str) -> PromiseBrokenError:
        return PromiseBrokenError(f"seed {self.seed}: {promise}\n" + "\n".join(self.story))

    def _judge(self) -> None:
        self._judge_hosts()
        for deployment in self.ids:
            journal = self.store.journal(deployment)
            state = fold(journal)
            if [e.seq for e in journal] != list(range(1, len(journal) + 1)):
                raise self._broken("promise 4: the journal has gaps")
            if summarise(state) != self.store.summary(deployment):
                raise self._broken(f"promise 4: the summary of {deployment} differs from its journal")
            self._check_end(state)
        if self.store.environment("production").locked_by is None:
            versions = {h.version for h in self.world.hosts.values()}
            current = self.store.environment("production").current_version
            if versions != {current}:
                raise self._broken(f"promise 3: hosts run {versions}, the store says {current}")

    def _judge_hosts(self) -> None:
        """Promise 1, as the hosts saw it: across all hosts, once a token has touched one, no smaller token touches
        any.
        """
        touches = sorted((t for h in self.world.hosts.values() for t in h.log), key=lambda t: t.at)
        for before, after in pairwise(touches):
            if after.token < before.token:
                raise self._broken(f"promise 1: {after} after {before}")

    def _check_end(self, state: Deployment) -> None:
        """Promise 5, from the journal: success only with health and versions checked after the last change."""
        events = [type(e.event).__name__ for e in self.store.journal(state.id)]
        if state.status is Status.SUCCEEDED:
            tail = events[len(events) - events[::-1].index("StepSucceeded") :]
            if "HealthPassed" not in tail or "VersionsRecorded" not in tail:
                raise self._broken(f"promise 5: {state.id} succeeded unchecked")
        if state.status is Status.FAILED and state.touched:
            raise self._broken(f"promise 3: {state.id} failed, but touched hosts")
