# SPDX-License-Identifier: Apache-2.0
"""The plan of a deployment: what will be done, frozen when the deployment is accepted.

A plan is stored in the journal's first event. It holds names of secrets, never values.
Durations are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec

from surefoot.core.gates import Gates
from surefoot.core.targets import Target, references, secrets_of

#: Options of checks whose value is `${NAME}` of a secret and nothing else, whether the config lists it or not.
SECRET_OPTIONS = ("password", "token")
_SECRET = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
#: The one undo step of a plan that goes back as a whole.
ROLLBACK = "rollback"


class Direction(StrEnum):
    """Which way a step runs: towards the new version, or back."""

    FORWARD = "forward"
    UNDO = "undo"


class OnCancel(StrEnum):
    """What a cancel does to a deployment that has started."""

    ROLLBACK = "rollback"
    FINISH = "finish"  #: a cancel only takes a deployment out of the queue; one that has started goes on


class Retry(msgspec.Struct, frozen=True):
    """How often a step is tried, how long between, how long each."""

    attempts: int = 3
    delay: float = 30.0
    timeout: float = 600.0


class Command(msgspec.Struct, frozen=True, tag="run"):
    """A shell command, run on the agent."""

    run: str


class Playbook(msgspec.Struct, frozen=True, tag="playbook"):
    """An Ansible playbook, relative to the bundle."""

    playbook: str


Work = Command | Playbook


class Step(msgspec.Struct, frozen=True):
    """One step of the plan, with the way back where there is one."""

    name: str
    work: Work
    undo: Work | None = None
    retry: Retry = Retry()
    leaves_processes: bool = False


class Check(msgspec.Struct, frozen=True):
    """One preflight or health check: its kind and the options that the config gave."""

    kind: str
    options: dict[str, Any] = {}
    name: str = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The names of the secrets that its options hold nothing else but."""
        values = (self.options.get(key) for key in SECRET_OPTIONS)
        return tuple(match[1] for value in values if isinstance(value, str) and (match := _SECRET.fullmatch(value)))


class HealthPolicy(msgspec.Struct, frozen=True):
    """All checks must pass `successes` times running, `interval` apart, `within` the time."""

    within: float = 60.0
    interval: float = 2.0
    successes: int = 2


class VaultFile(msgspec.Struct, frozen=True):
    """A file that ansible-vault has encrypted, or one with encrypted values in it."""

    file: str  #: relative to the bundle, or absolute on the agent
    key: str = ""  #: names joined by dots; empty for the whole file
    password: str = ""  #: the name of the secret that opens it
    password_file: str = ""


class SecretSource(msgspec.Struct, frozen=True):
    """Where an agent reads a secret, if not in its environment under the secret's name. One of these is set."""

    name: str
    env: str = ""  #: another name in the agent's environment
    file: str = ""
    command: tuple[str, ...] = ()
    vault: VaultFile | None = None
    timeout: float = 10.0


class Ssh(msgspec.Struct, frozen=True):
    """How hosts are reached, where that is a secret's to say: `${NAME}` stands for a secret."""

    private_key: str = ""
    user: str = ""


class Plan(msgspec.Struct, frozen=True):
    """All that a deployment needs to know of its environment's config."""

    project: str
    environment: str
    steps: tuple[Step, ...]
    inventory: str | None = None
    retry: Retry = Retry()  #: of whatever is not a step: raising the fence, recording the version
    preflight: tuple[Check, ...] = ()
    health: tuple[Check, ...] = ()
    health_policy: HealthPolicy = HealthPolicy()
    version_probe: Check | None = None  #: asks a host which version it runs; without it the state file is asked
    state_file: str | None = None
    on_cancel: OnCancel = OnCancel.ROLLBACK
    takeover_limit: int = 5
    secrets: tuple[str, ...] = ()
    sources: tuple[SecretSource, ...] = ()  #: of those secrets that are not simply in the agent's environment
    ssh: Ssh | None = None
    fence_path: str | None = None
    targets: tuple[Target, ...] = ()  #: who is told of what happens
    gates: Gates = Gates()  #: what has to be open before it may start
    rollback: Work | None = None  #: puts everything back at once, in place of the steps' own undo
    bake: float = 0.0  #: how long health is watched after the checks have passed, before it counts as succeeded

    def step(self, name: str) -> Step:
        """Return the step of that name; names are unique in a plan, `rollback` too where there is one."""
        if self.rollback is not None and name == ROLLBACK:
            return Step(ROLLBACK, self.rollback, undo=self.rollback, retry=self.retry)
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    def undo_of(self, started: Sequence[str]) -> tuple[str, ...]:
        """Return the undo steps of forward steps that were started, in the order in which they run."""
        if self.rollback is not None:
            return (ROLLBACK,) if started else ()
        return tuple(name for name in reversed(started) if self.step(name).undo is not None)

    @property
    def hidden(self) -> tuple[str, ...]:
        """The names of all secrets whose values no output may show: those of steps, ssh, vaults, targets and
        checks. A user's name is none, unless it is listed.
        """
        of_targets = (name for target in self.targets for name in secrets_of(target))
        key = references(self.ssh.private_key) if self.ssh is not None else ()
        passwords = (source.vault.password for source in self.sources if source.vault and source.vault.password)
        checks = (*self.preflight, *self.health, *([self.version_probe] if self.version_probe else ()))
        of_checks = (name for check in checks for name in check.secrets)
        return tuple(dict.fromkeys((*self.secrets, *key, *passwords, *of_targets, *of_checks)))

    @property
    def needed(self) -> tuple[str, ...]:
        """The names of the secrets without which no step can run."""
        ssh = references(f"{self.ssh.private_key} {self.ssh.user}") if self.ssh is not None else ()
        return tuple(dict.fromkeys((*self.secrets, *ssh)))

    def source(self, name: str) -> SecretSource:
        """Return where a secret is read: in the environment, if nothing else is said."""
        return next((source for source in self.sources if source.name == name), SecretSource(name, env=name))

    @property
    def records(self) -> bool:
        """Whether hosts can be told, or asked, which version they run."""
        return self.inventory is not None and (self.state_file is not None or self.version_probe is not None)
