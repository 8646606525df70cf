# SPDX-License-Identifier: Apache-2.0
"""What is made of a journal costs in proportion to it: twice as many hosts or entries, about twice the work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from msgspec.structs import replace

from surefoot.core import events as ev
from surefoot.core.deployment import accept, evolve, fold
from surefoot.core.plan import Direction, Plan, Playbook, Step
from surefoot.core.status import Status
from surefoot.reports.trace import spans

PLAN = Plan(project="p", environment="prod", steps=(Step("go", Playbook("go.yml")),), inventory="hosts.ini")
ACCEPTED = ev.Entry(1, 100.0, ev.Accepted("prod-1", "prod", 1, "2.0", PLAN))


class Host(str):
    """A name that counts how often it is looked for."""

    looked_for = 0
    __slots__ = ()

    def __hash__(self) -> int:
        Host.looked_for += 1
        return super().__hash__()


def lines_run(call: Callable[[], object]) -> int:
    """Return how many lines of Python a call runs."""
    count = 0

    def trace(_frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_a_raise_on_many_hosts_looks_for_each_of_them_a_few_times() -> None:
    hosts = tuple(Host(f"web-{number}") for number in range(500))
    events = (
        ev.LeaseGranted("one", 1),
        ev.FenceRaised(hosts),
        ev.StepStarted("go", Direction.FORWARD, 1),
        ev.StepSucceeded("go", Direction.FORWARD, 1),
    )
    state = fold((ev.Entry(seq, 100.0, event, "one", 1) for seq, event in enumerate(events, start=2)), accept(ACCEPTED))
    Host.looked_for = 0
    after = evolve(state, ev.Entry(6, 101.0, ev.FenceRaised((*hosts, Host("new"))), "one", 1))
    assert Host.looked_for < 10 * len(hosts)
    assert after.hosts == (*hosts, "new")
    again = evolve(after, ev.Entry(7, 102.0, ev.FenceRaised(hosts[:1]), "one", 1))
    assert (again.hosts, again.raised) == (after.hosts, hosts[:1])
    untouched = replace(state, steps=tuple(replace(run, touched=False) for run in state.steps))
    assert evolve(untouched, ev.Entry(6, 101.0, ev.FenceRaised(hosts[:1]), "one", 1)).hosts == hosts[:1]


def test_a_trace_of_many_checks_costs_as_many_times_one_check() -> None:
    def journal(checks: int) -> list[ev.Entry]:
        passed = tuple(ev.Checked(f"check {number}", "pass", "") for number in range(checks))
        events = (ev.LeaseGranted("one", 1), ev.PreflightPassed(checks=passed), ev.Finished(Status.CANCELLED))
        return [ACCEPTED, *(ev.Entry(seq, 100.0 + seq, event, "one", 1) for seq, event in enumerate(events, start=2))]

    few, many = (lines_run(partial(spans, "store", journal(checks))) for checks in (100, 800))
    assert len(spans("store", journal(800))) == 800 + 4
    assert many < 10 * few
