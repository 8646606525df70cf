# SPDX-License-Identifier: Apache-2.0
"""What is to be told to whom, and has not been: a fold of the journal, like every other state.

Guarantees: `changes` is a function of the entries alone, so a store that applies it in the transaction of an append
loses nothing, whoever dies afterwards; whatever it adds is taken out by the `Delivered` (or the last
`DeliveryFailed`) that names the same entry and target, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from surefoot.core import events as ev
from surefoot.core.deployment import Deployment, fold
from surefoot.core.gates import Gate
from surefoot.core.targets import Moment, Target, wants


@dataclass(frozen=True, slots=True)
class Due:
    """One thing to tell one target: the journal's entry `of`, in the target's words."""

    of: int
    target: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What entries of a journal add to its outbox, and take out of it."""

    added: tuple[Due, ...] = ()
    settled: tuple[Due, ...] = ()


def changes(entries: Iterable[ev.Entry], before: Deployment | None = None) -> Changes:
    """Return what `entries`, appended to a journal in state `before`, make of its outbox."""
    if before is not None and not before.plan.targets:
        return Changes()
    added: list[Due] = []
    settled: list[Due] = []
    state = before
    for entry in entries:
        state = fold((entry,), state)
        match entry.event:
            case ev.Delivered(target=target, of=of) | ev.DeliveryFailed(target=target, of=of, given_up=True):
                settled.append(Due(of, target))
            case _:
                moment = moment_of(entry.event, state)
                if moment is not None:
                    ended = Moment(state.status) if state.status.terminal else None
                    targets = (target for target in state.plan.targets if wants(target, moment, ended))
                    added += [Due(entry.seq, target.name) for target in targets]
    return Changes(tuple(added), tuple(settled))


def moment_of(event: ev.Event, after: Deployment) -> Moment | None:
    """Return what an event means to those who are told; None where it means nothing to them."""
    match event:
        case ev.Accepted():
            return Moment.ACCEPTED
        case ev.Waiting(waits=waits):
            return Moment.WAITING if any(wait.gate is Gate.APPROVAL for wait in waits) else None
        case ev.LeaseGranted():
            return Moment.STARTED if after.grants == 1 else None
        case ev.UndoStarted():
            return Moment.ROLLING_BACK
        case ev.Finished(status=status):
            return Moment(status)
        case ev.ResolveRequested(unchecked=False):
            return Moment.RESOLVE_REQUESTED
        case ev.ResolveRefused():
            return Moment.RESOLVE_REFUSED
        case ev.Resolved():
            return Moment.RESOLVED
        case _:
            return None


def target_named(state: Deployment, name: str) -> Target | None:
    """Return a plan's target; None if it has none of that name."""
    return next((target for target in state.plan.targets if target.name == name), None)
