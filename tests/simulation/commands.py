# SPDX-License-Identifier: Apache-2.0
"""The agents that commands run by themselves where the config names none: `deploy`'s own, until its deployment wants
none any more, and those in the background, until nothing is left to do. Whoever looks later starts one, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from surefoot.cli import own_agent, who
from surefoot.core.deployment import fold
from surefoot.core.lease import Role
from tests.simulation.script import DRIFT, Limb

if TYPE_CHECKING:
    from surefoot.agent.agent import Agent
    from surefoot.core.deployment import Deployment
    from tests.simulation.judge import Judge
    from tests.simulation.world import World

#: What the machine is called that commands run on.
MACHINE = "laptop"
#: Seconds after an entry of a journal in which an agent that ends may not have seen it yet.
NEWS = 3.0


class Commands:
    """See the module's docstring."""

    def __init__(self, world: World, start: Callable[[Limb], None]) -> None:
        """`start` starts an agent."""
        self.world = world
        self.start = start
        self.limbs: list[Limb] = []  #: those that live, as far as anybody knows
        self.resolving: set[str] = set()  #: those of `resolve`
        self.count = 0

    def follows(self, deployment: str, *, resolves: bool = False) -> None:
        """Be a `deploy` or a `resolve` that was accepted, and follows it."""
        limb = self._run("", Role.PRIMARY, deployment)
        if resolves:
            self.resolving.add(limb.name)

    def interrupted(self) -> None:
        """Be a `deploy` that ends before its time: what is left is done in the background."""
        self._run(who.BACKGROUND, Role.EMERGENCY, None)

    def _run(self, suffix: str, role: Role, until: str | None) -> Limb:
        self.count += 1
        rate = self.world.loop.random.uniform(1 - DRIFT, 1 + DRIFT)
        limb = Limb(f"{MACHINE}-{self.count}{suffix}", role, rate, until=until, once=until is None)
        self.limbs.append(limb)
        if until is not None:
            self.world.own[limb.name] = until
        self.start(limb)
        return limb

    async def follow(self, limb: Limb, agent: Agent) -> None:
        """Be a command that waits for the end: then its agent is stopped, whatever that works on."""
        assert limb.until is not None
        while limb in self.limbs:
            await self.world.loop.nap(0.5)
            state = self.world.store.summary(limb.until)
            if state.status.terminal and not state.wants_agent:
                agent.stop.set()
                return

    async def come_by(self) -> None:
        """Be people who look, by commands that leave nothing to nobody."""
        while True:
            await self.world.loop.nap(self.world.loop.random.uniform(1, 15))
            self.leave_nothing()

    def leave_nothing(self) -> None:
        """Be a command that ends, and sees to what is left to nobody."""
        if own_agent.left_to_nobody(self.world.store):
            self.interrupted()

    def ended(self, limb: Limb, agent: Agent, task: asyncio.Task[None], *, asked: bool) -> None:
        """Judge an agent that ends by itself, asked to or not."""
        self.limbs.remove(limb)
        if limb.until is not None and agent.left is not None:
            self.interrupted()
        if limb.name in self.resolving and self.world.store.summary(limb.until).resolved:
            self.leave_nothing()  # what waited for that may begin now
        judge = self.world.judges[0]
        error = None if task.cancelled() else task.exception()
        judge.hold(f"2, it ends: {limb.name} ends with {error!r}", holds=error is None)
        if limb.until is not None and not asked and not self.limbs:
            wanted = fold(self.world.judge_of(limb.until).journals[limb.until]).wants_agent
            judge.hold(f"2, it ends: {limb.name} leaves {limb.until} to nobody", holds=not wanted)
        if limb.once and not asked and not self.limbs:
            left = [
                s.id for judge in self.world.judges if not self._held(judge) for s in judge.states() if self._wants(s)
            ]
            judge.hold(f"2, it ends: {limb.name} leaves {', '.join(left)} to nobody", holds=not left)

    def _held(self, judge: Judge) -> bool:
        """Whether an environment waits for people, who start an agent when they come, or did just now."""
        just_now = self.world.loop.now - judge.released_at < NEWS
        return just_now or judge.freezes > 0 or judge.locked_by is not None

    def _wants(self, state: Deployment) -> bool:
        """Whether an agent should have known that something is left to do; who approves starts one, too."""
        waits = not state.begun and state.approvals_gate is not None and state.approvals_missing
        return not state.status.terminal and not waits and state.last_at < self.world.store.now() - NEWS

    @property
    def rest(self) -> bool:
        """Whether no agent is left that has nothing to do."""
        return not self.limbs
