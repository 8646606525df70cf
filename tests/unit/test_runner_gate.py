# SPDX-License-Identifier: Apache-2.0
"""When an agent's machine is not fit, and to whom it gives way."""

from __future__ import annotations

from pathlib import Path

import pytest

from surefoot.agent.machine import Average, Limits, exceeded, vitals_of
from surefoot.agent.runner_gate import verdict
from surefoot.core.lease import AgentStatus, Candidate, Role, choose, gives_way

ONLINE, DEGRADED, DRAINING, OFFLINE = (
    AgentStatus.ONLINE,
    AgentStatus.DEGRADED,
    AgentStatus.DRAINING,
    AgentStatus.OFFLINE,
)


def agent(name: str, status: AgentStatus, role: Role = Role.SECONDARY, running: str | None = None) -> Candidate:
    return Candidate(name, role, status, 0, running, "memory 96 % > 90 %" if status is DEGRADED else "")


def test_nobody_gives_way_to_an_emergency_agent_that_may_not_take_it() -> None:
    me = agent("a", DRAINING, Role.PRIMARY, "prod-1")
    busy, emergency = agent("b", ONLINE, running="other-1"), agent("c", ONLINE, Role.EMERGENCY)
    assert not choose("c", [me, busy, emergency], deployment="prod-1").eligible
    assert gives_way("a", [me, busy, emergency]) is None
    assert gives_way("a", [me, emergency]) is not None


@pytest.mark.parametrize(
    ("mine", "other", "gives"),
    [
        (ONLINE, agent("b", ONLINE), False),
        (DEGRADED, agent("b", ONLINE), True),
        (DEGRADED, agent("b", ONLINE, running="x-1"), False),
        (DEGRADED, agent("b", DEGRADED), False),
        (DEGRADED, agent("b", OFFLINE), False),
        (DEGRADED, agent("b", DRAINING), False),
        (DEGRADED, agent("b", ONLINE, Role.EMERGENCY), False),
        (DRAINING, agent("b", ONLINE), True),
        (DRAINING, agent("b", DEGRADED), True),
        (DRAINING, agent("b", ONLINE, Role.EMERGENCY), True),
        (DRAINING, agent("b", ONLINE, running="x-1"), False),
        (DRAINING, agent("b", OFFLINE), False),
    ],
)
def test_who_gives_way_to_whom(mine: AgentStatus, other: Candidate, gives: bool) -> None:
    me = agent("a", mine, Role.PRIMARY, "prod-1")
    why = gives_way("a", [me, other])
    assert (why is not None) == gives
    assert why is None or (why.startswith("a ") and why.endswith("; b can take it"))
    assert gives_way("a", [me]) is None, "whoever is alone goes on"
    assert gives_way("a", [other]) is None


def test_it_is_said_what_is_above_which_limit() -> None:
    assert exceeded((("memory", 96.0, 90.0), ("disk", 90.0, 90.0), ("cpu", 99.0, None))) == ["memory 96 % > 90 %"]


def test_a_busy_moment_of_the_cpu_is_no_reason_and_a_busy_minute_is() -> None:
    average = Average(30.0)
    assert average.after(10.0, 0.0) == 10.0
    assert average.after(100.0, 1.0) < 15.0
    for second in range(2, 90):
        mean = average.after(100.0, float(second))
    assert mean > 90.0
    assert average.after(100.0, 5.0) <= 100.0, "a clock that goes back does no harm"


def test_the_machine_is_judged_by_the_limits_that_are_given(tmp_path: Path) -> None:
    found = vitals_of(tmp_path, Limits(memory=0.01, disk=100.0), lambda: "runner_status is 0")()
    assert found.degraded.startswith("memory ") and found.degraded.endswith("% > 0 %, runner_status is 0")
    assert vitals_of(tmp_path, Limits(memory=100.0, disk=100.0))().degraded == ""


def test_what_prometheus_says_of_a_runner() -> None:
    limits = Limits(cpu=90.0, memory=90.0)
    assert verdict({}, limits) == "", "what it does not know it does not decide"
    assert verdict({"runner_status": 1.0, "runner_memory_usage_percent": 50.0}, limits) == ""
    assert verdict({"runner_status": 0.0}, limits) == "runner_status is 0"
    assert (
        verdict({"runner_cpu_usage_percent": 95.2, "runner_memory_usage_percent": 96.4}, limits)
        == "runner_cpu_usage_percent 95 % > 90 %, runner_memory_usage_percent 96 % > 90 %"
    )
