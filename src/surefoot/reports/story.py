# SPDX-License-Identifier: Apache-2.0
"""A deployment's story as those are told it who were not there: one sentence for each thing they will ask.

Guarantees: everything said is in the journal or the log; nothing is said to be well that the journal does not say is
well.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from surefoot.core import events as ev
from surefoot.core.deployment import Deployment, fold
from surefoot.core.errors import Failure
from surefoot.core.outbox import moment_of
from surefoot.core.plan import Direction
from surefoot.core.sentences import sentence, told
from surefoot.core.status import Status, StepStatus
from surefoot.core.targets import Moment
from surefoot.core.views import rfc3339
from surefoot.core.wording import duration


@dataclass(frozen=True)
class Story:
    """A journal, and the last lines of its log; `of` is the entry that is told now."""

    entries: tuple[ev.Entry, ...]
    of: int
    lines: tuple[str, ...] = ()  #: the log's last ones, oldest first; redacted already
    store: str = ""  #: the store's identity: two stores may have a `production-1` each

    @functools.cached_property
    def state(self) -> Deployment:
        """The deployment as it is now."""
        return fold(self.entries)

    @property
    def entry(self) -> ev.Entry:
        """The entry that is told."""
        return self.entries[self.of - 1]

    @property
    def moment(self) -> Moment:
        """What that entry means to those who are told."""
        moment = moment_of(self.entry.event, fold(self.entries[: self.of]))
        assert moment is not None, "only moments are told"
        return moment


_HEADLINES = {
    Moment.ACCEPTED: "is going to be deployed",
    Moment.WAITING: "waits for approval",
    Moment.STARTED: "is being deployed",
    Moment.ROLLING_BACK: "failed and is being put back",
    Moment.SUCCEEDED: "was deployed",
    Moment.FAILED: "was refused before anything was touched",
    Moment.ROLLED_BACK: "failed and was put back",
    Moment.CANCELLED: "was cancelled and put back",
    Moment.STRANDED: "failed and could not be put back",
    Moment.RESOLVE_REQUESTED: "is said to be repaired; that is being checked",
    Moment.RESOLVE_REFUSED: "is not repaired yet",
    Moment.RESOLVED: "was repaired",
}


def headline(state: Deployment, moment: Moment) -> str:
    """Say what happened, in a title's length."""
    project = f"{state.plan.project} " if state.plan.project else ""
    text = f"{state.environment}: {project}{state.version} {_HEADLINES[moment]}"
    where = failing(state)
    return f"{text} ({where})" if where and moment in (Moment.ROLLED_BACK, Moment.STRANDED) else text


def failing(state: Deployment) -> str:
    """Say what failed first, and where."""
    cause = state.cause or state.outcome
    if cause is None:
        return ""
    what = f"step {cause.step}" if cause.step else str(cause.code)
    return f"{what} on {cause.host}" if cause.host else what


def failures(state: Deployment) -> list[Failure]:
    """Return why it was put back, and why it ended as it did, without saying one thing twice."""
    found = [failure for failure in (state.cause, state.outcome) if failure is not None]
    return found[:1] if len(found) == 2 and found[0] == found[1] else found


def runs_now(state: Deployment) -> str:
    """Say which version the environment runs, as far as the journal knows."""
    if state.resolved is not None:
        return f"{state.environment} runs {state.resolved.version or 'no version'}."
    match state.status:
        case Status.SUCCEEDED:
            return f"{state.environment} runs {state.version}."
        case Status.STRANDED:
            return f"{state.environment} is locked: its hosts may run different versions, and no deployment starts."
        case status if status.terminal:
            return f"{state.environment} runs {state.previous_version or 'no version'}, as before."
        case _:
            return ""


def done(state: Deployment) -> list[str]:
    """Say what Surefoot did about it, in the order in which it did."""
    sentences: list[str] = []
    for run in state.runs(Direction.FORWARD):
        if run.failures:
            how_often = "once" if run.failures == 1 else f"{run.failures} times"
            sentences.append(f"tried step {run.name} {how_often} without success")
    if state.takeovers:
        sentences.append(f"another agent went on {'once' if state.takeovers == 1 else f'{state.takeovers} times'}")
    for run in state.runs(Direction.UNDO):
        match run.status:
            case StepStatus.SUCCEEDED:
                sentences.append(f"undid step {run.name}")
            case StepStatus.FAILED:
                sentences.append(f"could not undo step {run.name}: {told(run.failure) if run.failure else 'it failed'}")
            case StepStatus.SKIPPED:
                sentences.append(f"did not come to undo step {run.name}")
            case _:
                pass
    if state.direction is Direction.UNDO:
        if state.healthy:
            sentences.append("checked the health of what was put back: it is healthy")
        if state.recorded:
            sentences.append(f"asked every host for its version: all run {state.previous_version or 'none'}")
    if state.status is Status.STRANDED:
        sentences.append("locked the environment" + (", and opened it again" if state.resolved else ""))
    if not state.touched:
        sentences.append("touched no host")
    return sentences


def next_steps(state: Deployment) -> list[str]:
    """Return what a person does next: sentences, each with its command behind a colon."""
    look = [f"see what was printed: surefoot logs {state.id}", f"see the whole journal: surefoot events {state.id}"]
    if state.resolved is not None:
        return [f"write down what was learned: surefoot report postmortem {state.id}"]
    match state.status:
        case Status.STRANDED:
            advice = f" ({state.outcome.hint})" if state.outcome is not None and state.outcome.hint else ""
            return [
                *look,
                f"bring every host to one version by hand{advice}",
                f"open the environment again: surefoot resolve {state.id} --reason TEXT",
            ]
        case Status.ROLLED_BACK | Status.FAILED:
            cause = state.cause or state.outcome
            hint = [cause.hint] if cause is not None and cause.hint else []
            return [*look, *hint, f"deploy the repaired version: surefoot deploy {state.environment} VERSION"]
        case _:
            return look


def timeline(entries: Sequence[ev.Entry]) -> list[tuple[str, str, str]]:
    """Return when (UTC), how long after the first entry, and what."""
    start = entries[0].at
    return [
        ((rfc3339(entry.at) or "")[:19].replace("T", " "), f"+{duration(entry.at - start)}", sentence(entry))
        for entry in entries
        if not isinstance(entry.event, ev.Delivered | ev.DeliveryFailed)
    ]


def agents(entries: Sequence[ev.Entry]) -> list[str]:
    """Return the agents that ran it, in their order, each with why it was chosen."""
    return [
        e.agent + (f" ({'; '.join(e.reasons)})" if e.reasons else "")
        for e in (entry.event for entry in entries)
        if isinstance(e, ev.LeaseGranted)
    ]


def final(state: Deployment) -> Moment:
    """Return the newest moment of a deployment that counts in hindsight."""
    if state.resolved is not None:
        return Moment.RESOLVED
    if state.status.terminal:
        return Moment(state.status)
    if state.status is Status.ROLLING_BACK:
        return Moment.ROLLING_BACK
    return Moment.STARTED if state.grants else Moment.ACCEPTED
