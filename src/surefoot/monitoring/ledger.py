# SPDX-License-Identifier: Apache-2.0
"""Counters and histograms folded from journals: pure, and each entry counts once.

Guarantees: the same entries give the same figures, whoever reads them and in whatever pieces, as long as each
journal's come in their order; figures of counters and histograms only grow. It does not hold journals to be legal: an
entry that means nothing here, or that it does not expect, changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from surefoot.core import events as ev
from surefoot.core.errors import Code
from surefoot.core.plan import Direction
from surefoot.core.status import FAILURES, Status
from surefoot.monitoring.catalogue import METRICS

Labels = tuple[str, ...]

#: How changes are counted as DORA does.
CHANGES = ("succeeded", "failed", "taken_back")
#: How rounds of health checks come out.
RESULTS = ("passed", "failed")
OUTCOMES = tuple(status for status in Status if status.terminal)
#: Codes of what usually ends deployments, by how they begin.
_KINDS = ("PREFLIGHT", "STEP", "SECRET", "HOST", "NO-HOSTS", "FENCE", "HEALTH", "STATE", "VERSIONS", "TAKEN", "UNDO")
_USUAL = tuple(code for code in Code if code.removeprefix("SF-").startswith(_KINDS))


@dataclass(frozen=True, slots=True)
class Observed:
    """The last thing that a bucket counted."""

    deployment: str
    value: float
    at: float


@dataclass(slots=True)
class Histogram:
    """Counts by upper bound, not yet summed up; the last one counts what is greater than all bounds."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0
    last: dict[int, Observed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float, deployment: str, at: float) -> None:
        """Count one value."""
        value = max(0.0, value)
        place = bisect_left(self.bounds, value)
        self.counts[place] += 1
        self.total += value
        self.last[place] = Observed(deployment, value, at)


@dataclass(slots=True)
class Progress:
    """What the figures need to know of one deployment until it has ended (and, if stranded, is resolved)."""

    id: str
    environment: str
    number: int
    seq: int = 0
    version: str = ""
    rollback: bool = False
    requested_at: float | None = None
    committed: tuple[float, ...] = ()
    started_at: float | None = None
    step: tuple[str, Direction, float] | None = None
    undo_at: float | None = None
    outcome: Status | None = None
    resolved: bool = False

    @property
    def closed(self) -> bool:
        """Whether nothing that comes can count any more."""
        return self.outcome is not None and (self.outcome is not Status.STRANDED or self.resolved)


