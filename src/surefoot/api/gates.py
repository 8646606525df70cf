# SPDX-License-Identifier: Apache-2.0
"""The verbs of gates: approve, reject, freeze, unfreeze; and what a submission has to show to come through.

Guarantees what `requests` does: each is one append, made once; what changes nothing any more is no error.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, takewhile
from typing import TypeVar

from surefoot.api.history import pages
from surefoot.api.requests import AGAIN, SUBMIT_TRIES, Events, request
from surefoot.core import opening
from surefoot.core.deployment import Deployment
from surefoot.core.environment import Deed, EnvironmentEntry, Freeze, Frozen, Unfrozen
from surefoot.core.errors import Code, NotAllowedError, RefusedError, StoreError
from surefoot.core.gates import Wait
from surefoot.core.summary import Summary
from surefoot.store import rules
from surefoot.store.protocol import EnvironmentRow, Store, Submission

T = TypeVar("T")


def approve(store: Store, deployment: str, *, by: str, reason: str = "") -> Deployment:
    """Agree to a deployment. NotAllowedError if this person may not, or none is needed (any more)."""
    state = request(store, deployment, lambda s: _in_time(store, s) or opening.approval(s, by, reason) or None)
    return _not_too_late(state)


def reject(store: Store, deployment: str, *, by: str, reason: str) -> Deployment:
    """Refuse a deployment for good, before anything of it has begun."""
    state = request(store, deployment, lambda s: _in_time(store, s) or opening.rejection(s, by, reason) or None)
    return _not_too_late(state)


def _in_time(store: Store, state: Deployment) -> Events:
    """Return the end of a deployment for which it is too late, where no agent has looked yet."""
    return opening.too_late(state, store.now())


def _not_too_late(state: Deployment) -> Deployment:
    if state.outcome is not None and state.outcome.code is Code.APPROVAL_EXPIRED:
        raise NotAllowedError(f"{state.id}: {state.outcome.message}", hint=state.outcome.hint)
    return state


def freeze(store: Store, environment: str, *, by: str, reason: str, until: float | None = None) -> EnvironmentEntry:
    """Let nothing start in an environment, until a time or until `unfreeze`."""
    return _noted(store, environment, Frozen(by, reason, until))


def unfreeze(store: Store, environment: str, *, by: str, reason: str = "") -> Freeze | None:
    """Let deployments start again; return the freeze that was in force, None if there was none."""
    before = store.environment(environment).freeze
    if before is not None:
        _noted(store, environment, Unfrozen(by, reason))
    return before


def _noted(store: Store, environment: str, event: Deed) -> EnvironmentEntry:
    """Write it once, though the answer may be lost."""
    name = uuid.uuid4().hex
    return _insist(lambda: store.note(environment, event, name))


def _insist(call: Callable[[], T]) -> T:
    for _ in range(SUBMIT_TRIES - 1):
        try:
            return call()
        except StoreError as error:
            if error.code is not Code.STORE_UNREACHABLE:
                raise
            time.sleep(AGAIN)
    return call()


def promoted(store: Store, submission: Submission) -> Submission:
    """Return the submission with the evidence that its version may come here. RefusedError if there is none.

    Going back needs none: the version has succeeded here before.
    """
    gate = submission.plan.gates.promote_from
    if gate is None or submission.rollback:
        return submission
    found = store.find_version(gate.environment, submission.version)
    since = _since(store, found) if found is not None else ()
    evidence = opening.promotion(gate, submission.environment, submission.version, found, since, now=store.now())
    return replace(submission, promoted=evidence)


def _since(store: Store, found: Summary) -> list[Summary]:
    """Return the deployments of an environment that came after one, newest first."""
    newest_first = chain.from_iterable(pages(store, found.environment))
    return list(takewhile(lambda summary: summary.number > found.number, newest_first))


def foreseen(store: Store, submission: Submission) -> tuple[tuple[Wait, ...], RefusedError | None]:
    """Return what a submission would wait for now, and why it would be refused, if it would be. Changes nothing."""
    row, now = store.environment(submission.environment), store.now()
    if row.locked_by is not None:
        return (), rules.refuse_locked(submission.environment, row.locked_by)
    try:
        promoted(store, submission)
    except RefusedError as refused:
        return (), refused
    _, state = rules.accepted(replace(submission, when_open=True), 1, now, row.freeze)
    refused_by = None if submission.when_open else opening.refusal(state.waits, submission.environment)
    return state.waits, refused_by


def waits_for(state: Deployment, row: EnvironmentRow, now: float) -> tuple[Wait, ...]:
    """Return what keeps a deployment from beginning at this instant, but for those before it."""
    return opening.closed(state, row.freeze, now)
