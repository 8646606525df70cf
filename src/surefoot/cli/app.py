# SPDX-License-Identifier: Apache-2.0
"""What every command needs: the config, the store, the console; each opened when it is first asked for.

Guarantees: reading commands change nothing, validate no config, and need none where the store is named; a store that
was never written to reads as an empty one instead of being made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from surefoot.cli.console import Console
from surefoot.cli.settings import Settings, settings
from surefoot.cli.text import did_you_mean
from surefoot.config.discovery import find_config, never_written, store_url, this_folder
from surefoot.core.errors import Code, ConfigError, Failure, NotFoundError
from surefoot.core.status import Status

if TYPE_CHECKING:
    from surefoot.agent.bundle import Bundle
    from surefoot.agent.machine import Limits
    from surefoot.config.loading import Peek
    from surefoot.config.models import Config
    from surefoot.core.deployment import Deployment
    from surefoot.core.gates import Wait
    from surefoot.core.plan import Plan
    from surefoot.store.protocol import Store, Submission

#: The ttl where no config says another.
DEFAULT_TTL = 5.0
#: Seconds without a sign of life after which an agent is called offline, for people.
SILENT = 5.0


class App:
    """One call of the program."""

    def __init__(self, chosen: Settings) -> None:
        """Take the global options; nothing is opened yet."""
        self.settings = chosen
        self.console = Console(chosen)

    @classmethod
    def of(cls, ctx: click.Context) -> App:
        """Return the app of a click call."""
        return cls(settings(ctx))

    @property
    def json(self) -> bool:
        """Whether stdout takes JSON alone."""
        return self.settings.json

    # -- config --------------------------------------------------------------------------------------

    @cached_property
    def config_path(self) -> Path | None:
        """Return where the config is; None where there is none and none was named."""
        try:
            return find_config(self.settings.config, os.environ)
        except ConfigError as error:
            if error.code is Code.CONFIG_MISSING and not self._config_named:
                return None
            raise

    @property
    def _config_named(self) -> bool:
        return bool(self.settings.config is not None or os.environ.get("SUREFOOT_CONFIG"))

    @cached_property
    def config(self) -> Config:
        """Return the config, whole and valid."""
        from surefoot.checks.registry import ALL_KINDS
        from surefoot.config.loading import load

        return load(find_config(self.settings.config, os.environ), kinds=ALL_KINDS)

    @cached_property
    def _peek(self) -> Peek | None:
        """Return what reading needs of the config, not validated; None where there is none."""
        if self.config_path is None:
            return None
        from surefoot.config.loading import peek

        return peek(self.config_path)

    @property
    def _store_named(self) -> bool:
        return bool(self.settings.store or os.environ.get("SUREFOOT_STORE"))

    def environment_names(self) -> tuple[str, ...]:
        """Return the names of the config's environments; none where it can't be read, since the journal says enough."""
        return self._keys("environments")

    def _keys(self, section: str) -> tuple[str, ...]:
        from surefoot.config import document

        if self.config_path is None:
            return ()
        try:
            node = document.read_document(self.config_path).node((section,))
        except document.Unreadable:
            return ()
        return tuple(node.entries) if isinstance(node, document.Mapping) else ()

    @property
    def agent_names(self) -> tuple[str, ...]:
        """Return the config's agents, in the order of preference, be the rest of the config right or wrong."""
        return self._keys("agents")

    @property
    def has_agents(self) -> bool:
        """Whether agents elsewhere do the work: the config names some, or there is no config to say that none do."""
        return self.config_path is None or bool(self.agent_names)

    @property
    def lease_ttl(self) -> float:
        """Return the ttl of leases, in seconds."""
        try:
            return self.config.lease.ttl if self.config_path is not None else DEFAULT_TTL
        except ConfigError:
            return DEFAULT_TTL  # a rollback runs by an older config: a mistake in this one must not stand in its way

    def gate_of_runners(self) -> tuple[Limits, str | None]:
        """Return the limits of an agent's machine, and the Prometheus that knows it."""
        from surefoot.agent.machine import Limits

        try:
            if self.config_path is None:
                return Limits(), None
            gate = self.config.runner_gate
        except ConfigError:
            return Limits(), None  # as with the lease
        return Limits(gate.cpu_below, gate.memory_below, gate.disk_below), gate.prometheus

    @property
    def state_folder(self) -> Path:
        """Return where agents and this program keep what is not in the store."""
        folder = self.config_path.parent if self.config_path is not None else this_folder()
        return folder.absolute() / ".surefoot"

    def valid_version(self, version: str) -> str:
        """Return the version, or refuse what can't be one."""
        from surefoot.config.versions import validate_version

        return validate_version(version)

    # -- store ---------------------------------------------------------------------------------------

    @property
    def names_store(self) -> bool:
        """Whether the call or the config says where the store is."""
        if self._store_named:
            return True
        peek = self._peek
        return peek is not None and peek.store is not None

    def stand_in(self, *, config: Path | None = None, store: str | None = None) -> None:
        """Take a config and a store that neither the call nor the folder names."""
        if config is not None:
            self.settings = replace(self.settings, config=str(config))
            del self.config_path
        if store is not None:
            self.settings = replace(self.settings, store=store)

    @cached_property
    def store_url(self) -> str:
        """Return where the store is."""
        peek = None if self._store_named else self._peek
        if peek is None and not self._store_named:
            find_config(self.settings.config, os.environ)  # says what is missing, and what to do
        return store_url(peek, self.settings.store, os.environ)

    @contextmanager
    def reading(self) -> Iterator[Store]:
        """Open the store to read; one that was never written to is empty."""
        with self._opened(self._open_to_read) as store:
            yield store

    @contextmanager
    def writing(self, *, existing: bool = False) -> Iterator[Store]:
        """Open the store to write requests. `existing`: what was never written to holds nothing to write about."""
        from surefoot.store import open_store

        missing = existing and self.never_written
        with self._opened(lambda: self._empty() if missing else open_store(self.store_url)) as store:
            yield store

    @contextmanager
    def _opened(self, open_it: Callable[[], Store]) -> Iterator[Store]:
        store = open_it()
        try:
            yield store
        finally:
            store.close()

    def _open_to_read(self) -> Store:
        from surefoot.core.errors import StoreError
        from surefoot.store import open_store

        if self.never_written:
            return self._empty()
        try:
            return open_store(self.store_url, read_only=True)
        except StoreError as error:
            if error.code is not Code.STORE_READ_ONLY:
                raise
            return open_store(self.store_url)  # its schema has to be made or upgraded first

    @property
    def never_written(self) -> bool:
        """Whether there is no store yet where one will be."""
        return never_written(self.store_url)

    @staticmethod
    def _empty() -> Store:
        from surefoot.store.memory import MemoryStore

        return MemoryStore()

    # -- agents --------------------------------------------------------------------------------------

    def choice_of_agent(self, store: Store) -> tuple[str | None, tuple[str, ...]]:
        """Return which agent would claim now, and why; None where none would."""
        from surefoot.core.lease import Candidate, choose, rank

        if not self.has_agents:
            return None, ("no agents in the config: deploy runs its own",)
        rows = store.agents(SILENT)
        candidates = [
            Candidate(r.report.name, r.report.role, r.status, r.report.preference, r.report.running, r.reason)
            for r in rows
        ]
        order = [agent for agent in rank(candidates) if choose(agent.name, candidates).eligible]
        first = next((agent for agent in order if agent.running is None), next(iter(order), None))
        if first is None:
            why = tuple(f"{c.name} {c.status}" + (f" ({c.reason})" if c.reason else "") for c in candidates)
            return None, (*why, "no agent is online; the deployment would wait")
        return first.name, choose(first.name, candidates).reasons

    def likely_agent(self, store: Store) -> str:
        """Return whom a deployment would run on: the agent that would claim now, else the first of the config's, else
        this process's own.
        """
        from surefoot.cli.who import own_agent_name

        return self.choice_of_agent(store)[0] or next(iter(self.agent_names), None) or own_agent_name()

    # -- deployments ---------------------------------------------------------------------------------

    def submission(self, environment: str, version: str, *, reason: str, key: str | None) -> Submission:
        """Return what `deploy` asks for, checked; its files are not packed yet."""
        from surefoot.agent.bundle import commit_of
        from surefoot.cli.who import requested_by
        from surefoot.config.freeze import freeze
        from surefoot.store.protocol import Submission

        self.config.environment(environment)
        version = self.valid_version(version)
        return Submission(
            environment=environment,
            version=version,
            plan=freeze(self.config, environment),
            requested_by=requested_by(),
            reason=reason,
            key=key,
            commit=commit_of(self.config.folder),
        )

    def asked_from(self, store: Store, submission: Submission) -> Submission:
        """Return the submission with where it comes from: the CI's run and identity, and the commits that are new."""
        from surefoot.agent.origin import origin, without_secrets

        current = store.environment(submission.environment).current_version
        now = store.find_version(submission.environment, current) if current is not None else None
        folder = self.config_path.parent if self.config_path is not None else this_folder()
        found = origin(folder, os.environ, now.commit if now is not None else None)
        actor = found.claims.get("actor") if found is not None else None
        clean = self._redactor(submission.plan)
        return replace(
            submission,
            origin=without_secrets(found, clean) if found is not None else None,
            requested_by=actor or submission.requested_by,
            reason=clean(submission.reason),
        )

    # -- what people say -----------------------------------------------------------------------------

    def said_of(self, store: Store, deployment: str, text: str) -> str:
        """Return what somebody says of a deployment, for its journal: without its secrets, as far as they are known
        here.
        """
        from surefoot.api.requests import load

        return self._redactor(load(store, deployment).plan)(text) if text else text

    def said_of_environment(self, environment: str, text: str) -> str:
        """Return what somebody says of an environment, likewise."""
        from surefoot.config.freeze import freeze
        from surefoot.core.plan import Plan

        if not text or self.config_path is None:
            return text
        plan = Plan(project="", environment=environment, steps=())
        with suppress(ConfigError, NotFoundError):  # a mistake elsewhere in the config must not stand in the way
            names = self._peek.secret_names if self._peek is not None else ()
            plan = Plan(project="", environment=environment, steps=(), secrets=names)
            plan = freeze(self.config, environment)
        return self._redactor(plan)(text)

    def _redactor(self, plan: Plan) -> Callable[[str], str]:
        from surefoot.agent.secrets import Secrets

        return Secrets(os.environ, self.store_url).at_hand(plan).quoted

    def as_now(self, submission: Submission) -> Submission:
        """Return a rollback's submission with today's gates and those who are told today, not those of the earlier
        deployment.
        """
        from dataclasses import replace

        from msgspec import structs

        from surefoot.config.freeze import gates
        from surefoot.config.telling import targets

        if self.config_path is None:
            return submission
        try:
            told = targets(self.config, os.environ)
            held = gates(self.config, submission.environment)
        except (ConfigError, NotFoundError):
            return submission  # a mistake in this config must not stand in the way of a rollback
        return replace(submission, plan=structs.replace(submission.plan, targets=told, gates=held))

    def files(self) -> Bundle:
        """Return the files that a deployment runs from, as they are now."""
        from surefoot.agent.bundle import pack

        return pack(self.config.folder, self.config.path, store=self.store_url)

    def know_environment(self, store: Store, environment: str) -> None:
        """Refuse an environment that neither the config nor the journal knows."""
        known = {row.name for row in store.environments()} | set(self.environment_names())
        if environment not in known:
            raise self.unknown_environment(environment, known)

    def unknown_environment(self, name: str, known: Iterable[str]) -> NotFoundError:
        """Return the refusal of an environment."""
        names = sorted(known)
        meant = did_you_mean(name, names) or (f"there are: {', '.join(names)}" if names else "surefoot init")
        return NotFoundError(f"there is no environment {name!r}", code=Code.ENVIRONMENT_UNKNOWN, hint=meant)

    def accepted(self, deployment: str, new: bool, key: str | None) -> None:
        """Say that the store has taken it."""
        if not new:
            self.console.note(f"the key {key!r} is known: this is {deployment}, which was submitted before")

    def shown(self, store: Store, state: Deployment) -> dict[str, Any]:
        """Return the JSON of `show`."""
        from surefoot.core import views

        place = None if state.status.terminal else store.queue_position(state.id)
        return views.show(state, place, self.waits(store, state))

    @staticmethod
    def waits(store: Store, state: Deployment) -> tuple[Wait, ...]:
        """Return what keeps a deployment from beginning at this instant."""
        from surefoot.api import gates

        if state.begun or state.status.terminal:
            return ()
        return gates.waits_for(state, store.environment(state.environment), store.now())

    def hint_for(self, state: Deployment, failure: Failure) -> str:
        """Return what a person does next."""
        if state.status is Status.STRANDED and state.resolved is None:
            repaired = f"repair the hosts by hand, then: surefoot resolve {state.id} --reason TEXT"
            return f"{failure.hint}; {repaired}" if failure.hint else repaired
        if failure.code is Code.CANCELLED:
            return failure.hint or f"surefoot show {state.id}"
        return failure.hint or f"surefoot logs {state.id}"
