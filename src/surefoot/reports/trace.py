# SPDX-License-Identifier: Apache-2.0
"""A deployment's trace: spans of the whole, of each agent that held it, of what these did, and of each host.

Guarantees: spans are a function of the journal, their ids of the store's identity and the deployment's: whichever agent
derives them comes to the same ones, so that what two agents did is one trace, and what is sent twice is there once.
Times are the store's; those of hosts within an attempt are their agent's. There is only what has ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from surefoot.core import events as ev
from surefoot.core.errors import Failure
from surefoot.core.plan import Direction
from surefoot.core.sentences import sentence
from surefoot.core.status import Status
from surefoot.core.views import rfc3339

Value = str | int | float | bool

#: How semantic conventions for CI and CD call the ends.
RESULTS = {
    Status.SUCCEEDED: "success",
    Status.FAILED: "failure",
    Status.ROLLED_BACK: "failure",
    Status.STRANDED: "error",
    Status.CANCELLED: "cancellation",
}


@dataclass(frozen=True, slots=True)
class Span:
    """Something that had a beginning and an end."""

    id: int
    parent: int | None
    name: str
    begun: float
    ended: float
    seq: int  #: the journal's entry that ended it
    agent: str | None = None
    attributes: dict[str, Value] = field(default_factory=dict)
    error: str | None = None
    moments: tuple[tuple[float, str, str], ...] = ()  #: when, an event's type, and what it says

    def shown(self) -> dict[str, object]:
        """Return the JSON of `report trace`."""
        return {
            "span_id": f"{self.id:016x}",
            "parent_span_id": None if self.parent is None else f"{self.parent:016x}",
            "name": self.name,
            "started_at": rfc3339(self.begun),
            "finished_at": rfc3339(self.ended),
            "duration_seconds": round(self.ended - self.begun, 3),
            "agent": self.agent,
            "error": self.error,
            "attributes": self.attributes,
        }


def trace_id(store: str, deployment: str) -> int:
    """Return the id of a deployment's trace: 16 bytes."""
    return int.from_bytes(hashlib.sha256(f"surefoot:{store}:{deployment}".encode()).digest()[:16], "big")


def spans(store: str, entries: Sequence[ev.Entry], after: int = 0) -> list[Span]:
    """Return what has ended in a journal, by entries behind `after`: a tree, each parent before its children, and these
    as they began.
    """
    found = sorted((s for s in _Walk(store, entries).walk() if s.seq > after), key=lambda s: (s.begun, s.ended))
    there = {span.id for span in found}
    children: dict[int | None, list[Span]] = {}
    for span in found:
        children.setdefault(span.parent if span.parent in there else None, []).append(span)

    def below(parent: int | None) -> Iterator[Span]:
        for span in children.get(parent, ()):
            yield span
            yield from below(span.id)

    return list(below(None))


@dataclass(slots=True)
class _Open:
    """What has begun: under which key, when, and in which of the agents' hands."""

    key: str
    begun: float
    agent: str | None
    attributes: dict[str, Value]


