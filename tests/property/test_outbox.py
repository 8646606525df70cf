# SPDX-License-Identifier: Apache-2.0
"""What is to be told to whom: each moment of a story once, and to whoever asked for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from surefoot.core import events as ev
from surefoot.core.deployment import fold
from surefoot.core.errors import Code, Failure
from surefoot.core.gates import Approvals, Gate, Gates, Wait
from surefoot.core.outbox import Due, changes, moment_of, target_named
from surefoot.core.plan import Command, Direction, Plan, Step
from surefoot.core.status import Status
from surefoot.core.targets import AFTERMATH, TOLD_AS_STATUS, GitHubAccess, GitHubIssue, GitHubStatus, Moment, Webhook

REPOSITORY = GitHubAccess("us/app")
TARGETS = (
    Webhook("all", "http://localhost", on=tuple(Moment)),
    GitHubIssue("stranded", REPOSITORY, on=(Moment.STRANDED,)),
    GitHubIssue("failed", REPOSITORY, on=(Moment.FAILED,)),
    GitHubStatus("status", REPOSITORY),
)
WHY = Failure(Code.STEP_FAILED, "no")
#: A story, and what each of its entries means to who is told.
STORY: tuple[tuple[ev.Event, Moment | None], ...] = (
    (
        ev.Accepted(
            "prod-1",
            "prod",
            1,
            "1.0",
            Plan(
                project="p",
                environment="prod",
                steps=(Step("go", Command("true"), undo=Command("true")),),
                gates=Gates(approvals=Approvals(groups={"sre": None})),
                targets=TARGETS,
            ),
            requested_by="eve",
        ),
        Moment.ACCEPTED,
    ),
    (ev.Waiting((Wait(Gate.WINDOW, "closed"),)), None),
    (ev.Waiting((Wait(Gate.WINDOW, "closed"), Wait(Gate.APPROVAL, "nobody agreed"))), Moment.WAITING),
    (ev.ApprovalGiven("ann", groups=("sre",)), None),
    (ev.LeaseGranted("a", 1), Moment.STARTED),
    (ev.FenceRaised(("web",)), None),
    (ev.StepStarted("go", Direction.FORWARD, 1), None),
    (ev.LeaseGranted("b", 2), None),
    (ev.FenceRaised(("web",)), None),
    (ev.UndoStarted(WHY), Moment.ROLLING_BACK),
    (ev.Finished(Status.STRANDED, WHY), Moment.STRANDED),
    (ev.ResolveRequested("ann", "by hand"), Moment.RESOLVE_REQUESTED),
    (ev.LeaseGranted("a", 3), None),
    (ev.ResolveRefused(WHY), Moment.RESOLVE_REFUSED),
    (ev.ResolveRequested("ann", "by hand", unchecked=True), None),
    (ev.Resolved("1.0", unchecked=True), Moment.RESOLVED),
)
JOURNAL = [ev.Entry(seq, float(seq), event, token=1) for seq, (event, _) in enumerate(STORY, 1)]


def due(target: str) -> list[Moment]:
    """Return what one target is told in the story."""
    return [STORY[told.of - 1][1] for told in changes(JOURNAL).added if told.target == target]  # type: ignore[misc]


def test_each_moment_is_told_once_to_who_asked_for_it() -> None:
    moments = [moment for _, moment in STORY if moment is not None]
    assert due("all") == moments
    assert due("status") == [moment for moment in moments if moment in TOLD_AS_STATUS]
    assert due("stranded") == [moment for moment in moments if moment is Moment.STRANDED or moment in AFTERMATH]
    assert due("failed") == [], "what follows on an end belongs to who was told of that end"
    meant = [moment_of(entry.event, fold(JOURNAL[: entry.seq])) for entry in JOURNAL]
    assert meant == [moment for _, moment in STORY]


@given(st.integers(1, len(JOURNAL) - 1))
def test_it_is_the_same_whichever_way_a_journal_is_appended(cut: int) -> None:
    whole, head = changes(JOURNAL), changes(JOURNAL[:cut])
    tail = changes(JOURNAL[cut:], fold(JOURNAL[:cut]))
    assert whole.added == head.added + tail.added
    assert not whole.settled


def test_what_was_told_or_given_up_is_settled_and_a_first_failure_is_not() -> None:
    last = len(JOURNAL)
    answers = (
        ev.Delivered("all", 1, "posted"),
        ev.DeliveryFailed("status", 1, WHY),
        ev.DeliveryFailed("stranded", 11, WHY, given_up=True),
    )
    entries = [ev.Entry(last + place, float(last + place), event) for place, event in enumerate(answers, 1)]
    found = changes(entries, fold(JOURNAL))
    assert found.settled == (Due(1, "all"), Due(11, "stranded")) and not found.added


def test_a_target_is_found_by_its_name() -> None:
    state = fold(JOURNAL)
    assert [target_named(state, target.name) for target in TARGETS] == list(TARGETS)
    assert target_named(state, "nobody") is None
