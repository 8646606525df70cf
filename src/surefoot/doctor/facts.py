# SPDX-License-Identifier: Apache-2.0
"""What was found out, as values: all that the rules may judge by. What is None was not found out."""

from __future__ import annotations

from dataclasses import dataclass, field

from surefoot.checks.model import CheckResult
from surefoot.core.deployment import Deployment
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Check
from surefoot.store.protocol import AgentRow, EnvironmentRow, Weakness


@dataclass(frozen=True, slots=True)
class Unchecked:
    """Something that could not be looked at, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error as it is told."""

    code: Code
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Borrowed:
    """What neither this command nor the config told, and what was taken from this machine's agents instead."""

    told: tuple[str, ...]  #: who has told what
    command: str  #: what makes a shell know it


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """How the store is reached from here."""

    where: str  #: without its password
    trouble: Trouble | None = None
    network: str = ""  #: what is wrong with the way to it, as far as a name and a connection tell
    skew: float | None = None  #: seconds by which this machine's clock is ahead of the store's
    weaknesses: tuple[Weakness, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """A process on this machine that runs an agent."""

    pid: int
    name: str
    frozen: bool
    here: bool | None  #: whether it works with the same store; None if that can't be told


@dataclass(frozen=True, slots=True)
class Unit:
    """A systemd unit of an agent or of the CI's own runner."""

    name: str
    active: str
    sub: str
    agent: str = ""  #: the agent that it runs


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One host, as it is seen from here."""

    name: str
    address: str
    failure: Failure | None = None  #: why it did not answer
    network: str = ""  #: what is wrong with the way to it, as far as a name and a connection tell
    told: dict[str, str] = field(default_factory=dict)  #: what it said of itself; see `look`
    version: str | None = None  #: which its state file names
    token: int | None = None  #: which its fence holds
    skew: float | None = None  #: seconds by which its clock is off this machine's, at least
    becomes: bool = False  #: whether the inventory has every task on it become another user, without a password

    @property
    def answered(self) -> bool:
        """Whether it said anything; one that had no time to has neither answered nor failed."""
        return self.failure is None and bool(self.told)

    @property
    def runs(self) -> str:
        """What it runs, in words."""
        if not self.answered:
            return "does not answer"
        return (
            "does not let this user read which version it runs"
            if self.hides
            else f"runs {self.version or 'no version'}"
        )

    @property
    def hides(self) -> bool:
        """Whether its state file is there, but not for this user."""
        return "state_hidden" in self.told


@dataclass(frozen=True, slots=True)
class Checked:
    """How a check came out, seen from here."""

    check: Check
    result: CheckResult
    health: bool  #: of the health checks, and not of the preflight


@dataclass(frozen=True, slots=True)
class EnvironmentFacts:
    """One environment."""

    row: EnvironmentRow
    last: Deployment | None = None  #: the newest deployment
    running: Deployment | None = None
    lock: Deployment | None = None  #: the stranded one that locks it
    queued: tuple[Deployment, ...] = ()  #: those that have not begun, in order
    silent_for: float | None = None  #: seconds since the running deployment has last printed or journaled anything
    inventory: str | None = None
    inventory_failure: Failure | None = None
    state_file: str | None = None
    hosts: tuple[HostFacts, ...] = ()
    checks: tuple[Checked, ...] = ()
    looked: bool = False  #: whether hosts and checks were looked at


@dataclass(frozen=True, slots=True)
class SecretFacts:
    """Which of the secrets that the config names are not there."""

    names: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    seen_in: str = ""  #: whose environment was looked into
    certain: bool = True  #: whether that is the environment that deployments run with


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was found out. Times are seconds since 1970 by the store's clock."""

    project: str
    here: str  #: this machine
    now: float
    store: StoreFacts
    config: Trouble | None = None  #: what is wrong with the config
    agents: tuple[AgentRow, ...] = ()
    configured: tuple[str, ...] = ()  #: agents in the config, in their order
    emergency: frozenset[str] = frozenset()  #: those of them that only run when they are needed
    processes: tuple[AgentProcess, ...] = ()
    units: tuple[Unit, ...] = ()
    disk_percent: float | None = None  #: of the disk that this machine's agents use
    disk_where: str = ""
    secrets: SecretFacts = SecretFacts()
    environments: tuple[EnvironmentFacts, ...] = ()
    focus: Deployment | None = None  #: the deployment that was asked after
    unchecked: tuple[Unchecked, ...] = ()
    borrowed: Borrowed | None = None

    @property
    def has_agents(self) -> bool:
        """Whether agents elsewhere do the work, so that one has to be there."""
        return bool(self.configured or self.agents)