class _Walk:
    """Goes through a journal once."""

    def __init__(self, store: str, entries: Sequence[ev.Entry]) -> None:
        accepted = entries[0].event
        assert isinstance(accepted, ev.Accepted), "a journal begins with Accepted"
        self._accepted = accepted
        self._entries = entries
        self._trace = trace_id(store, accepted.id)
        self._lease: _Open | None = None
        self._step: _Open | None = None
        self._bake: _Open | None = None
        self._resolve: _Open | None = None
        self._grants = 0
        self._since = 0.0  # when whoever holds the lease was done with what it did before
        self._moments: list[tuple[float, str, str]] = []

    def walk(self) -> Iterator[Span]:
        for entry in self._entries:
            yield from self._take(entry)
            if entry.token is not None:
                self._since = entry.at

    def _take(self, entry: ev.Entry) -> Iterator[Span]:
        match entry.event:
            case ev.LeaseGranted() as e:
                yield from self._granted(entry, e)
            case ev.HandedOver(cause=cause):
                yield from self._let_go(entry, cause)
            case ev.StepStarted() as e:
                attributes: dict[str, Value] = {
                    "surefoot.step": e.step, "surefoot.direction": str(e.direction), "surefoot.attempt": e.attempt
                }  # fmt: skip
                key = f"step:{e.direction}:{e.step}:{e.attempt}"
                self._step = _Open(key, entry.at, entry.agent, attributes)
            case ev.StepSucceeded(hosts=hosts):
                yield from self._stepped(entry, hosts)
            case ev.StepFailed(failure=failure, hosts=hosts):
                yield from self._stepped(entry, hosts, failure)
            case ev.StepInterrupted(cause=cause):
                yield from self._stepped(entry, (), cause)
            case ev.Finished() as e:
                yield from self._finished(entry, e)
            case ev.ResolveRequested() as e:
                self._resolve = _Open(f"resolve:{entry.seq}", entry.at, None, {"surefoot.requested_by": e.by})
            case ev.Resolved():
                yield from self._resolved(entry)
            case ev.ResolveRefused(failure=failure):
                yield from self._resolved(entry, failure)
            case _:
                yield from self._take_deed(entry)

    def _take_deed(self, entry: ev.Entry) -> Iterator[Span]:
        """Take what is no step, and most of which is known by its end alone."""
        match entry.event:
            case ev.PreflightPassed(checks=checks):
                yield from self._preflight(entry, checks)
            case ev.PreflightFailed(failure=failure, checks=checks):
                yield from self._preflight(entry, checks, failure)
            case ev.FenceRaised(hosts=hosts):
                begun = self._step.begun if self._step is not None else self._since
                yield self._did(entry, "fence", begun=begun, attributes={"surefoot.hosts": len(hosts)})
            case ev.FenceFailed(failure=failure):
                begun = self._step.begun if self._step is not None else self._since
                yield self._did(entry, "fence", failure, begun=begun)
                yield from self._stepped(entry, (), failure)
            case ev.NotBegun(failure=failure) if self._step is not None:
                yield from self._stepped(entry, (), failure)
            case ev.HealthPassed(checks=count):
                yield self._did(entry, "health", attributes={"surefoot.checks": count})
            case ev.HealthFailed(failure=failure):
                yield self._did(entry, "health", failure)
            case ev.VersionsRecorded(hosts=names):
                yield self._did(entry, "versions", attributes={"surefoot.hosts": len(names)})
            case ev.VersionsMixed(failure=failure):
                yield self._did(entry, "versions", failure)
            case ev.VersionsSurveyed():
                yield self._did(entry, "survey")
            case ev.BakeStarted(seconds=seconds):
                self._bake = _Open("bake", entry.at, entry.agent, {"surefoot.seconds": seconds})
            case ev.BakePassed():
                yield from self._baked(entry)
            case ev.BakeFailed(failure=failure):
                yield from self._baked(entry, failure)
            case ev.Accepted() | ev.Delivered() | ev.DeliveryFailed():
                pass
            case _:
                self._moments.append((entry.at, ev.type_of(entry.event), sentence(entry)))

    # -- what is in whose hands -----------------------------------------------------------------------

    def _granted(self, entry: ev.Entry, e: ev.LeaseGranted) -> Iterator[Span]:
        yield from self._let_go(entry, f"{e.agent} has taken over")
        self._grants += 1
        if self._grants == 1:
            yield self._span(entry, "queue", "queue", self._entries[0].at, entry.at, parent="deployment")
        else:
            self._moments.append((entry.at, ev.type_of(e), sentence(entry)))
        attributes: dict[str, Value] = {"surefoot.agent": e.agent, "surefoot.token": e.token}
        if e.taken_from is not None:
            attributes |= {"surefoot.taken_from": e.taken_from, "surefoot.waited_seconds": e.waited_seconds or 0.0}
        self._lease = _Open(f"lease:{e.token}", entry.at, e.agent, attributes)

    def _let_go(self, entry: ev.Entry, why: str) -> Iterator[Span]:
        """End what is in an agent's hands: it hands over, or was lost."""
        handed = isinstance(entry.event, ev.HandedOver)
        yield from self._stepped(entry, (), why)
        yield from self._ended(entry, self._lease, "agent", None if handed else why)
        self._lease = None

    # -- what was done --------------------------------------------------------------------------------

    def _stepped(
        self, entry: ev.Entry, hosts: Iterable[ev.HostRun], failed: Failure | str | None = None
    ) -> Iterator[Span]:
        step, self._step = self._step, None
        if step is None:
            return
        undo = step.attributes["surefoot.direction"] == Direction.UNDO
        name = f"{'undo' if undo else 'step'} {step.attributes['surefoot.step']}"
        yield from self._ended(entry, step, name, failed, parent=self._holder)
        for run in hosts:
            begun = min(entry.at, step.begun + run.after)
            yield self._span(
                entry, f"{step.key}:host:{run.host}", f"host {run.host}", begun, min(entry.at, begun + run.seconds),
                parent=step.key, agent=step.agent, failed="failed there" if run.failed else None,
                attributes={"host.name": run.host, "surefoot.changed": run.changed},
            )  # fmt: skip

    def _preflight(
        self, entry: ev.Entry, checks: Iterable[ev.Checked], failed: Failure | None = None
    ) -> Iterator[Span]:
        yield self._did(entry, "preflight", failed)
        for number, check in enumerate(checks):
            attributes: dict[str, Value] = {"surefoot.check": check.name, "surefoot.result": check.status}
            if check.host is not None:
                attributes["host.name"] = check.host
            # They run side by side: each from the beginning, as far as the journal knows.
            ended = min(entry.at, self._since + check.duration_seconds)
            yield self._span(
                entry, f"preflight:{entry.seq}:{number}", f"check {check.name}", self._since, ended,
                parent=f"preflight:{entry.seq}", agent=entry.agent, attributes=attributes,
                failed=check.message if check.status == "fail" else None,
            )  # fmt: skip

    def _baked(self, entry: ev.Entry, failed: Failure | None = None) -> Iterator[Span]:
        bake, self._bake = self._bake, None
        # It may go on through takeovers, so it belongs to the deployment and not to one agent.
        yield from self._ended(entry, bake, "bake", failed)

    def _resolved(self, entry: ev.Entry, failed: Failure | None = None) -> Iterator[Span]:
        asked, self._resolve = self._resolve, None
        yield from self._ended(entry, self._lease, "agent")
        self._lease = None
        yield from self._ended(entry, asked, "resolve", failed)

    def _finished(self, entry: ev.Entry, e: ev.Finished) -> Iterator[Span]:
        yield from self._ended(entry, self._lease, "agent")
        self._lease = None
        a = self._accepted
        attributes: dict[str, Value | None] = {
            "cicd.pipeline.name": "rollback" if a.rollback else "deploy",
            "cicd.pipeline.run.id": a.id,
            "cicd.pipeline.result": RESULTS[e.status],
            "deployment.environment.name": a.environment,
            "vcs.ref.head.revision": a.commit,
            "surefoot.project": a.plan.project,
            "surefoot.version": a.version,
            "surefoot.status": str(e.status),
            "surefoot.requested_by": a.requested_by,
            "surefoot.takeovers": max(0, self._grants - 1),
        }
        known = {key: value for key, value in attributes.items() if value not in (None, "")}
        name = f"{'rollback' if a.rollback else 'deploy'} {a.environment}"
        failed = None if e.status is Status.SUCCEEDED else e.reason or str(e.status)
        begun, moments = self._entries[0].at, tuple(self._moments)
        yield self._span(entry, "deployment", name, begun, entry.at, failed=failed, attributes=known, moments=moments)

    # -- spans ----------------------------------------------------------------------------------------

    @property
    def _holder(self) -> str:
        return self._lease.key if self._lease is not None else "deployment"

    def _did(
        self,
        entry: ev.Entry,
        what: str,
        failed: Failure | None = None,
        *,
        begun: float | None = None,
        attributes: dict[str, Value] | None = None,
    ) -> Span:
        """Return what is known by its end alone: it began when the agent was done with what was before."""
        parent = self._step.key if self._step is not None else self._holder
        begun = self._since if begun is None else begun
        return self._span(
            entry, f"{what}:{entry.seq}", what, begun, entry.at, parent=parent, agent=entry.agent, failed=failed,
            attributes=attributes,
        )  # fmt: skip

    def _ended(
        self,
        entry: ev.Entry,
        begun: _Open | None,
        name: str,
        failed: Failure | str | None = None,
        *,
        parent: str = "deployment",
    ) -> Iterator[Span]:
        if begun is not None:
            yield self._span(
                entry, begun.key, name, begun.begun, entry.at, parent=parent, agent=begun.agent, failed=failed,
                attributes=begun.attributes,
            )  # fmt: skip

    def _span(
        self,
        entry: ev.Entry,
        key: str,
        name: str,
        begun: float,
        ended: float,
        *,
        parent: str | None = None,
        agent: str | None = None,
        failed: Failure | str | None = None,
        attributes: dict[str, Value] | None = None,
        moments: tuple[tuple[float, str, str], ...] = (),
    ) -> Span:
        code: dict[str, Value] = {"error.type": str(failed.code)} if isinstance(failed, Failure) else {}
        return Span(
            id=self._id(key),
            parent=None if parent is None else self._id(parent),
            name=name,
            begun=begun,
            ended=max(begun, ended),
            seq=entry.seq,
            agent=agent,
            attributes={"surefoot.deployment": self._accepted.id, **(attributes or {}), **code},
            error=failed.message if isinstance(failed, Failure) else failed,
            moments=moments,
        )

    def _id(self, key: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self._trace:032x}:{key}".encode()).digest()[:8], "big")


def ended_at(entries: Iterable[ev.Entry]) -> int:
    """Return where a journal says that the deployment has ended; 0 where it does not yet."""
    return next((entry.seq for entry in entries if isinstance(entry.event, ev.Finished)), 0)
