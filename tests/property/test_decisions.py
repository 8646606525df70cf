# SPDX-License-Identifier: Apache-2.0
"""The pure core under a driver that lets anything happen that can: what it decides keeps the promises."""

from __future__ import annotations

from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from surefoot.core import decide as do
from surefoot.core import events as ev
from surefoot.core.deployment import Deployment, accept, evolve, fold
from surefoot.core.errors import Code, Failure
from surefoot.core.gates import Gate, Wait
from surefoot.core.plan import ROLLBACK, Check, Command, Direction, OnCancel, Plan, Playbook, Retry, Step, Work
from surefoot.core.status import Status, StepStatus
from surefoot.core.summary import summarise

T = TypeVar("T")
#: The longest delay that a plan here asks for, in seconds.
DELAY = 5.0
FAILURE = Failure(Code.STEP_FAILED, "it failed")
UNREACHABLE = Failure(Code.HOST_UNREACHABLE, "h is down")
#: Decisions after which a driver that lets everything succeed must have come to an end.
ENOUGH = 400

works = st.sampled_from([Command("true"), Playbook("site.yml")])
retries = st.builds(Retry, attempts=st.integers(1, 3), delay=st.sampled_from([0.0, DELAY]), timeout=st.just(60.0))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Return a plan of a few steps, with or without hosts, checks and ways back."""
    count = draw(st.integers(1, 4))
    steps = tuple(Step(f"s{i}", draw(works), undo=draw(st.none() | works), retry=draw(retries)) for i in range(count))
    inventory = draw(st.sampled_from([None, "hosts.ini"]))
    return Plan(
        project="p",
        environment="e",
        steps=steps,
        inventory=inventory,
        retry=draw(retries),
        preflight=draw(st.sampled_from([(), (Check("tcp"),)])),
        health=draw(st.sampled_from([(), (Check("http"),)])),
        state_file=draw(st.sampled_from([None, "/state"])) if inventory else None,
        on_cancel=draw(st.sampled_from(list(OnCancel))),
        takeover_limit=draw(st.integers(0, 3)),
        rollback=draw(st.none() | works),
        bake=draw(st.sampled_from([0.0, 600.0])),
    )


class Driver:
    """Plays agents, hosts and people; keeps the journal, and checks each decision as it is made."""

    def __init__(self, data: st.DataObject, plan: Plan, previous: str | None) -> None:
        self.data = data
        self.previous = previous
        self.journal: list[ev.Entry] = []
        self.now = 1000.0
        self.waited = 0.0
        self.fair = False
        self._put(ev.Accepted("e-1", "e", 1, "2.0", plan))
        self.state = accept(self.journal[0])

    def pick(self, *choices: T) -> T:
        """Choose what happens; the first is what goes well, and all that happens once the driver is fair."""
        return choices[0] if self.fair else self.data.draw(st.sampled_from(choices))

    def _put(self, event: ev.Event, token: int | None = None) -> ev.Entry:
        # The store's clock may jump between any two entries; what waits meanwhile waits by another clock.
        self.now += self.waited + self.pick(1.0, 1.0, 1.0, 1.0, -3600.0, 3600.0)
        self.waited = 0.0
        entry = ev.Entry(len(self.journal) + 1, self.now, event, f"agent-{token}" if token else None, token)
        self.journal.append(entry)
        return entry

    def add(self, event: ev.Event) -> None:
        self.state = evolve(self.state, self._put(event, self.state.token or None))

    def grant(self) -> None:
        token = self.state.token + self.data.draw(st.integers(1, 2))
        self.add(ev.LeaseGranted(f"agent-{token}", token, previous_version=self.previous))

    def meanwhile(self) -> None:
        """What may happen at any instant, whatever the agent is about."""
        match self.pick("nothing", "nothing", "nothing", "cancel", "lost", "handed over"):
            case "cancel" if not self.state.status.terminal:
                self.add(ev.CancelRequested("someone"))
            case "lost" if self.state.status.started:
                self.grant()
            case "handed over" if self.state.status.started and self.state.held:
                self.add(ev.HandedOver("stop"))
                self.grant()

    def run(self) -> Deployment:
        self.meanwhile()
        if not self.state.status.terminal and self.state.cancel is None:
            self.grant()
        for count in range(2 * ENOUGH):
            self.fair = self.fair or count > ENOUGH or self.data.draw(st.integers(0, 30)) == 0
            if self.state.running_step is not None:
                self.grant()
            action = do.decide(self.state, self.state.elapsed + self.waited)
            if isinstance(action, do.Rest):
                return self.state
            self.check(action)
            self.perform(action)
            if not self.state.status.terminal:
                self.meanwhile()
        raise AssertionError(f"promise 2: no end: {self.state}")

    def check(self, action: do.Action) -> None:
        """Invariants of the decision itself."""
        s = self.state
        if isinstance(action, do.Wait):
            assert 0 < action.seconds <= DELAY
        if isinstance(action, do.RecordVersion | do.Survey):
            assert s.plan.records
        if isinstance(action, do.CheckHealth) and s.direction is Direction.UNDO:
            assert s.behind_fence, "what is judged must not be changed any more by one before"
        if isinstance(action, do.Bake):
            assert s.plan.bake > 0
        if not s.behind_fence:
            assert not isinstance(action, do.RecordVersion), "a version is recorded behind the fence only"
            if isinstance(action, do.RunStep):
                assert action.raises_fence == isinstance(s.work(action.run), Playbook)
                assert action.raises_fence, "nothing but a playbook, which raises the fence itself, may go first"
        if isinstance(action, do.RunStep):
            assert action.run.direction is s.direction
            assert action.raises_fence == (isinstance(s.work(action.run), Playbook) and not s.behind_fence)
            failures = [
                e.event
                for e in self.journal
                if isinstance(e.event, ev.StepFailed)
                and (e.event.step, e.event.direction) == (action.run.name, action.run.direction)
            ]
            assert len(failures) < action.retry.attempts
            assert self.losses() <= s.plan.takeover_limit
        if isinstance(action, do.RunStep | do.Preflight | do.CheckHealth | do.RecordVersion | do.Bake):
            assert s.misses < s.plan.retry.attempts, "what can't be begun is tried as often as the plan says"
        if isinstance(action, do.RunStep | do.RaiseFence) and s.plan.preflight:
            assert self.has(ev.PreflightPassed), "nothing is touched before the preflight has passed"
        if isinstance(action, do.Write):
            self.check_reason(action.event)

    def check_reason(self, event: ev.Event) -> None:
        """Nobody gives up, and nothing is stranded, without a reason that the journal shows."""
        match event:
            case ev.UndoStarted(cause):
                assert self.state.touched, "where nothing was touched nothing is put back"
                wrong: tuple[type[ev.Event], ...] = (ev.StepFailed, ev.FenceFailed, ev.HealthFailed, ev.VersionsMixed)
                known = self.has(*wrong, ev.BakeFailed, ev.NotBegun)
            case ev.Finished(Status.STRANDED, cause):
                assert cause is not None
                undo = next(i for i, e in enumerate(self.journal) if isinstance(e.event, ev.UndoStarted))
                wrong = (ev.StepFailed, ev.FenceFailed, ev.HealthFailed, ev.VersionsMixed, ev.NotBegun)
                known = self.has(*wrong, since=undo)
            case ev.Finished(Status.FAILED, cause):
                assert cause is not None
                known = self.has(ev.PreflightFailed, ev.FenceFailed, ev.NotBegun)
            case ev.Finished(Status.ROLLED_BACK, cause):
                assert cause is not None
                assert cause.code is not Code.CANCELLED, "what was cancelled ends as cancelled"
                return
            case ev.BakeStarted():
                assert self.state.plan.bake > 0
                return
            case _:
                return
        if cause.code is Code.TAKEN_OVER_TOO_OFTEN:
            known = self.losses() > self.state.plan.takeover_limit
        elif cause.code is Code.CANCELLED:
            known = self.has(ev.CancelRequested)
        assert known, f"without a reason: {event}"

    def has(self, *kinds: type[ev.Event], since: int = 0) -> bool:
        """Say whether the journal has an event of these kinds."""
        return any(isinstance(entry.event, kinds) for entry in self.journal[since:])

    def losses(self) -> int:
        """Count, from the journal, the agents that were lost since the present direction began."""
        count, held = 0, False
        for entry in self.journal:
            match entry.event:
                case ev.UndoStarted():
                    count = 0
                case ev.HandedOver():
                    held = False
                case ev.LeaseGranted():
                    count, held = count + held, True
        return count

    def perform(self, action: do.Action) -> None:
        s = self.state
        reads = do.Preflight | do.CheckHealth | do.Bake | do.RecordVersion
        if isinstance(action, reads) and self.pick(*["begins"] * 8, "not") == "not":
            self.add(ev.NotBegun(FAILURE))
            return
        match action:
            case do.Write(event):
                self.add(event)
            case do.Wait(seconds):
                self.waited += seconds
                assert self.waited <= DELAY + 0.01, "a delay is waited for once"
            case do.Preflight():
                good = self.pick("good", "bad") == "good"
                self.add(ev.PreflightPassed() if good else ev.PreflightFailed(FAILURE))
            case do.RaiseFence():
                good = self.pick("good", "good", "bad") == "good"
                self.add(ev.FenceRaised(self.hosts()) if good else ev.FenceFailed(FAILURE))
            case do.RunStep(run=run, attempt=attempt):
                self.add(ev.StepStarted(run.name, run.direction, attempt))
                self.step(action)
            case do.CheckHealth():
                good = self.pick("good", "bad") == "good"
                self.add(ev.HealthPassed(s.direction) if good else ev.HealthFailed(s.direction, FAILURE))
            case do.Survey():
                assert s.plan.records and s.direction is Direction.UNDO
                self.add(ev.VersionsSurveyed({"h": "1.0"}))
            case do.Bake(seconds=seconds):
                assert 0 <= seconds <= s.plan.bake + 1e-6, "no bake lasts longer than it says"
                self.waited += 0.0 if self.fair else self.data.draw(st.floats(0, seconds))
                good = self.pick("good", "good", "bad") == "good"
                self.add(ev.BakePassed() if good else ev.BakeFailed(FAILURE))
            case do.RecordVersion(version):
                good = self.pick("good", "bad") == "good"
                self.add(ev.VersionsRecorded(s.direction, version) if good else ev.VersionsMixed(s.direction, FAILURE))

    def hosts(self) -> tuple[str, ...]:
        """Return what the inventory names: not always the same, where it may be another."""
        wanted = self.state.hosts_wanted(raises=True)
        more = ("k",) if self.state.direction is Direction.UNDO and self.pick("same", "same", "more") == "more" else ()
        return tuple(dict.fromkeys((*wanted, *more))) if wanted else self.pick(("h", "i"), ("h", "i"), ("h",))

    def touched(self) -> set[str]:
        """Return, from the journal, the hosts that may have been changed."""
        running = touched = False
        known: set[str] = set()
        for entry in self.journal:
            match entry.event:
                case ev.StepStarted():
                    running = True
                case ev.NotBegun() | ev.FenceFailed():
                    running = False
                case ev.FenceRaised(hosts=hosts):
                    known = set(hosts) | (known if touched else set())
                case ev.StepSucceeded() | ev.StepFailed() | ev.StepInterrupted():
                    running, touched = False, True
                case ev.LeaseGranted() | ev.HandedOver():
                    running, touched = False, touched or running
        return known

    def step(self, action: do.RunStep) -> None:
        key = (action.run.name, action.run.direction, action.attempt)
        if self.pick("goes on", "goes on", "lost") == "lost":
            return  # its agent is gone; the next grant finds it in flight
        match self.pick("begins", "begins", "begins", "not", "fence not raised"):
            case "not":
                self.add(ev.NotBegun(FAILURE))
                return
            case "fence not raised" if action.raises_fence:
                self.add(ev.FenceFailed(FAILURE))
                return
        if action.raises_fence:
            self.add(ev.FenceRaised(self.hosts()))
        if do.interrupts(self.state):
            self.add(ev.StepInterrupted(*key, "cancelled"))
        elif self.pick("good", "good", "bad") == "good":
            self.add(ev.StepSucceeded(*key))
        else:
            self.add(ev.StepFailed(*key, FAILURE))


@given(st.data(), plans(), st.sampled_from([None, "1.0"]))
@settings(max_examples=400, deadline=None)
def test_whatever_happens_it_ends_and_ends_honestly(data: st.DataObject, plan: Plan, previous: str | None) -> None:
    driver = Driver(data, plan, previous)
    state = driver.run()
    assert state.status.terminal
    events = [entry.event for entry in driver.journal]
    forward = [e for e in events if isinstance(e, ev.StepStarted) and e.direction is Direction.FORWARD]
    undone = [e for e in events if isinstance(e, ev.StepSucceeded) and e.direction is Direction.UNDO]
    turned = next((i for i, e in enumerate(events) if isinstance(e, ev.UndoStarted)), len(events))

    assert not any(isinstance(e, ev.StepStarted) and e.direction is Direction.FORWARD for e in events[turned:]), (
        "nothing runs forward once the undo began"
    )
    touched = [run.name for run in state.runs(Direction.FORWARD) if run.touched]
    with_undo = list(plan.undo_of(touched))
    if plan.rollback is None:
        assert with_undo == [name for name in reversed(touched) if plan.step(name).undo is not None]
    else:
        assert with_undo == ([ROLLBACK] if touched else [])
    assert [e.step for e in undone] == with_undo[: len(undone)], "the undo is exactly the reverse of what was started"

    check_what_is_told(state, driver.journal)
    if state.status is Status.SUCCEEDED:
        assert all(run.status is StepStatus.SUCCEEDED for run in state.runs(Direction.FORWARD))
        assert state.healthy or not plan.health
        assert state.recorded or not plan.records
        assert state.baked or not plan.bake
    if state.status is Status.FAILED:
        assert not state.touched
    if state.status is Status.ROLLED_BACK or (state.status is Status.CANCELLED and state.touched):
        assert state.behind_fence, "nothing of it can reach a host any more"
        assert set(state.raised) == driver.touched(), "the fence was raised on all that may have been changed"
        assert [e.step for e in undone] == with_undo
        assert state.healthy or not plan.health or previous is None
        assert state.recorded or not plan.records
    if state.status is Status.STRANDED and plan.records:
        assert state.outcome is not None
        often = state.outcome.code is Code.TAKEN_OVER_TOO_OFTEN
        assert often or "h runs 1.0" in state.outcome.message, "what cannot be put back is told host by host"
    if state.status is Status.CANCELLED:
        assert state.cancel is not None
    assert state.status is not Status.CANCELLED or plan.on_cancel is OnCancel.ROLLBACK or not forward


def check_what_is_told(state: Deployment, journal: list[ev.Entry]) -> None:
    """Who did what when is as the journal has it, read in another way."""
    grants = [(e.at, e.event) for e in journal if isinstance(e.event, ev.LeaseGranted)]
    if grants:
        last = grants[-1][1]
        told = (state.started_at, state.agent, state.token, state.grants)
        assert told == (grants[0][0], last.agent, last.token, len(grants))
    assert state.finished_at == next((e.at for e in journal if isinstance(e.event, ev.Finished)), None)
    ends = (ev.StepSucceeded, ev.StepFailed, ev.StepInterrupted, ev.NotBegun, ev.FenceFailed, ev.LeaseGranted)
    for run in state.steps:
        key = (run.name, run.direction)
        of_it = [e for e in journal if (getattr(e.event, "step", ""), getattr(e.event, "direction", "")) == key]
        started = [e for e in of_it if isinstance(e.event, ev.StepStarted)]
        failed = [e.event.failure for e in of_it if isinstance(e.event, ev.StepFailed)]
        assert run.failures == len(failed)
        if not started:
            assert (run.attempt, run.agent, run.token, run.started_at, run.finished_at) == (0, None, None, None, None)
            continue
        began = started[-1]
        end = next(e for e in journal[began.seq :] if isinstance(e.event, (*ends, ev.HandedOver)))
        told_of_it = (run.attempt, run.agent, run.token, run.started_at, run.finished_at)
        assert told_of_it == (len(started), began.agent, began.token, began.at, end.at)
        if run.status is StepStatus.FAILED:
            assert run.failure == failed[-1]


@given(st.data(), plans(), st.sampled_from([None, "1.0"]))
@settings(max_examples=100, deadline=None)
def test_a_journal_replayed_in_pieces_and_through_json_gives_the_same_state(
    data: st.DataObject, plan: Plan, previous: str | None
) -> None:
    driver = Driver(data, plan, previous)
    driver.run()
    whole = fold(driver.journal)
    cut = data.draw(st.integers(1, len(driver.journal)))
    pieces = fold(driver.journal[cut:], fold(driver.journal[:cut]))
    read = [ev.Entry(e.seq, e.at, ev.decode(ev.encode(e.event)), e.agent, e.token) for e in driver.journal]
    assert whole == pieces == fold(read) == driver.state
    assert summarise(whole) == summarise(fold(read))


@given(st.data(), plans())
@settings(max_examples=100, deadline=None)
def test_nothing_leads_from_one_end_to_another(data: st.DataObject, plan: Plan) -> None:
    state = Driver(data, plan, "1.0").run()
    for status in (s for s in Status if s.terminal and s is not state.status):
        with pytest.raises(AssertionError):
            evolve(state, ev.Entry(state.seq + 1, 9e9, ev.Finished(status), "a", state.token))


def test_gaps_smaller_tokens_and_second_steps_are_refused() -> None:
    plan = Plan(project="p", environment="e", steps=(Step("a", Command("true")), Step("b", Command("true"))))
    state = accept(ev.Entry(1, 1.0, ev.Accepted("e-1", "e", 1, "2", plan)))
    state = evolve(state, ev.Entry(2, 2.0, ev.LeaseGranted("x", 5)))
    begun = evolve(state, ev.Entry(3, 3.0, ev.StepStarted("a", Direction.FORWARD, 1), "x", 5))
    for seq, event, token in (
        (5, ev.StepSucceeded("a", Direction.FORWARD, 1), 5),
        (4, ev.LeaseGranted("y", 5), None),
        (4, ev.StepStarted("b", Direction.FORWARD, 1), 5),
        (4, ev.StepSucceeded("b", Direction.FORWARD, 1), 5),
        (4, ev.Finished(Status.SUCCEEDED), 5),
        (4, ev.UndoStarted(FAILURE), 5),
    ):
        with pytest.raises(AssertionError):
            evolve(begun, ev.Entry(seq, 4.0, event, "x", token))
    with pytest.raises(AssertionError):
        evolve(state, ev.Entry(3, 3.0, ev.StepStarted("a", Direction.FORWARD, 1), "x", 4))


def test_a_hand_over_that_was_taken_long_ago_lengthens_no_bake() -> None:
    plan = Plan(project="p", environment="e", steps=(Step("a", Command("true")),), bake=600.0)
    state = accept(ev.Entry(1, 0.0, ev.Accepted("e-1", "e", 1, "2", plan)))
    for at, event, token in (
        (1.0, ev.LeaseGranted("x", 1), None),
        (2.0, ev.HandedOver("stop"), 1),
        (5.0, ev.LeaseGranted("y", 2), None),
        (6.0, ev.StepStarted("a", Direction.FORWARD, 1), 2),
        (7.0, ev.StepSucceeded("a", Direction.FORWARD, 1), 2),
        (8.0, ev.BakeStarted(600.0), 2),
        (500.0, ev.LeaseGranted("x", 3), None),
    ):
        state = evolve(state, ev.Entry(state.seq + 1, at, event, "x" if token else None, token))
    assert do.decide(state, state.elapsed) == do.Bake(108.0)


@pytest.mark.parametrize(
    ("let_go", "granted", "longer"),
    [
        (None, ev.LeaseGranted("y", 2, taken_from="x", waited_seconds=5.0), 5.0),
        (ev.HandedOver("stop"), ev.LeaseGranted("y", 2), 20.0),
        (None, ev.LeaseGranted("x", 2), 0.0),
    ],
)
def test_a_bake_lasts_longer_by_the_time_for_which_nobody_has_watched(
    let_go: ev.Event | None, granted: ev.LeaseGranted, longer: float
) -> None:
    plan = Plan(project="p", environment="e", steps=(Step("a", Command("true")),), bake=600.0)
    state = accept(ev.Entry(1, 0.0, ev.Accepted("e-1", "e", 1, "2", plan)))
    for at, event, token in (
        (1.0, ev.LeaseGranted("x", 1), None),
        (6.0, ev.StepStarted("a", Direction.FORWARD, 1), 1),
        (7.0, ev.StepSucceeded("a", Direction.FORWARD, 1), 1),
        (8.0, ev.BakeStarted(600.0), 1),
        *([] if let_go is None else [(30.0, let_go, 1)]),
        (50.0, granted, None),
    ):
        state = evolve(state, ev.Entry(state.seq + 1, at, event, "x" if token else None, token))
    assert do.decide(state, state.elapsed) == do.Bake(8.0 + 600.0 - 50.0 + longer)


@pytest.mark.parametrize("let_go", [None, ev.HandedOver("stop")])
def test_a_clock_that_is_set_forward_ends_no_bake(let_go: ev.Event | None) -> None:
    plan = Plan(project="p", environment="e", steps=(Step("a", Command("true")),), bake=600.0)
    done = (ev.StepStarted("a", Direction.FORWARD, 1), ev.StepSucceeded("a", Direction.FORWARD, 1))
    state = after(plan, *done, ev.BakeStarted(600.0))
    day = 24 * 3600.0
    if let_go is not None:
        state = evolve(state, ev.Entry(state.seq + 1, day, let_go, "x", 1))
    state = evolve(
        state, ev.Entry(state.seq + 1, day + 5.0, ev.LeaseGranted("y", 2, taken_from="x", waited_seconds=5.0))
    )
    assert do.decide(state, state.elapsed) == do.Bake(600.0)


def test_what_has_begun_waits_for_nothing() -> None:
    plan = Plan(project="p", environment="e", steps=(Step("a", Command("true")),))
    state = accept(ev.Entry(1, 0.0, ev.Accepted("e-1", "e", 1, "2", plan)))
    waiting = evolve(state, ev.Entry(2, 1.0, ev.Waiting((Wait(Gate.FREEZE, "frozen", 9.0),))))
    begun = evolve(waiting, ev.Entry(3, 9.0, ev.LeaseGranted("x", 1)))
    assert (len(waiting.waits), begun.waits, begun.status) == (1, (), Status.RUNNING)


def after(plan: Plan, *events: ev.Event) -> Deployment:
    """Return the state after a lease and these events, a second apart."""
    state = accept(ev.Entry(1, 1.0, ev.Accepted("e-1", "e", 1, "2", plan)))
    for seq, event in enumerate((ev.LeaseGranted("x", 1, previous_version="1"), *events), start=2):
        state = evolve(state, ev.Entry(seq, float(seq), event, "x", 1))
    return state


def test_once_something_was_changed_the_inventory_has_to_name_all_that_it_named() -> None:
    plan = Plan("p", "e", (Step("a", Playbook("a.yml"), undo=Playbook("a.yml")),), inventory="hosts")
    began = after(plan, ev.StepStarted("a", Direction.FORWARD, 1))
    one = evolve(began, ev.Entry(4, 4.0, ev.FenceRaised(("h",)), "x", 1))
    assert (began.hosts_wanted(raises=True), one.hosts_wanted(raises=True)) == ((), ()), "nothing was changed yet"
    assert one.hosts_wanted(raises=False) == ("h",), "what is not raised again is not looked up again"
    untouched = evolve(one, ev.Entry(5, 5.0, ev.NotBegun(FAILURE), "x", 1))
    other = (
        ev.StepStarted("a", Direction.FORWARD, 2),
        ev.FenceRaised(("i", "h")),
        ev.StepFailed("a", Direction.FORWARD, 2, FAILURE),
    )
    for event in other:
        untouched = evolve(untouched, ev.Entry(untouched.seq + 1, 9.0, event, "x", 1))
    assert untouched.hosts == untouched.hosts_wanted(raises=True) == ("i", "h")
    for event in (
        ev.UndoStarted(FAILURE),
        ev.StepStarted("a", Direction.UNDO, 1),
        ev.FenceRaised(("k", "h", "i")),
        ev.StepSucceeded("a", Direction.UNDO, 1),
    ):
        untouched = evolve(untouched, ev.Entry(untouched.seq + 1, 9.0, event, "x", 1))
    assert (untouched.hosts, untouched.hosts_wanted(raises=False)) == (("i", "h", "k"), ("k", "h", "i"))


def test_a_fence_that_can_not_be_raised_is_tried_as_often_as_the_plan_says_and_no_more() -> None:
    command = Plan("p", "e", (Step("a", Command("true")),), inventory="hosts", retry=Retry(3, 0.0, 60.0))
    refused = [ev.FenceFailed(FAILURE)] * 3
    assert do.decide(after(command, *refused[:2]), 99.0) == do.RaiseFence()
    assert do.decide(after(command, *refused), 99.0) == do.Write(ev.Finished(Status.FAILED, FAILURE))

    late = after(replace(command, retry=Retry(3, 30.0, 60.0)), refused[0])
    assert do.decide(late, late.elapsed + 10.0) == do.Wait(20.0)
    assert do.decide(late, late.elapsed + 29.5) == do.Wait(0.5)
    assert do.decide(late, late.elapsed + 30.0) == do.RaiseFence()

    playbook = replace(command, steps=(Step("a", Playbook("a.yml")),))
    tried = [e for n in (1, 2, 3) for e in (ev.StepStarted("a", Direction.FORWARD, n), ev.FenceFailed(FAILURE))]
    assert isinstance(do.decide(after(playbook, *tried[:4]), 99.0), do.RunStep)
    # Nothing was touched, however often that was found out: there is nothing to put back.
    assert do.decide(after(playbook, *tried), 99.0) == do.Write(ev.Finished(Status.FAILED, FAILURE))


@pytest.mark.parametrize("refused", [ev.NotBegun(FAILURE), ev.FenceFailed(FAILURE)])  # as earlier versions wrote it
def test_a_playbook_that_can_not_begin_is_given_up_where_the_fence_stands_already(refused: ev.Event) -> None:
    steps = tuple(Step(name, Playbook(f"{name}.yml"), undo=Playbook(f"un-{name}.yml")) for name in ("a", "b"))
    plan = Plan("p", "e", steps, inventory="hosts", retry=Retry(3, 30.0, 60.0))
    done = [
        ev.StepStarted("a", Direction.FORWARD, 1),
        ev.FenceRaised(("h",)),
        ev.StepSucceeded("a", Direction.FORWARD, 1),
    ]
    tried = [e for n in (1, 2, 3) for e in (ev.StepStarted("b", Direction.FORWARD, n), refused)]
    once = after(plan, *done, *tried[:2])
    assert do.decide(once, once.elapsed) == do.Wait(30.0)
    assert isinstance(again := do.decide(once, once.elapsed + 30.0), do.RunStep) and not again.raises_fence
    given_up = after(plan, *done, *tried)
    assert do.decide(given_up, 199.0) == do.Write(ev.UndoStarted(FAILURE))
    back = evolve(given_up, ev.Entry(given_up.seq + 1, 200.0, ev.UndoStarted(FAILURE), "x", 1))
    assert [run.name for run in back.runs(Direction.UNDO)] == ["a"], "of what never began there is nothing to put back"


@pytest.mark.parametrize("work", [Command("true"), Playbook("a.yml")])
def test_where_nothing_could_be_begun_nothing_is_put_back(work: Work) -> None:
    plan = Plan("p", "e", (Step("a", work, undo=work),), inventory="hosts", retry=Retry(2, 0.0, 60.0))
    fenced = () if isinstance(work, Playbook) else (ev.FenceRaised(("h",)),)
    started = [ev.StepStarted("a", Direction.FORWARD, n) for n in (1, 2)]
    tried = (*fenced, started[0], ev.NotBegun(FAILURE), started[1], ev.NotBegun(FAILURE))
    assert do.decide(after(plan, *tried), 99.0) == do.Write(ev.Finished(Status.FAILED, FAILURE))
    # It has used up no attempt of the step's own, and what was lost meanwhile may have begun.
    lost = after(plan, *tried[:-1], ev.LeaseGranted("y", 2))
    assert lost.touched and not lost.misses and lost.steps[0].failures == 0


def test_what_can_not_be_begun_on_the_way_back_is_stranded_in_the_end() -> None:
    steps = (Step("a", Command("true"), undo=Command("true"), retry=Retry(1, 0.0, 60.0)),)
    plan = Plan("p", "e", steps, retry=Retry(2, 30.0, 60.0))
    failed = (ev.StepStarted("a", Direction.FORWARD, 1), ev.StepFailed("a", Direction.FORWARD, 1, FAILURE))
    back = (*failed, ev.UndoStarted(FAILURE))
    tried = [e for n in (1, 2) for e in (ev.StepStarted("a", Direction.UNDO, n), ev.NotBegun(UNREACHABLE))]
    once = after(plan, *back, *tried[:2])
    assert do.decide(once, once.elapsed) == do.Wait(30.0)
    assert do.decide(once, once.elapsed + 29.5) == do.Wait(0.5)
    assert isinstance(do.decide(once, once.elapsed + 30.0), do.RunStep)
    assert do.decide(after(plan, *back, *tried), 99.0) == do.Write(ev.Finished(Status.STRANDED, UNREACHABLE))


def test_a_lost_attempt_is_made_again_at_once_though_the_stores_clock_was_set_back_before_it() -> None:
    plan = Plan("p", "e", (Step("a", Command("true"), retry=Retry(3, 30.0, 60.0)),))
    started = [ev.StepStarted("a", Direction.FORWARD, n) for n in (1, 2)]
    failed = after(plan, started[0], ev.StepFailed("a", Direction.FORWARD, 1, FAILURE))
    assert do.decide(failed, failed.elapsed) == do.Wait(30.0)
    # The delay was waited for by the agent's own clock; the journal's does not show it.
    again = evolve(failed, ev.Entry(failed.seq + 1, -3600.0, started[1], "x", 1))
    taken = evolve(again, ev.Entry(again.seq + 1, -3600.0, ev.LeaseGranted("y", 2)))
    assert isinstance(do.decide(taken, taken.elapsed), do.RunStep)


def test_what_is_run_on_the_way_back_is_the_undo() -> None:
    plan = Plan("p", "e", (Step("a", Command("go"), undo=Playbook("back.yml")),), inventory="hosts")
    began = ev.StepStarted("a", Direction.FORWARD, 1)
    failed = after(plan, ev.FenceRaised(("h",)), began, ev.StepFailed("a", Direction.FORWARD, 1, FAILURE))
    back = evolve(failed, ev.Entry(failed.seq + 1, 99.0, ev.UndoStarted(FAILURE), "x", 1))
    assert [back.work(run) for run in back.steps] == [Command("go"), Playbook("back.yml")]
    assert isinstance(action := do.decide(back, 99.0), do.RunStep) and action.raises_fence


def test_a_journal_in_which_what_never_began_is_put_back_can_still_be_read() -> None:
    steps = tuple(Step(name, Playbook(f"{name}.yml"), undo=Playbook(f"un-{name}.yml")) for name in ("a", "b"))
    plan = Plan("p", "e", steps, inventory="hosts")
    state = after(
        plan,
        ev.StepStarted("a", Direction.FORWARD, 1),
        ev.FenceRaised(("h",)),
        ev.StepSucceeded("a", Direction.FORWARD, 1),
        ev.StepStarted("b", Direction.FORWARD, 1),
        ev.FenceFailed(FAILURE),
        ev.UndoStarted(FAILURE),
        ev.StepStarted("b", Direction.UNDO, 1),
        ev.FenceRaised(("h",)),
        ev.StepSucceeded("b", Direction.UNDO, 1),
    )
    assert isinstance(action := do.decide(state, 99.0), do.RunStep)
    assert (action.run.name, action.run.direction) == ("a", Direction.UNDO)


def test_checks_or_secrets_that_steps_need_are_looked_at_first() -> None:
    steps = (Step("a", Command("true")),)
    for preflight, secrets in (((Check("tcp"),), ()), ((), ("TOKEN",)), ((Check("tcp"),), ("TOKEN",))):
        plan = Plan(project="p", environment="e", steps=steps, preflight=preflight, secrets=secrets)
        assert do.decide(after(plan), 99.0) == do.Preflight()
        assert isinstance(do.decide(after(plan, ev.PreflightPassed()), 99.0), do.RunStep)
    assert isinstance(do.decide(after(Plan(project="p", environment="e", steps=steps)), 99.0), do.RunStep)


def test_what_is_stranded_says_what_hosts_said_if_any_did() -> None:
    steps = (Step("a", Playbook("a.yml"), undo=Playbook("u.yml"), retry=Retry(1, 0.0, 60.0)),)
    plan = Plan(project="p", environment="e", inventory="hosts", steps=steps, state_file="/state")
    failed = (
        ev.StepStarted("a", Direction.FORWARD, 1),
        ev.FenceRaised(("h",)),
        ev.StepFailed("a", Direction.FORWARD, 1, FAILURE),
        ev.UndoStarted(FAILURE),
        ev.StepStarted("a", Direction.UNDO, 1),
        ev.StepFailed("a", Direction.UNDO, 1, FAILURE),
    )
    # What the failed undo may have left on its way to a host is kept out first, once, where that can be done.
    assert do.decide(after(plan, *failed), 99.0) == do.RaiseFence()
    for fence in (ev.FenceRaised(("h",)), ev.FenceFailed(UNREACHABLE)):
        assert do.decide(after(plan, *failed, fence), 99.0) == do.Survey()
        for survey, said in (({}, "it failed"), ({"h": "1.0"}, "it failed; h runs 1.0")):
            action = do.decide(after(plan, *failed, fence, ev.VersionsSurveyed(survey)), 99.0)
            assert action == do.Write(ev.Finished(Status.STRANDED, Failure(Code.STEP_FAILED, said)))


def test_what_is_stranded_keeps_its_reason_though_hosts_can_not_be_reached_any_more() -> None:
    steps = (Step("a", Playbook("a.yml"), undo=Playbook("u.yml")),)
    plan = Plan("p", "e", steps, inventory="hosts", health=(Check("tcp"),))
    unhealthy = after(
        plan,
        ev.StepStarted("a", Direction.FORWARD, 1),
        ev.FenceRaised(("h",)),
        ev.StepSucceeded("a", Direction.FORWARD, 1),
        ev.HealthFailed(Direction.FORWARD, FAILURE),
        ev.UndoStarted(FAILURE),
        ev.StepStarted("a", Direction.UNDO, 1),
        ev.FenceRaised(("h",)),
        ev.StepSucceeded("a", Direction.UNDO, 1),
        ev.HealthFailed(Direction.UNDO, FAILURE),
    )
    stranded = do.Write(ev.Finished(Status.STRANDED, FAILURE))
    assert do.decide(unhealthy, 99.0) == stranded
    taken_over = evolve(unhealthy, ev.Entry(unhealthy.seq + 1, 99.0, ev.LeaseGranted("y", 2), "y", 2))
    assert do.decide(taken_over, 99.0) == do.RaiseFence()
    failed = evolve(taken_over, ev.Entry(taken_over.seq + 1, 99.0, ev.FenceFailed(UNREACHABLE), "y", 2))
    assert do.decide(failed, 99.0) == stranded


@pytest.mark.parametrize("fence", [ev.FenceRaised(("h",)), ev.FenceFailed(UNREACHABLE)])
def test_what_is_said_to_be_repaired_is_looked_at_behind_the_fence(fence: ev.FenceRaised | ev.FenceFailed) -> None:
    plan = Plan("p", "e", (Step("a", Playbook("a.yml"), undo=Playbook("u.yml")),), inventory="hosts")
    state = after(
        plan,
        ev.StepStarted("a", Direction.FORWARD, 1),
        ev.StepFailed("a", Direction.FORWARD, 1, FAILURE),
        ev.UndoStarted(FAILURE),
        ev.FenceRaised(("h",)),
        ev.Finished(Status.STRANDED, FAILURE),
    )
    assert do.decide(state, 99.0) == do.Rest()
    request = ev.ResolveRequested("ada", "repaired")
    for again in (2, 3):
        for event in (request, ev.LeaseGranted("y", again)):
            state = evolve(state, ev.Entry(state.seq + 1, 99.0, event, "y", again))
        assert do.decide(state, 99.0) == do.RaiseFence()
        state = evolve(state, ev.Entry(state.seq + 1, 99.0, fence, "y", again))
        if isinstance(fence, ev.FenceRaised):
            assert do.decide(state, 99.0) == do.Resolve(request)
        else:
            assert do.decide(state, 99.0) == do.Write(ev.ResolveRefused(UNREACHABLE))
        state = evolve(state, ev.Entry(state.seq + 1, 99.0, ev.ResolveRefused(UNREACHABLE), "y", again))
        assert (state.outcome, state.resolve_refused) == (FAILURE, UNREACHABLE)


@pytest.mark.parametrize("probe", [None, Check("command")])
def test_what_a_person_says_before_the_fence_rises_is_believed_only_if_it_can_be_looked_at(probe: Check | None) -> None:
    """What was left on a host may have landed between the two."""
    steps = (Step("a", Playbook("a.yml"), undo=Playbook("u.yml")),)
    plan = Plan("p", "e", steps, inventory="hosts", version_probe=probe, state_file="/state")
    state = after(
        plan,
        ev.StepStarted("a", Direction.FORWARD, 1),
        ev.StepFailed("a", Direction.FORWARD, 1, FAILURE),
        ev.UndoStarted(FAILURE),
        ev.FenceFailed(UNREACHABLE),
        ev.Finished(Status.STRANDED, FAILURE),
    )
    request = ev.ResolveRequested("ada", "repaired")
    for again, fence in ((2, ev.FenceFailed(UNREACHABLE)), (3, ev.FenceRaised(("h",)))):
        for event in (request, ev.LeaseGranted("y", again), fence):
            state = evolve(state, ev.Entry(state.seq + 1, 99.0, event, "y", again))
        action = do.decide(state, 99.0)
        if again == 3 and probe is not None:
            assert action == do.Resolve(request)
            return
        assert isinstance(action, do.Write) and isinstance(action.event, ev.ResolveRefused)
        assert action.event.failure.code is (Code.LOOK_AGAIN if again == 3 else Code.HOST_UNREACHABLE)
        state = evolve(state, ev.Entry(state.seq + 1, 99.0, action.event, "y", again))
    # Said again, it counts: nothing has been left on hosts since.
    for event in (request, ev.LeaseGranted("y", 4), ev.FenceRaised(("h",))):
        state = evolve(state, ev.Entry(state.seq + 1, 99.0, event, "y", 4))
    assert do.decide(state, 99.0) == do.Resolve(request)


def test_a_check_of_what_is_repaired_that_kills_agents_is_given_up() -> None:
    plan = Plan("p", "e", (Step("a", Command("true")),), takeover_limit=1)
    state = after(plan, ev.StepStarted("a", Direction.FORWARD, 1), ev.StepFailed("a", Direction.FORWARD, 1, FAILURE))
    for event in (ev.UndoStarted(FAILURE), ev.Finished(Status.STRANDED, FAILURE)):
        state = evolve(state, ev.Entry(state.seq + 1, 99.0, event, "x", 1))
    request = ev.ResolveRequested("ada", "repaired")
    for again in (10, 20):  # each request anew
        state = evolve(state, ev.Entry(state.seq + 1, 99.0, request))
        for lost in range(2):
            grant = ev.LeaseGranted("y", again + lost)
            state = evolve(state, ev.Entry(state.seq + 1, 99.0, grant, "y", again + lost))
            assert do.decide(state, 99.0) == do.Resolve(request)
        state = evolve(state, ev.Entry(state.seq + 1, 99.0, ev.LeaseGranted("y", again + 2), "y", again + 2))
        action = do.decide(state, 99.0)
        assert isinstance(action, do.Write) and isinstance(action.event, ev.ResolveRefused)
        assert action.event.failure.code is Code.TAKEN_OVER_TOO_OFTEN
        state = evolve(state, ev.Entry(state.seq + 1, 99.0, action.event, "y", again + 2))


def test_hosts_are_asked_anew_after_a_takeover() -> None:
    steps = (Step("a", Playbook("a.yml"), undo=Playbook("u.yml"), retry=Retry(1, 0.0, 60.0)),)
    plan = Plan(project="p", environment="e", inventory="hosts", steps=steps, state_file="/state")
    asked = after(
        plan,
        ev.StepStarted("a", Direction.FORWARD, 1),
        ev.StepFailed("a", Direction.FORWARD, 1, FAILURE),
        ev.UndoStarted(FAILURE),
        ev.StepStarted("a", Direction.UNDO, 1),
        ev.StepFailed("a", Direction.UNDO, 1, FAILURE),
        ev.FenceFailed(UNREACHABLE),
        ev.VersionsSurveyed({"h": "1.0"}),
    )
    for event in (ev.LeaseGranted("y", 2), ev.FenceRaised(("h",))):
        asked = evolve(asked, ev.Entry(asked.seq + 1, 99.0, event, "y", 2))
    assert do.decide(asked, 99.0) == do.Survey()


def test_an_undo_that_could_not_begin_before_it_failed_is_fenced_off_too() -> None:
    retry = Retry(1, 0.0, 60.0)
    steps = tuple(Step(name, Playbook("x.yml"), undo=Playbook("u.yml"), retry=retry) for name in ("a", "b"))
    plan = Plan("p", "e", steps, inventory="hosts", retry=Retry(3, 0.0, 60.0))
    given_up = (
        ev.StepStarted("a", Direction.FORWARD, 1),
        ev.FenceRaised(("h",)),
        ev.StepSucceeded("a", Direction.FORWARD, 1),
        ev.StepStarted("b", Direction.FORWARD, 1),
        ev.StepFailed("b", Direction.FORWARD, 1, FAILURE),
        ev.UndoStarted(FAILURE),
        ev.StepStarted("b", Direction.UNDO, 1),
        ev.FenceRaised(("h",)),
        ev.StepSucceeded("b", Direction.UNDO, 1),
        ev.StepStarted("a", Direction.UNDO, 1),
        ev.FenceFailed(FAILURE),
        ev.StepStarted("a", Direction.UNDO, 2),
        ev.StepFailed("a", Direction.UNDO, 2, FAILURE),
    )
    assert do.decide(after(plan, *given_up), 99.0) == do.RaiseFence()


def test_what_has_no_undo_ends_when_nothing_of_it_can_reach_a_host_any_more() -> None:
    retry = Retry(2, 0.0, 60.0)
    plan = Plan("p", "e", (Step("a", Playbook("a.yml"), retry=Retry(1, 0.0, 60.0)),), inventory="hosts", retry=retry)
    given_up = (
        ev.StepStarted("a", Direction.FORWARD, 1),
        ev.FenceRaised(("h",)),
        ev.StepFailed("a", Direction.FORWARD, 1, FAILURE),
        ev.UndoStarted(FAILURE),
    )
    refused = ev.FenceFailed(UNREACHABLE)
    for failures in ((), (refused,)):
        assert do.decide(after(plan, *given_up, *failures), 99.0) == do.RaiseFence()
        ended = do.Write(ev.Finished(Status.ROLLED_BACK, FAILURE))
        assert do.decide(after(plan, *given_up, *failures, ev.FenceRaised(("h",))), 99.0) == ended
    stranded = do.Write(ev.Finished(Status.STRANDED, UNREACHABLE))
    assert do.decide(after(plan, *given_up, refused, refused), 99.0) == stranded


def test_versions_that_are_mixed_on_the_way_back_strand() -> None:
    steps = (Step("a", Playbook("a.yml"), undo=Playbook("u.yml"), retry=Retry(1, 0.0, 60.0)),)
    plan = Plan(project="p", environment="e", inventory="hosts", steps=steps, state_file="/state")
    undone = (
        ev.StepStarted("a", Direction.FORWARD, 1),
        ev.FenceRaised(("h",)),
        ev.StepFailed("a", Direction.FORWARD, 1, FAILURE),
        ev.UndoStarted(FAILURE),
        ev.StepStarted("a", Direction.UNDO, 1),
        ev.FenceRaised(("h",)),
        ev.StepSucceeded("a", Direction.UNDO, 1),
    )
    assert do.decide(after(plan, *undone), 99.0) == do.RecordVersion("1")
    recorded = after(plan, *undone, ev.VersionsRecorded(Direction.UNDO, "1"))
    assert do.decide(recorded, 99.0) == do.Write(ev.Finished(Status.ROLLED_BACK, FAILURE))
    mixed = (*undone, ev.VersionsMixed(Direction.UNDO, FAILURE))
    assert do.decide(after(plan, *mixed), 99.0) == do.RaiseFence()
    stranded = do.Write(ev.Finished(Status.STRANDED, FAILURE))
    for fence in (ev.FenceRaised(("h",)), ev.FenceFailed(UNREACHABLE)):
        assert do.decide(after(plan, *mixed, fence), 99.0) == do.Survey()
        assert do.decide(after(plan, *mixed, fence, ev.VersionsSurveyed({})), 99.0) == stranded


def test_what_waits_for_its_turn_is_cancelled_or_left_alone() -> None:
    plan = Plan(project="p", environment="e", steps=(Step("a", Command("true")),))
    queued = accept(ev.Entry(1, 1.0, ev.Accepted("e-1", "e", 1, "2", plan)))
    assert do.decide(queued, queued.elapsed) == do.Rest()
    cancelled = evolve(queued, ev.Entry(2, 2.0, ev.CancelRequested("ann")))
    said = Failure(Code.CANCELLED, "cancelled by ann")
    assert do.decide(cancelled, cancelled.elapsed) == do.Write(ev.Finished(Status.CANCELLED, said))


def test_a_bake_lasts_as_long_as_it_says() -> None:
    plan = Plan(project="p", environment="e", steps=(Step("a", Command("true")),), bake=0.5)
    done = (ev.StepStarted("a", Direction.FORWARD, 1), ev.StepSucceeded("a", Direction.FORWARD, 1))
    assert do.decide(after(plan, *done), 99.0) == do.Write(ev.BakeStarted(0.5))
    bakes = after(plan, *done, ev.BakeStarted(0.5))
    assert do.decide(bakes, bakes.elapsed) == do.Bake(0.5)
    assert do.decide(bakes, bakes.elapsed + 9.0) == do.Bake(0.0)


def test_a_cancel_says_who_and_why() -> None:
    plan = Plan(project="p", environment="e", steps=(Step("a", Command("true")),))
    for request, said in (
        (ev.CancelRequested("ann", "too late"), "cancelled by ann: too late"),
        (ev.CancelRequested("ann"), "cancelled by ann"),
        (ev.CancelRequested(""), "cancelled by someone"),
    ):
        action = do.decide(after(plan, request), 99.0)
        assert action == do.Write(ev.Finished(Status.CANCELLED, Failure(Code.CANCELLED, said)))


def test_a_cancel_ends_the_step_that_runs_unless_it_is_to_be_finished() -> None:
    step = Step("a", Command("true"))
    for on_cancel, why in ((OnCancel.ROLLBACK, "cancelled"), (OnCancel.FINISH, None)):
        plan = Plan(project="p", environment="e", steps=(step,), on_cancel=on_cancel)
        runs = after(plan, ev.StepStarted("a", Direction.FORWARD, 1))
        assert do.interrupts(runs) is None
        assert do.interrupts(after(plan, ev.StepStarted("a", Direction.FORWARD, 1), ev.CancelRequested("x"))) == why
        assert do.interrupts(after(plan, ev.CancelRequested("x"))) is None


@given(now=st.floats(-1e6, 1e6))
@settings(deadline=None)
def test_a_clock_that_jumps_never_lengthens_a_delay(now: float) -> None:
    plan = Plan(project="p", environment="e", steps=(Step("a", Command("true"), retry=Retry(3, 30.0, 60.0)),))
    state = after(plan, ev.StepStarted("a", Direction.FORWARD, 1), ev.StepFailed("a", Direction.FORWARD, 1, FAILURE))
    assert do.decide(state, state.elapsed + 10.0) == do.Wait(20.0), "and it is no shorter than it says"
    assert do.decide(state, state.elapsed + 29.5) == do.Wait(0.5)
    assert isinstance(do.decide(state, state.elapsed + 29.9995), do.RunStep), "nothing too short for a clock to tell"
    over = evolve(state, ev.Entry(state.seq + 1, now, ev.LeaseGranted("y", 2)))
    assert isinstance(do.decide(over, over.elapsed + 30.0), do.RunStep), "whoever has waited so long goes on"
    action = do.decide(over, over.elapsed)
    assert isinstance(action, do.RunStep) or (isinstance(action, do.Wait) and 0 < action.seconds <= 30.0)
