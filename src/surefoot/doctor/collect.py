# SPDX-License-Identifier: Apache-2.0
"""Collects the facts: the store, this machine, hosts and checks, side by side.

Guarantees: nothing is changed, no fence is raised, no process is left; whatever is not known when the time is over is
told as unchecked, and keeps nobody waiting; one thing that can't be looked at is no reason not to look at the others.
Everything is seen from this machine: what another agent sees, only its own machine can tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace as restruct

from surefoot.agent.bundle import pack
from surefoot.agent.performer import Job
from surefoot.agent.rehearsal import stage
from surefoot.agent.secrets import Secrets
from surefoot.agent.world import World
from surefoot.checks.model import placeholders
from surefoot.checks.registry import named_secrets
from surefoot.config.discovery import never_written
from surefoot.config.freeze import freeze
from surefoot.config.models import Config
from surefoot.core.deployment import Deployment, fold
from surefoot.core.errors import Code, Failure, SurefootError
from surefoot.core.gates import Gates
from surefoot.core.host import Host
from surefoot.core.lease import Role
from surefoot.core.plan import Check, Plan
from surefoot.doctor import look, machine
from surefoot.doctor.facts import (
    AgentProcess,
    Borrowed,
    Checked,
    EnvironmentFacts,
    Facts,
    HostFacts,
    SecretFacts,
    StoreFacts,
    Trouble,
    Unchecked,
)
from surefoot.steps.fence import fence_name
from surefoot.store import open_store, servers, shown
from surefoot.store.protocol import AgentRow, EnvironmentRow, Store, Submission, Weakness

T = TypeVar("T")

#: Share of all the time that hosts have to answer; what is left is for asking how far the way to the silent ones goes.
HOSTS_SHARE = 0.7
#: Seconds without a sign of life after which an agent is called offline, for people.
SILENT = 5.0
#: Deployments of a queue that are read; more of them say no more.
LONGEST_QUEUE = 20
#: Environments that are looked at side by side: each starts Ansible, on a machine where agents may be at work.
LOOKS_AT_ONCE = 4
#: With fewer seconds left than this no look begins.
SHORTEST_LOOK = 1.0


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be looked into. `config` is the valid config, `trouble` what is wrong with it; or there is neither."""

    store_url: str
    state_folder: Path
    config: Config | None = None
    trouble: Trouble | None = None
    deployment: str | None = None
    borrowed: Borrowed | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class _Read:
    """What the store holds."""

    project: str
    identity: str
    now: float
    agents: tuple[AgentRow, ...]
    environments: tuple[EnvironmentFacts, ...]
    focus: Deployment | None
    weaknesses: tuple[Weakness, ...]


async def collect(question: Question) -> tuple[Facts, Secrets]:
    """Return what was found out, and the secrets that nothing of it may show.

    NotFoundError if there is no such deployment.
    """
    end = asyncio.get_running_loop().time() + question.seconds
    unchecked: list[Unchecked] = []
    config_path = question.config.path if question.config is not None else None
    processes = await _tried(
        asyncio.to_thread(machine.agent_processes, config_path, question.store_url), "agents on this machine", unchecked
    )
    environ = _environ(question, processes or [])
    (store, read), units, disk = await asyncio.gather(
        _store(question, end, unchecked),
        _tried(machine.units(), "services on this machine", unchecked),
        _tried(asyncio.to_thread(machine.disk_percent, question.state_folder), "the agents' disk", unchecked),
    )
    environments = read.environments if read is not None else _of_config(question.config)
    looking = _Looking(question, read, environ, end, unchecked)
    looked = await asyncio.gather(*map(looking.at, sorted(environments, key=_at_rest)))
    looks = {environment.row.name: environment for environment in looked}
    config = question.config
    facts = Facts(
        project=config.project if config is not None else (read.project if read is not None else ""),
        here=socket.gethostname(),
        now=read.now if read is not None else look.clock(),
        store=store,
        config=question.trouble,
        agents=read.agents if read is not None else (),
        configured=tuple(config.agents) if config is not None else (),
        emergency=frozenset(n for n, a in config.agents.items() if a.role == Role.EMERGENCY) if config else frozenset(),
        processes=tuple(_ours(processes or [], config, read)),
        units=tuple(units or ()),
        disk_percent=disk[0] if disk is not None else None,
        disk_where=disk[1] if disk is not None else "",
        secrets=_secrets(question, processes or [], environ, unchecked),
        environments=tuple(looks[environment.row.name] for environment in environments),
        focus=read.focus if read is not None else None,
        unchecked=tuple(unchecked),
        borrowed=question.borrowed,
    )
    return facts, Secrets(environ, question.store_url)


