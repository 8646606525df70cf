# SPDX-License-Identifier: Apache-2.0
"""Who may claim, whom everyone lets go first, and who hands over: whatever agents there are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from surefoot.core.lease import (
    HOLD,
    MIN_TTL,
    AgentStatus,
    Candidate,
    LeaseSeen,
    LeaseTiming,
    Role,
    choose,
    gives_way,
    rank,
)

#: How much faster or slower than true time a clock may go.
DRIFT = 0.1
HERE = "prod-1"

candidates = st.builds(
    Candidate,
    name=st.sampled_from("abcdef"),
    role=st.sampled_from(Role),
    status=st.sampled_from(AgentStatus),
    preference=st.integers(0, 2),
    running=st.sampled_from([None, HERE, "other-1"]),
    reason=st.sampled_from(["", "memory 96 %"]),
)
some = st.lists(candidates, unique_by=lambda agent: agent.name, max_size=6)
TIERS = list(Role)


def place(agent: Candidate) -> tuple[int, int]:
    """Where the config puts an agent."""
    return (TIERS.index(agent.role), agent.preference)


def others(agents: Sequence[Candidate], me: Candidate) -> list[Candidate]:
    return [agent for agent in agents if agent is not me]


@given(some)
def test_emergency_agents_come_last_then_health_counts_then_the_role_and_then_the_configs_order(
    agents: list[Candidate],
) -> None:
    order = rank(agents)
    assert {agent.name for agent in order} == {agent.name for agent in agents if agent.status.able}
    for place, first in enumerate(order):
        for second in order[place + 1 :]:
            emergency, degraded = Role.EMERGENCY, AgentStatus.DEGRADED
            if (first.role is emergency) != (second.role is emergency):
                assert second.role is emergency
            elif first.status is not second.status:
                assert second.status is degraded
            elif first.role is not second.role:
                assert TIERS.index(first.role) < TIERS.index(second.role)
            else:
                assert (first.preference, first.name) < (second.preference, second.name)


@given(some)
def test_idle_agents_go_one_after_the_other_and_emergency_ones_only_where_no_other_is_able(
    agents: list[Candidate],
) -> None:
    choices = {agent.name: choose(agent.name, agents) for agent in agents}
    able = [agent for agent in agents if agent.status.able]
    runners = [agent for agent in able if agent.role is not Role.EMERGENCY]
    for agent in agents:
        may = agent in (runners or able)
        assert choices[agent.name].eligible is may
        assert not may or choices[agent.name].reasons[0] == f"{agent.name} chosen: {agent.role} {agent.status}"
    idle = [agent for agent in rank(agents) if agent.running is None and choices[agent.name].eligible]
    assert [choices[agent.name].rank for agent in idle] == list(range(len(idle)))


@given(some)
def test_who_works_on_a_deployment_is_idle_where_it_is_about_that(agents: list[Candidate]) -> None:
    free = [structs.replace(agent, running=None) if agent.running == HERE else agent for agent in agents]
    for agent in agents:
        mine, theirs = choose(agent.name, agents, deployment=HERE), choose(agent.name, free)
        assert (mine.rank, mine.eligible) == (theirs.rank, theirs.eligible)


@given(some)
def test_who_is_not_known_may_not_claim(agents: list[Candidate]) -> None:
    assert not choose("unheard of", agents).eligible
    assert gives_way("unheard of", agents) is None


@given(some)
def test_who_hands_over_has_a_reason_and_somebody_who_may_take_it(agents: list[Candidate]) -> None:
    for me in agents:
        rest = others(agents, me)
        idle = [agent for agent in rest if agent.running is None and choose(agent.name, rest).eligible]
        if me.status is AgentStatus.DEGRADED:
            idle = [a for a in idle if a.status is AgentStatus.ONLINE and a.role is not Role.EMERGENCY]
        elif me.status is not AgentStatus.DRAINING:
            idle = []
        why = gives_way(me.name, agents)
        assert (why is not None) is bool(idle)
        if why is not None:
            state = "drained" if me.status is AgentStatus.DRAINING else me.reason or "degraded"
            assert why == f"{me.name} {state}; {rank(idle)[0].name} can take it"


@given(some)
def test_who_is_chosen_says_why_nobody_was_whom_the_config_puts_first_or_beside_it(agents: list[Candidate]) -> None:
    for me in agents:
        found = choose(me.name, agents)
        if not found.eligible:
            continue
        first = [agent for agent in others(agents, me) if place(agent) <= place(me)]
        why = {
            agent.name: f"{agent.status}" + (f" ({agent.reason})" if agent.reason else "")
            if agent.status is not AgentStatus.ONLINE
            else f"busy with {agent.running}"
            if agent.running is not None
            else "did not claim in time"
            for agent in sorted(first, key=lambda agent: (place(agent), agent.name))
        }
        assert list(found.reasons[1:]) == [f"{name} {said}" for name, said in why.items()]


@given(some)
def test_who_may_not_claim_says_why(agents: list[Candidate]) -> None:
    for me in agents:
        found = choose(me.name, agents)
        if not me.status.able:
            assert found.reasons == (f"{me.name} {me.status}",)
        elif not found.eligible:
            runners = [agent.name for agent in rank(agents) if agent.role is not Role.EMERGENCY]
            assert found.reasons == (f"{', '.join(runners)} eligible",)
    assert choose("unheard of", agents).reasons == ("unheard of has not reported",)


def test_a_lease_is_expired_once_nothing_was_heard_for_its_whole_ttl() -> None:
    seen = LeaseSeen(token=1, renewals=2, ttl=5.0, at=10.0)
    assert not seen.expired(14.999) and seen.expired(15.0)
    assert seen.seen(1, 2, 5.0, 12.0) is seen
    assert seen.seen(1, 3, 5.0, 12.0).at == seen.seen(2, 2, 5.0, 12.0).at == 12.0


@given(st.floats(MIN_TTL, 3600.0), st.floats(-DRIFT, DRIFT), st.floats(-DRIFT, DRIFT))
def test_a_holder_gives_up_before_anybody_takes_over_whatever_their_clocks_do(
    ttl: float, holders: float, observers: float
) -> None:
    timing = LeaseTiming(ttl)
    gives_up = timing.deadline(0.0) / (1 + holders)
    assert gives_up < timing.ttl / (1 + observers)
    assert 4 * timing.renew_every <= timing.deadline(0.0) * 1.000001, "three renewals may fail"
    assert timing.report_every <= min(1.0, timing.renew_every)


def test_the_ttl_has_a_default_and_a_least() -> None:
    assert LeaseTiming().ttl == 5.0 and LeaseTiming(MIN_TTL).ttl == MIN_TTL == 1.0
    assert 0 < HOLD < 1
    with pytest.raises(ValueError, match="shorter than 1s"):
        LeaseTiming(0.999)
