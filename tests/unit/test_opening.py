# SPDX-License-Identifier: Apache-2.0
"""What people are told of gates: what is missing, who may do what, and what speaks against a promotion."""

from __future__ import annotations

import pytest
from msgspec import structs

from surefoot.core import events as ev
from surefoot.core import opening, people
from surefoot.core.deployment import Deployment
from surefoot.core.environment import Freeze
from surefoot.core.errors import Code, Failure, NotAllowedError, RefusedError
from surefoot.core.gates import Approvals, Gates, Promoted, PromoteFrom, Window
from surefoot.core.status import Status
from surefoot.core.summary import Summary, summarise
from tests.support.journals import add, deployment

DAY = 86_400.0
APPROVALS = Approvals(required=2, groups={"sre": ("ann", "bob"), "ops": ("cyn",)}, expires=60.0)
ANYONE = Approvals(groups={"everyone": None})


@pytest.mark.parametrize(
    ("gate", "given", "told"),
    [
        (APPROVALS, (), "2 approvals from sre or ops needed"),
        (APPROVALS, ("ann",), "2 approvals from sre or ops needed, 1 given"),
        (Approvals(), (), "1 approval needed"),
    ],
)
def test_it_is_told_how_many_have_to_agree_and_how_many_have(
    gate: Approvals, given: tuple[str, ...], told: str
) -> None:
    state = add(deployment(Gates(approvals=gate)), 1.0, *(ev.ApprovalGiven(by, "", ("sre",)) for by in given))
    assert [wait.message for wait in opening.closed(state, None, 2.0)] == [told]
    (_, end) = opening.too_late(state, gate.expires)
    assert isinstance(end, ev.Finished) and end.reason is not None
    more = "no more" if given else "none"
    assert end.reason.message.startswith(f"{told}; {more} came within ")
    assert opening.too_late(state, gate.expires - 1) == ()


@pytest.mark.parametrize(
    ("gates", "more", "none"),
    [
        (Gates(), {}, True),
        (Gates(), {"not_before": 9.0}, False),
        (Gates(windows=(Window(),)), {}, False),
        (Gates(latest=True), {}, False),
        (Gates(approvals=ANYONE), {}, False),
        (Gates(approvals=ANYONE), {"rollback": True}, True),
    ],
)
def test_where_nothing_but_a_freeze_can_keep_it_from_beginning(
    gates: Gates, more: dict[str, object], none: bool
) -> None:
    assert opening.gateless(deployment(gates, **more)) is none


@pytest.mark.parametrize(
    ("freeze", "told"),
    [
        (Freeze("ann", "fair", 0.0), "prod is frozen by ann: fair"),
        (Freeze("", "fair", 0.0), "prod is frozen by someone: fair"),
        (Freeze("ann", "fair", 0.0, until=0.0), "prod is frozen until 1970-01-01"),
    ],
)
def test_a_freeze_tells_by_whom_and_until_when(freeze: Freeze, told: str) -> None:
    assert opening.frozen("prod", freeze).startswith(told)


def test_a_freeze_is_over_at_its_very_end() -> None:
    freeze = Freeze("ann", "fair", 0.0, until=9.0)
    assert freeze.in_force(8.9) and not freeze.in_force(9.0) and Freeze("ann", "fair", 0.0).in_force(1e9)


def test_who_begins_anew_what_has_begun_meets_no_gate() -> None:
    state = add(deployment(Gates()), 1.0, ev.LeaseGranted("a", 1))
    newer = structs.replace(summarise(deployment(Gates())), id="prod-2")
    plan = structs.replace(state.plan, gates=Gates(approvals=APPROVALS, latest=True))
    begun = structs.replace(state, plan=plan)
    assert opening.begin(begun, Freeze("ann", "x", 0.0), 1e9, [newer]) == opening.Begin()
    assert opening.closed(begun, Freeze("ann", "x", 0.0), 1e9) == ()


WAITS = deployment(Gates(approvals=ANYONE))
REJECTED = add(WAITS, 1.0, *opening.rejection(WAITS, "ann", "no"))
APPROVED = add(WAITS, 1.0, ev.ApprovalGiven("ann", "", ("everyone",)))
BEGUN = add(deployment(Gates()), 1.0, ev.LeaseGranted("a", 1))
ENDED = add(BEGUN, 1.0, ev.Finished(Status.SUCCEEDED))
WITHDRAWN = add(WAITS, 1.0, ev.Finished(Status.CANCELLED, Failure(Code.CANCELLED, "by bob")))


@pytest.mark.parametrize(
    ("state", "why", "hint"),
    [
        (deployment(Gates()), "prod-1 needs no approval (queued)", "surefoot cancel prod-1"),
        (BEGUN, "prod-1 has begun (running)", "surefoot cancel prod-1"),
        (ENDED, "prod-1 has ended (succeeded)", "surefoot show prod-1"),
        (WITHDRAWN, "prod-1 has ended (cancelled)", "surefoot show prod-1"),
    ],
)
def test_what_can_not_be_rejected_says_why(state: Deployment, why: str, hint: str) -> None:
    with pytest.raises(NotAllowedError) as refused:
        opening.rejection(state, "bob", "no")
    assert (str(refused.value), refused.value.hint) == (why, hint)