def _at_rest(environment: EnvironmentFacts) -> bool:
    """Whether nothing is left to do in an environment: others are looked at first, should there be many."""
    return environment.running is None and environment.lock is None and not environment.queued


def _ours(processes: Sequence[AgentProcess], config: Config | None, read: _Read | None) -> list[AgentProcess]:
    """Return the processes that are of this project, as far as can be told; one of its names may be another's."""
    reported = (row.report.name for row in read.agents) if read is not None else ()
    names = {*(config.agents if config is not None else ()), *reported}
    return [process for process in processes if process.here or process.name in names]


async def _tried(work: Awaitable[T], what: str, unchecked: list[Unchecked]) -> T | None:
    """Return what came of it, or note that it could not be looked at."""
    try:
        return await work
    except TimeoutError:
        unchecked.append(Unchecked(what, "there was not enough time"))
    except SurefootError as error:
        unchecked.append(Unchecked(what, error.message))
    except Exception as error:  # what can't be looked at must not end the others
        unchecked.append(Unchecked(what, str(error) or type(error).__name__))
    return None


# -- the store -------------------------------------------------------------------------------------------


async def _store(question: Question, end: float, unchecked: list[Unchecked]) -> tuple[StoreFacts, _Read | None]:
    where = shown(question.store_url)
    left = end - asyncio.get_running_loop().time()
    try:
        read, skew = await _within(max(1.0, left * HOSTS_SHARE), lambda: _read(question))
    except TimeoutError:
        trouble = Trouble(
            Code.STORE_UNREACHABLE,
            f"the store at {where} did not answer in time",
            "check that the database server runs and can be reached from here",
        )
        return StoreFacts(where, trouble, await _network(question.store_url)), None
    except SurefootError as error:
        if not str(error.code).startswith("SF-STORE"):
            raise
        return StoreFacts(
            where, Trouble(error.code, error.message, error.hint), await _network(question.store_url)
        ), None
    not_writable = await _tried(
        _within(max(1.0, left * HOSTS_SHARE), lambda: _writable(question.store_url)), "writing to the store", unchecked
    )
    if read is None:
        unchecked.append(Unchecked("the journal", "nothing was ever written to this store"))
    weaknesses = read.weaknesses if read is not None else ()
    return StoreFacts(where, not_writable, skew=skew, weaknesses=weaknesses), read


async def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a call returns that blocks; TimeoutError if it takes longer. Nobody waits for its thread then."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if told.done():
            return
        if error is not None:
            told.set_exception(error)
        else:
            told.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = call()
        except BaseException as failed:
            error = failed
        with contextlib.suppress(RuntimeError):  # nobody is there any more
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, daemon=True).start()
    async with asyncio.timeout(seconds):
        return await told


def _read(question: Question) -> tuple[_Read | None, float]:
    """Read all that the rules want to know; None of a store that was never written to."""
    url = question.store_url
    if never_written(url):
        if question.deployment is not None:
            from surefoot.store.memory import MemoryStore

            MemoryStore().journal(question.deployment)  # says that there is none
        return None, 0.0
    store = open_store(url, read_only=True)
    try:
        before = look.clock()
        now = store.now()
        skew = max(before - now, 0.0) or min(look.clock() - now, 0.0)
        focus = fold(store.journal(question.deployment)) if question.deployment is not None else None
        rows = {row.name: row for row in store.environments()}
        names = [focus.environment] if focus is not None else list(rows)
        for name in question.config.environments if question.config is not None and focus is None else ():
            if name not in rows:
                names.append(name)
        environments = tuple(
            _with_plan(question.config, _environment(store, rows.get(name) or EnvironmentRow(name), now))
            for name in names
        )
        known = [d for e in environments for d in (e.last,) if d is not None]
        project = known[0].plan.project if known else ""
        weaknesses = tuple(store.weaknesses())
        return _Read(project, store.identity(), now, tuple(store.agents(SILENT)), environments, focus, weaknesses), skew
    finally:
        store.close()


def _environment(store: Store, row: EnvironmentRow, now: float) -> EnvironmentFacts:
    def load(deployment: str | None) -> Deployment | None:
        return fold(store.journal(deployment)) if deployment is not None else None

    newest = next(iter(store.history(row.name, limit=1)), None)
    running = load(row.running)
    queued = tuple(d for name in row.queue[:LONGEST_QUEUE] if (d := load(name)) is not None and not d.begun)
    silent = None
    if running is not None:
        last = store.log(running.id, after=max(0, store.log_end(running.id) - 1))
        silent = max(0.0, now - max([running.last_at, *(line.at or 0.0 for line in last)]))
    return EnvironmentFacts(
        row, load(newest.id if newest is not None else None), running, load(row.locked_by), queued, silent
    )