class Ledger:
    """See the module's docstring."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.counters: dict[str, Counter[Labels]] = {
            name: Counter()
            for name in (
                "surefoot_deployments_total",
                "surefoot_takeovers_total",
                "surefoot_deployment_failures_total",
                "surefoot_health_checks_total",
                "surefoot_changes_total",
            )
        }
        self.histograms: dict[str, dict[Labels, Histogram]] = {
            metric.name: {} for metric in METRICS.values() if metric.buckets
        }
        #: By environment and outcome: version, deployment, end.
        self.newest: dict[tuple[str, str], tuple[str, str, float]] = {}
        self.entries = 0  #: how many were counted: as long as it is the same, so are all figures
        self._histogram("surefoot_takeover_duration_seconds", ())

    def know(self, environment: str, steps: Iterable[str] = ()) -> None:
        """Begin an environment's figures at zero: what appears with its first failure could not be seen to grow."""
        for step in steps:
            self._histogram("surefoot_step_duration_seconds", (environment, step))
        for code in _USUAL:
            self.counters["surefoot_deployment_failures_total"][environment, str(code)] += 0
        for outcome in OUTCOMES:
            self.counters["surefoot_deployments_total"][environment, str(outcome)] += 0
            self._histogram("surefoot_deployment_duration_seconds", (environment, str(outcome)))
        for result in RESULTS:
            self.counters["surefoot_health_checks_total"][environment, result] += 0
        for change in CHANGES:
            self.counters["surefoot_changes_total"][environment, change] += 0
        self.counters["surefoot_takeovers_total"][(environment,)] += 0
        self._histogram("surefoot_lead_time_seconds", (environment,))
        self._histogram("surefoot_restore_duration_seconds", (environment,))

    def apply(self, progress: Progress, entries: Iterable[ev.Entry]) -> None:
        """Count entries that come next in a deployment's journal; ones that were counted already are passed over."""
        for entry in entries:
            if entry.seq > progress.seq:
                progress.seq = entry.seq
                self.entries += 1
                self._apply(progress, entry)

    def _apply(self, p: Progress, entry: ev.Entry) -> None:
        match entry.event:
            case ev.Accepted() as e:
                p.version, p.rollback, p.requested_at = e.version, e.rollback, entry.at
                for step in e.plan.steps:
                    self._histogram("surefoot_step_duration_seconds", (p.environment, step.name))
                changes = e.origin.changes if e.origin is not None else ()
                p.committed = tuple(change.at for change in changes if change.at is not None)
            case ev.LeaseGranted() as e if p.outcome is None:
                self._granted(p, e, entry.at)
            case ev.HandedOver():
                p.step = None
            case ev.StepStarted() as e:
                p.step = (e.step, e.direction, entry.at)
            case ev.StepSucceeded() | ev.StepFailed():
                self._stepped(p, entry.event, entry.at)
            case ev.StepInterrupted():
                p.step = None
            case ev.HealthPassed():
                self.counters["surefoot_health_checks_total"][p.environment, "passed"] += 1
            case ev.HealthFailed():
                self.counters["surefoot_health_checks_total"][p.environment, "failed"] += 1
            case ev.UndoStarted():
                p.undo_at = entry.at
            case ev.Finished() as e if p.outcome is None:
                self._finished(p, e, entry.at)
            case ev.Resolved() if p.outcome is Status.STRANDED and not p.resolved:
                p.resolved = True
                self._restored(p, p.undo_at, entry.at)
            case _:
                pass

    def _granted(self, p: Progress, e: ev.LeaseGranted, at: float) -> None:
        p.step = None
        if p.started_at is None:
            p.started_at = at
            return
        self.counters["surefoot_takeovers_total"][(p.environment,)] += 1
        if e.taken_from is not None and e.waited_seconds is not None:
            self._histogram("surefoot_takeover_duration_seconds", ()).observe(e.waited_seconds, p.id, at)

    def _stepped(self, p: Progress, e: ev.StepSucceeded | ev.StepFailed, at: float) -> None:
        if p.step is None or p.step[:2] != (e.step, e.direction):
            return
        name = (
            "surefoot_step_duration_seconds" if e.direction is Direction.FORWARD else "surefoot_undo_duration_seconds"
        )
        self._histogram(name, (p.environment, e.step)).observe(at - p.step[2], p.id, at)
        p.step = None

    def _finished(self, p: Progress, e: ev.Finished, at: float) -> None:
        p.outcome, p.step = e.status, None
        labels = (p.environment, str(e.status))
        self.counters["surefoot_deployments_total"][labels] += 1
        if p.started_at is not None:
            self._histogram("surefoot_deployment_duration_seconds", labels).observe(at - p.started_at, p.id, at)
        if e.status is not Status.SUCCEEDED and e.status is not Status.CANCELLED and e.reason is not None:
            self.counters["surefoot_deployment_failures_total"][p.environment, str(e.reason.code)] += 1
        self.newest[labels] = (p.version, p.id, at)
        self._changed(p, e.status, at)

    def _changed(self, p: Progress, status: Status, at: float) -> None:
        """Count a change as DORA does; the same definitions as in `reports.levels`."""
        changes = self.counters["surefoot_changes_total"]
        if p.rollback:
            if status is Status.SUCCEEDED:
                changes[p.environment, "taken_back"] += 1
                self._restored(p, p.requested_at, at)
            return
        if status is Status.SUCCEEDED:
            changes[p.environment, "succeeded"] += 1
            since = p.committed or (() if p.requested_at is None else (p.requested_at,))
            for moment in since:
                self._histogram("surefoot_lead_time_seconds", (p.environment,)).observe(at - moment, p.id, at)
        elif status in FAILURES:
            changes[p.environment, "failed"] += 1
            if status is Status.ROLLED_BACK:
                self._restored(p, p.undo_at, at)

    def _restored(self, p: Progress, since: float | None, at: float) -> None:
        if since is not None:
            self._histogram("surefoot_restore_duration_seconds", (p.environment,)).observe(at - since, p.id, at)

    def _histogram(self, name: str, labels: Labels) -> Histogram:
        found = self.histograms[name].get(labels)
        if found is None:
            found = self.histograms[name][labels] = Histogram(METRICS[name].buckets)
        return found
