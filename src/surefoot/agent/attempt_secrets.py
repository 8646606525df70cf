# SPDX-License-Identifier: Apache-2.0
"""The secrets of a deployment as its attempts get them: read anew before each, good at that time, and taken out of
whatever is said of it.

Guarantees: on the way back, a vault that is down keeps nothing from being put back: what was read before is used, and
said so. One that has expired is named as the cause of what failed then.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from surefoot.agent.performer import Job
from surefoot.agent.redact import Redactor
from surefoot.agent.secrets import Reach, Secrets
from surefoot.checks.model import CheckFailed
from surefoot.checks.registry import named_secrets
from surefoot.checks.secret import no_longer_good, ssh_key
from surefoot.config.expansion import fill_secrets
from surefoot.core import events as ev
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Check, Plan
from surefoot.core.targets import references

E = TypeVar("E", bound=ev.Event)


class AttemptSecrets:
    """See the module's docstring."""

    def __init__(self, secrets: Secrets, environ: Mapping[str, str]) -> None:
        """Read from `secrets`; `environ` is the agent's."""
        self._secrets = secrets
        self._environ = environ
        self._values: Mapping[str, str] = {}  # as steps get them now
        self._good: dict[str, str] = {}  # and as each was read last

    async def read(self, job: Job, checks: Sequence[Check], reach: Reach, *, anew: bool = True) -> tuple[Failure, ...]:
        """Read all secrets again; return what is wrong with them.

        Unless it must be `anew`, what can't be read now is what it was when it was read last.
        """
        plan = job.state.plan
        names = (*plan.needed, *named_secrets(checks))
        reading = await self._secrets.read(plan, names, reach)
        failures = reading.failures
        old = {} if anew else {name: self._good[name] for name in names if name in self._good}
        if failures and not anew and set(plan.needed) <= old.keys() | reading.values.keys():
            for failure in failures:
                self.noter(job)(f"{failure.message}; going on with the value that was read before")
            failures = ()
        self._values = {**old, **reading.values}
        self._good |= reading.values
        # A check says itself what is wrong with the one that it names.
        listed = [failure for failure in failures if set(plan.needed) - self._values.keys()]
        return tuple(listed) or await self._ssh_trouble(job)

    def of(self, names: Iterable[str]) -> dict[str, str]:
        """Return those of these secrets that were there when all were read."""
        return {name: self._values[name] for name in names if name in self._values}

    def lacks(self, names: Iterable[str]) -> list[str]:
        """Return which of these secrets were not there."""
        return [name for name in names if name not in self._values]

    def forget(self) -> None:
        """Forget all values."""
        self._values, self._good = {}, {}

    async def _ssh_trouble(self, job: Job) -> tuple[Failure, ...]:
        """Return why no ssh-agent can be given the key, if so."""
        ssh = job.state.plan.ssh
        if ssh is None or not ssh.private_key:
            return ()
        if shutil.which("ssh-agent", path=self._environ.get("PATH")) is None:
            hint = "where the agent runs: apt-get install openssh-client"
            return (Failure(Code.SSH_AGENT, f"{job.agent} has no ssh-agent", hint=hint, agent=job.agent),)
        (name,) = references(ssh.private_key)
        try:
            await asyncio.to_thread(ssh_key, name, self._values[name])
        except CheckFailed as problem:
            return (Failure(Code.SECRET_INVALID, str(problem), hint=problem.hint, agent=job.agent),)
        return ()

    def private_key(self, plan: Plan) -> str:
        """Return the key that a plan gives its ssh-agents; nothing where it names none."""
        names = references(plan.ssh.private_key) if plan.ssh is not None else ()
        return next(iter(self.of(names).values()), "")

    def ssh_user(self, plan: Plan) -> str:
        """Return who logs in to hosts, where the plan says so."""
        return fill_secrets(plan.ssh.user, self._values) if plan.ssh is not None else ""

    # -- expired -------------------------------------------------------------------------------------

    def expired(self, job: Job) -> Failure | None:
        """Return which secret has expired since the preflight."""
        plan = job.state.plan
        failure = no_longer_good(plan.preflight, self.of(plan.needed))
        return None if failure is None else msgspec.structs.replace(failure, agent=job.agent)

    def diagnosed(self, job: Job, failure: Failure) -> Failure:
        """Return a failure with what is behind it, if that is a secret which has expired."""
        expired = self.expired(job)
        if expired is None or failure.code == expired.code:
            return failure
        message = f"{expired.message}; {failure.message}"
        return msgspec.structs.replace(failure, code=expired.code, message=message, hint=expired.hint)

    # -- taken out -----------------------------------------------------------------------------------

    def redactor(self, job: Job, names: Sequence[str] = ()) -> Redactor:
        """Return a fresh redactor of the plan's secrets, of these, and of all that were ever read."""
        return self._secrets.redactor((*job.state.plan.hidden, *names))

    def noter(self, job: Job) -> Callable[[str], None]:
        """Return what says something in the deployment's log, without secrets."""
        return lambda text: job.note(self.redactor(job).quoted(text))

    def clean(self, job: Job, event: E) -> E:
        """Return an event that quotes no secret; what failed may have printed one."""
        text = self.redactor(job).quoted
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
        if isinstance(event, ev.VersionsMixed):
            clean["versions"] = {name: said and text(said) for name, said in event.versions.items()}
        if isinstance(event, ev.PreflightPassed):
            clean["warnings"] = tuple(map(text, event.warnings))
        return msgspec.structs.replace(event, **clean) if clean else event
