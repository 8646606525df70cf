# SPDX-License-Identifier: Apache-2.0
"""Whether a deployment may begin: a pure function of its journal, its environment's freeze and the store's clock.

Guarantees: nothing begins past a closed gate, because the store asks `closed` once more in the transaction that grants
the first lease; what was accepted and may not begin either waits for something that has a name, or comes to its end. A
deployment that has begun meets no gate any more, whoever takes it over.

Who refuses and who waits: a submission that meets a freeze or a closed window is refused, unless it says that it
wants to wait; what was accepted before waits in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from surefoot.core import events as ev
from surefoot.core import people, windows
from surefoot.core.deployment import Deployment
from surefoot.core.environment import Freeze
from surefoot.core.errors import Code, Failure, NotAllowedError, RefusedError
from surefoot.core.gates import Gate, Promoted, PromoteFrom, Wait
from surefoot.core.status import FAILURES, Status
from surefoot.core.summary import Summary
from surefoot.core.wording import clock, duration


@dataclass(frozen=True, slots=True)
class Begin:
    """All gates are open."""


@dataclass(frozen=True, slots=True)
class Settle:
    """It may not begin; these events say what becomes of it."""

    events: tuple[ev.Event, ...]


def gateless(s: Deployment) -> bool:
    """Whether nothing but a freeze can keep it from beginning, whatever the time."""
    gates = s.plan.gates
    return s.not_before is None and not gates.windows and not gates.latest and s.approvals_gate is None


def closed(s: Deployment, freeze: Freeze | None, now: float) -> tuple[Wait, ...]:
    """Return what keeps a deployment from beginning now; nothing if it has begun."""
    if s.begun:
        return ()
    waits = []
    start = now
    if s.not_before is not None and now < s.not_before:
        start = s.not_before
        waits.append(Wait(Gate.SCHEDULE, f"it is to start at {clock(start)}", start))
    if not s.override:
        if freeze is not None and freeze.in_force(start):
            waits.append(Wait(Gate.FREEZE, frozen(s.environment, freeze), freeze.until))
        if not windows.is_open(s.plan.gates.windows, start):
            opens = windows.next_opening(s.plan.gates.windows, start)
            when = "; ".join(map(windows.told, s.plan.gates.windows))
            waits.append(Wait(Gate.WINDOW, f"deployments of {s.environment} start {when} only", opens))
    if (gate := s.approvals_gate) is not None and s.approvals_missing:
        ends = s.requested_at + gate.expires
        late = f"; too late for that since {clock(ends)}, which no agent has noticed yet" if now >= ends else ""
        waits.append(Wait(Gate.APPROVAL, _approvals(s) + late, ends))
    return tuple(waits)


def _approvals(s: Deployment) -> str:
    gate = s.approvals_gate
    assert gate is not None
    whose = f" from {' or '.join(gate.groups)}" if gate.groups else ""
    given = f", {len(s.approvals)} given" if s.approvals else ""
    return f"{gate.required} approval{'s' * (gate.required != 1)}{whose} needed{given}"


def frozen(environment: str, freeze: Freeze) -> str:
    """Say that an environment is frozen, by whom and why."""
    until = "" if freeze.until is None else f" until {clock(freeze.until)}"
    return f"{environment} is frozen{until} by {freeze.by or 'someone'}: {freeze.reason}"


def refusal(waits: Sequence[Wait], environment: str) -> RefusedError | None:
    """Return why a submission that does not want to wait is refused; None if it need not be."""
    for wait in waits:
        again = "add --when-open to wait for it"
        if wait.gate is Gate.FREEZE:
            hint = f"{again}, or: surefoot unfreeze {environment}"
            return RefusedError(wait.message, code=Code.FROZEN, hint=hint)
        if wait.gate is Gate.WINDOW:
            assert wait.until is not None
            hint = f"{again}; the next one opens at {clock(wait.until)}"
            return RefusedError(wait.message, code=Code.WINDOW_CLOSED, hint=hint)
    return None


def begin(s: Deployment, freeze: Freeze | None, now: float, newer: Sequence[Summary] = ()) -> Begin | Settle:
    """Decide what an agent makes of a deployment that is its to begin. `newer`: those of its environment that were
    asked for later, as far as they may take its place.
    """
    if s.begun:
        return Begin()
    if late := too_late(s, now):
        return Settle(late)
    if s.plan.gates.latest and (first := next((other for other in newer if takes_place(other)), None)) is not None:
        return Settle(superseded(s, first.id, first.version))
    waits = closed(s, freeze, now)
    return Settle((ev.Waiting(waits),)) if waits else Begin()


def too_late(s: Deployment, now: float) -> tuple[ev.Event, ...]:
    """Return the end of a deployment that was not approved in time; nothing if there is time yet."""
    gate = s.approvals_gate
    if gate is None or s.begun or not s.approvals_missing or now < s.requested_at + gate.expires:
        return ()
    failure = Failure(
        Code.APPROVAL_EXPIRED,
        f"{_approvals(s)}; {'no more' if s.approvals else 'none'} came within {duration(gate.expires)}",
        hint="deploy it again, and have it approved in time",
    )
    return ev.ApprovalExpired(), ev.Finished(Status.FAILED, failure)


def takes_place(newer: Summary) -> bool:
    """Whether a newer deployment takes the place of those before it: it may begin, or has begun and was not refused."""
    return newer.status is Status.QUEUED or newer.status.started or newer.status is Status.SUCCEEDED


def superseded(s: Deployment, by: str, version: str) -> tuple[ev.Event, ...]:
    """Return the end of a deployment whose place a newer one takes."""
    failure = Failure(
        Code.SUPERSEDED,
        f"{by} ({version}) is newer, and {s.environment} deploys the latest only",
        hint=f"surefoot show {by}",
    )
    return ev.Superseded(by, version), ev.Finished(Status.CANCELLED, failure)


# -- people ----------------------------------------------------------------------------------------------------------


def approval(s: Deployment, by: str, reason: str) -> tuple[ev.Event, ...]:
    """Return the events of a person's agreement; none if it was given before. NotAllowedError if it can't be given."""
    gate = s.approvals_gate
    if any(people.same_person(by, given.by) for given in s.approvals):
        return ()
    if gate is None or s.begun or not s.approvals_missing:
        why = "has all its approvals" if s.approvals else f"waits for no approval ({s.status})"
        raise NotAllowedError(f"{s.id} {why}", hint=f"surefoot show {s.id}")
    if people.same_person(by, s.requested_by):
        raise NotAllowedError(
            f"{by} has asked for {s.id} and can't approve it",
            code=Code.APPROVAL_NOT_ALLOWED,
            hint=f"have somebody else approve it: surefoot approve {s.id}",
        )
    return (ev.ApprovalGiven(by, reason, _groups(s, by)),)


def rejection(s: Deployment, by: str, reason: str) -> tuple[ev.Event, ...]:
    """Return the end of a deployment that a person does not agree to; nothing if it was rejected before.

    Whoever has asked for it may reject it too. NotAllowedError where no approval is needed, or it has begun.
    """
    if s.outcome is not None and s.outcome.code is Code.REJECTED:
        return ()
    if s.begun or s.approvals_gate is None:
        why = f"needs no approval ({s.status})" if not s.begun else f"has begun ({s.status})"
        if s.status.terminal:
            why = f"has ended ({s.status})"
        hint = f"surefoot show {s.id}" if s.status.terminal else f"surefoot cancel {s.id}"
        raise NotAllowedError(f"{s.id} {why}", hint=hint)
    if not people.same_person(by, s.requested_by):
        _groups(s, by)
    failure = Failure(Code.REJECTED, f"rejected by {by}: {reason}", hint=f"surefoot show {s.id}")
    return ev.Rejected(by, reason), ev.Finished(Status.FAILED, failure)


def _groups(s: Deployment, by: str) -> tuple[str, ...]:
    """Return a person's groups; refuse who belongs to none of those that count."""
    gate = s.approvals_gate
    assert gate is not None
    groups = people.groups_of(by, gate)
    if not groups and gate.groups:
        raise NotAllowedError(
            f"{by} belongs to none of the groups that may approve {s.id}: {', '.join(gate.groups)}",
            code=Code.APPROVAL_NOT_ALLOWED,
            hint="have one of them approve it, or add this name to a group in surefoot.yml and deploy again",
        )
    return groups


