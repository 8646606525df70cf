# SPDX-License-Identifier: Apache-2.0
"""Environments that get in each other's way; agents that wait for nobody, or tell what they may not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from msgspec import structs

from surefoot.agent import agent as agents
from surefoot.agent import worker
from surefoot.agent.redact import Redactor
from surefoot.agent.secrets import Secrets
from surefoot.cli import own_agent
from surefoot.core import lease
from surefoot.core.lease import Role
from surefoot.store import memory
from tests.simulation import performer
from tests.simulation.mutants.registry import mutant, mutant_where


@mutant
def agent_of_one_deploy_begins_what_it_would_leave() -> Any:
    return patch.object(agents.Agent, "_leaves", lambda *_: False)


@mutant_where(lambda script: script.alone)
def agent_in_the_background_does_not_stay_for_what_waits() -> Any:
    return patch.object(memory.MemoryStore, "next_ready", lambda _: None)


@mutant
def agent_of_one_deploy_goes_when_that_has_ended_in_some_way() -> Any:
    right = agents.Agent._done

    async def done(self: Any) -> bool:
        return await right(self) or (self._own is not None and self._own.status.terminal)

    return patch.object(agents.Agent, "_done", done)


@mutant
def agent_goes_on_claiming_while_it_works() -> Any:
    right = agents.Agent._work

    async def work(self: Any, deployment: str, holding: Any) -> None:
        more = asyncio.create_task(self._claim_and_work())
        try:
            await right(self, deployment, holding)
        finally:
            more.cancel()
            await asyncio.gather(more, return_exceptions=True)

    return patch.object(agents.Agent, "_work", work)


def barring_all(change: Callable[[Any, list[Any]], Any]) -> Any:
    """Patch what keeps an environment's deployments waiting, from its row and from the others'."""
    right = memory.MemoryStore._wanting

    def wanting(self: Any, row: Any, now: float) -> Any:
        return right(self, change(row, list(self._environments.values())), now)

    return patch.object(memory.MemoryStore, "_wanting", wanting)


@mutant
def lock_of_one_environment_bars_all() -> Any:
    return barring_all(
        lambda row, rows: replace(row, locked_by=next((one.locked_by for one in rows if one.locked_by), None))
    )


@mutant
def freeze_of_one_environment_bars_all() -> Any:
    return barring_all(
        lambda row, rows: replace(row, chronicle=next((one.chronicle for one in rows if one.freeze), row.chronicle))
    )


@mutant
def version_before_is_looked_up_in_another_environment() -> Any:
    right = memory.MemoryStore.claim

    def claim(self: Any, claim: Any) -> Any:
        first = next(iter(self._environments.values()))
        events = tuple(structs.replace(event, previous_version=first.current) for event in claim.append.events)
        return right(self, replace(claim, append=structs.replace(claim.append, events=events)))

    return patch.object(memory.MemoryStore, "claim", claim)


@mutant
def fence_is_raised_on_hosts_of_all_environments() -> Any:
    right = performer.SimPerformer._raise_all

    async def all_hosts(self: Any, job: Any, _: Any) -> Any:
        return await right(self, job, [h for judge in self.world.judges for h in judge.environment.hosts.values()])

    return patch.object(performer.SimPerformer, "_raise_all", all_hosts)


@mutant
def deployment_is_done_by_the_plan_of_the_one_before() -> Any:
    right, plans = worker.Worker._job, {}

    def job(self: Any) -> Any:
        found = right(self)
        plan = plans.setdefault(found.agent, found.state.plan)
        return replace(found, state=structs.replace(found.state, plan=plan))

    return patch.object(worker.Worker, "_job", job)


@mutant
def emergency_agent_waits_for_runners_that_are_gone() -> Any:
    right = lease.choose

    def choose(me: str, found: Any, *, deployment: str | None = None) -> Any:
        choice = right(me, found, deployment=deployment)
        emergency = any(agent.name == me and agent.role is Role.EMERGENCY for agent in found)
        return replace(choice, eligible=False) if emergency and len(found) > 1 else choice

    return patch.object(agents, "choose", choose)


@mutant_where(lambda script: script.alone and script.told and any(version.rejected for version in script.versions))
def news_of_what_a_person_ends_are_left_to_nobody() -> Any:
    right = own_agent.left_to_nobody
    return patch.object(own_agent, "left_to_nobody", lambda store, since=0.0, **how: right(store, since, **how))


@mutant
def secret_is_let_through() -> Any:
    return patch.object(Secrets, "redactor", lambda *_: Redactor({}))


@mutant
def log_takes_lines_of_whoever_was_taken_over_from() -> Any:
    right = memory.MemoryStore.append_log
    return patch.object(
        memory.MemoryStore, "append_log", lambda self, deployment, lines, _: right(self, deployment, lines)
    )
