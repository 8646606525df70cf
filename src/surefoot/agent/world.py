# SPDX-License-Identifier: Apache-2.0
"""The performer that touches the real world: bundles, processes, hosts, checks.

Guarantees: nothing runs but under a shim that ends it with the lease; no process is left when a method returns or is
cancelled; what an older token still ran on this machine is ended before anything begins. See performer.py for what
callers may expect.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from surefoot.agent import checking, leftovers, sshagent
from surefoot.agent.access import StoreAccess, answered
from surefoot.agent.attempt import Ran, run_attempt
from surefoot.agent.attempt_secrets import AttemptSecrets
from surefoot.agent.bundle import unpack
from surefoot.agent.commands import EVIDENCE, Output, environment, step_environment, why_failed
from surefoot.agent.hosts import Hosts
from surefoot.agent.logs import LogSink, StepOutput
from surefoot.agent.performer import CannotBeginError, Job
from surefoot.agent.processes import ProcessRunner, Spawn
from surefoot.agent.secrets import Captured, Printed, Reach, Secrets, in_project, too_short
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
        self.secrets = AttemptSecrets(secrets, environ)
        self._ready: tuple[str, int] | None = None
        self._preparing = asyncio.Lock()
        self._hosts = Hosts(self, identity)

    # -- secrets -------------------------------------------------------------------------------------

    async def read_secrets(self, job: Job, checks: Sequence[Check] = (), *, anew: bool = True) -> tuple[Failure, ...]:
        """Read all secrets again; return what is wrong with them. For `anew` see `AttemptSecrets.read`."""
        return await self.secrets.read(job, checks, self._reach(job), anew=anew)

    def _reach(self, job: Job) -> Reach:
        async def run(argv: Sequence[str], stdin: bytes, environ: Mapping[str, str], timeout: float) -> Printed:
            captured = Captured()
            ran = await self.process(
                job, tuple(argv), env=environ, output=captured, timeout=timeout, stdin=stdin, ssh=False
            )
            status = None if ran.timed_out else ran.ended.exit_code
            stderr = captured.text("stderr") or ran.ended.error
            return Printed(-1 if status is None and not ran.timed_out else status, captured.bytes("stdout"), stderr)

        return Reach(job.agent, run, lambda: self.prepare(job))

    # -- the performer's methods ---------------------------------------------------------------------

    async def preflight(self, job: Job) -> ev.PreflightPassed | ev.PreflightFailed | ev.NotBegun:
        """See Performer."""
        if (not_begun := await self._unprepared(job)) is not None:
            return not_begun
        failures = await self.read_secrets(job, job.state.plan.preflight)
        results = await self._preflight_results(job, failures)
        note = self.secrets.noter(job)
        for result in results:
            note(f"preflight {checking.line(result)}")
        return self.secrets.clean(job, checking.preflight_outcome(results, next(iter(failures), None)))

    async def _preflight_results(self, job: Job, failures: Sequence[Failure]) -> list[CheckResult]:
        """Run the preflight checks side by side; return how each came out, still with what they may quote."""
        plan = job.state.plan
        results: list[CheckResult] = []
        needed = self.secrets.of(plan.needed)
        if plan.needed:
            folder = await self.prepare(job) if plan.secrets and not failures else None
            in_files = [] if folder is None else await asyncio.to_thread(in_project, folder, needed)
            results += checking.secrets_results(plan.needed, failures, too_short(needed), in_files)
        found = await self.looked(job, plan.preflight, [name for name in plan.needed if name not in needed])
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
        if failures := await self.read_secrets(job, anew=False):
            return self.secrets.clean(job, ev.FenceFailed(failures[0]))
        event = await self._tried(job, self._hosts.raise_fence(job), ev.FenceFailed)
        event = ev.FenceFailed(event.failure) if isinstance(event, ev.NotBegun) else event
        return self.secrets.clean(job, event)

    async def step(self, job: Job, action: RunStep) -> ev.StepSucceeded | ev.StepFailed | ev.FenceFailed | ev.NotBegun:
        """See Performer."""
        state, run = job.state, action.run
        attempt = run.name, run.direction, action.attempt
        forward = run.direction is Direction.FORWARD
        failures = await self.read_secrets(job, anew=forward)
        expired = self.secrets.expired(job) if forward and not failures else None
        if failure := next(iter(failures), expired):
            return self.secrets.clean(job, ev.NotBegun(msgspec.structs.replace(failure, step=run.name)))
        performed: Awaitable[ev.StepSucceeded | ev.StepFailed | ev.FenceFailed | ev.NotBegun]
        match state.work(run):
            case Command(run=command):
                performed = self._command(job, action, command)
            case Playbook(playbook=playbook):
                performed = self._hosts.playbook(job, action, playbook)
        event = await self._tried(job, performed, partial(ev.StepFailed, *attempt))
        if isinstance(event, ev.StepFailed):
            event = msgspec.structs.replace(event, failure=self.secrets.diagnosed(job, event.failure))
        return self.secrets.clean(job, event)

    async def _tried(self, job: Job, action: Awaitable[E], failed: Callable[[Failure], E]) -> E | ev.NotBegun:
        """Return what came of an action; trouble with this machine's files is a failure too, in the midst of it."""
        try:
            return await action
        except CannotBeginError as error:
            return ev.NotBegun(_failure(job, error))
        except (LeaseLostError, StoreError):
            raise
        except (SurefootError, OSError) as error:
            return failed(_failure(job, self._told(error)))

    @contextlib.contextmanager
    def beginning(self, job: Job) -> Iterator[None]:
        """What fails in here failed before a process was there: CannotBeginError."""
        try:
            yield
        except (LeaseLostError, StoreError):
            raise
        except (SurefootError, OSError) as error:
            told = self._told(error)
            raise CannotBeginError(told.message, code=told.code, hint=told.hint) from error

    def _told(self, error: SurefootError | OSError) -> SurefootError:
        """Return an error with a code, and something to do."""
        if isinstance(error, SurefootError):
            return error
        if error.errno in (errno.EMFILE, errno.ENFILE):
            hint = "on the agent's machine: a higher LimitNOFILE in its unit, or ulimit -n"
            return SurefootError(f"out of descriptors: {error.strerror}", code=Code.STEP_NOT_STARTED, hint=hint)
        message = f"{self._folder} can't be used: {error.strerror or error}"
        hint = f"on the agent's machine: df -h {self._folder}; ls -ld {self._folder}"
        return SurefootError(message, code=Code.AGENT_FOLDER, hint=hint)

    async def _unprepared(self, job: Job) -> ev.NotBegun | None:
        """Return why nothing can be run on this machine, if so: what it looked at would seem to be at fault."""
        try:
            await self.prepare(job)
        except CannotBeginError as error:
            return self.secrets.clean(job, ev.NotBegun(_failure(job, error)))
        return None

    async def health(self, job: Job) -> ev.HealthPassed | ev.HealthFailed | ev.NotBegun:
        """See Performer."""
        if (not_begun := await self._unprepared(job)) is not None:
            return not_begun
        direction = job.state.direction
        version = job.state.version if direction is Direction.FORWARD else job.state.previous_version
        failure, count = await self._healthy(job, version)
        if failure is None:
            return ev.HealthPassed(direction, count)
        return self.secrets.clean(job, ev.HealthFailed(direction, self.secrets.diagnosed(job, failure)))

    async def _healthy(self, job: Job, version: str | None) -> tuple[Failure | None, int]:
        plan = job.state.plan
        if failures := await self.read_secrets(job, plan.health, anew=False):
            return failures[0], 0
        context = await self._context(job, plan.health, version)
        if isinstance(context, Failure):
            return context, 0
        return await checking.healthy(plan.health, plan.health_policy, context, self.secrets.noter(job))

    async def bake(self, job: Job, seconds: float) -> ev.BakePassed | ev.BakeFailed | ev.NotBegun:
        """See Performer."""
        if (not_begun := await self._unprepared(job)) is not None:
            return not_begun
        plan = job.state.plan
        if failures := await self.read_secrets(job, plan.health, anew=False):
            return self.secrets.clean(job, ev.BakeFailed(failures[0]))
        context = await self._context(job, plan.health, job.state.version)
        if isinstance(context, Failure):
            return self.secrets.clean(job, ev.BakeFailed(context))
        note = self.secrets.noter(job)
        failure = await checking.still_healthy(plan.health, plan.health_policy, seconds, context, note)
        return ev.BakePassed() if failure is None else self.secrets.clean(job, ev.BakeFailed(failure))

    async def record(self, job: Job, version: str | None) -> ev.VersionsRecorded | ev.VersionsMixed | ev.NotBegun:
        """See Performer."""
        failed = partial(ev.VersionsMixed, job.state.direction)
        probe = job.state.plan.version_probe
        if failures := await self.read_secrets(job, [probe] if probe is not None else (), anew=False):
            return self.secrets.clean(job, failed(failures[0]))
        return self.secrets.clean(job, await self._tried(job, self._hosts.record(job, version), failed))

    async def survey(self, job: Job) -> ev.VersionsSurveyed:
        """See Performer."""
        try:
            found = await self._hosts.survey(job)
        except (LeaseLostError, StoreError):
            raise
        except (SurefootError, OSError) as error:
            found = ev.VersionsSurveyed({}, {"the hosts": str(error)})
        text = self.secrets.redactor(job).text
        return ev.VersionsSurveyed(found.versions, {host: text(why) for host, why in found.unknown.items()})

    async def versions_probed(self, job: Job) -> dict[str, str | None]:
        """Ask the version probe, if there is one, of each host whether it runs the new version or the previous one."""
        state, found = job.state, dict[str, str | None]()
        check = state.plan.version_probe
        for version in (state.previous_version, state.version) if check is not None else ():
            if check is None or version is None:
                continue
            context = await self._context(job, [check], version, looking=True)
            if isinstance(context, Failure):
                return {}
            results = await run_all([check], context)
            found |= {r.host: version for r in results if r.host is not None and r.status is CheckStatus.PASS}
        return found

    async def resolve(self, job: Job, request: ev.ResolveRequested) -> ev.Resolved | ev.ResolveRefused:
        """See Performer."""
        event = await self._tried(job, self._resolved(job, request), ev.ResolveRefused)
        event = ev.ResolveRefused(event.failure) if isinstance(event, ev.NotBegun) else event
        return self.secrets.clean(job, event)

    async def _resolved(self, job: Job, request: ev.ResolveRequested) -> ev.Resolved | ev.ResolveRefused:
        plan = job.state.plan
        checks = (*plan.health, *([plan.version_probe] if plan.version_probe is not None else ()))
        if failures := await self.read_secrets(job, checks, anew=False):
            return ev.ResolveRefused(failures[0])
        version, failure = await self._hosts.one_version(job, request.version)
        if failure is None and plan.health and version is not None:
            failure, _ = await self._healthy(job, version)
        return ev.Resolved(version) if failure is None else ev.ResolveRefused(failure)

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
        self.secrets.forget()

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
            secrets=self.secrets.of(state.plan.secrets),
            named=self.secrets.of(named_secrets(checks)),
            redact=self.secrets.redactor(job, named_secrets(checks)).text,
            run=run,
            reach=reach,
            here=partial(self._hosts.here, job),
            folder=partial(self.prepare, job),
            started=None if looking else state.started_at,
            fence_folder=state.plan.fence_path or "",
        )

    # -- commands ------------------------------------------------------------------------------------

    async def _command(self, job: Job, action: RunStep, command: str) -> ev.StepSucceeded | ev.StepFailed | ev.NotBegun:
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
        return ev.StepFailed(run.name, run.direction, action.attempt, failure) if ran.began else ev.NotBegun(failure)

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
        stdin: bytes | None = None,
        ssh: bool = True,
        tidy: tuple[str, ...] = (),
    ) -> Ran:
        """Run a command in the deployment's folder, under the lease, with the agent's environment, secrets and `env`.

        With `ssh`, and where the plan names a key, it runs beside an ssh-agent of its own.
        """
        plan = job.state.plan
        cwd = await self.prepare(job)
        given = self.secrets.of(plan.secrets)
        if ssh and (user := self.secrets.ssh_user(plan)):
            given["ANSIBLE_REMOTE_USER"] = user
        key = self.secrets.private_key(plan) if ssh else ""
        with contextlib.ExitStack() as stack:
            with self.beginning(job):
                prepared = stack.enter_context(sshagent.beside(argv, key, self._attempts.parent))
                spawn = Spawn(
                    prepared.argv,
                    cwd=cwd,
                    env={**self.environ, **given, **env},
                    scope=self._scope(job),
                    token=job.token,
                    leaves_processes=leaves_processes,
                    pass_fds=pass_fds,
                    stdin=stdin if prepared.stdin is None else prepared.stdin,
                    tidy=(*tidy, *prepared.tidy),
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
        return StepOutput(
            lambda line: self._logs.add(job.state.id, line, job.holding.grant),
            template,
            lambda: self.secrets.redactor(job),
        )

    # -- this machine --------------------------------------------------------------------------------

    def _scope(self, job: Job) -> str:
        return f"{self._identity}/{job.state.plan.project}/{job.state.environment}"

    async def prepare(self, job: Job) -> Path:
        """Return the folder in which the deployment's commands run: its bundle, unpacked once for each grant.

        Before anything runs with a new token, what older ones left on this machine is ended.
        """
        async with self._preparing:
            with self.beginning(job):
                return await self._prepare(job)

    async def _prepare(self, job: Job) -> Path:
        folder = self._folder / "work" / f"{job.state.id}-{job.token}"
        if self._ready == (job.state.id, job.token) and folder.is_dir():  # whoever tidies up may have removed it
            return folder
        ended = await asyncio.to_thread(leftovers.sweep, self._attempts, self._scope(job), job.token)
        if ended:
            job.note(f"ended {len(ended)} processes that an earlier attempt left on this machine")
        await asyncio.to_thread(shutil.rmtree, self._folder / "work", ignore_errors=True)
        if job.state.bundle is None:
            folder.mkdir(parents=True)
        else:
            chunks = await answered(self._access, job.holding.check, self._fetched, job.state.bundle)
            await asyncio.to_thread(unpack, chunks, folder, job.state.bundle)
        self._ready = (job.state.id, job.token)
        return folder

    def _fetched(self, digest: str) -> list[bytes]:
        return list(self._store.get_bundle(digest))


def _failure(job: Job, error: SurefootError) -> Failure:
    return Failure(error.code, f"{job.agent}: {error.message}", hint=error.hint, agent=job.agent)