def _writable(url: str) -> Trouble | None:
    """Return why a store can only be read, if that is so; its schema is current, so that opening changes nothing."""
    if never_written(url):
        return None
    try:
        store = open_store(url)
        try:
            store.leave("", "")  # asks for what any change asks for, and changes nothing: there is no such agent
        finally:
            store.close()
    except SurefootError as error:
        return Trouble(error.code, error.message, error.hint)
    return None


async def _network(url: str) -> str:
    """Return what is wrong with the way to a database server."""
    return "; ".join(filter(None, [await look.way(name, port) for name, port in servers(url)]))


# -- hosts and checks --------------------------------------------------------------------------------------


def _of_config(config: Config | None) -> tuple[EnvironmentFacts, ...]:
    names = config.environments if config is not None else ()
    return tuple(_with_plan(config, EnvironmentFacts(EnvironmentRow(name))) for name in names)


def _plan(config: Config | None, environment: EnvironmentFacts) -> Plan | None:
    """Return what a deployment would be now: as the config has it, else as the newest one was."""
    name = environment.row.name
    if config is not None and name in config.environments:
        plan = freeze(config, name)
    elif environment.last is not None:
        plan = environment.last.plan
    else:
        return None
    return restruct(plan, gates=Gates(), targets=())


def _with_plan(config: Config | None, environment: EnvironmentFacts) -> EnvironmentFacts:
    plan = _plan(config, environment)
    if plan is None:
        return environment
    return replace(environment, inventory=plan.inventory, state_file=plan.state_file)


@dataclass(frozen=True, slots=True)
class _Looking:
    """Looks at the hosts and checks of environments until `end`, by the loop's clock."""

    question: Question
    read: _Read | None
    environ: Mapping[str, str] = field(repr=False)
    end: float
    unchecked: list[Unchecked]
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOKS_AT_ONCE))

    async def at(self, environment: EnvironmentFacts) -> EnvironmentFacts:
        """Return the environment with its hosts and checks, as far as they answer in time."""
        plan = _plan(self.question.config, environment)
        if plan is None or (plan.inventory is None and not plan.preflight and not plan.health):
            return environment
        what = f"hosts and checks of {environment.row.name}"
        found = await _tried(self._in_turn(environment, plan), what, self.unchecked)
        return found if found is not None else environment

    async def _in_turn(self, environment: EnvironmentFacts, plan: Plan) -> EnvironmentFacts:
        async with self.turns:
            if self.end - asyncio.get_running_loop().time() < SHORTEST_LOOK:
                raise TimeoutError
            return await self._looked(environment, plan)

    async def _looked(self, environment: EnvironmentFacts, plan: Plan) -> EnvironmentFacts:
        last, row = environment.last, environment.row
        version = last.version if last is not None else row.current_version
        submission = Submission(environment=row.name, version=version or "0", plan=plan)
        preflight = [check for check in plan.preflight if version or "version" not in placeholders(check.options)]
        digest, chunks = await _files(self.question, environment, self.read)
        agent = next(iter(self.question.config.agents), None) if self.question.config is not None else None
        async with stage(
            submission,
            digest,
            chunks,
            agent=agent or (last.agent if last is not None else None) or socket.gethostname(),
            previous_version=row.current_version,
            environ=look.environment_of(self.environ),
            note=lambda _: None,
        ) as (world, job):
            left = self.end - asyncio.get_running_loop().time()
            identity = self.read.identity if self.read is not None else "unknown"
            script = look.script(plan.fence_path or "", fence_name(identity, plan.project, row.name), plan.state_file)
            await world.read_secrets(job, (*plan.preflight, *plan.health))
            absent = world.secrets.lacks((*plan.needed, *named_secrets(plan.preflight)))

            async def one(check: Check, *, health: bool) -> list[Checked]:
                ((*results,),) = await world.looked(job, [check], absent, row.current_version if health else None)
                return [Checked(check, result, health) for result in results]

            hosts = asyncio.create_task(_hosts(world, job, script, max(1.0, left * HOSTS_SHARE)))
            await asyncio.sleep(0)  # its look at the hosts comes first; the checks use what it has found
            healthy = plan.health if row.current_version is not None and environment.running is None else ()
            checks = {asyncio.create_task(one(check, health=False)): check for check in preflight}
            checks |= {asyncio.create_task(one(check, health=True)): check for check in healthy}
            try:
                await asyncio.wait((hosts, *checks), timeout=max(1.0, left - 0.5))
                seen, failure = hosts.result() if hosts.done() else ((), None)
                if not hosts.done():
                    self.unchecked.append(Unchecked(f"hosts of {row.name}", "they did not answer in time"))
                late = [check.name or check.kind for task, check in checks.items() if not task.done()]
                if late:
                    self.unchecked.append(
                        Unchecked(f"checks of {row.name}: {', '.join(late)}", "there was not enough time")
                    )
                results = tuple(result for task in checks if task.done() for result in task.result())
            finally:
                for task in (hosts, *checks):
                    task.cancel()
                await asyncio.gather(hosts, *checks, return_exceptions=True)
        if silent := [host.name for host in seen if host.failure is None and not host.told]:
            self.unchecked.append(Unchecked(f"hosts {', '.join(silent)} of {row.name}", "there was not enough time"))
        if failure is not None and failure.code is Code.STEP_TIMED_OUT:
            self.unchecked.append(Unchecked(f"hosts of {row.name}", failure.message))
            failure = None
        if any(host.hides for host in seen):
            self.unchecked.append(Unchecked(f"versions of {row.name}", f"{plan.state_file} can't be read by this user"))
        return replace(environment, hosts=seen, inventory_failure=failure, checks=results, looked=True)


