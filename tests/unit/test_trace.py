# SPDX-License-Identifier: Apache-2.0
"""Spans are what the journal says, whoever derives them."""

from __future__ import annotations

from surefoot.core import events as ev
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Command, Direction, Plan, Step
from surefoot.core.status import Status
from surefoot.reports.trace import Span, ended_at, spans, trace_id

PLAN = Plan(project="p", environment="prod", steps=(Step("go", Command("true")),))
FORWARD, UNDO = Direction.FORWARD, Direction.UNDO
BROKE = Failure(Code.STEP_FAILED, "it broke", step="go")


def journal(*events: tuple[float, str | None, int | None, ev.Event]) -> list[ev.Entry]:
    accepted = ev.Accepted("prod-1", "prod", 1, "2.0", PLAN, requested_by="ann")
    rest = [ev.Entry(seq, at, event, agent, token) for seq, (at, agent, token, event) in enumerate(events, start=2)]
    return [ev.Entry(1, 100.0, accepted), *rest]


#: `one` is lost in the first attempt, `two` fails in the second, and puts it back.
TAKEN_OVER = journal(
    (110.0, "one", 1, ev.LeaseGranted("one", 1)),
    (113.0, "one", 1, ev.PreflightPassed(checks=(ev.Checked("disk", "pass", "", duration_seconds=1.0, host="web-1"),))),
    (114.0, "one", 1, ev.StepStarted("go", FORWARD, 1)),
    (130.0, "two", 2, ev.LeaseGranted("two", 2, taken_from="one", waited_seconds=5.0)),
    (131.0, "two", 2, ev.StepStarted("go", FORWARD, 2)),
    (132.0, "two", 2, ev.FenceRaised(("web-1", "web-2"))),
    (
        140.0, "two", 2,
        ev.StepFailed("go", FORWARD, 2, BROKE, (ev.HostRun("web-2", 2, 6, failed=True), ev.HostRun("web-1", 2, 3))),
    ),
    (141.0, "two", 2, ev.UndoStarted(BROKE)),
    (142.0, "two", 2, ev.StepStarted("go", UNDO, 1)),
    (145.0, "two", 2, ev.StepSucceeded("go", UNDO, 1)),
    (147.0, "two", 2, ev.HealthPassed(UNDO, 3)),
    (148.0, "two", 2, ev.Finished(Status.ROLLED_BACK, BROKE)),
)  # fmt: skip


def tree(found: list[Span]) -> list[tuple[int, str, float, float, str | None]]:
    depths: dict[int | None, int] = {None: -1}
    rows = []
    for span in found:
        depths[span.id] = depths[span.parent] + 1
        rows.append((depths[span.id], span.name, span.begun, span.ended, span.agent))
    return rows


def test_a_span_for_each_agent_attempt_and_host_also_after_a_takeover() -> None:
    assert tree(spans("store", TAKEN_OVER)) == [
        (0, "deploy prod", 100.0, 148.0, None),
        (1, "queue", 100.0, 110.0, None),
        (1, "agent", 110.0, 130.0, "one"),
        (2, "preflight", 110.0, 113.0, "one"),
        (3, "check disk", 110.0, 111.0, "one"),
        (2, "step go", 114.0, 130.0, "one"),
        (1, "agent", 130.0, 148.0, "two"),
        (2, "step go", 131.0, 140.0, "two"),
        (3, "fence", 131.0, 132.0, "two"),
        (3, "host web-1", 133.0, 136.0, "two"),
        (3, "host web-2", 133.0, 139.0, "two"),
        (2, "undo go", 142.0, 145.0, "two"),
        (2, "health", 145.0, 147.0, "two"),
    ]


def test_what_failed_and_what_was_lost_is_an_error() -> None:
    found = spans("store", TAKEN_OVER)
    errors = [(span.name, span.agent, span.error) for span in found if span.error]
    assert errors == [
        ("deploy prod", None, "it broke"),
        ("agent", "one", "two has taken over"),
        ("step go", "one", "two has taken over"),
        ("step go", "two", "it broke"),
        ("host web-2", "two", "failed there"),
    ]
    root = found[0]
    assert root.attributes["error.type"] == "SF-STEP-FAILED" and root.attributes["cicd.pipeline.result"] == "failure"
    assert root.attributes["surefoot.takeovers"] == 1
    assert [name for _, name, _ in root.moments] == ["lease_granted", "undo_started"]


def test_ids_are_the_same_for_whoever_derives_them_and_of_no_other_store_or_deployment() -> None:
    whole = spans("store", TAKEN_OVER)
    seen_earlier = spans("store", TAKEN_OVER[:9])
    assert len({span.id for span in whole}) == len(whole)
    assert {span.id for span in seen_earlier} <= {span.id for span in whole}
    assert not {span.id for span in spans("other", TAKEN_OVER)} & {span.id for span in whole}
    assert trace_id("store", "prod-1") == trace_id("store", "prod-1") != trace_id("store", "prod-2")
    assert 0 < trace_id("store", "prod-1") < 1 << 128 and all(0 < span.id < 1 << 64 for span in whole)


def test_a_repair_adds_its_own_spans_and_repeats_none() -> None:
    stranded = journal(
        (110.0, "one", 1, ev.LeaseGranted("one", 1)),
        (120.0, "one", 1, ev.Finished(Status.STRANDED, BROKE)),
        (500.0, None, None, ev.ResolveRequested("ann", "repaired")),
        (510.0, "two", 2, ev.LeaseGranted("two", 2)),
        (520.0, "two", 2, ev.Resolved("1.0")),
    )
    before = spans("store", stranded[:3])
    behind = spans("store", stranded, after=ended_at(stranded))
    assert [(span.name, span.begun) for span in behind] == [("resolve", 500.0), ("agent", 510.0)]
    assert {span.ended for span in behind} == {520.0}
    assert not {span.id for span in behind} & {span.id for span in before}
    assert {span.parent for span in behind} == {before[0].id}
