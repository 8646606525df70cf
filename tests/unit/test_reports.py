# SPDX-License-Identifier: Apache-2.0
"""Figures and pages are what the journal says, by hand-made journals whose figures are known."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from surefoot.core import events as ev
from surefoot.core.deployment import fold
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Command, Plan, Step
from surefoot.core.status import Status
from surefoot.core.summary import summarise
from surefoot.reports import levels, plot, postmortem
from surefoot.reports.levels import Ended, quantile
from surefoot.reports.story import Story
from surefoot.store.memory import MemoryStore
from tests.integrations import telling as t

PLAN = Plan(project="p", environment="prod", steps=(Step("go", Command("true")),))
BROKE = Failure(Code.STEP_FAILED, "it broke", step="go")
DAY = 86400.0


def ended(
    number: int,
    status: Status,
    *,
    start: float,
    took: float,
    rollback: bool = False,
    commits: tuple[float, ...] = (),
    resolved_after: float | None = None,
) -> Ended:
    """One that was asked for at `start`, started 10 s later, and (if it failed) was put back in its last 5 s."""
    origin = ev.Origin(changes=tuple(ev.Change("c", "a", "s", at) for at in commits))
    end = start + 10 + took
    entries = [
        ev.Entry(1, start, ev.Accepted(f"prod-{number}", "prod", number, "1", PLAN, rollback=rollback, origin=origin)),
        ev.Entry(2, start + 10, ev.LeaseGranted("a", 1)),
    ]
    if status in (Status.ROLLED_BACK, Status.STRANDED):
        entries.append(ev.Entry(3, end - 5, ev.UndoStarted(BROKE)))
    entries.append(ev.Entry(len(entries) + 1, end, ev.Finished(status, None if status is Status.SUCCEEDED else BROKE)))
    if resolved_after is not None:
        entries.append(ev.Entry(len(entries) + 1, end, ev.ResolveRequested("me", "done", unchecked=True)))
        entries.append(ev.Entry(len(entries) + 1, end + resolved_after, ev.Resolved("1", unchecked=True)))
    return Ended(summarise(fold(entries)), tuple(entries))


MONTH = [
    ended(1, Status.SUCCEEDED, start=-40 * DAY, took=5),  # before the window
    ended(2, Status.SUCCEEDED, start=0, took=60, commits=(-3600.0, -1800.0)),
    ended(3, Status.SUCCEEDED, start=DAY, took=120),
    ended(4, Status.ROLLED_BACK, start=2 * DAY, took=100),
    ended(5, Status.FAILED, start=3 * DAY, took=1),
    ended(6, Status.CANCELLED, start=4 * DAY, took=1),
    ended(7, Status.STRANDED, start=5 * DAY, took=50, resolved_after=300),
    ended(8, Status.SUCCEEDED, start=6 * DAY, took=240),
    ended(9, Status.SUCCEEDED, start=7 * DAY, took=20, rollback=True),
]


def test_service_levels_are_those_of_the_journals() -> None:
    found = levels.service_levels([one.summary for one in MONTH], since=-20 * DAY, until=10 * DAY)
    assert found["counted"] == 6
    assert found["success_rate"] == pytest.approx(4 / 6)
    assert found["deployments"] == {"succeeded": 4, "failed": 1, "rolled_back": 1, "cancelled": 1, "stranded": 1}
    assert found["error_budget"]["allowed_failures"] == pytest.approx(0.3)
    assert found["error_budget"]["left"] == pytest.approx(1 - 2 / 0.3)
    assert found["median_duration_seconds"] == 90
    assert found["p95_duration_seconds"] == 240
    assert not found["met"]
    json.dumps(found)


def test_nothing_deployed_is_no_broken_promise() -> None:
    found = levels.service_levels([], since=0, until=1)
    assert (found["met"], found["success_rate"], found["error_budget"]["left"]) == (True, None, None)
    assert levels.dora([], since=0, until=1)["change_failure_rate"] is None


def test_an_objective_without_a_budget_is_used_up_by_the_first_failure() -> None:
    found = levels.service_levels([MONTH[3].summary], since=0, until=10 * DAY, objective=1.0)
    assert found["error_budget"]["left"] == 0.0


def test_dora_is_that_of_the_journals() -> None:
    found = levels.dora(MONTH, since=-20 * DAY, until=10 * DAY)
    assert found["deployments"] == 3
    assert found["deployments_per_day"] == pytest.approx(3 / 30)
    # 70 s after the request, of commits one hour and half an hour before it; the other two name no commits.
    assert sorted([3670, 1870, 130, 250])[1:3] == [250, 1870]
    assert found["lead_time_seconds"] == (250 + 1870) / 2
    assert found["change_failure_rate"] == pytest.approx(3 / 5)
    assert found["time_to_restore_seconds"] == 30  # of 5, 30 and 305: put back, taken back by hand, repaired


def drawn(series: list[plot.Series]) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(plot.svg(series)).iter())


def of(found: list[ElementTree.Element], kind: str) -> list[ElementTree.Element]:
    return [element for element in found if element.get("class") == kind]


def test_the_picture_of_service_levels_ends_at_the_figures() -> None:
    summaries = [one.summary for one in MONTH]
    series = plot.Series("prod", summaries, -20 * DAY, 10 * DAY, 0.95, 600.0)
    found = drawn([series])
    (rates,) = of(found, "rate")
    x, y = map(float, rates.attrib["points"].split()[-1].split(","))
    top, floor = plot.HEAD, 0.5  # the lowest rate on the way is 2 of 4
    assert x == plot.WIDTH - plot.RIGHT
    assert (y - top) / plot.HEIGHT == pytest.approx((1 - 4 / 6) / (1 - floor), abs=0.001)
    assert len(of(found, "failure")) == 2
    tallest = max(float(bar.attrib["height"]) for bar in of(found, "bar"))
    assert tallest == pytest.approx(plot.HEIGHT * 240 / 300, abs=0.1), "the day of the slowest success, of 300 s"
    assert len(of(found, "objective")) == 1, "ten minutes are above all that was seen"


def test_a_picture_of_nothing_and_of_strange_names_is_well_formed() -> None:
    found = drawn([plot.Series(name, [], 0, 30 * DAY, 0.95, 600.0) for name in ("a<b>&'\"", "empty")])
    assert [element.text for element in of(found, "title")] == ["a<b>&'\"", "empty"]
    assert not of(found, "rate") and len(of(found, "bar")) == 0
    assert plot.svg([]).startswith("<svg")


def test_a_picture_of_a_long_history_stays_small() -> None:
    one = MONTH[0].summary
    many = [replace(one, started_at=n * 1000.0, finished_at=n * 1000.0 + n % 90) for n in range(100_000)]
    assert len(plot.svg([plot.Series("prod", many, 0, 1e8, 0.95, 600.0)])) < 60_000


def test_quantiles() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.5) == 1.5
    assert quantile([float(n) for n in range(1, 101)], 0.95) == 95.0
    assert quantile([7.0], 0.95) == 7.0


def test_a_postmortem_has_the_timeline_and_the_questions() -> None:
    store = MemoryStore()
    deployment = t.broken(store, end=Status.STRANDED)
    t.resolved(store, deployment)
    entries = tuple(store.journal(deployment))
    story = Story(entries, len(entries), ("line",), "s")
    page, facts = postmortem.markdown(story), postmortem.facts(story)
    for needed in ("# Post-mortem", "step activate", "restored again", "web-1 answers 500", *postmortem.QUESTIONS):
        assert needed in page, needed
    assert len(facts["timeline"]) == len(entries)
    assert facts["time_to_restore_seconds"] is not None
    assert [failure["code"] for failure in facts["failures"]] == ["SF-STEP-FAILED", "SF-UNDO-FAILED"]
    json.dumps(facts)
