# SPDX-License-Identifier: Apache-2.0
"""What the simulated agents act upon: hosts with processes on them, a store that can fail. Real agent code, pretended
world.

Everything that happened to a host is in its log, and the promises are judged from these logs and from the journal;
nothing is asked of the code under test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from surefoot.store.protocol import Append, News
from tests.simulation.hosts import Environment, Process
from tests.simulation.judge import Judge
from tests.simulation.loop import VirtualLoop
from tests.simulation.script import LATE_WRONGS, WRONGS, Script


class World:
    """All that agents share: the store, the hosts, and what is wrong with them just now."""

    def __init__(self, loop: VirtualLoop, script: Script, store: Any, tell: Callable[[object], None]) -> None:
        self.loop = loop
        self.script = script
        self.store = store
        self.tell = tell
        self.broken: str | None = None
        self.steps = range(len(script.steps))
        #: The steps that have a way back.
        self.undone = [i for i in self.steps if script.whole or not script.undos or script.undos[i]]
        self.environments = {name: Environment(name, self) for name in script.environments}
        self.judges = [environment.judge for environment in self.environments.values()]
        self.cut: set[str] = set()
        self.deaf: set[str] = set()
        self.slow: set[str] = set()
        self.unfit: set[str] = set()
        self.full: set[str] = set()
        self.hidden: set[str] = set()
        self.pace, self.busy = script.pace, script.busy
        self.chatty = script.chatty
        self.unplugged: set[tuple[str, str]] = set()
        self.restored: set[str] = set()
        self.store_down = False
        self.own: dict[str, str] = {}  #: by agent, the deployment that it ends with
        self.faults = script.store_faults
        self.step_faults = script.step_faults
        wrong = {
            what: {f"v{n}" for n, v in enumerate(script.versions, 1) if v.wrong == what}
            for what in (*WRONGS, *LATE_WRONGS)
        }
        self.unhealthy, self.failing, self.hanging, self.poison, self.refused, self.stuck = (
            wrong[what] for what in WRONGS
        )
        self.unreadable, self.no_way_back = (wrong[what] for what in LATE_WRONGS)
        self.failing |= self.no_way_back
        self.under_way = 0  #: faults that have begun and not ended, and calls that are on their way to the store
        self.poisoned: Callable[[str], None] = lambda _: None
        self.waiting: list[asyncio.Future[News | None]] = []
        self.processes: dict[str, list[Process]] = {}

    @property
    def moves(self) -> bool:
        """Whether anything is under way: at work on any host or machine, or on its way there."""
        hosts = (host for environment in self.environments.values() for host in environment.hosts.values())
        tasks = (task for host in hosts for task in (*host.coming, *(task for _, task in host.running)))
        bodies = (process.body for processes in self.processes.values() for process in processes)
        return self.under_way > 0 or any(not task.done() for task in (*tasks, *bodies))

    def judge_of(self, deployment: str) -> Judge:
        """Return the judge of a deployment's environment."""
        return self.environments[deployment.rpartition("-")[0]].judge

    def committed(self, call: str, args: tuple[Any, ...] = ()) -> None:
        """Judge what a call may have written, and tell all whom it concerns."""
        for judge in self.judges:
            for deployment in list(judge.journals):
                judge.wrote(self.store, deployment)
        match args:
            case (Append(grant=None, state=state),):
                self.announce(News(frozenset({state.id})))
            case (Append(release=True),):
                self.announce(News())
            case _ if self.chatty or call not in ("append", "claim"):
                self.announce(News())
            case _:
                pass

    async def wait(self) -> News | None:
        """Wait for a change of the store, as its listeners do; for as long as there is none, nobody does anything."""
        changed: asyncio.Future[News | None] = self.loop.create_future()
        self.waiting.append(changed)
        return await changed

    def announce(self, news: News) -> None:
        """Wake all that wait for a change."""
        waiting, self.waiting = self.waiting, []
        for changed in waiting:
            if not changed.done():
                changed.set_result(news)

    def orphan(self, group: str) -> None:
        """End what an agent that was killed had started, as its shim does."""
        for process in self.processes.get(group, []):
            process.kill("orphaned")