async def _hosts(world: World, job: Job, script: str, seconds: float) -> tuple[tuple[HostFacts, ...], Failure | None]:
    begun = look.clock()
    found, answers, failure = await world.look(job, script, seconds)
    ended = look.clock()

    async def one(host: Host) -> HostFacts:
        answer = answers.get(host.name)
        if answer is None or isinstance(answer, Failure):
            return await look.lost(host, answer)
        return look.told_by(host, answer, begun, ended)

    return tuple(await asyncio.gather(*map(one, found.values()))), failure


async def _files(question: Question, environment: EnvironmentFacts, read: _Read | None) -> tuple[str, Iterable[bytes]]:
    """Return the files that a deployment would run from: the project's as they are, else the newest one's."""
    config, last = question.config, environment.last
    if config is not None and environment.row.name in config.environments:
        bundle = await asyncio.to_thread(pack, config.folder, config.path, store=question.store_url)
        return bundle.digest, bundle.chunks()
    if last is not None and last.bundle is not None and read is not None:
        return last.bundle, await asyncio.to_thread(_bundle, question.store_url, last.bundle)
    raise SurefootError("the files of its deployments are not known here")


def _bundle(url: str, digest: str) -> tuple[bytes, ...]:
    store = open_store(url, read_only=True)
    try:
        return tuple(store.get_bundle(digest))
    finally:
        store.close()


# -- secrets ---------------------------------------------------------------------------------------------


def _names(question: Question) -> tuple[str, ...]:
    """Return the secrets that the config names."""
    config = question.config
    if config is None:
        return ()
    plans = [plan for e in _of_config(config) if (plan := _plan(config, e)) is not None]
    of_checks = (name for plan in plans for name in named_secrets(plan.preflight))
    return tuple(dict.fromkeys((*config.secret_names, *of_checks, *(name for plan in plans for name in plan.hidden))))


def _own(question: Question, processes: Sequence[AgentProcess]) -> AgentProcess | None:
    """Return an agent of this project on this machine, into whose environment this user may look."""
    return next((one for one in processes if one.here and machine.readable(one.pid)), None)


def _environ(question: Question, processes: Sequence[AgentProcess]) -> dict[str, str]:
    """Return the environment to look with: this one, with the secrets as the agent on this machine has them."""
    agent, names = _own(question, processes), _names(question)
    if agent is None:
        return dict(question.environ)
    theirs = machine.environment_of(agent.pid, names)
    return {**{name: value for name, value in question.environ.items() if name not in names}, **theirs}


def _secrets(
    question: Question, processes: Sequence[AgentProcess], environ: Mapping[str, str], unchecked: list[Unchecked]
) -> SecretFacts:
    names, agent = _names(question), _own(question, processes)
    wanted = question.config.secret_names if question.config is not None else ()
    elsewhere = question.config.secrets_elsewhere if question.config is not None else ()
    missing = tuple(
        name
        for name in names
        if name not in elsewhere and not environ.get(name) and (name in wanted or _checked(question, name))
    )
    where = f"the environment of agent {agent.name} (process {agent.pid})" if agent else "this command's environment"
    certain = agent is not None or question.config is None or not question.config.agents
    if missing and not certain:
        why = "no agent runs on this machine; run doctor where one does"
        unchecked.append(Unchecked(f"secrets {', '.join(missing)}", why))
    return SecretFacts(names, missing, where, certain)


def _checked(question: Question, name: str) -> bool:
    """Whether a preflight check is about that secret."""
    assert question.config is not None
    return any(
        check.kind == "secret" and check.options.get("name") == name
        for environment in question.config.environments.values()
        for check in environment.preflight
    )
