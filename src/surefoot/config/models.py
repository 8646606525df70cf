# SPDX-License-Identifier: Apache-2.0
"""`surefoot.yml` as types. Descriptions and defaults here are the reference documentation and the JSON Schema.

Guarantees: a `Config` that exists is one that can be deployed by, as far as the file alone can tell; durations are
seconds. What goes across sections is checked in `semantics`, what a check's options may be by the check itself.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from surefoot.config.durations import format_duration
from surefoot.config.fields import (
    Address,
    AgentPath,
    Command,
    Count,
    Day,
    Duration,
    EnvironmentName,
    HostPath,
    InventoryPath,
    Login,
    Name,
    Pause,
    Percent,
    PlaybookPath,
    Program,
    Reference,
    Repository,
    SecretName,
    SecretReference,
    Section,
    StepName,
    StorePlace,
    Text,
    TimeOfDay,
    TimeZone,
    Truth,
    VaultPath,
    WebAddress,
    filled,
    one_of,
    refuse,
)
from surefoot.config.problems import did_you_mean, shown
from surefoot.core import gates
from surefoot.core.errors import Code, NotFoundError
from surefoot.core.gates import APPROVALS_EXPIRE, MINUTES_OF_A_DAY
from surefoot.core.lease import MIN_TTL, LeaseTiming, Role
from surefoot.core.plan import OnCancel
from surefoot.core.targets import INCIDENT_MOMENTS, Moment
from surefoot.core.windows import DAYS

#: A takeover after a power loss waits for the ttl; longer than this, and people would do it by hand.
MAX_TTL = 3600.0
#: Checks in a tighter loop than this load what they look at.
MIN_INTERVAL = 0.05
DEFAULT_INTERVAL = 2.0


IncidentMoment = Annotated[Moment, BeforeValidator(one_of(Moment, INCIDENT_MOMENTS))]
AnyMoment = Annotated[Moment, BeforeValidator(one_of(Moment))]


class Queue(StrEnum):
    """What becomes of deployments that wait."""

    ALL = "all"
    LATEST = "latest"


class Agent(Section):
    """One agent that may run this project's deployments."""

    role: Annotated[Role, BeforeValidator(one_of(Role))] = Field(
        default=Role.PRIMARY,
        description="`primary` is preferred, `secondary` takes over, "
        "`emergency` takes work only when no other is eligible.",
    )


class RunnerGate(Section):
    """When an agent takes no work while another can, and hands over what it has."""

    cpu_below: Percent | None = Field(
        default=None, description="Its CPU, over half a minute, must be used less than this. Default: not looked at."
    )
    memory_below: Percent = Field(default=95.0, description="Its memory must be used less than this.")
    disk_below: Percent = Field(default=95.0, description="The disk of its folder must be used less than this.")
    prometheus: WebAddress | None = Field(
        default=None,
        description="A Prometheus that knows the runners, as in `http://prometheus:9090`: `runner_status` must be 1, "
        "`runner_cpu_usage_percent` and `runner_memory_usage_percent` within the same limits. What it does not know it "
        "does not decide, nor anything while it is down.",
    )


