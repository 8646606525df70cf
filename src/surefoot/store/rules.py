# SPDX-License-Identifier: Apache-2.0
"""What every store holds an append to, whatever it keeps journals in: pure functions, no I/O.

Guarantees: what the holder of a lease alone may say is never said without one; what is written beside a journal is
its fold; text is such that any database takes it. Trusts the caller that `state` is the fold of the journal up to
`state.seq`: reading it again here would make each append as slow as its journal is long.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from surefoot.core import events as ev
from surefoot.core import opening
from surefoot.core.deployment import Deployment, accept, fold
from surefoot.core.environment import Freeze
from surefoot.core.errors import Code, ConflictError, LeaseLostError, NotAllowedError, RefusedError, UsageError
from surefoot.core.status import Status
from surefoot.core.summary import EnvironmentChange, environment_after
from surefoot.store.protocol import Append, Grant, Submission

T = TypeVar("T", bound=msgspec.Struct)

#: Longer names do not fit into an index of PostgreSQL (a third of a page).
MAX_NAME = 500
#: How long after its last word the process that holds a name's presence keeps others from using the name.
DUPLICATE_WITHIN = 15.0


class Head(msgspec.Struct, frozen=True):
    """Where a journal stands before an append."""

    environment: str
    seq: int
    token: int
    status: Status


def clean(text: str) -> str:
    """Return text that any database takes: NUL and lone surrogates become U+FFFD."""
    if text.isascii():
        return text.replace("\x00", "\ufffd")
    return "".join("\ufffd" if c == "\x00" or "\ud800" <= c <= "\udfff" else c for c in text)


def clean_or_none(text: str | None) -> str | None:
    """Return the same for text that may be missing."""
    return None if text is None else clean(text)


def clean_struct(value: T) -> T:
    """Return an event or a summary whose every text can be written as JSON."""
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.convert(_clean_tree(msgspec.to_builtins(value)), type(value))
    return value


def _clean_tree(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case dict():
            return {clean(key): _clean_tree(item) for key, item in value.items()}
        case list() | tuple():
            return [_clean_tree(item) for item in value]
        case _:
            return value


def check_environment(name: str) -> None:
    """Refuse an environment's name that no index can hold."""
    _check_name("environment", name, if_missing="name one")


def check_submission(submission: Submission) -> None:
    """Refuse names that no index can hold."""
    for what, name in (
        ("environment", submission.environment),
        ("version", submission.version),
        ("key", submission.key or "-"),
    ):
        code = Code.VERSION_INVALID if what == "version" else Code.USAGE
        _check_name(what, name, code, if_missing=f"give a {what}")


def _check_name(what: str, name: str, code: Code = Code.USAGE, *, if_missing: str) -> None:
    if not name or len(name.encode(errors="replace")) > MAX_NAME:
        raise UsageError(
            f"the {what} has {len(name)} characters; 1 to {MAX_NAME} bytes are possible",
            code=code,
            hint=f"use a shorter {what}" if name else if_missing,
        )


def refuse_locked(environment: str, locked_by: str) -> RefusedError:
    """Return the refusal of a new deployment while an environment is locked."""
    return RefusedError(
        f"{environment} is locked: {locked_by} could not be put back",
        code=Code.LOCKED,
        hint=f"surefoot resolve {locked_by} --reason TEXT",
    )


def accepted(
    submission: Submission, number: int, at: float, freeze: Freeze | None
) -> tuple[tuple[ev.Entry, ...], Deployment]:
    """Return a journal's first entries: that it was accepted, and what it waits for, if it waits for anything; and
    their fold. RefusedError if it would have to wait and does not want to.
    """
    event = clean_struct(
        ev.Accepted(
            id=f"{submission.environment}-{number}",
            environment=submission.environment,
            number=number,
            version=submission.version,
            plan=submission.plan,
            bundle=submission.bundle,
            requested_by=submission.requested_by,
            reason=submission.reason,
            key=submission.key,
            commit=submission.commit,
            rollback=submission.rollback,
            origin=submission.origin,
            not_before=submission.not_before,
            override=submission.override,
            promoted=submission.promoted,
        )
    )
    first = ev.Entry(seq=1, at=at, event=event)
    state = accept(first)
    waits = opening.closed(state, freeze, at)
    if not submission.when_open and (refused := opening.refusal(waits, submission.environment)) is not None:
        raise refused
    if not waits:
        return (first,), state
    second = ev.Entry(seq=2, at=at, event=clean_struct(ev.Waiting(waits)))
    return (first, second), fold((second,), state)


