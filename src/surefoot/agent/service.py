# SPDX-License-Identifier: Apache-2.0
"""Puts an agent together from its real parts and runs it, in a process of its own or in a thread of another."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from msgspec import structs

from surefoot.agent import sshagent
from surefoot.agent.access import COURIERS, RENEWERS, WORKERS, ThreadAccess
from surefoot.agent.agent import Agent, AgentSettings
from surefoot.agent.courier import Courier
from surefoot.agent.folders import OwnFolder, attempts_folder, turn
from surefoot.agent.logs import LogSink
from surefoot.agent.machine import Limits, vitals_of
from surefoot.agent.outage import Outage
from surefoot.agent.processes import ShimRunner
from surefoot.agent.reaching import reaching
from surefoot.agent.secrets import Secrets
from surefoot.agent.tracing import Tracing
from surefoot.agent.world import World
from surefoot.core.errors import Code, StoreError
from surefoot.core.lease import LeaseTiming, Role
from surefoot.core.notes import Log, Note
from surefoot.store import open_store
from surefoot.store.protocol import LogLine, Store

#: Seconds that an agent which has nothing else to do gives to what is still to be told; others tell the rest.
LAST_DELIVERIES = 10.0
#: Seconds until a patient agent tries again to open a store that is away.
OPEN_AGAIN = 1.0
#: Seconds that a spare agent leaves to those that start before it.
TURN = 15.0
#: Seconds without a sign of life after which a spare agent takes others for gone: many that start at once are slow.
GONE_AFTER = 15.0
#: What is wrong with a store for a time only.
PASSES = {Code.STORE_UNREACHABLE, Code.STORE_BUSY, Code.STORE_READ_ONLY, Code.STORE_FULL}


@dataclass(frozen=True)
class AgentOptions:
    """What `surefoot agent run` is told."""

    name: str
    role: Role = Role.PRIMARY
    preference: int = 0
    ttl: float = 5.0
    state: Path = Path(".surefoot")
    once: bool = False  #: ends when there is no work left
    until: str | None = None  #: ends when this deployment wants no agent any more
    limits: Limits = field(default_factory=Limits)
    prometheus: str | None = None  #: asked how the runner is
    passing: bool = False  #: its name is never used again, so nothing remembers it when it has ended
    patient: bool = False  #: nobody would start it again, so it waits for a store that is away when it starts
    spare: bool = False  #: ends at once where there are enough already that do all there is to do
    strays: Callable[[], object] = lambda: None  #: called when it goes on with something else than `until`


def boottime() -> float:
    """Return a clock that only goes forward, through suspend too; the same for all processes of a machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def run_agent(
    options: AgentOptions,
    store_url: str,
    *,
    stop: threading.Event,
    ready: threading.Event | None = None,
    log: Log | None = None,
) -> str | None:
    """Run an agent until `stop` is set or `once`/`until` is fulfilled; setting `stop` makes it hand over first. Return
    the deployment that it handed over.

    Blocks; runs an event loop of its own, so it may be called in any thread. Raises SurefootError as the store and
    the agent do.
    """
    return asyncio.run(_run(options, store_url, stop, ready, log or Log()))


async def _run(
    options: AgentOptions,
    store_url: str,
    stop: threading.Event,
    ready: threading.Event | None,
    log: Log,
) -> str | None:
    store, identity = await _opened(options, store_url, stop, log)
    if not options.spare:
        return await _work(options, store_url, store, identity, stop=stop, ready=ready, log=log)
    async with turn(options.state, TURN) as started:
        if await asyncio.to_thread(_enough, store, GONE_AFTER):
            store.close()
            log(Note("others are there for all that is left to do", "agent_ended"))
            return None
        return await _work(options, store_url, store, identity, stop=stop, ready=ready, log=log, started=started)


def _enough(store: Store, silent: float) -> bool:
    """Say whether there is an agent for all for each environment in which anything is left to do."""
    try:
        agents = [row for row in store.agents(silent) if row.status.able and row.report.ends_with is None]
        asked = {row.name for row in store.environments() if row.queue} | {item.environment for item in store.work()}
    except StoreError:
        return False
    return len(agents) >= max(1, len(asked))


