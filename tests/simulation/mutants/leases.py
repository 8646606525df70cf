# SPDX-License-Identifier: Apache-2.0
"""Leases that are held too long, taken too early, or believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from surefoot.agent import holding
from surefoot.agent.leases import Leases
from surefoot.core import lease
from surefoot.core.errors import LeaseLostError, StoreError
from surefoot.store import memory
from tests.simulation import world
from tests.simulation.mutants.registry import mutant


@mutant
def holders_deadline_is_counted_from_the_reply() -> Any:
    async def renewed(self: holding.Holding) -> bool:
        try:
            await self._access(self._store.renew, self.grant)
        except LeaseLostError as error:
            self.lose(error.message)
            return False
        except StoreError:
            return False
        if self.good:
            self.deadline = self._timing.deadline(self._clock())
            for listener in tuple(self._listeners):
                listener(self.deadline)
        return True

    return patch.object(holding.Holding, "_renewed", renewed)


@mutant
def holder_trusts_its_lease_for_longer_than_the_ttl() -> Any:
    return patch.object(lease, "HOLD", 1.2)


@mutant
def holder_never_gives_up_by_itself() -> Any:
    return patch.object(lease.LeaseTiming, "deadline", lambda *_: float("inf"))


@mutant
def step_is_not_told_the_deadline() -> Any:
    def tell(self: holding.Holding, listener: Callable[[float], None]) -> Callable[[], None]:
        listener(float("inf"))
        return lambda: None

    return patch.object(holding.Holding, "tell", tell)


@mutant
def lease_is_taken_before_it_has_expired() -> Any:
    return patch.object(lease.LeaseSeen, "expired", lambda self, now: now - self.at >= self.ttl / 2)


@mutant
def lease_is_observed_once_and_for_all() -> Any:
    return patch.object(lease.LeaseSeen, "seen", lambda self, *_: self)


@mutant
def claim_does_not_look_whether_the_holder_lives() -> Any:
    return patch.object(Leases, "_holder_gone", lambda *_: True)


@mutant
def claim_does_not_compare_what_was_seen() -> Any:
    right = memory.MemoryStore.claim

    def claim(self: Any, claim: Any) -> Any:
        name = claim.seen.environment
        return right(self, replace(claim, seen=self._lease_row(name, self._environments[name])))

    return patch.object(memory.MemoryStore, "claim", claim)


@mutant
def renewal_does_not_check_the_token() -> Any:
    return patch.object(memory.MemoryStore, "renew", lambda *_: None)


@mutant
def agent_that_is_killed_leaves_its_steps_running() -> Any:
    return patch.object(world.World, "orphan", lambda *_: None)


@mutant
def agents_presence_falls_while_its_process_is_only_cut_off() -> Any:
    right = memory.MemoryStore._holder_gone

    def gone(self: Any, row: Any) -> bool:
        return right(self, row) or self._clock() - row.renewed_at > 1.5

    return patch.object(memory.MemoryStore, "_holder_gone", gone)