def may_claim(state: Deployment, freeze: Freeze | None, at: float) -> bool:
    """Whether a lease may be granted for it: it has not ended since it was seen, and no gate is closed that matters
    (once one was granted, none does).
    """
    return state.wants_agent and not opening.closed(state, freeze, at)


def check_append(append: Append, head: Head, holder: Grant | None) -> None:
    """Refuse an append that does not follow the journal's head, or that its author has no right to make.

    `holder` is the environment's lease as it stands; what a claim appends is checked against the lease that it takes.
    """
    assert append.events, "an append has events"
    assert append.state.environment == head.environment
    grant = append.grant
    if grant is not None and (grant != holder or grant.token not in (head.token, _granted(append))):
        raise lease_lost(grant)
    if head.seq != append.state.seq:
        raise ConflictError(f"{append.state.id}: entry {head.seq} is the last one, not {append.state.seq}")
    if grant is None and not _is_request(append, head):
        kinds = ", ".join(ev.type_of(event) for event in append.events)
        raise NotAllowedError(f"{append.state.id}: only the holder of the lease may append {kinds}")


def _granted(append: Append) -> int | None:
    """Return the token that the append itself brings to its journal, if it is a claim's."""
    return next((event.token for event in append.events if isinstance(event, ev.LeaseGranted)), None)


def lease_lost(grant: Grant) -> LeaseLostError:
    """Return the refusal of a lease that stands no more."""
    return LeaseLostError(
        f"{grant.agent} no longer holds {grant.environment} with token {grant.token}",
        hint="another agent has taken over; this one must stop",
    )


def _is_request(append: Append, head: Head) -> bool:
    """Whether anyone may append this: requests, what follows from one without an agent, and what was told to others."""
    if append.release:
        return False
    match append.events:
        case (ev.CancelRequested(), ev.Finished(status=Status.CANCELLED)):
            return head.token == 0 and not head.status.terminal
        case (ev.Waiting() | ev.ApprovalGiven(),):
            return head.token == 0 and not head.status.terminal
        case (ev.Rejected() | ev.ApprovalExpired(), ev.Finished(status=Status.FAILED)):
            return head.token == 0 and not head.status.terminal
        case (ev.Superseded(), ev.Finished(status=Status.CANCELLED)):
            return head.token == 0 and not head.status.terminal
        case (ev.ResolveRequested(unchecked=True), ev.Resolved(unchecked=True)):
            return head.status is Status.STRANDED
        case (ev.CancelRequested() | ev.ResolveRequested() | ev.Delivered() | ev.DeliveryFailed(),):
            return True
        case _:
            return False


def apply(append: Append, at: float) -> tuple[tuple[ev.Entry, ...], Deployment]:
    """Return the journal entries that an append makes, and the state after them."""
    grant = append.grant
    entries = tuple(
        ev.Entry(
            seq=append.state.seq + place,
            at=at,
            event=clean_struct(event),
            agent=None if grant is None else grant.agent,
            token=None if grant is None else grant.token,
        )
        for place, event in enumerate(append.events, 1)
    )
    return entries, fold(entries, append.state)


def environment_change(
    append: Append, after: Deployment, *, current: str | None, previous: str | None
) -> EnvironmentChange | None:
    """Return what an append makes of its environment; only an end or a resolution makes anything of it.

    A request that comes after the end (a late cancel) must not bring back the version of a deployment that is history.
    """
    if not any(isinstance(event, ev.Finished | ev.Resolved) for event in append.events):
        return None
    return environment_after(after, current=current, previous=previous)