def test_a_rejection_is_the_end_and_there_is_one() -> None:
    assert REJECTED.status is Status.FAILED and opening.rejection(REJECTED, "bob", "no") == ()
    assert opening.rejection(WAITS, "eve", "a slip"), "whoever has asked for it may"
    with pytest.raises(NotAllowedError):
        opening.rejection(deployment(Gates(approvals=APPROVALS)), "dan", "no")


@pytest.mark.parametrize(
    ("state", "why"),
    [(APPROVED, "prod-1 has all its approvals"), (deployment(Gates()), "prod-1 waits for no approval (queued)")],
)
def test_what_needs_no_more_approval_says_so(state: Deployment, why: str) -> None:
    with pytest.raises(NotAllowedError) as refused:
        opening.approval(state, "bob", "")
    assert str(refused.value) == why


def test_who_is_in_no_group_may_approve_only_where_there_are_none() -> None:
    with pytest.raises(NotAllowedError):
        opening.approval(deployment(Gates(approvals=APPROVALS)), "dan", "")
    assert opening.approval(deployment(Gates(approvals=Approvals())), "dan", "fine") == (
        ev.ApprovalGiven("dan", "fine", ()),
    )


@pytest.mark.parametrize(
    ("identity", "member", "listed"),
    [
        ("ann", "ann", True),
        ("ann@laptop", "ann", True),
        ("ann@laptop", "ann@laptop", True),
        ("ann@laptop", "ann@desk", False),
        ("ann", "ann@desk", False),
        ("bob", "ann", False),
        ("ann\uff20desk", "ann", True),
        ("ann\uff20desk@laptop", "ann@desk", False),
    ],
)
def test_who_is_listed_with_a_machine_counts_on_that_machine(identity: str, member: str, listed: bool) -> None:
    assert people.is_member(identity, [member]) is listed


def test_a_person_is_the_same_on_each_machine_however_the_sign_before_it_is_written() -> None:
    assert people.same_person("Ann\uff20desk", "ann@laptop") and not people.same_person("ann@laptop", "bob@laptop")


# -- promotion -------------------------------------------------------------------------------------------------------

GATE = PromoteFrom("stage", within=DAY, after=3600.0)
STAGED = structs.replace(summarise(ENDED), environment="stage", id="stage-1", finished_at=0.0)


def promoted(now: float, *since: Summary, gate: PromoteFrom = GATE, found: Summary | None = STAGED) -> Promoted:
    return opening.promotion(gate, "prod", "1.0", found, since, now=now)


@pytest.mark.parametrize(
    ("now", "gate", "found", "why"),
    [
        (3600.0, GATE, STAGED, ""),
        (DAY, GATE, STAGED, ""),
        (9 * DAY, PromoteFrom("stage"), STAGED, ""),
        (0.0, PromoteFrom("stage"), STAGED, ""),
        (3000.0, GATE, STAGED, "it has to run there for 1 h first"),
        (DAY + 1, GATE, STAGED, "at most 24 h count"),
        (DAY, GATE, None, "has not succeeded in stage yet"),
        (DAY, GATE, structs.replace(STAGED, finished_at=None), "has not succeeded in stage yet"),
    ],
)
def test_evidence_counts_from_a_time_on_and_up_to_one(
    now: float, gate: PromoteFrom, found: Summary | None, why: str
) -> None:
    if not why:
        evidence = promoted(now, gate=gate, found=found)
        assert (evidence.environment, evidence.deployment, evidence.finished_at) == ("stage", "stage-1", 0.0)
        return
    with pytest.raises(RefusedError) as refused:
        promoted(now, gate=gate, found=found)
    assert why in str(refused.value) and refused.value.code is Code.NOT_PROMOTED and refused.value.hint
    assert "first" not in why or refused.value.hint == "deploy it again in 10 min"


def later(version: str, status: Status, **more: object) -> Summary:
    return structs.replace(STAGED, id="stage-2", version=version, status=status, requested_by="bob", **more)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (later("1.0", Status.ROLLED_BACK), "failed there when it was deployed again (stage-2)"),
        (later("1.0", Status.STRANDED), "failed there when it was deployed again (stage-2)"),
        (later("1.0", Status.CANCELLED), ""),
        (later("2.0", Status.ROLLED_BACK), ""),
        (
            later("0.9", Status.SUCCEEDED, rollback=True, previous_version="1.0"),
            "was then taken back there by bob (stage-2)",
        ),
        (later("0.9", Status.SUCCEEDED, previous_version="1.0"), ""),
        (later("0.9", Status.SUCCEEDED, rollback=True, previous_version="0.8"), ""),
        (later("0.9", Status.RUNNING, rollback=True, previous_version="1.0"), ""),
    ],
)
def test_what_came_there_later_may_speak_against_it(other: Summary, why: str) -> None:
    if not why:
        assert promoted(DAY, other).deployment == "stage-1"
        return
    with pytest.raises(RefusedError, match="succeeded in stage") as refused:
        promoted(DAY, other)
    assert str(refused.value).endswith(why)