async def _work(
    options: AgentOptions,
    store_url: str,
    store: Store,
    identity: str,
    *,
    stop: threading.Event,
    ready: threading.Event | None,
    log: Log,
    started: Callable[[], None] = lambda: None,
) -> str | None:
    timing = LeaseTiming(options.ttl)
    # A call that hangs longer than this is worth less than a second one on a new connection.
    access = ThreadAccess(deadline=max(2.0, options.ttl), threads=WORKERS)
    vital = ThreadAccess(deadline=max(1.5, timing.renew_every * 2), threads=RENEWERS)
    beside = ThreadAccess(deadline=max(2.0, options.ttl), threads=COURIERS)
    own, attempts = OwnFolder(options.state, options.name), attempts_folder()
    logs = LogSink(store, access)
    secrets = Secrets(os.environ, store_url)

    voice = _Voice(options.name, log, logs, secrets)

    async def entered() -> None:
        await asyncio.to_thread(own.take)
        started()

    gate = None
    if options.prometheus is not None:
        from surefoot.agent.runner_gate import RunnerGate

        gate = RunnerGate(options.prometheus, options.name, options.limits, voice.say)
    runner = ShimRunner(attempts, presence_fds=lambda: store.presence(options.name))
    await asyncio.to_thread(sshagent.sweep, attempts.parent)
    world = World(
        store=store,
        access=access,
        logs=logs,
        runner=runner,
        attempts=attempts,
        folder=own.path,
        identity=identity,
        environ=os.environ,
        secrets=secrets,
    )
    tracing = Tracing(store, beside, identity, os.environ, voice.say)
    agent = Agent(
        AgentSettings(
            options.name,
            options.role,
            options.preference,
            timing,
            once=options.once,
            until=options.until,
            passing=options.passing,
        ),
        store=store,
        access=access,
        vital_access=vital,
        performer=world,
        clock=boottime,
        vitals=vitals_of(own.path, options.limits, gate.reason if gate is not None else lambda: ""),
        note=voice.of_deployment,
        ended=tracing.ended,
        entered=entered,
        strays=options.strays,
    )
    reach = partial(
        reaching, agent=options.name, store=store, access=beside, runner=runner, clock=boottime, identity=identity,
        parent=own.path,
    )  # fmt: skip
    courier = Courier(
        store, beside, agent=options.name, identity=identity, secrets=secrets, note=voice.say, reach=reach
    )
    writer = asyncio.create_task(logs.run())
    rounds = asyncio.create_task(courier.run())
    stopper = asyncio.create_task(_stop_when(stop, agent))
    beside_work = [writer, rounds, stopper, *([asyncio.create_task(gate.run())] if gate is not None else [])]
    if ready is not None:
        ready.set()
    try:
        await agent.run()
        if options.once or options.until is not None:
            rounds.cancel()
            await logs.last_words()
            await courier.finish(LAST_DELIVERIES)
        await tracing.finish(LAST_DELIVERIES)
    finally:
        for task in beside_work:
            task.cancel()
        await asyncio.gather(*beside_work, return_exceptions=True)
        await courier.close()
        await logs.last_words()
        own.leave()
        access.close()
        beside.close()
        vital.close()
        store.close()
    return agent.left


async def _opened(options: AgentOptions, url: str, stop: threading.Event, log: Log) -> tuple[Store, str]:
    """Return the store and its identity, as soon as it answers if the agent is patient."""
    outage = Outage(boottime, lambda text, kind, level: log(Note(text, kind, level)))
    while True:
        try:
            return await asyncio.to_thread(_open, url)
        except StoreError as error:
            if not options.patient or error.code not in PASSES or stop.is_set():
                raise
            outage.failed(error.message)
        await asyncio.sleep(OPEN_AGAIN)


def _open(url: str) -> tuple[Store, str]:
    store = open_store(url)
    try:
        return store, store.identity()
    except BaseException:
        store.close()
        raise


class _Voice:
    """What an agent says: in its own log, and of a deployment that it works on in that one's, too."""

    def __init__(self, agent: str, log: Log, logs: LogSink, secrets: Secrets) -> None:
        self._agent = agent
        self._log = log
        self._logs = logs
        self._secrets = secrets
        log.hide(self._hidden)

    def say(self, note: Note) -> str:
        """Say it, and return what was said, without secrets."""
        said = self._hidden(note.text)
        self._log(structs.replace(note, text=said))
        return said

    def of_deployment(self, note: Note) -> None:
        said = self.say(note)
        if note.deployment is not None and note.seq is None:
            self._logs.add(note.deployment, LogLine(said, stream="agent", agent=self._agent, token=note.token))

    def _hidden(self, text: str) -> str:
        return self._secrets.redactor(()).quoted(text)


async def _stop_when(stop: threading.Event, agent: Agent) -> None:
    while not stop.is_set():  # noqa: ASYNC110 - set from a signal handler or another thread
        await asyncio.sleep(0.05)
    agent.stop.set()