# -- promotion -------------------------------------------------------------------------------------------------------


def promotion(
    gate: PromoteFrom, environment: str, version: str, found: Summary | None, since: Sequence[Summary], *, now: float
) -> Promoted:
    """Return the evidence that a version may come here: its newest success (`found`) where it is promoted from.

    RefusedError if there is none, if it is too old or too fresh, or if what came there after it (`since`) speaks
    against the version.
    """
    source = gate.environment
    if found is None or found.finished_at is None:
        raise RefusedError(
            f"{version} has not succeeded in {source} yet, where {environment} is promoted from",
            code=Code.NOT_PROMOTED,
            hint=f"surefoot deploy {source} {version}",
        )
    if against := next((said for other in since if (said := _against(version, other))), ""):
        raise RefusedError(
            f"{version} succeeded in {source} ({found.id}), but {against}",
            code=Code.NOT_PROMOTED,
            hint=f"surefoot deploy {source} {version}",
        )
    ago = now - found.finished_at
    if gate.within is not None and ago > gate.within:
        raise RefusedError(
            f"{version} succeeded in {source} {duration(ago)} ago ({found.id}); at most {duration(gate.within)} count",
            code=Code.NOT_PROMOTED,
            hint=f"surefoot deploy {source} {version}",
        )
    if ago < gate.after:
        raise RefusedError(
            f"{version} succeeded in {source} {duration(ago)} ago ({found.id}); it has to run there for "
            f"{duration(gate.after)} first",
            code=Code.NOT_PROMOTED,
            hint=f"deploy it again in {duration(gate.after - ago)}",
        )
    return Promoted(source, found.id, found.version, found.finished_at, found.bundle, found.commit)


def _against(version: str, other: Summary) -> str:
    """Say what a later deployment tells against a version; nothing if it does not."""
    if other.version == version and other.status in FAILURES:
        return f"failed there when it was deployed again ({other.id})"
    if other.rollback and other.previous_version == version and other.status is Status.SUCCEEDED:
        return f"was then taken back there by {other.requested_by} ({other.id})"
    return ""