class Lease(Section):
    """How long a silent agent keeps its deployment."""

    ttl: Duration = Field(
        default=5.0,
        description="An agent unheard of for this long has lost its deployment, and its processes are gone by then. "
        "At least `1s`; a shorter one mistakes a busy machine for a dead one.",
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not MIN_TTL <= self.ttl <= MAX_TTL:
            limits = f"{format_duration(MIN_TTL)} and {format_duration(MAX_TTL)}"
            why = f"ttl {format_duration(self.ttl)} is not between {limits}"
            raise refuse(why, hint="5s suits most", code=Code.CONFIG_TIMING)
        return self

    @property
    def timing(self) -> LeaseTiming:
        """Return the times that follow from the ttl."""
        return LeaseTiming(self.ttl)


class Retry(Section):
    """How often a step is tried, how long apart, and how long each try may take."""

    attempts: Count = Field(default=3, description="Tries in all, the first included.")
    delay: Pause = Field(default=30.0, description="Time between the end of a try and the next.")
    timeout: Duration = Field(
        default=600.0, description="A try that takes longer is ended, with all its processes, and has failed."
    )


class StepRetry(Section):
    """What differs for one step; what is left out is as the environment's `retry` says."""

    attempts: Count | None = Field(default=None, description="Tries in all, the first included.")
    delay: Pause | None = Field(default=None, description="Time between the end of a try and the next.")
    timeout: Duration | None = Field(default=None, description="A try that takes longer is ended and has failed.")


class Undo(Section):
    """The way back of a step: a command or a playbook."""

    run: Command | None = Field(default=None, description="A shell command, run on the agent.")
    playbook: PlaybookPath | None = Field(default=None, description="An Ansible playbook.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        _either(self.run, self.playbook)
        return self


class Step(Section):
    """One step: a command or a playbook. It must be safe to run again."""

    name: StepName = Field(description="Unique in its environment.")
    run: Command | None = Field(
        default=None,
        description="A shell command, run on the agent by `/bin/sh -c` in the copy of the project. "
        "Variables in it are the shell's.",
    )
    playbook: PlaybookPath | None = Field(default=None, description="An Ansible playbook, run against the inventory.")
    undo: Undo | None = Field(
        default=None,
        description="Run when the deployment is put back and this step was started; the newest step comes first.",
    )
    retry: StepRetry = Field(default_factory=StepRetry, description="What differs from the environment's `retry`.")
    leaves_processes: Truth = Field(
        default=False,
        description="Processes that a try has started may live on after it succeeded. Without it they are ended.",
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        _either(self.run, self.playbook)
        return self


class Check(Section):
    """One check, written as `KIND: {options}`; beside the kind it may have a `name`."""

    kind: str
    options: dict[str, Any] = {}
    name: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_entry(cls, entry: Any) -> Any:
        if not isinstance(entry, dict):
            raise refuse("must be one check", hint='as in http: {url: "http://{host}:8080/health"}')
        kinds = [key for key in entry if key != "name"]
        if len(kinds) != 1:
            found = shown(" and ".join(kinds))[1:-1] or "none"
            raise refuse(f"must name one kind of check, not {found}", hint="begin each check with a - of its own")
        name, options = entry.get("name", ""), entry[kinds[0]]
        if not isinstance(name, str) or not name.isprintable() or len(name) > 100:
            raise refuse("name: must be one line of text", hint="put it in quotes")
        if not isinstance(options, dict | None):
            raise refuse("the options of a check must be a mapping", hint="as in http: {url: https://example.com}")
        return {"kind": kinds[0], "options": options or {}, "name": name}


class HealthPolicy(Section):
    """When a deployment counts as healthy."""

    within: Duration = Field(default=60.0, description="All checks must pass within this time after the last step.")
    interval: Duration | None = Field(
        default=None, description="Time between two rounds. Default: `2s`, or less where `within` is short."
    )
    successes: Count = Field(default=2, description="Rounds in a row in which all checks must pass.")

    @property
    def every(self) -> float:
        """Return the interval, or the default that leaves time for twice the rounds that are needed."""
        return self.interval or max(MIN_INTERVAL, min(DEFAULT_INTERVAL, self.within / (2 * self.successes)))

    @model_validator(mode="after")
    def _possible(self) -> Self:
        every, within = format_duration(self.every), format_duration(self.within)
        if self.every < MIN_INTERVAL:
            why = f"interval {every} is shorter than {format_duration(MIN_INTERVAL)}"
        elif self.every > self.within:
            why = f"interval {every} is longer than within {within}"
        elif (self.successes - 1) * self.every >= self.within:
            why = f"{self.successes} successes at an interval of {every} do not fit within {within}"
        else:
            return self
        raise refuse(why, hint="the defaults suit most: within 60s, interval 2s, successes 2", code=Code.CONFIG_TIMING)


class Approvals(Section):
    """Whose agreement a deployment needs before it starts."""

    required: Count = Field(default=1, description="How many people must agree.")
    from_: Annotated[tuple[Name, ...], BeforeValidator(filled)] = Field(
        alias="from",
        description="Groups that they must belong to. Of a group that `groups` does not list, anyone is a member.",
    )
    expires: Duration = Field(
        default=APPROVALS_EXPIRE, description="A deployment that is not approved within this time has failed."
    )
    rollbacks: Truth = Field(default=False, description="Whether going back to an earlier version needs them too.")


class Window(Section):
    """When deployments may start. What has begun goes on after it."""

    days: Annotated[tuple[Day, ...], BeforeValidator(filled)] = Field(default=DAYS, description="On which days.")
    from_: TimeOfDay = Field(default=0, alias="from", description='From when, such as `"09:00"`.')
    to: TimeOfDay = Field(
        default=MINUTES_OF_A_DAY,
        description='Until when; a time before `from` is one of the next day. `"24:00"` is the end of the day.',
    )
    time_zone: TimeZone = Field(default="UTC", description="On whose clocks, such as `Europe/Zurich`.")

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.from_ == self.to:
            why = "from and to are the same"
            raise refuse(why, hint="leave both out for whole days", code=Code.CONFIG_TIMING)
        return self

    @property
    def planned(self) -> gates.Window:
        """Return it as plans hold it."""
        return gates.Window(tuple(map(DAYS.index, self.days)), self.from_, self.to, self.time_zone)


class PromoteFrom(Section):
    """Where a version must have succeeded first."""

    environment: EnvironmentName = Field(description="In which environment.")
    within: Duration | None = Field(default=None, description="Not longer ago than this.")
    after: Pause = Field(default=0.0, description="At least so long ago.")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"environment": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.within is not None and self.after >= self.within:
            why = f"after {format_duration(self.after)} is not shorter than within {format_duration(self.within)}"
            raise refuse(why, hint="no success could count", code=Code.CONFIG_TIMING)
        return self


class Fence(Section):
    """Where hosts keep the token of the agent that may change them."""

    path: HostPath = Field(description="A folder on each host that survives a reboot.")


class Ssh(Section):
    """How hosts are reached, where secrets say so. Each attempt gets an ssh-agent of its own, which ends with it."""

    private_key: SecretReference | None = Field(
        default=None,
        description="The private key, as `${NAME}` of a secret. It gets into an `ssh-agent`, never into a file, and "
        "must need no passphrase.",
    )
    user: Login | None = Field(
        default=None,
        description="Whom to log in as, where the inventory and the plays name nobody. Not kept out of output, unless "
        "it is listed under `secrets`.",
    )


class AnsibleVault(Section):
    """A value that ansible-vault has encrypted."""

    file: VaultPath = Field(description="A file encrypted as a whole, or YAML with `!vault` values in it.")
    key: Text | None = Field(
        default=None, description="Where in the file it stands, as in `smtp.password`. Left out: the whole file."
    )
    password: SecretReference | None = Field(
        default=None, description="The vault's password, as `${NAME}` of another secret."
    )
    password_file: AgentPath | None = Field(
        default=None, description="A file on the agent that holds it, closed to others like `file`."
    )

    @model_validator(mode="after")
    def _opened(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            hint = 'as in password: "${VAULT_PASSWORD}"'
            raise refuse("needs password or password_file", hint=hint, code=Code.CONFIG_KEY)
        return self


class Secret(Section):
    """A secret, and where agents read it. A name alone is one in the agent's environment."""

    name: SecretName = Field(description="Its name: steps get it as an environment variable of that name.")
    env: SecretName | None = Field(default=None, description="Another name that it has in the agent's environment.")
    file: AgentPath | None = Field(
        default=None,
        description="A file on the agent, which must belong to the agent's user or root, and be closed to all others. "
        "Line ends at its end are no part of the value.",
    )
    command: Program | None = Field(
        default=None,
        description="A command on the agent that prints it, such as a vault's; run in the copy of the project. "
        "Variables in it are the shell's.",
    )
    ansible_vault: AnsibleVault | None = Field(default=None, description="A value in a file of ansible-vault's.")
    timeout: Duration = Field(default=10.0, description="After which reading it is given up.")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, entry: Any) -> Any:
        return entry if isinstance(entry, dict) else {"name": entry}

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [key for key in ("env", "file", "command", "ansible_vault") if getattr(self, key) is not None]
        if len(given) > 1:
            raise refuse(f"has both {given[0]} and {given[1]}", hint="keep one of them", code=Code.CONFIG_KEY)
        if self.ansible_vault is not None and self.ansible_vault.password == f"${{{self.name}}}":
            raise refuse("can't be what opens its own vault", hint="name another secret")
        return self


class GitHubApp(Section):
    """A GitHub App, which opens the repository instead of a token."""

    id: Reference = Field(description="The App's id or client id.")
    private_key: SecretReference = Field(description="Its private key, a PEM file's content, as `${NAME}`.")


class GitHub(Section):
    """A GitHub repository, and what is told to it of every deployment."""

    repository: Repository | None = Field(
        default=None, description="As `owner/name`. Default: `$GITHUB_REPOSITORY` when the deployment is asked for."
    )
    token: SecretReference | None = Field(
        default=None, description="A token, as `${NAME}` of a variable in the agent's environment."
    )
    app: GitHubApp | None = Field(default=None, description="A GitHub App, instead of a token.")
    api: WebAddress = Field(default="https://api.github.com", description="Its API; GitHub Enterprise has its own.")
    deployments: Truth = Field(default=True, description="Whether deployments are shown as GitHub Deployments.")
    commit_status: Truth = Field(default=True, description="Whether the commit gets a status.")

    @model_validator(mode="after")
    def _opened(self) -> Self:
        if (self.token is None) == (self.app is None):
            raise refuse("needs a token or an app", hint='as in token: "${GITHUB_TOKEN}"', code=Code.CONFIG_KEY)
        return self


class IncidentIssue(Section):
    """The issue that an incident becomes; what is left out is as the section `github` says."""

    repository: Repository | None = Field(default=None, description="As `owner/name`.")
    token: SecretReference | None = Field(default=None, description="A token that may write issues, as `${NAME}`.")
    app: GitHubApp | None = Field(default=None, description="A GitHub App, instead of a token.")
    api: WebAddress | None = Field(default=None, description="Where its API is.")
    labels: tuple[Text, ...] = Field(
        default=("production-incident", "production-rollback"), description="The issue's labels."
    )
    assignees: tuple[Text, ...] = Field(default=(), description="Who is assigned, by their names on GitHub.")

    @model_validator(mode="after")
    def _opened(self) -> Self:
        if self.token is not None and self.app is not None:
            raise refuse("has both a token and an app", hint="keep one of them", code=Code.CONFIG_KEY)
        return self


class Incidents(Section):
    """What is made of a deployment that went wrong."""

    github: IncidentIssue | None = Field(default=None, description="An issue on GitHub.")
    on: Annotated[tuple[IncidentMoment, ...], BeforeValidator(filled)] = Field(
        default=(Moment.ROLLED_BACK, Moment.STRANDED), description="Which ends make an incident."
    )
    runbook: WebAddress | None = Field(
        default=None, description="Where people read what to do; linked in what is told."
    )


class Notify(Section):
    """Whom to tell, and of what."""

    url: Address | None = Field(
        default=None,
        description="An address of [Apprise](https://github.com/caronc/apprise), such as `slack://…` or `mailtos://…`; "
        "needs the extra `notify` on the agents. What is secret in it is written as `${NAME}`.",
    )
    webhook: Address | None = Field(default=None, description="A URL that takes a POST of JSON.")
    on: Annotated[tuple[AnyMoment, ...], BeforeValidator(filled)] = Field(
        default=(Moment.ROLLED_BACK, Moment.STRANDED, Moment.RESOLVED), description="What they are told of."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.url is None) == (self.webhook is None):
            raise refuse("needs url or webhook", hint="as in webhook: https://example.com/hook", code=Code.CONFIG_KEY)
        return self


class Environment(Section):
    """One place to deploy to. Deployments of an environment run one after the other."""

    inventory: InventoryPath | None = Field(
        default=None,
        description="Ansible's inventory of its hosts. "
        "Without it there are no hosts, and no step or check may need one. Once a deployment has changed something "
        "the inventory has to name the same hosts to its end (`SF-HOSTS-CHANGED`); for an undo it may name more.",
    )
    ssh: Ssh | None = Field(default=None, description="How hosts are reached, where secrets say so.")
    steps: Annotated[tuple[Step, ...], BeforeValidator(filled)] = Field(description="What a deployment does, in order.")
    retry: Retry = Field(
        default_factory=Retry,
        description="Of each step; a step may have its own. Also of raising the fence, and of what can't be begun.",
    )
    preflight: tuple[Check, ...] = Field(default=(), description="Checks that must pass before anything is touched.")
    health: tuple[Check, ...] = Field(
        default=(),
        description="Checks that must pass after the last step. "
        "Without any, a deployment succeeds when its steps have.",
    )
    health_policy: HealthPolicy = Field(default_factory=HealthPolicy, description="When `health` counts as passed.")
    state_file: HostPath | None = Field(
        default=None, description="A file on each host that says which version it runs."
    )
    version_probe: Check | None = Field(
        default=None, description="One check that passes when a host runs `{version}`; asked instead of the state file."
    )
    on_cancel: Annotated[OnCancel, BeforeValidator(one_of(OnCancel))] = Field(
        default=OnCancel.ROLLBACK,
        description="`rollback` puts a cancelled deployment back; `finish` lets one that has started go on.",
    )
    takeover_limit: Count = Field(
        default=5, description="A deployment that was taken over more often is put back: it may be what kills agents."
    )
    fence: Fence | None = Field(default=None, description="Where hosts keep the token that keeps stale agents out.")
    approvals: Approvals | None = Field(default=None, description="Whose agreement a deployment needs.")
    windows: tuple[Window, ...] = Field(default=(), description="When deployments may start. Default: always.")
    promote_from: PromoteFrom | None = Field(
        default=None,
        description="A version must have succeeded in that environment first: its name, or a mapping with times.",
    )
    queue: Annotated[Queue, BeforeValidator(one_of(Queue))] = Field(
        default=Queue.ALL, description="`all` deploys whatever waits, in order; `latest` only the newest."
    )
    bake: Pause = Field(
        default=0.0,
        description="How long health is watched after the checks have passed. A deployment that is healthy no more "
        "within that time is put back; until it is over, the deployment runs.",
    )
    rollback: Undo | None = Field(
        default=None, description="Puts everything back at once, in place of the steps' own `undo`."
    )


class Config(Section):
    """A project: its agents, and the environments that it is deployed to."""

    project: Name = Field(description="The project's name.")
    agents: dict[Name, Agent] = Field(
        default={},
        description="The agents that may run its deployments; order is preference. Left out: `deploy` runs its own.",
    )
    store: StorePlace | None = Field(
        default=None,
        description="Where deployments are recorded: `postgresql://…`, or the path of an SQLite file. "
        "Default: `.surefoot/surefoot.db` beside this file.",
    )
    runner_gate: RunnerGate = Field(
        default_factory=RunnerGate, description="When an agent's machine is not fit to deploy from."
    )
    lease: Lease = Field(default_factory=Lease, description="How long a silent agent keeps its deployment.")
    groups: dict[Name, tuple[Text, ...]] = Field(
        default={},
        description="Who belongs to which group: people as `NAME`, or `NAME@MACHINE` for one machine's user alone.",
    )
    secrets: tuple[Secret, ...] = Field(
        default=(),
        description="Names in the agent's environment, or where else agents read them. Steps get the values; no "
        "output, log or journal ever does. See [Secrets](secrets.md).",
    )
    github: GitHub | None = Field(default=None, description="The GitHub repository that is told of every deployment.")
    incidents: Incidents | None = Field(default=None, description="What is made of a deployment that went wrong.")
    notify: tuple[Notify, ...] = Field(default=(), description="Who is told, and of what.")
    environments: Annotated[dict[EnvironmentName, Environment], BeforeValidator(filled)] = Field(description="By name.")

    @model_validator(mode="after")
    def _issues_can_be_opened(self) -> Self:
        issue = self.incidents.github if self.incidents is not None else None
        if issue is not None and self.github is None and issue.token is None and issue.app is None:
            why = "incidents.github: needs a token or an app"
            raise refuse(why, hint='as in token: "${GITHUB_TOKEN}"', code=Code.CONFIG_KEY)
        return self

    _path: Path = PrivateAttr(default=Path("surefoot.yml"))

    @property
    def path(self) -> Path:
        """Return the absolute path of the file."""
        return self._path

    @property
    def folder(self) -> Path:
        """Return the project's root: playbooks, inventories and commands are relative to it."""
        return self._path.parent

    @property
    def secret_names(self) -> tuple[str, ...]:
        """Return the names of all secrets."""
        return tuple(secret.name for secret in self.secrets)

    @property
    def secrets_elsewhere(self) -> tuple[str, ...]:
        """Return the names of those that are read elsewhere than in the environment under that name."""
        return tuple(
            secret.name
            for secret in self.secrets
            if any(source is not None for source in (secret.env, secret.file, secret.command, secret.ansible_vault))
        )

    def environment(self, name: str) -> Environment:
        """Return an environment by its name."""
        if name not in self.environments:
            raise NotFoundError(
                f"there is no environment {name!r}{did_you_mean(name, self.environments)}",
                code=Code.ENVIRONMENT_UNKNOWN,
                hint=f"this config has: {', '.join(self.environments)}",
            )
        return self.environments[name]


def _either(run: str | None, playbook: str | None) -> None:
    """Hold that exactly one of the two is given."""
    if run is None and playbook is None:
        raise refuse("needs run or playbook", hint="as in run: ./scripts/migrate.sh", code=Code.CONFIG_KEY)
    if run is not None and playbook is not None:
        raise refuse("has both run and playbook", hint="make two steps of it", code=Code.CONFIG_KEY)
