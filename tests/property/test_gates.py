# SPDX-License-Identifier: Apache-2.0
"""Gates: whatever waits, waits for something that has a name and comes to its end; nothing begins past a closed one."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.core import events as ev
from surefoot.core import opening, people, windows
from surefoot.core.deployment import Deployment, evolve
from surefoot.core.environment import Freeze
from surefoot.core.errors import Code, NotAllowedError
from surefoot.core.gates import Approvals, Bar, Gate, Gates, Window
from surefoot.core.status import Status
from surefoot.core.summary import summarise
from tests.support import journals
from tests.support.journals import add

DAY = 86_400.0
START = datetime(2026, 3, 2, tzinfo=UTC).timestamp()  # a Monday
PEOPLE = ("ann", "bob@laptop", "BOB@server", "cyn", "eve")

times = st.floats(START, START + 400 * DAY)
zones = st.sampled_from(["UTC", "Europe/Zurich", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
minutes = st.integers(0, 1439)
any_window = st.builds(
    Window,
    days=st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))),
    start=minutes,
    end=minutes.map(lambda minute: minute + 1),
    time_zone=zones,
)
any_gates = st.builds(
    Gates,
    approvals=st.none()
    | st.builds(
        Approvals,
        required=st.integers(1, 3),
        groups=st.sampled_from([{"sre": ("ann", "bob", "cyn")}, {"sre": None}, {"sre": ("ann",), "ops": ("cyn",)}]),
        expires=st.floats(60.0, 30 * DAY),
        rollbacks=st.booleans(),
    ),
    windows=st.lists(any_window, max_size=2).map(tuple),
    latest=st.booleans(),
)


deployment = partial(journals.deployment, at=START)


@given(st.data(), any_gates)
@settings(max_examples=300, deadline=None)
def test_whatever_waits_has_a_name_for_it_and_comes_to_its_end(data: st.DataObject, gates: Gates) -> None:
    scheduled = data.draw(st.none() | times)
    state = deployment(
        gates, not_before=scheduled, override=data.draw(st.booleans()), rollback=data.draw(st.booleans())
    )
    ends = data.draw(st.none() | times)
    freeze = data.draw(st.none() | st.just(Freeze("ann", "x", START, ends)))
    now, fair = START, False
    for count in range(60):
        fair = fair or count > 15
        if fair and freeze is not None and freeze.until is None:
            freeze = None  # a person lifts it some day
        if not fair and data.draw(st.booleans()):
            state = person_acts(data, state, now)
        if state.status.terminal:
            break
        if state.ready_at > now or (freeze and freeze.in_force(now) and state.bar is Bar.FREEZE):
            # No agent looks: then it is said what for, and a time or a person changes that.
            assert (state.status is Status.WAITING and state.waits) or state.bar is Bar.FREEZE
            known = [state.ready_at] if state.ready_at > now else []
            known += [freeze.until] if freeze is not None and freeze.until is not None else []
            now = min((at for at in known if at > now), default=now + DAY)
            continue
        verdict = opening.begin(state, freeze, now)
        if isinstance(verdict, opening.Begin):
            assert opening.closed(state, freeze, now) == ()
            assert not state.approvals_missing
            assert state.not_before is None or now >= state.not_before
            assert state.override or windows.is_open(gates.windows, now)
            break
        state = add(state, now, *verdict.events)
        if state.status.terminal:
            assert state.status is Status.FAILED and state.outcome is not None
            assert state.outcome.code is Code.APPROVAL_EXPIRED
            break
        assert state.waits and all(wait.message for wait in state.waits)
        assert state.ready_at > now or any(wait.gate is Gate.FREEZE for wait in state.waits)
    else:
        raise AssertionError(f"promise 2: no end: {state}")


def person_acts(data: st.DataObject, state: Deployment, now: float) -> Deployment:
    by = data.draw(st.sampled_from(PEOPLE))
    try:
        acts = opening.approval if data.draw(st.integers(0, 5)) else opening.rejection
        return add(state, now, *acts(state, by, "because"))
    except NotAllowedError:
        return state


@given(st.lists(st.sampled_from(PEOPLE), max_size=8), st.integers(1, 3))
def test_so_many_different_people_must_agree_and_never_who_asked(who: list[str], required: int) -> None:
    state = deployment(Gates(approvals=Approvals(required=required, groups={"sre": None})))
    state = add(state, START, ev.Waiting(opening.closed(state, None, START)))
    for by in who:
        try:
            state = add(state, START + 1, *opening.approval(state, by, ""))
        except NotAllowedError as error:
            # The requester, or nothing is needed any more.
            assert error.code is Code.APPROVAL_NOT_ALLOWED or state.status is Status.QUEUED
    names = {people.person(given.by) for given in state.approvals}
    others = {people.person(by) for by in who} - {"eve"}
    assert "eve" not in names and len(names) == len(state.approvals) == min(required, len(others))
    assert (state.status is Status.QUEUED) == (len(names) >= required)


def test_what_waits_for_approvals_says_from_when_on_it_is_too_late() -> None:
    state = deployment(Gates(approvals=Approvals(groups={"sre": None}, expires=60.0)))
    for now in (START + 59.9, START + 60.0):
        (wait,) = opening.closed(state, None, now)
        assert (wait.until, "too late for that since" in wait.message) == (
            START + 60.0,
            bool(opening.too_late(state, now)),
        )


@pytest.mark.parametrize("other", ["Eve", "eve ", " eve@laptop", "ev\u200be", "\uff45ve", "eve\u00ad@x", "eve\t"])
def test_a_name_that_looks_like_the_requesters_is_the_requesters(other: str) -> None:
    gate = Gates(approvals=Approvals(groups={"anyone": None}))
    asked = deployment(gate)
    with pytest.raises(NotAllowedError) as refused:
        opening.approval(asked, other, "")
    assert refused.value.code is Code.APPROVAL_NOT_ALLOWED
    assert opening.approval(asked, "\u00e9ve", "")


def test_only_members_count_where_the_config_knows_the_group() -> None:
    state = deployment(Gates(approvals=Approvals(groups={"sre": ("ann", "bob@laptop")})))
    for by in ("cyn", "bob@elsewhere"):
        with pytest.raises(NotAllowedError) as refused:
            opening.approval(state, by, "")
        assert refused.value.code is Code.APPROVAL_NOT_ALLOWED
        with pytest.raises(NotAllowedError):
            opening.rejection(state, by, "no")
    for by in ("ann@anywhere", "Ann", "bob@laptop"):
        (event,) = opening.approval(state, by, "")
        assert isinstance(event, ev.ApprovalGiven) and event.groups == ("sre",)
    assert opening.rejection(state, "eve", "my mistake"), "who asked may take it back"


def test_a_rollback_needs_approvals_only_where_the_config_says_so() -> None:
    for rollbacks in (True, False):
        gates = Gates(approvals=Approvals(groups={"sre": None}, rollbacks=rollbacks))
        assert bool(opening.closed(deployment(gates, rollback=True), None, START)) == rollbacks


@pytest.mark.parametrize(
    ("newer", "taken"),
    [
        ((), False),
        ((ev.Waiting(()),), False),
        ((ev.LeaseGranted("a", 1),), True),
        ((ev.LeaseGranted("a", 1), ev.Finished(Status.SUCCEEDED)), True),
        ((ev.LeaseGranted("a", 1), ev.Finished(Status.FAILED)), False),
        ((ev.CancelRequested("x"), ev.Finished(Status.CANCELLED)), False),
    ],
)
def test_latest_skips_what_a_newer_one_takes_the_place_of(newer: tuple[ev.Event, ...], taken: bool) -> None:
    gates = Gates(latest=True)
    second = deployment(gates, 2)
    if newer and isinstance(newer[0], ev.Waiting):
        second = add(second, START, ev.Waiting(opening.closed(deployment(Gates(approvals=Approvals())), None, START)))
    elif newer:
        second = add(second, START, *newer)
    else:
        taken = True  # queued, and ready
    verdict = opening.begin(deployment(gates), None, START, [summarise(second)])
    if not taken:
        assert verdict == opening.Begin()
        return
    assert isinstance(verdict, opening.Settle)
    ended = add(deployment(gates), START, *verdict.events)
    assert ended.status is Status.CANCELLED and ended.outcome is not None
    assert ended.outcome.code is Code.SUPERSEDED and "prod-2" in ended.outcome.message
    assert opening.begin(deployment(Gates()), None, START, [summarise(second)]) == opening.Begin(), "off by default"


def test_nothing_that_has_begun_meets_a_gate() -> None:
    gates = Gates(windows=(Window(days=(6,)),), latest=True)
    begun = evolve(deployment(gates, override=True), ev.Entry(2, START, ev.LeaseGranted("a", 1)))
    freeze = Freeze("ann", "x", START)
    assert opening.begin(begun, freeze, START) == opening.Begin() and opening.closed(begun, freeze, START) == ()


# -- windows ---------------------------------------------------------------------------------------------------------

#: Around the moments at which clocks in New York, Zurich and on Lord Howe are set forward.
clocks_set = st.builds(
    float.__add__,
    st.sampled_from([1_772_953_200.0, 1_774_746_000.0, 1_791_041_400.0]),
    st.integers(-240, 240).map(lambda minute: minute * 60.0),
)


@given(st.lists(any_window, min_size=1, max_size=3), times)
@settings(deadline=None)
def test_a_closed_window_opens_within_fifteen_days_and_is_open_then(some: list[Window], now: float) -> None:
    opens = windows.next_opening(some, now)
    assert now < opens <= now + 15 * DAY
    assert windows.is_open(some, opens)
    assert windows.is_open(some, now) or not windows.is_open(some, (now + opens) / 2)


@given(any_window, times | clocks_set)
@settings(deadline=None)
def test_a_window_is_open_when_the_clocks_of_its_zone_say_so(window: Window, now: float) -> None:
    there = datetime.fromtimestamp(now, ZoneInfo(window.time_zone))
    minute = there.hour * 60 + there.minute
    today, yesterday = there.weekday() in window.days, (there.weekday() - 1) % 7 in window.days
    if window.end > window.start:
        expected = today and window.start <= minute < window.end
    else:
        expected = (today and minute >= window.start) or (yesterday and minute < window.end)
    before, after = (datetime.fromtimestamp(now + h * 3600, there.tzinfo).utcoffset() for h in (-26, 26))
    assert before is not None and after is not None
    if before <= after:  # set back, they show it twice: it opens the first time
        assert windows.is_open([window], now) == expected


def test_a_weekly_window_that_clocks_skip_opens_a_week_later() -> None:
    skipped = Window(days=(6,), start=2 * 60 + 30, end=3 * 60, time_zone="Europe/Zurich")
    monday = datetime(2026, 3, 23, 12, tzinfo=ZoneInfo("Europe/Zurich")).timestamp()
    opens = datetime(2026, 4, 5, 2, 30, tzinfo=ZoneInfo("Europe/Zurich")).timestamp()
    assert windows.next_opening([skipped], monday) == windows.next_opening([skipped], monday - DAY) == opens
    assert not windows.is_open([skipped], datetime(2026, 3, 29, 3, tzinfo=ZoneInfo("Europe/Zurich")).timestamp())


@pytest.mark.parametrize(
    ("start", "end", "opens", "closes"),
    [("01:00", "02:30", "01:00", "03:00"), ("02:30", "04:00", "03:00", "04:00"), ("23:00", "02:30", "23:00", "03:00")],
)
def test_a_time_that_clocks_skip_is_the_moment_in_which_they_do(start: str, end: str, opens: str, closes: str) -> None:
    def minutes(text: str) -> int:
        return int(text[:2]) * 60 + int(text[3:])

    def at(text: str) -> float:
        day = 28 if text == "23:00" else 29
        return datetime(2026, 3, day, *divmod(minutes(text), 60), tzinfo=ZoneInfo("Europe/Zurich")).timestamp()

    window = [Window(start=minutes(start), end=minutes(end), time_zone="Europe/Zurich")]
    assert windows.next_opening(window, at(opens) - 600) == at(opens)
    assert windows.is_open(window, at(closes) - 1) and not windows.is_open(window, at(closes))


@pytest.mark.parametrize("minute", range(2 * 60, 3 * 60, 7))
def test_that_moment_is_found_to_the_second(minute: int) -> None:
    window = [Window(start=minute, end=4 * 60, time_zone="Europe/Zurich")]
    set_forward = datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp()
    assert windows.next_opening(window, set_forward - 600) == set_forward


def test_windows_without_any_are_always_open() -> None:
    assert windows.is_open((), START)


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_opens() -> None:
    friday = Window(days=(4,), start=22 * 60, end=2 * 60, time_zone="Europe/Zurich")

    def at(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Zurich")).timestamp()

    assert windows.is_open([friday], at("2026-03-06T23:00")) and windows.is_open([friday], at("2026-03-07T01:59"))
    assert not windows.is_open([friday], at("2026-03-06T01:00"))
    assert not windows.is_open([friday], at("2026-03-07T02:00"))
    assert windows.next_opening([friday], at("2026-03-07T02:00")) == at("2026-03-13T22:00")
    assert windows.told(friday) == "fri 22:00-02:00 Europe/Zurich"


@pytest.mark.parametrize(
    ("days", "told"),
    [
        ((4,), "fri"),
        ((4, 5), "fri,sat"),
        ((0, 1, 2, 3, 4), "mon-fri"),
        ((6, 5, 4), "fri-sun"),
        ((0, 2, 4), "mon,wed,fri"),
        (tuple(range(7)), "daily"),
    ],
)
def test_a_windows_days_are_told_briefly(days: tuple[int, ...], told: str) -> None:
    assert windows.told(Window(days=days)) == f"{told} 00:00-24:00 UTC"
