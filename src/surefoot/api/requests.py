# SPDX-License-Identifier: Apache-2.0
"""The verbs: submit, roll back, cancel, resolve. Each is one append to a journal.

Guarantees: a request is written whole or not at all, and once even if the answer to it was lost; a request that
changes nothing any more (cancelling what is cancelled) is no error; one that the state does not allow is refused
without a trace. It does not wait for anything: what becomes of a request is in the journal (`api.follow`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace

from surefoot.core import events as ev
from surefoot.core.decide import Write, decide
from surefoot.core.deployment import Deployment, evolve, fold
from surefoot.core.errors import Code, ConflictError, NotAllowedError, NotFoundError, StoreError
from surefoot.core.status import Status
from surefoot.store.protocol import Append, Store, Submission

#: Seconds between tries of a request whose answer was lost.
AGAIN = 0.3
#: Tries of a submission whose answer was lost; more would keep a caller waiting who has an agent of his own to ask.
SUBMIT_TRIES = 3

Events = tuple[ev.Event, ...]


def submit(store: Store, submission: Submission) -> tuple[str, bool]:
    """Submit a deployment; return its id, and False if its key was known.

    It goes under a key even if the caller gave none, so that it is accepted once if the store's answer is lost. Where
    no answer comes at all the error's hint has the key: nobody knows then whether it was accepted.
    """
    keyed = replace(submission, key=submission.key or f"once-{uuid.uuid4().hex}")
    tries = 0
    while True:
        try:
            return store.submit(keyed)
        except StoreError as error:
            if error.code is not Code.STORE_UNREACHABLE:
                raise
            tries += 1
            if tries == SUBMIT_TRIES:
                again = f"call the same again with --key {keyed.key}, so that it is accepted once"
                hint = f"it may have been accepted; {again}"
                raise StoreError(error.message, code=error.code, hint=hint) from error
            time.sleep(AGAIN)


def load(store: Store, deployment: str) -> Deployment:
    """Return a deployment as its journal tells it."""
    return fold(store.journal(deployment))


def rollback(store: Store, environment: str, to: str | None, *, by: str, reason: str, key: str | None) -> Submission:
    """Return the submission that brings back an earlier version, with the plan and files which it was deployed with."""
    current = store.environment(environment).current_version
    found = store.find_version(environment, to) if to is None or to != current else None
    if found is None:
        raise _no_earlier(environment, to, current)
    accepted = store.journal(found.id, limit=1)[0].event
    assert isinstance(accepted, ev.Accepted)
    return Submission(
        environment=environment,
        version=found.version,
        plan=accepted.plan,
        bundle=accepted.bundle,
        requested_by=by,
        reason=reason,
        key=key,
        commit=accepted.commit,
        rollback=True,
    )


def cancel(store: Store, deployment: str, *, by: str, reason: str = "") -> Deployment:
    """Ask for a safe end; nothing to do if it was asked for already, or has come."""

    def events(state: Deployment) -> Events | None:
        if state.status is Status.CANCELLED or (state.cancel is not None and not state.status.terminal):
            return None
        if state.status.terminal:
            raise NotAllowedError(
                f"{state.id} has ended ({state.status}); there is nothing to cancel", hint=f"surefoot show {state.id}"
            )
        asked = ev.CancelRequested(by=by, reason=reason)
        if state.grants:
            return (asked,)
        after = evolve(state, ev.Entry(seq=state.seq + 1, at=state.last_at, event=asked))
        action = decide(after, after.elapsed)
        return (asked, action.event) if isinstance(action, Write) else (asked,)

    return request(store, deployment, events)


def resolve(
    store: Store, deployment: str, *, by: str, reason: str, unchecked: bool = False, version: str | None = None
) -> Deployment:
    """Declare a stranded environment repaired. Checked, an agent answers; unchecked, it is taken for true at once."""

    def events(state: Deployment) -> Events | None:
        if state.status is not Status.STRANDED or state.resolved is not None:
            what = "is resolved already" if state.resolved else f"is not stranded ({state.status})"
            raise NotAllowedError(f"{state.id} {what}", hint=f"surefoot show {state.id}")
        if not unchecked:
            return (ev.ResolveRequested(by=by, reason=reason, version=version),)
        runs = version if version is not None else store.environment(state.environment).current_version
        return (
            ev.ResolveRequested(by=by, reason=reason, unchecked=True, version=runs),
            ev.Resolved(version=runs, unchecked=True),
        )

    return request(store, deployment, events)


def request(store: Store, deployment: str, events: Callable[[Deployment], Events | None]) -> Deployment:
    """Append what `events` makes of the present state, and of the next one if somebody else was faster."""
    while True:
        state = load(store, deployment)
        wanted = events(state)
        if wanted is None:
            return state
        try:
            return fold(store.append(Append(state, wanted)), state)
        except ConflictError:
            continue


def _no_earlier(environment: str, to: str | None, current: str | None) -> NotFoundError:
    if to is None:
        message = f"{environment} has no earlier version that was deployed successfully"
    elif to == current:
        message = f"{environment} runs {to} already"
    else:
        message = f"{to} was never deployed successfully in {environment}"
    return NotFoundError(message, code=Code.NO_EARLIER_VERSION, hint=f"surefoot history {environment}")
