# SPDX-License-Identifier: Apache-2.0
"""The performer that touches the real world: bundles, processes, hosts, checks.

Guarantees: nothing runs but under a shim that ends it with the lease; no process is left when a method returns or is
cancelled; what an older token still ran on this machine is ended before anything begins. See performer.py for what
callers may expect.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from surefoot.agent import checking, leftovers
from surefoot.agent.access import StoreAccess
from surefoot.agent.attempt import Ran, run_attempt
from surefoot.agent.bundle import unpack
from surefoot.agent.hosts import Hosts
from surefoot.agent.logs import LogSink, StepOutput
from surefoot.agent.performer import Job
from surefoot.agent.processes import EndReason, ProcessRunner, Spawn
from surefoot.agent.redact import SHORTEST
from surefoot.agent.secrets import Secrets
from surefoot.checks.model import CheckResult, CheckStatus, CommandResult, Context, placeholders
from surefoot.checks.policy import failed
from surefoot.checks.registry import AT_ONCE, about_hosts, named_secrets, run_all
from surefoot.core import events as ev
from surefoot.core.decide import RunStep
from surefoot.core.errors import Code, Failure, LeaseLostError, StoreError, SurefootError
from surefoot.core.host import Host
from surefoot.core.plan import Check, Command, Direction, Playbook
from surefoot.steps.ansible import Answer
from surefoot.store.protocol import LogLine, Store

E = TypeVar("E", bound=ev.Event)


class Output(Protocol):
    """Takes what a process prints."""

    def feed(self, stream: str, data: bytes) -> None:
        """Take bytes as they come."""

    def close(self) -> None:
        """No more will come."""


TOO_SHORT = f"is shorter than {SHORTEST} characters: output may show it"
#: Lines of a failed step's output that its failure carries.
EVIDENCE = 10


class World:
    """See the module's docstring."""

    def __init__(
        self,
        *,
        store: Store,
        access: StoreAccess,
        logs: LogSink,
        runner: ProcessRunner,
        attempts: Path,
        folder: Path,
        identity: str,
        environ: Mapping[str, str],
        secrets: Secrets,
    ) -> None:
        """`folder` is the agent's own; `attempts` this machine's registry, where the store's `identity` tells
        stores apart.
        """
        self._store = store
        self._access = access
        self._logs = logs
        self._runner = runner
        self._attempts = attempts
        self._folder = folder
        self._identity = identity
        self.environ = environ
        self._secrets = secrets
        self._ready: tuple[str, int] | None = None
        self._preparing = asyncio.Lock()
        self._hosts = Hosts(self, identity)

    def _clean(self, job: Job, event: E) -> E:
        """Return an event that quotes no secret; what failed may have printed one."""
        text = self._secrets.redactor(job.state.plan.hidden).text
        clean: dict[str, Any] = {}
        failure: Failure | None = getattr(event, "failure", None)
        if failure is not None:
            clean["failure"] = msgspec.structs.replace(
                failure, message=text(failure.message), hint=text(failure.hint), evidence=text(failure.evidence)
            )
        if isinstance(event, ev.PreflightPassed | ev.PreflightFailed):
            clean["checks"] = tuple(
                msgspec.structs.replace(check, message=text(check.message), hint=text(check.hint))
                for check in event.checks
            )
        if isinstance(event, ev.PreflightPassed):
            clean["warnings"] = tuple(map(text, event.warnings))
        return msgspec.structs.replace(event, **clean) if clean else event

    def _noter(self, job: Job) -> Callable[[str], None]:
        """Return what says something in the deployment's log, without secrets."""
        redactor = self._secrets.redactor(job.state.plan.hidden)
        return lambda text: job.note(redactor.text(text))

    # -- the performer's methods ---------------------------------------------------------------------

    async def preflight(self, job: Job) -> ev.PreflightPassed | ev.PreflightFailed:
        """See Performer."""
        missing = self._secrets.missing(job.state.plan.secrets, job.agent)
        results = await self.preflight_results(job)
        note = self._noter(job)
        for result in results:
            note(f"preflight {checking.line(result)}")
        return self._clean(job, checking.preflight_outcome(results, missing))

    async def preflight_results(self, job: Job) -> list[CheckResult]:
        """Run the preflight checks side by side; return how each came out, still with what they may quote."""
        plan = job.state.plan
        results: list[CheckResult] = []
        absent: list[str] = []
        if plan.secrets:
            results.append(checking.secrets_result(plan.secrets, self._secrets.missing(plan.secrets, job.agent)))
            results += [
                CheckResult("secrets", CheckStatus.WARN, f"the secret {name} {TOO_SHORT}", "use a longer one")
                for name in self._secrets.redactor(plan.secrets).unprotected
            ]
            absent = [name for name in plan.secrets if name not in self._secrets.values(plan.secrets)]
        found = await self.looked(job, plan.preflight, absent)
        return results + [result for each in found for result in each]

    async def looked(
        self, job: Job, checks: Sequence[Check], absent: Sequence[str], version: str | None = None
    ) -> list[list[CheckResult]]:
        """Run checks side by side without touching anything, the fence neither; return how each came out. What needs
        a secret that is absent is skipped.
        """
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(check: Check) -> list[CheckResult]:
            waiting = checking.waits_for(check, absent)
            return [waiting] if waiting is not None else await self._looked(job, check, gate, version)

        return list(await asyncio.gather(*map(one, checks)))

    async def look(
        self, job: Job, script: str, timeout: float
    ) -> tuple[dict[str, Host], dict[str, Answer | Failure], Failure | None]:
        """Run a script that changes nothing on all hosts; see `Hosts.look`."""
        if job.state.plan.inventory is None:
            return {}, {}, None
        return await self._hosts.look(job, script, timeout)

    async def _looked(self, job: Job, check: Check, gate: asyncio.Semaphore, version: str | None) -> list[CheckResult]:
        """Run one check; only those about hosts wait until these are known."""
        context = await self._context(job, [check], version, looking=True)
        if isinstance(context, Failure):
            return [CheckResult(check.name or check.kind, CheckStatus.FAIL, context.message, context.hint)]
        return await run_all([check], context, gate)

    async def raise_fence(self, job: Job) -> ev.FenceRaised | ev.FenceFailed:
        """See Performer."""
        return self._clean(job, await self._tried(job, self._hosts.raise_fence(job), ev.FenceFailed))

    async def step(self, job: Job, action: RunStep) -> ev.StepSucceeded | ev.StepFailed | ev.FenceFailed:
        """See Performer."""
        state, run = job.state, action.run
        if (failure := self._secrets.missing(state.plan.secrets, job.agent)) is not None:
            return ev.FenceFailed(msgspec.structs.replace(failure, step=run.name))
        performed: Awaitable[ev.StepSucceeded | ev.StepFailed | ev.FenceFailed]
        match state.work(run):
            case Command(run=command):
                performed = self._command(job, action, command)
            case Playbook(playbook=playbook):
                performed = self._hosts.playbook(job, action, playbook)
        failed = partial(ev.StepFailed, run.name, run.direction, action.attempt)
        return self._clean(job, await self._tried(job, performed, failed))

    async def _tried(self, job: Job, action: Awaitable[E], failed: Callable[[Failure], E]) -> E:
        """Return what came of an action; a machine on which nothing can be done (its disk is full) is a failure too."""
        try:
            return await action
        except (LeaseLostError, StoreError):
            raise
        except SurefootError as error:
            code, message, hint = error.code, error.message, error.hint
        except OSError as error:
            code, message = Code.AGENT_FOLDER, f"{self._folder} can't be used: {error.strerror or error}"
            hint = ""
        return failed(Failure(code, f"{job.agent}: {message}", hint=hint or self._look(), agent=job.agent))

    def _look(self) -> str:
        return f"on the agent's machine: df -h {self._folder}; ls -ld {self._folder}"

    async def health(self, job: Job) -> ev.HealthPassed | ev.HealthFailed:
        """See Performer."""
        direction = job.state.direction
        version = job.state.version if direction is Direction.FORWARD else job.state.previous_version
        failure, count = await self._healthy(job, version)
        if failure is None:
            return ev.HealthPassed(direction, count)
        return self._clean(job, ev.HealthFailed(direction, failure))

    async def _healthy(self, job: Job, version: str | None) -> tuple[Failure | None, int]:
        plan = job.state.plan
        context = await self._context(job, plan.health, version)
        if isinstance(context, Failure):
            return context, 0
        return await checking.healthy(plan.health, plan.health_policy, context, self._noter(job))

    async def bake(self, job: Job, seconds: float) -> ev.BakePassed | ev.BakeFailed:
        """See Performer."""
        plan = job.state.plan
        context = await self._context(job, plan.health, job.state.version)
        if isinstance(context, Failure):
            return self._clean(job, ev.BakeFailed(context))
        note = self._noter(job)
        failure = await checking.still_healthy(plan.health, plan.health_policy, seconds, context, note)
        return ev.BakePassed() if failure is None else self._clean(job, ev.BakeFailed(failure))

    async def record(self, job: Job, version: str | None) -> ev.VersionsRecorded | ev.VersionsMixed:
        """See Performer."""
        failed = partial(ev.VersionsMixed, job.state.direction)
        return self._clean(job, await self._tried(job, self._hosts.record(job, version), failed))

    async def resolve(self, job: Job, request: ev.ResolveRequested) -> ev.Resolved | ev.ResolveRefused:
        """See Performer."""
        version, failure = await self._hosts.one_version(job, request.version)
        if failure is None and job.state.plan.health and version is not None:
            failure, _ = await self._healthy(job, version)
        return ev.Resolved(version) if failure is None else self._clean(job, ev.ResolveRefused(failure))

    async def probe(self, job: Job, version: str | None) -> Failure | None:
        """Ask the version probe, if there is one, whether every host runs `version`; of none there is nothing to
        ask.
        """
        check = job.state.plan.version_probe
        if check is None or version is None:
            return None
        context = await self._context(job, [check], version)
        if isinstance(context, Failure):
            return context
        results = await run_all([check], context)
        return failed(results, Code.VERSIONS_MIXED)

    async def settle(self, job: Job) -> None:
        """See Performer."""
        await self._logs.last_words()

    async def forget(self, job: Job) -> None:
        """See Performer."""
        await asyncio.to_thread(shutil.rmtree, self._folder / "work", ignore_errors=True)
        self._ready = None

    async def _context(
        self, job: Job, checks: Sequence[Check], version: str | None = None, *, looking: bool = False
    ) -> Context | Failure:
        """Return what these checks may use, or why that can't be known; hosts are only asked for where a check may be
        about them. `looking`: nothing on them may be touched yet, the fence neither.
        """
        state = job.state
        values = {
            "version": version or state.version,
            "previous_version": state.previous_version or "",
            "project": state.plan.project,
            "environment": state.environment,
            "deployment": state.id,
            "agent": job.agent,
            "commit": state.commit or "",
        }
        hosts: tuple[Host, ...] = ()
        if any(map(about_hosts, checks)) or placeholders([check.options for check in checks]) - values.keys():
            hosts, failure = await (self._hosts.seen(job) if looking else self._hosts.known(job))
            if failure is not None:
                return failure

        async def run(command: str, timeout: float) -> CommandResult:
            output = self.output(job)
            env = environment(job) | {"SUREFOOT_CHECKED_VERSION": version or ""}
            ran = await self.process(job, ("/bin/sh", "-c", command), env=env, output=output, timeout=timeout)
            return CommandResult(None if ran.timed_out else ran.ended.exit_code, "\n".join(output.tail))

        async def reach(host: Host, script: str, timeout: float) -> CommandResult:
            return await self._hosts.ask(job, host, script, timeout, looking=looking)

        return Context(
            values=values,
            hosts=hosts,
            secrets=self._secrets.values(state.plan.secrets),
            named=self._secrets.values(named_secrets(checks)),
            redact=self._secrets.redactor((*state.plan.hidden, *named_secrets(checks))).text,
            run=run,
            reach=reach,
            here=partial(self._hosts.here, job),
            folder=partial(self.prepare, job),
            started=None if looking else state.started_at,
            fence_folder=state.plan.fence_path or "",
        )

    # -- commands ------------------------------------------------------------------------------------

    async def _command(self, job: Job, action: RunStep, command: str) -> ev.StepSucceeded | ev.StepFailed:
        run, retry = action.run, action.retry
        output = self.output(job, action)
        step = job.state.plan.step(run.name)
        ran = await self.process(
            job,
            ("/bin/sh", "-c", command),
            env=step_environment(job, action),
            output=output,
            timeout=retry.timeout,
            leaves_processes=step.leaves_processes,
        )
        if ran.succeeded:
            return ev.StepSucceeded(run.name, run.direction, action.attempt)
        failure = why_failed(ran, run.name, retry.timeout, job.agent, list(output.tail)[-EVIDENCE:])
        return ev.StepFailed(run.name, run.direction, action.attempt, failure)

    async def process(
        self,
        job: Job,
        argv: tuple[str, ...],
        *,
        env: Mapping[str, str],
        output: Output,
        timeout: float | asyncio.Timeout | None,
        leaves_processes: bool = False,
        pass_fds: tuple[int, ...] = (),
    ) -> Ran:
        """Run a command in the deployment's folder, under the lease, with the agent's environment and `env`."""
        spawn = Spawn(
            argv,
            cwd=await self.prepare(job),
            env={**self.environ, **env},
            scope=self._scope(job),
            token=job.token,
            leaves_processes=leaves_processes,
            pass_fds=pass_fds,
        )
        try:
            return await run_attempt(self._runner, job.holding, spawn, output.feed, timeout)
        finally:
            output.close()

    def output(self, job: Job, action: RunStep | None = None) -> StepOutput:
        """Return what turns an attempt's output into lines of the deployment's log."""
        template = LogLine("", agent=job.agent, token=job.token)
        if action is not None:
            run = action.run
            template = replace(template, step=run.name, direction=str(run.direction), attempt=action.attempt)
        names = job.state.plan.hidden
        return StepOutput(
            lambda line: self._logs.add(job.state.id, line, job.holding.grant),
            template,
            lambda: self._secrets.redactor(names),
        )

    # -- this machine --------------------------------------------------------------------------------

    def _scope(self, job: Job) -> str:
        return f"{self._identity}/{job.state.plan.project}/{job.state.environment}"

    async def prepare(self, job: Job) -> Path:
        """Return the folder in which the deployment's commands run: its bundle, unpacked once for each grant.

        Before anything runs with a new token, what older ones left on this machine is ended.
        """
        async with self._preparing:
            return await self._prepare(job)

    async def _prepare(self, job: Job) -> Path:
        folder = self._folder / "work" / f"{job.state.id}-{job.token}"
        if self._ready == (job.state.id, job.token):
            return folder
        ended = await asyncio.to_thread(leftovers.sweep, self._attempts, self._scope(job), job.token)
        if ended:
            job.note(f"ended {len(ended)} processes that an earlier attempt left on this machine")
        await asyncio.to_thread(shutil.rmtree, self._folder / "work", ignore_errors=True)
        if job.state.bundle is None:
            folder.mkdir(parents=True)
        else:
            chunks = await self._access(lambda digest: list(self._store.get_bundle(digest)), job.state.bundle)
            await asyncio.to_thread(unpack, chunks, folder, job.state.bundle)
        self._ready = (job.state.id, job.token)
        return folder


