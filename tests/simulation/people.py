# SPDX-License-Identifier: Apache-2.0
"""What people do, through the same code as the command line: ask for versions, think better of it, approve, freeze, and
repair what is stranded.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable
from typing import Any

from surefoot.api import gates, requests
from surefoot.core.errors import NotAllowedError, RefusedError, StoreError
from surefoot.core.gates import Approvals, Gates
from surefoot.core.plan import Check, Command, OnCancel, Plan, Playbook, Retry, Step
from surefoot.store.protocol import Append, Submission
from tests.simulation.listener import TARGET
from tests.simulation.script import PRODUCTION, STAGING, Version
from tests.simulation.world import World


class People:
    """See the module's docstring."""

    def __init__(self, world: World, follows: Callable[..., None], ends: Callable[[], None]) -> None:
        """`follows` is what a command does that waits for what it has asked for, `ends` what one does that does not."""
        self.world = world
        self.follows = follows
        self.ends = ends
        self.script = world.script
        self.loop = world.loop
        self.random = world.loop.random
        self.store = world.store
        self.tell = world.tell
        self.submitting = True
        self.ids: dict[int, str] = {}  #: what became of each version that was asked for

    def submit(self, number: int, version: Version) -> None:
        """Submit a version under a key of its own; once more is the same deployment."""
        name, plan, called = version.environment, self._plan(version), f"v{version.repeats or number}"
        judge = self.world.environments[name].judge
        submission = Submission(
            name,
            called,
            plan,
            requested_by="sim",
            key=f"key-{number}",
            rollback=version.back,
            when_open=True,
            not_before=self.store.now() + version.waits if version.waits and number not in self.ids else None,
        )
        try:
            deployment, new = requests.submit(Losing(self.store, self.random, self.world.faults), submission)
        except RefusedError:
            self.tell(f"{called} refused: {name} is locked")
            judge.hold("4, nothing is lost: refused, and nothing is stranded", holds=bool(judge.locked_by))
            return
        except StoreError:
            self.tell(f"{called}: nobody knows whether it was accepted")
            for row in self.store.history(name):
                if row.id not in judge.journals:
                    judge.accepted(row.id)
                    self.ids[number] = row.id
            self.world.committed("submit")
            return
        self.tell(f"{deployment} ({called}, {version.wrong or 'good'}) {'accepted' if new else 'known'}")
        unknown = deployment not in judge.journals
        # A first answer that was lost makes the second one say that it is known; that is what it is for.
        judge.hold(f"4, nothing is lost: {deployment} twice", holds=unknown or not new)
        asked = self.store.summary(deployment).version
        judge.hold(f"4, nothing is lost: {deployment} is {asked}, not {called}", holds=asked == called)
        judge.accepted(deployment)
        self.ids[number] = deployment
        self.world.committed("submit")
        self.follows(deployment)

    def _plan(self, version: Version) -> Plan:
        script = self.script
        retry = Retry(attempts=script.attempts, delay=script.delay, timeout=script.timeout)
        steps = tuple(
            Step(
                f"step-{i}",
                Playbook("x.yml") if fenced else Command("x"),
                undo=(Playbook("undo.yml") if fenced else Command("undo")) if i in self.world.undone else None,
                retry=retry,
            )
            for i, fenced in enumerate(script.steps)
        )
        return Plan(
            project="p",
            environment=version.environment,
            inventory="hosts",
            steps=steps,
            retry=Retry(attempts=script.attempts, delay=1.0),
            preflight=(Check("command"),) if version.wrong == "refused" else (),
            health=(Check("tcp"),) if script.health else (),
            version_probe=Check("command") if script.sees else None,
            state_file="/state" if script.shown_by else None,
            on_cancel=OnCancel.FINISH if script.finishes else OnCancel.ROLLBACK,
            rollback=(Playbook("undo.yml") if any(script.steps) else Command("undo")) if script.whole else None,
            takeover_limit=script.takeover_limit,
            gates=Gates(
                approvals=Approvals(groups={"people": None}, expires=script.expires) if version.decided else None,
                latest=script.latest,
            ),
            targets=(TARGET,) if script.told else (),
            bake=script.bake,
            secrets=("CANARY",) if script.talks else (),
        )

    async def decide(self, number: int, version: Version) -> None:
        """Be the person who approves a version, or rejects it; who comes too late changes nothing."""
        await self.loop.nap(version.decided)
        if (asked := self.ids.get(number)) is None:
            return
        self.tell(f"a person {'rejects' if version.rejected else 'approves'} {asked}")
        with contextlib.suppress(NotAllowedError):
            if version.rejected:
                gates.reject(self.store, asked, by="judge", reason="not today")
            else:
                gates.approve(self.store, asked, by="judge")
        self.world.committed("append")
        self.ends()

    async def withdraw(self, number: int, version: Version) -> None:
        """Be the one who has asked for a version, and thinks better of it."""
        await self.loop.nap(version.withdrawn)
        if (asked := self.ids.get(number)) is not None:
            self.tell(f"a person takes {asked} back")
            self.ask(requests.cancel, asked)
            self.ends()

    async def freeze(self, at: float, seconds: float) -> None:
        """Freeze production from then on, for so many seconds."""
        await self.loop.nap(at)
        self.tell(f"a person freezes {PRODUCTION} for {seconds:.1f} s")
        self._freeze(PRODUCTION)
        await self.loop.nap(seconds)
        self._unfreeze(PRODUCTION)

    async def halt(self, at: float) -> None:
        """Freeze staging from then on, until production has ended: which must not wait for it."""
        await self.loop.nap(at)
        self.tell(f"a person freezes {STAGING} until {PRODUCTION} has ended")
        self._freeze(STAGING)
        while self.submitting or not self.world.environments[PRODUCTION].judge.rests:
            await self.loop.nap(1.0)
        self._unfreeze(STAGING)

    def _freeze(self, environment: str) -> None:
        gates.freeze(self.store, environment, by="judge", reason="a test")
        self.world.environments[environment].judge.freezes += 1
        self.world.committed("note")

    def _unfreeze(self, environment: str) -> None:
        judge = self.world.environments[environment].judge
        judge.freezes -= 1
        if not judge.freezes:
            gates.unfreeze(self.store, environment, by="judge")
            self.tell(f"a person unfreezes {environment}")
            judge.released_at = self.loop.now
            self.ends()
        self.world.committed("note")

    def repair(self, deployment: str) -> None:
        """Be the person: put all hosts on what the environment ran, and say so, or have it checked by an agent."""
        judge = self.world.judge_of(deployment)
        state = judge.state(deployment)
        if state.resolve is not None and (not self.script.impatient or self.random.random() < 0.5):
            return  # an agent is to check it
        onward = self.script.onward and state.version not in self.world.unhealthy and self.random.random() < 0.5
        runs = state.version if onward else judge.version
        if repaired := self.random.random() < 0.7 or not self.script.sees:
            judge.by_hand = True
            for host in judge.environment.hosts.values():
                if judge.unfenced:  # as the docs say
                    host.end_older(math.inf)
                host.applied = dict.fromkeys(self.world.steps, runs)
                host.file = runs
        unchecked = repaired and (self.random.random() < 0.5 or state.resolve is not None)
        # Where hosts could not be fenced off somebody has to do that before, as the docs say: a check does.
        unchecked = unchecked and not judge.unfenced
        self.tell(f"a person {'repairs' if repaired else 'asks to check'} {deployment}")
        named = {"version": runs} if onward else {}
        self.ask(requests.resolve, deployment, reason="repaired", unchecked=unchecked, **named)
        self.follows(deployment, resolves=True)

    def ask(self, request: Callable[..., Any], deployment: str, **kwargs: Any) -> None:
        """Ask for something of a deployment as the command line does, whatever its state; the answer may be lost."""
        with contextlib.suppress(NotAllowedError, StoreError):
            request(Losing(self.store, self.random, self.world.faults), deployment, by="sim", **kwargs)
        self.world.committed("append")

    def at_any(self, request: Callable[..., Any], which: int, **kwargs: Any) -> None:
        if ids := [deployment for judge in self.world.judges for deployment in judge.journals]:
            self.ask(request, ids[which % len(ids)], **kwargs)


class Losing:
    """The store as somebody at a command line reaches it: answers get lost."""

    def __init__(self, store: Any, rng: random.Random, faults: float) -> None:
        self.store = store
        self.random = rng
        self.faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def submit(self, submission: Submission) -> Any:
        return self._answered(self.store.submit(submission))

    def append(self, append: Append) -> Any:
        return self._answered(self.store.append(append))

    def _answered(self, answer: Any) -> Any:
        if self.random.random() < 3 * self.faults:
            raise StoreError("connection lost before the reply")
        return answer
