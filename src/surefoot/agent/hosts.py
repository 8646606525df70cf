# SPDX-License-Identifier: Apache-2.0
"""The hosts of an environment: their fence, the playbooks that change them, and the version that each says it runs.

Guarantees: whatever is run on a host stands behind its fence; a host that can't be raised fails the action, it is
never skipped; a version counts as recorded only when it was read back from every host.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import msgspec

from surefoot.agent import state_file
from surefoot.agent.attempt import Ran
from surefoot.agent.commands import EVIDENCE, environment, step_environment, why_failed
from surefoot.agent.performer import Job
from surefoot.agent.playbooks import run_ansible
from surefoot.agent.redact import ELLIPSIS
from surefoot.agent.secrets import Captured
from surefoot.checks.model import CheckFailed, CommandResult
from surefoot.core import events as ev
from surefoot.core.decide import RunStep
from surefoot.core.errors import Code, Failure
from surefoot.core.host import Host
from surefoot.steps.ansible import Answer, Channel, Progress, explain, no_hosts, unreached, unreadable
from surefoot.steps.fence import Fence, fence_name, for_any_shell, refusal

if TYPE_CHECKING:
    from surefoot.agent.world import World

#: Seconds for reading or writing a state file on all hosts, or for raising the fence alone.
HOSTS_TIMEOUT = 60.0
RAISING = "raising the fence"
#: Characters of what ssh or a host's shell said that are quoted: the last ones.
LONGEST_WORDS = 300
#: Seconds for a first look at all hosts, before anything on them is touched: what does not answer is not waited for.
LOOK_TIMEOUT = 20.0


class Hosts:
    """See the module's docstring."""

    def __init__(self, world: World, store: str) -> None:
        """`store` is the store's identity: fences of two stores never mix."""
        self._world = world
        self._store = store
        self._known: tuple[tuple[str, int], Progress] | None = None
        self._seen: tuple[tuple[str, int], Progress, Failure | None] | None = None
        self._looking = asyncio.Lock()

    # -- the fence and playbooks ---------------------------------------------------------------------

    async def raise_fence(self, job: Job) -> ev.FenceRaised | ev.FenceFailed:
        """Raise the fence on every host, and learn how each is reached."""
        progress, failure = await self._on_all(job, "true")
        return ev.FenceFailed(failure) if failure else ev.FenceRaised(tuple(progress.hosts))

    async def playbook(
        self, job: Job, action: RunStep, playbook: str
    ) -> ev.StepSucceeded | ev.StepFailed | ev.FenceFailed | ev.NotBegun:
        """Run a playbook; the fence is raised in the same run, before its first task."""
        run, retry = action.run, action.retry
        env = step_environment(job, action)
        output = self._world.output(job, action)
        began = time.monotonic()

        async def begun(progress: Progress) -> None:
            if action.raises_fence:
                # Before anything is changed: whoever goes on has to know all hosts that may have been.
                await job.fence_raised(ev.FenceRaised(tuple(progress.hosts)))

        progress, ran = await run_ansible(
            self._world,
            job,
            self._fence(job),
            env,
            output,
            timeout=retry.timeout,
            raise_within=HOSTS_TIMEOUT,
            playbook=playbook,
            raises=action.raises_fence,
            begun=begun,
        )
        self._learn(job, progress)
        if ran.succeeded and (progress.hosts or not action.raises_fence):
            hosts = progress.host_runs(began)
            return ev.StepSucceeded(run.name, run.direction, action.attempt, progress.changed, hosts)
        if ran.succeeded:
            failure = no_hosts(_inventory(job))
        else:
            tail = list(output.tail)
            evidence = tail[-EVIDENCE:]
            raising = action.raises_fence and not progress.begun and ran.timed_out
            what, timeout = (RAISING, HOSTS_TIMEOUT) if raising else (run.name, retry.timeout)
            failure = (
                progress.failure(run.name, job.agent, "\n".join(tail))
                or (_silent(job, progress, ran) if raising else None)
                or (None if progress.begun or ran.timed_out else unreadable(run.name, tail))
                or why_failed(ran, what, min(timeout, retry.timeout), job.agent, evidence)
            )
            failure = msgspec.structs.replace(failure, agent=job.agent, step=run.name, evidence="\n".join(evidence))
        if not progress.begun and (action.raises_fence or not ran.timed_out):
            # Not for want of a fence if that was raised, or Ansible never came so far: a role is missing, say.
            fenced = progress.raised or not action.raises_fence or not (progress.told or ran.timed_out)
            return ev.NotBegun(failure) if fenced else ev.FenceFailed(failure)
        return ev.StepFailed(run.name, run.direction, action.attempt, failure, progress.host_runs(began))

    async def known(self, job: Job) -> tuple[tuple[Host, ...], Failure | None]:
        """Return the hosts of the inventory, or why they can't be known."""
        if job.state.plan.inventory is None:
            return (), None
        progress, failure = await self._channels(job)
        return tuple(progress.hosts.values()), failure

    # -- looking, before anything is touched ---------------------------------------------------------

    async def seen(self, job: Job) -> tuple[tuple[Host, ...], Failure | None]:
        """Return the hosts of the inventory, reachable or not, or why they can't be known; raises no fence."""
        if job.state.plan.inventory is None:
            return (), None
        progress, failure = await self._looked(job)
        return tuple(progress.hosts.values()), failure

    async def look(
        self, job: Job, script: str, timeout: float
    ) -> tuple[dict[str, Host], dict[str, Answer | Failure], Failure | None]:
        """Run a script that changes nothing on all hosts, behind no fence; return them and what each answered, or why
        it did not, or why not even their names are known. Of one that had not answered when the time was over there
        is nothing.
        """
        async with self._looking:
            progress, failure = await self._look(job, script, timeout)
            self._seen = ((job.state.id, job.token), progress, failure)
        answers: dict[str, Answer | Failure] = dict(progress.answers)
        for failed in progress.failures:
            name = failed["host"]
            if (lost := _lost(job, progress, name)) is not None:
                answers[name] = lost
        return dict(progress.hosts), answers, failure

    async def ask(self, job: Job, host: Host, script: str, timeout: float, *, looking: bool) -> CommandResult:
        """Run sh on one host for a check; CheckFailed if it can't be reached. `looking`: not behind the fence, which
        may not have been raised yet.
        """
        if looking:
            return await self._look_at(job, host.name, script, timeout)
        answers, failure = await self.on_hosts(job, script, [host.name])
        if failure is None and host.name not in answers:
            failure = _unreached(job, host.name, "did not answer")
        if failure is not None:
            raise CheckFailed(failure.message, failure.hint)
        return CommandResult(answers[host.name].code, answers[host.name].stdout)

    async def here(self, job: Job, script: str, timeout: float) -> CommandResult:
        """Run sh on this machine for a check."""
        answer = await self._on_channel(job, Channel(Host("", "")), script, timeout)
        return CommandResult(answer.code, answer.stdout)

    async def _look_at(self, job: Job, name: str, script: str, timeout: float) -> CommandResult:
        progress, _ = await self._looked(job)
        failure = _lost(job, progress, name)
        channel = progress.reachable().get(name)
        if failure is None and channel is None:  # only Ansible itself gets there
            progress, _ = await self._look(job, script, timeout, only=name)
            failure = _lost(job, progress, name)
        if failure is not None:
            raise CheckFailed(failure.message, failure.hint)
        if channel is None:
            return CommandResult(progress.answers[name].code, progress.answers[name].stdout)
        answer = await self._on_channel(job, channel, for_any_shell(script), timeout)
        if answer.code == 255 and channel.argv:
            failure = _unreached(job, name, answer.stderr)
            raise CheckFailed(failure.message, failure.hint)
        return CommandResult(answer.code, answer.stdout)

    async def _looked(self, job: Job) -> tuple[Progress, Failure | None]:
        """Return what a first look at all hosts has told, once for each token."""
        async with self._looking:
            if self._seen is None or self._seen[0] != (job.state.id, job.token):
                self._seen = ((job.state.id, job.token), *await self._look(job, "true", LOOK_TIMEOUT))
            return self._seen[1:]

    async def _look(self, job: Job, script: str, timeout: float, only: str = "") -> tuple[Progress, Failure | None]:
        """Run a script on all hosts, or one; return what they told, or why not even their names are known."""
        said = Captured()
        env, script = environment(job), for_any_shell(script)
        progress, ran = await run_ansible(
            self._world, job, None, env, said, timeout=timeout, raise_within=HOSTS_TIMEOUT, on_hosts=script, only=only
        )
        if progress.hosts:
            return progress, None
        if ran.succeeded:
            return progress, no_hosts(_inventory(job))
        return progress, why_failed(
            ran, "looking at the hosts", timeout, job.agent, said.text("stderr").splitlines()[-EVIDENCE:]
        )

    # -- versions ------------------------------------------------------------------------------------

    async def record(self, job: Job, version: str | None) -> ev.VersionsRecorded | ev.VersionsMixed:
        """Write the state file where it says otherwise, read all back, and ask the probe."""
        direction = job.state.direction
        path = job.state.plan.state_file
        if path is not None:
            failure, versions = await self._record_files(job, path, version)
            if failure is not None:
                return ev.VersionsMixed(direction, failure, versions)
        hosts, failure = await self.known(job)
        failure = failure or await self._world.probe(job, version)
        if failure is not None:
            return ev.VersionsMixed(direction, failure)
        return ev.VersionsRecorded(direction, version, tuple(host.name for host in hosts))

    async def one_version(self, job: Job, named: str | None) -> tuple[str | None, Failure | None]:
        """Return the version that all hosts say they run; a person's word counts where they can't say."""
        plan = job.state.plan
        if plan.inventory is not None and plan.state_file is not None:
            answers, failure = await self.on_hosts(job, state_file.read(plan.state_file))
            if failure is not None:
                return None, failure
            versions = {name: state_file.version_in(answer.stdout) for name, answer in answers.items()}
            found = set(versions.values())
            if named is None:
                one = next(iter(found)) if len(found) == 1 else None
                # That all have forgotten what they run does not say that they run nothing.
                named = job.state.previous_version if one is None or isinstance(one, state_file.Unreadable) else one
            if found != {named}:
                return None, state_file.mixed(versions, named, plan.state_file)
        elif named is None:
            named = job.state.previous_version
        return named, await self._world.probe(job, named)

    async def survey(self, job: Job) -> ev.VersionsSurveyed:
        """Ask each host, reachable or not, what it runs: the probe where there is one, else the state file."""
        hosts, failure = await self.seen(job)
        if failure is not None:
            return ev.VersionsSurveyed({}, {"the hosts": failure.message})
        probed = await self._world.versions_probed(job)
        versions: dict[str, str | None] = {host.name: probed[host.name] for host in hosts if host.name in probed}
        left = [host for host in hosts if host.name not in probed]
        unknown: dict[str, str] = {}
        path = job.state.plan.state_file
        if path is None:
            return ev.VersionsSurveyed(versions, {host.name: "the version probe passes for neither" for host in left})

        async def ask(host: Host) -> None:
            try:
                said = await self.ask(job, host, state_file.read(path), LOOK_TIMEOUT, looking=True)
            except CheckFailed as error:
                unknown[host.name] = str(error)
            else:
                versions[host.name] = state_file.version_in(said.output)

        await asyncio.gather(*map(ask, left))
        order = [host.name for host in hosts]
        return ev.VersionsSurveyed(
            {name: versions[name] for name in order if name in versions},
            {name: unknown[name] for name in order if name in unknown},
        )

    async def _record_files(
        self, job: Job, path: str, version: str | None
    ) -> tuple[Failure | None, dict[str, str | None]]:
        read, put = state_file.read(path), state_file.put(path, job, version)
        # A host is reached once: a file that names the version stays as it is, whoever wrote it; all else is written.
        answers, failure = await self.on_hosts(job, f"if ! {state_file.names(path, version)}; then {put}; fi; {read}")
        if failure is not None:
            return failure, {}
        wrong = [name for name, answer in answers.items() if state_file.version_in(answer.stdout) != version]
        if wrong:
            written, failure = await self.on_hosts(job, f"{put} && {{ {read}; }}", wrong)
            if failure is not None:
                return failure, {}
            answers = {**answers, **written}
        versions = {name: state_file.version_in(answer.stdout) for name, answer in answers.items()}
        if set(versions.values()) == {version}:
            return None, versions
        broken = next(name for name, found in versions.items() if found != version)
        said = _end(answers[broken].stderr)
        if said:
            hint = (
                f"on the host: ls -ld {quote(str(Path(path).parent))}; it must be writable, or sudo free of passwords"
            )
            code, hint = explain(said, host=broken, inventory=_inventory(job)) or (Code.STATE_FILE, hint)
            return Failure(code, f"{broken}: {path} can't be written: {said}", hint=hint, host=broken), versions
        return state_file.mixed(versions, version, path), versions

    # -- reaching hosts ------------------------------------------------------------------------------

    async def on_hosts(
        self, job: Job, script: str, names: Sequence[str] | None = None
    ) -> tuple[dict[str, Answer], Failure | None]:
        """Run a script on hosts behind the fence, side by side; return what each answered, or what went wrong with
        one.
        """
        progress, failure = await self._channels(job)
        if failure is not None:
            return {}, failure
        channels = progress.reachable()
        wanted = tuple(names if names is not None else progress.hosts)
        if not set(wanted) <= set(channels):
            # A host that needs a password, or another kind of connection: only Ansible itself gets there.
            progress, failure = await self._on_all(job, script)
            return {name: progress.answers[name] for name in wanted if name in progress.answers}, failure
        answers = await asyncio.gather(*(self._direct(job, channels[name], script) for name in wanted))
        for name, answer in zip(wanted, answers, strict=True):
            refused = refusal(answer.stderr, name)
            if refused is not None:
                return {}, refused
            if answer.code == 255 and channels[name].argv:
                return {}, _unreached(job, name, answer.stderr)
        return dict(zip(wanted, answers, strict=True)), None

    async def _direct(self, job: Job, channel: Channel, script: str) -> Answer:
        return await self._on_channel(job, channel, self._fence(job).guard(script), HOSTS_TIMEOUT)

    async def _on_channel(self, job: Job, channel: Channel, command: str, timeout: float) -> Answer:
        captured = Captured()
        argv = (*channel.argv, command) if channel.argv else ("/bin/sh", "-c", command)
        ran = await self._world.process(job, argv, env={}, output=captured, timeout=timeout)
        code = 255 if ran.timed_out or ran.ended.exit_code is None else ran.ended.exit_code
        if ran.timed_out:
            captured.feed("stderr", f"no answer within {timeout:g} s".encode())
        return Answer(code, captured.text("stdout"), captured.text("stderr"))

    async def _channels(self, job: Job) -> tuple[Progress, Failure | None]:
        """Return what an earlier run with this token has learned, or have one learn it."""
        if self._known is not None and self._known[0] == (job.state.id, job.token):
            return self._known[1], None
        return await self._on_all(job, "true")

    async def _on_all(self, job: Job, script: str) -> tuple[Progress, Failure | None]:
        output = self._world.output(job)
        env, within = environment(job), HOSTS_TIMEOUT
        progress, ran = await run_ansible(
            self._world, job, self._fence(job), env, output, timeout=within, raise_within=within, on_hosts=script
        )
        self._learn(job, progress)
        if not ran.succeeded:
            tail = list(output.tail)
            failure = progress.failure(None, job.agent, "\n".join(tail)) or _silent(job, progress, ran)
            return progress, failure or why_failed(ran, RAISING, HOSTS_TIMEOUT, job.agent, tail[-EVIDENCE:])
        return progress, None if progress.hosts else no_hosts(_inventory(job))

    def _learn(self, job: Job, progress: Progress) -> None:
        if progress.hosts:
            self._known = ((job.state.id, job.token), progress)

    def _fence(self, job: Job) -> Fence:
        plan = job.state.plan
        return Fence(fence_name(self._store, plan.project, plan.environment), job.fence, plan.fence_path or "")


def _inventory(job: Job) -> str:
    assert job.state.plan.inventory is not None
    return job.state.plan.inventory


def _unreached(job: Job, host: str, said: str) -> Failure:
    code, hint = unreached(host, _inventory(job), said)
    return Failure(code, f"{host}: {_end(said)}", hint=hint, host=host)


def _lost(job: Job, progress: Progress, name: str) -> Failure | None:
    """Return why a host did not answer a look, if it did not."""
    if name in progress.answers:
        return None
    said = next((failed["message"] for failed in progress.failures if failed["host"] == name), "")
    return _unreached(job, name, said or "did not answer")


def _silent(job: Job, progress: Progress, ran: Ran) -> Failure | None:
    """Return which host a raise waited for in vain."""
    silent = progress.silent()
    if not ran.timed_out or not silent:
        return None
    more = f" (nor did {', '.join(silent[1:])})" if silent[1:] else ""
    return _unreached(job, silent[0], f"did not answer while the fence was being raised{more}")


def _end(text: str) -> str:
    """Return the end of what was said, on one line; what was cut off is marked, so that half a secret is known."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_WORDS else ELLIPSIS + line[1 - LONGEST_WORDS :]