def environment(job: Job) -> dict[str, str]:
    """Return what every command is told of its deployment."""
    state = job.state
    return {
        "SUREFOOT_DEPLOYMENT": state.id,
        "SUREFOOT_ENVIRONMENT": state.environment,
        "SUREFOOT_VERSION": state.version,
        "SUREFOOT_PREVIOUS_VERSION": state.previous_version or "",
        "SUREFOOT_AGENT": job.agent,
        "SUREFOOT_TOKEN": str(job.token),
    }


def step_environment(job: Job, action: RunStep) -> dict[str, str]:
    """Return what every attempt of a step is told."""
    pins = job.state.pins if action.run.direction is Direction.FORWARD else {}
    return (
        pins
        | environment(job)
        | {
            "SUREFOOT_STEP": action.run.name,
            "SUREFOOT_DIRECTION": str(action.run.direction),
            "SUREFOOT_ATTEMPT": str(action.attempt),
        }
    )


def why_failed(ran: Ran, step: str, timeout: float, agent: str, tail: list[str]) -> Failure:
    """Say in one sentence why a command did not succeed."""
    ended, evidence = ran.ended, "\n".join(tail)
    if ran.timed_out:
        message, code = f"{step} was still running after {timeout:g} s and was ended", Code.STEP_TIMED_OUT
    elif ended.reason is EndReason.FAILED:
        message, code = f"{step} could not be started: {ended.error}", Code.STEP_NOT_STARTED
    elif ended.reason is EndReason.ORPHANED or ended.reason is EndReason.KILLED:
        message, code = f"{step}: what watches over it was killed, so it was ended", Code.STEP_KILLED
    elif ended.signal is not None:
        message, code = f"{step} was killed by signal {ended.signal}", Code.STEP_KILLED
    else:
        last = f": {tail[-1]}" if tail and tail[-1].strip() else ""
        message, code = f"{step} ended with status {ended.exit_code}{last}", Code.STEP_FAILED
    return Failure(code, message, agent=agent, step=step, evidence=evidence)
