# SPDX-License-Identifier: Apache-2.0
"""What one agent sees of leases and of those who could claim them.

Guarantees: a lease counts as free only when nobody holds it, when its holder has shown no sign of life for a whole ttl
on this agent's own clock, or when the holder's process is known to be gone, for long enough, on a store that has
answered for as long as a lease lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from surefoot.core.lease import AgentStatus, Candidate, LeaseSeen
from surefoot.store.protocol import AgentRow, LeaseRow, Work

#: Seconds for which a holder must look gone before that counts: a connection that is just being replaced is no death.
GONE_FOR = 0.3


class Leases:
    """All leases that were seen, by environment, and when what was seen of them last changed."""

    def __init__(self, clock: Callable[[], float], ttl: float) -> None:
        """Take the agent's monotonic clock, and how long a store must have answered until its word is good."""
        self._clock = clock
        self._ttl = ttl
        self._seen: dict[str, LeaseSeen] = {}
        self._gone: dict[str, LeaseSeen] = {}
        self._free: dict[str, float] = {}

    def free(self, work: Sequence[Work], failed_at: float) -> list[Work]:
        """Look at the leases of all that is to be done; return what is free. The store failed last at `failed_at`."""
        for name in self._seen.keys() - {item.environment for item in work}:
            for book in (self._seen, self._gone, self._free):
                book.pop(name, None)
        return [item for item in work if self._is_free(item, failed_at)]

    def free_for(self, item: Work) -> float:
        """Return for how many seconds a free lease has been so."""
        return self._clock() - self._free[item.environment]

    def same_for(self, item: Work) -> float:
        """Return for how many seconds nothing was seen to happen to a lease."""
        return self._clock() - self._seen[item.environment].at

    def work_is_done(self) -> None:
        """Have what was free before be so again from now on: others come first as if it were new."""
        self._free.clear()

    def _is_free(self, item: Work, failed_at: float) -> bool:
        lease, now = item.lease, self._clock()
        seen = self._seen.get(item.environment)
        new = LeaseSeen(lease.token, lease.renewals, lease.ttl, now)
        seen = self._seen[item.environment] = seen.seen(lease.token, lease.renewals, lease.ttl, now) if seen else new
        free = lease.holder is None or seen.expired(now) or self._holder_gone(item, new, failed_at)
        if free:
            self._free.setdefault(item.environment, now)
        else:
            self._free.pop(item.environment, None)
        return free

    def _holder_gone(self, item: Work, new: LeaseSeen, failed_at: float) -> bool:
        steady = new.at - failed_at > self._ttl
        if item.holder_present or not steady:
            self._gone.pop(item.environment, None)
            return False
        before = self._gone.get(item.environment)
        gone = self._gone[item.environment] = before.seen(new.token, new.renewals, new.ttl, new.at) if before else new
        return new.at - gone.at >= GONE_FOR


def candidate(row: AgentRow) -> Candidate:
    """Return an agent as it says that it is."""
    report = row.report
    return Candidate(report.name, report.role, row.status, report.preference, report.running, row.reason)


def candidates(me: str, rows: list[AgentRow], work: list[Work], item: Work) -> list[Candidate]:
    """Return the agents as the choice for one environment sees them: the lost holder of its lease counts as offline.
    Agents that do not serve it do not count: whoever waited for them might wait for ever.
    """
    busy = {w.lease.holder: w.deployment for w in work if w.lease.holder is not None}
    lost = item.lease
    return [
        Candidate(
            name=row.report.name,
            role=row.report.role,
            status=AgentStatus.OFFLINE if _is_lost(row, lost, me) else row.status,
            preference=row.report.preference,
            running=busy.get(row.report.name),
            reason="lost the lease" if _is_lost(row, lost, me) else row.reason,
        )
        for row in rows
        if row.report.serves(item.deployment, busy.get(row.report.name)) or row.report.name == me
    ]


def _is_lost(row: AgentRow, lease: LeaseRow, me: str) -> bool:
    """Whether an agent lost this lease. Not so whoever asks: it lives, and may be the only one left to go on."""
    return row.report.name != me and lease.holder == row.report.name and row.status is not AgentStatus.OFFLINE
