# SPDX-License-Identifier: Apache-2.0
"""Service levels and DORA's four figures, computed from journals.

What counts: a deployment that was refused before anything was touched, or cancelled by a person, is neither a
success nor a failure of deploying. A rollback that somebody asked for is no change of its own: it counts as the
failure of the change that it takes back, and its time as the time to restore.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from surefoot.core import events as ev
from surefoot.core.status import FAILURES, Status
from surefoot.core.summary import Summary
from surefoot.core.views import rfc3339

#: What the project promises of itself, where nobody says otherwise.
OBJECTIVE = 0.95
MEDIAN_WITHIN = 600.0
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Ended:
    """One deployment that has ended, and of its journal what the figures need."""

    summary: Summary
    entries: tuple[ev.Entry, ...] = ()  #: the whole journal, where it failed or brought changes


def service_levels(
    ended: Iterable[Summary], *, since: float, until: float, objective: float = OBJECTIVE, median: float = MEDIAN_WITHIN
) -> dict[str, Any]:
    """Return how often and how fast deployments succeed, and what is left of the budget of failures."""
    within = [summary for summary in ended if since <= (summary.finished_at or 0.0) <= until]
    succeeded = [summary for summary in within if summary.status is Status.SUCCEEDED]
    failed = [summary for summary in within if summary.status in FAILURES]
    counted = len(succeeded) + len(failed)
    rate = len(succeeded) / counted if counted else None
    allowed = (1 - objective) * counted
    durations = [took(summary) for summary in succeeded]
    middle = quantile(durations, 0.5)
    return {
        "since": rfc3339(since),
        "until": rfc3339(until),
        "deployments": {str(status): sum(s.status is status for s in within) for status in Status if status.terminal},
        "counted": counted,
        "success_rate": rate,
        "objective": objective,
        "error_budget": {
            "allowed_failures": allowed,
            "failures": len(failed),
            "left": None if not counted else 1 - len(failed) / allowed if allowed else (0.0 if failed else 1.0),
        },
        "median_duration_seconds": middle,
        "p95_duration_seconds": quantile(durations, 0.95),
        "median_within_seconds": median,
        "met": (rate is None or rate >= objective) and (middle is None or middle <= median),
    }


def dora(ended: Iterable[Ended], *, since: float, until: float) -> dict[str, Any]:
    """Return deployment frequency, lead time for changes, change failure rate, and time to restore."""
    within = [one for one in ended if since <= (one.summary.finished_at or 0.0) <= until]
    changes = [one for one in within if not one.summary.rollback]
    succeeded = [one for one in changes if one.summary.status is Status.SUCCEEDED]
    failed = [one for one in changes if one.summary.status in FAILURES]
    taken_back = [one for one in within if one.summary.rollback and one.summary.status is Status.SUCCEEDED]
    counted = len(succeeded) + len(failed)
    leads = [lead for one in succeeded for lead in _leads(one)]
    restores = [restored for one in (*failed, *taken_back) if (restored := _restored(one)) is not None]
    days = max(1.0, (until - since) / DAY)
    return {
        "since": rfc3339(since),
        "until": rfc3339(until),
        "deployments": len(succeeded),
        "deployments_per_day": len(succeeded) / days,
        "lead_time_seconds": quantile(leads, 0.5),
        "changes": len(leads),
        "change_failure_rate": min(1.0, (len(failed) + len(taken_back)) / counted) if counted else None,
        "failures": len(failed) + len(taken_back),
        "time_to_restore_seconds": quantile(restores, 0.5),
    }


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least such a share of all does not exceed; None of none.

    A median of two is their mean, as everybody expects.
    """
    if not values:
        return None
    ordered = sorted(values)
    if share == 0.5 and len(ordered) % 2 == 0:
        return (ordered[len(ordered) // 2 - 1] + ordered[len(ordered) // 2]) / 2
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def took(summary: Summary) -> float:
    """Return how long a deployment took that has ended: from the first agent's start, where one began it."""
    assert summary.finished_at is not None
    return max(0.0, summary.finished_at - (summary.started_at or summary.requested_at))


def _leads(one: Ended) -> list[float]:
    """Return how long each change took from its commit to production; from the request, where no commits are known."""
    end = one.summary.finished_at
    assert end is not None
    accepted = one.entries[0].event if one.entries else None
    origin = accepted.origin if isinstance(accepted, ev.Accepted) else None
    committed = [change.at for change in origin.changes if change.at is not None] if origin is not None else []
    return [max(0.0, end - at) for at in committed] or [max(0.0, end - one.summary.requested_at)]


def _restored(one: Ended) -> float | None:
    """Return how long a failure lasted; None if it still does."""
    if one.summary.rollback:
        return max(0.0, (one.summary.finished_at or 0.0) - one.summary.requested_at)
    begun = next((entry.at for entry in one.entries if isinstance(entry.event, ev.UndoStarted)), None)
    resolved = next((entry.at for entry in one.entries if isinstance(entry.event, ev.Resolved)), None)
    end = resolved if one.summary.status is Status.STRANDED else one.summary.finished_at
    return None if begun is None or end is None else max(0.0, end - begun)
