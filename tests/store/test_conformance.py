# SPDX-License-Identifier: Apache-2.0
"""What every store promises, tested on each of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from msgspec import structs

from surefoot.core import events as ev
from surefoot.core.errors import (
    Code,
    ConflictError,
    Failure,
    LeaseLostError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from surefoot.core.lease import AgentStatus, Role
from surefoot.core.plan import Direction
from surefoot.core.status import Status
from surefoot.core.summary import summarise
from surefoot.core.targets import Moment, Webhook
from surefoot.store.postgres import PostgresStore
from surefoot.store.protocol import AgentReport, Append, EnvironmentRow, Grant, LogLine, Standing, Store, Submission
from tests.store import journal as j

STARTED = ev.StepStarted("only", Direction.FORWARD, 1)


def report(name: str = "a", incarnation: str = "a-1", **more: object) -> AgentReport:
    return AgentReport(name, Role.PRIMARY, incarnation, **more)


# -- submit ------------------------------------------------------------------------------------------------------


def test_numbers_count_up_in_each_environment(store: Store) -> None:
    assert [j.submit(store, "1"), j.submit(store, "2"), j.submit(store, "1", "stage")] == [
        "prod-1",
        "prod-2",
        "stage-1",
    ]
    assert store.environment("prod").queue == ("prod-1", "prod-2")
    assert [row.name for row in store.environments()] == ["prod", "stage"]


def test_a_known_key_is_the_same_deployment(store: Store) -> None:
    first = store.submit(j.submission("1.0", key="build-7"))
    assert store.submit(j.submission("1.0", key="build-7")) == (first[0], False)
    assert store.submit(j.submission("1.0", "stage", key="build-7")) == ("stage-1", True)
    assert len(store.history("prod")) == 1


def test_one_key_submitted_by_many_at_once_becomes_one_deployment(opened: Callable[[], Store]) -> None:
    stores = [opened() for _ in range(8)]
    with ThreadPoolExecutor(len(stores)) as pool:
        results = list(pool.map(lambda store: store.submit(j.submission(key="k")), stores))
    assert {deployment for deployment, _ in results} == {"prod-1"}
    assert sum(new for _, new in results) == 1


def test_many_submit_at_once_and_each_gets_its_own_number(opened: Callable[[], Store]) -> None:
    stores = [opened() for _ in range(6)]
    with ThreadPoolExecutor(len(stores)) as pool:
        ids = list(pool.map(lambda n: j.submit(stores[n % 6], str(n)), range(60)))
    assert sorted(ids, key=lambda id_: int(id_.split("-")[1])) == [f"prod-{n}" for n in range(1, 61)]


def test_a_submission_is_journaled_with_its_plan(store: Store) -> None:
    store.submit(replace(j.submission("1.0"), reason="why not", commit="abc", bundle="d1", rollback=True))
    (entry,) = store.journal("prod-1")
    assert isinstance(entry.event, ev.Accepted)
    assert entry.event.plan == j.PLAN
    assert (entry.event.reason, entry.event.commit, entry.event.bundle, entry.event.rollback) == (
        "why not",
        "abc",
        "d1",
        True,
    )
    assert abs(entry.at - store.now()) < 60
    assert store.summary("prod-1") == summarise(j.state(store, "prod-1"))


def test_a_locked_environment_refuses_deployments_but_knows_its_keys(store: Store) -> None:
    store.submit(j.submission("0.9", key="early"))
    j.deployed(store, "1.0")
    stranded = j.deployed(store, "2.0", status=Status.STRANDED)
    with pytest.raises(RefusedError) as refused:
        j.submit(store, "3.0")
    assert refused.value.code is Code.LOCKED
    assert stranded in refused.value.message and stranded in refused.value.hint
    assert store.submit(j.submission("0.9", key="early")) == ("prod-1", False)
    assert j.submit(store, "3.0", "stage") == "stage-1"


def test_a_name_that_no_index_can_hold_is_refused(store: Store) -> None:
    for bad in (j.submission("v" * 10_000), j.submission("1.0", key="k" * 10_000), j.submission("")):
        with pytest.raises(UsageError):
            store.submit(bad)
    assert store.environments() == []


# -- journals of many --------------------------------------------------------------------------------------------


def test_journals_are_read_on_from_a_number_and_none_is_missed_or_read_twice(store: Store) -> None:
    ids = [j.deployed(store, str(n)) for n in range(5)]
    j.deployed(store, "1", "stage")
    queued = j.submit(store, "6")
    found = []
    after = 0
    while page := store.journals("prod", after, 2):
        assert len(page) <= 2
        found += page
        after = page[-1].number
    assert [(one.deployment, one.number) for one in found] == list(zip([*ids, queued], range(1, 7), strict=True))
    for one in found:
        assert list(one.entries) == store.journal(one.deployment)
    assert store.journals("prod", 6, 100) == [] == store.journals("nowhere", 0, 100)
    assert [one.number for one in store.journals("prod", 4, 100)] == [5, 6]
    assert store.openings("prod", 2, 3) == [replace(one, entries=one.entries[:1]) for one in found[2:5]]
    assert store.openings("nowhere", 0, 100) == []


# -- append ------------------------------------------------------------------------------------------------------


def test_summary_and_environment_are_the_fold_of_the_journal(store: Store) -> None:
    first = j.submit(store, "1.0")
    grant = j.claim(store, first)
    j.append(store, first, grant, STARTED)
    j.append(store, first, grant, ev.StepSucceeded("only", Direction.FORWARD, 1), ev.HealthPassed(Direction.FORWARD))
    after = j.finish(store, first, grant)
    assert store.summary(first) == summarise(after) == summarise(j.state(store, first))
    entries = store.journal(first)
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry.token for entry in entries] == [None, 1, 1, 1, 1, 1]
    assert after.finished_at == entries[-1].at and after.started_at == entries[1].at
    row = store.environment("prod")
    assert (row.current_version, row.previous_version, row.running, row.queue) == ("1.0", None, None, ())
    assert row.lease is not None and (row.lease.holder, row.lease.token) == (None, 1)
    j.deployed(store, "2.0")
    row = store.environment("prod")
    assert (row.current_version, row.previous_version) == ("2.0", "1.0")


def test_a_repeated_append_happens_once_and_answers_the_same(store: Store) -> None:
    deployment = j.submit(store)
    grant = j.claim(store, deployment)
    twice = Append(j.state(store, deployment), (STARTED,), grant=grant)
    first = store.append(twice)
    assert store.append(twice) == first
    assert len(store.journal(deployment)) == 3


def test_a_repeated_append_is_found_after_it_gave_the_lease_back(store: Store) -> None:
    deployment = j.submit(store)
    grant = j.claim(store, deployment)
    last = Append(j.state(store, deployment), (ev.Finished(Status.SUCCEEDED),), grant=grant, release=True)
    first = store.append(last)
    j.deployed(store, "2.0")
    assert store.append(last) == first
    assert store.environment("prod").current_version == "2.0"


def test_of_two_appends_to_one_journal_at_once_one_is_refused(opened: Callable[[], Store]) -> None:
    store, other = opened(), opened()
    deployment = j.submit(store)
    before = j.state(store, deployment)
    start = threading.Barrier(2)

    def cancel(handle: Store) -> bool:
        start.wait()
        try:
            handle.append(Append(before, (ev.CancelRequested("me"),)))
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(cancel, (store, other))) == [False, True]
    assert len(store.journal(deployment)) == 2


def test_an_append_without_the_lease_is_refused(store: Store) -> None:
    deployment = j.submit(store)
    with pytest.raises(LeaseLostError):
        j.append(store, deployment, Grant("prod", "a", 1), STARTED)
    old = j.claim(store, deployment, "a")
    new = j.claim(store, deployment, "b")
    for lost in (old, Grant("prod", "a", new.token), Grant("prod", "b", new.token + 1)):
        with pytest.raises(LeaseLostError):
            j.append(store, deployment, lost, STARTED)
    j.append(store, deployment, new, STARTED)
    assert len(store.journal(deployment)) == 4


def test_a_released_lease_is_lost(store: Store) -> None:
    deployment = j.submit(store)
    grant = j.claim(store, deployment)
    j.append(store, deployment, grant, ev.HandedOver("SIGTERM"), release=True)
    with pytest.raises(LeaseLostError):
        j.append(store, deployment, grant, STARTED)
    with pytest.raises(LeaseLostError):
        store.renew(grant)
    assert j.claim(store, deployment, "b").token == grant.token + 1


@pytest.mark.parametrize(
    "event",
    [
        STARTED,
        ev.Finished(Status.SUCCEEDED),
        ev.Finished(Status.CANCELLED),
        ev.Resolved(None, unchecked=True),
        ev.LeaseGranted("a", 1),
        ev.HandedOver("me"),
    ],
    ids=ev.type_of,
)
def test_nobody_without_a_lease_may_say_what_only_the_holder_knows(store: Store, event: ev.Event) -> None:
    deployment = j.submit(store)
    for events in ((event,), (ev.CancelRequested("me"), event)):
        if events == (ev.CancelRequested("me"), ev.Finished(Status.CANCELLED)):
            continue
        with pytest.raises(NotAllowedError):
            j.append(store, deployment, None, *events)
    assert len(store.journal(deployment)) == 1


def test_a_queued_deployment_is_cancelled_by_the_request_alone(store: Store) -> None:
    deployment = j.submit(store)
    after = j.append(store, deployment, None, ev.CancelRequested("me"), ev.Finished(Status.CANCELLED))
    assert store.summary(deployment).status is after.status is Status.CANCELLED
    assert store.work() == [] and store.environment("prod").queue == ()


def test_a_deployment_that_an_agent_has_begun_is_not_cancelled_by_the_request_alone(store: Store) -> None:
    deployment = j.submit(store)
    j.claim(store, deployment)
    with pytest.raises(NotAllowedError):
        j.append(store, deployment, None, ev.CancelRequested("me"), ev.Finished(Status.CANCELLED))
    assert j.append(store, deployment, None, ev.CancelRequested("me")).status is Status.RUNNING


def test_a_cancel_that_comes_after_the_end_changes_nothing(store: Store) -> None:
    first = j.deployed(store, "1.0")
    j.deployed(store, "2.0")
    j.append(store, first, None, ev.CancelRequested("me"))
    assert store.environment("prod").current_version == "2.0"


def test_a_stranded_environment_is_freed_by_an_unchecked_resolve(store: Store) -> None:
    j.deployed(store, "1.0")
    stranded = j.deployed(store, "2.0", status=Status.STRANDED)
    assert store.environment("prod").locked_by == stranded
    request = ev.ResolveRequested("me", "repaired", unchecked=True, version="2.0")
    j.append(store, stranded, None, request, ev.Resolved("2.0", unchecked=True))
    row = store.environment("prod")
    assert (row.current_version, row.previous_version, row.locked_by) == ("2.0", "1.0", None)
    assert store.summary(stranded).resolved
    assert j.submit(store, "3.0") == "prod-3"


def test_only_what_is_stranded_can_be_resolved_without_an_agent(store: Store) -> None:
    deployment = j.submit(store)
    request = ev.ResolveRequested("me", "repaired", unchecked=True)
    with pytest.raises(NotAllowedError):
        j.append(store, deployment, None, request, ev.Resolved("2.0", unchecked=True))


def test_what_does_not_exist_is_not_found(store: Store) -> None:
    j.submit(store)
    ghost = structs.replace(j.state(store, "prod-1"), id="prod-9")
    for call in (
        lambda: store.journal("prod-9"),
        lambda: store.summary("prod-9"),
        lambda: store.append(Append(ghost, (ev.CancelRequested("me"),), "x")),
        lambda: store.get_bundle("d"),
        lambda: store.set_drain("nobody", True),
    ):
        with pytest.raises(NotFoundError):
            call()
    assert store.queue_position("prod-9") is None
    assert store.find_version("nowhere", None) is None
    assert store.history("nowhere") == []
    assert store.environment("nowhere") == EnvironmentRow("nowhere")


def test_what_its_server_may_forget_is_told_where_there_is_one(store: Store) -> None:
    told = [weakness.message.split()[0] for weakness in store.weaknesses()]
    assert told == (["fsync"] if isinstance(store, PostgresStore) else []), "the tests' server is in a hurry"


def test_text_of_any_kind_survives(store: Store) -> None:
    nasty = "nul \x00 lone \ud800 emoji 🦶 '\"%s %(x)s :name; --"
    deployment = store.submit(replace(j.submission(nasty, key=nasty), reason=nasty))[0]
    assert store.submit(j.submission(nasty, key=nasty)) == (deployment, False)
    j.append(store, deployment, None, ev.CancelRequested("me", reason=nasty))
    store.append_log(deployment, [LogLine(nasty)])
    for text in (
        j.state(store, deployment).reason,
        store.log(deployment)[0].text,
        getattr(store.journal(deployment)[1].event, "reason", ""),
    ):
        assert "\ud800" not in text and "🦶" in text and text.endswith("--")
    assert "\x00" not in store.log(deployment)[0].text


# -- reading -----------------------------------------------------------------------------------------------------


def test_a_journal_is_read_in_pieces(store: Store) -> None:
    deployment = j.submit(store)
    grant = j.claim(store, deployment)
    j.append(store, deployment, grant, STARTED)
    whole = store.journal(deployment)
    assert store.journal(deployment, after=1) == whole[1:]
    assert store.journal(deployment, after=1, limit=1) == whole[1:2]
    assert store.journal(deployment, after=3) == []


def test_history_goes_from_the_newest_back(store: Store) -> None:
    for n in range(5):
        j.submit(store, str(n))
    assert [summary.number for summary in store.history("prod", limit=2)] == [5, 4]
    assert [summary.number for summary in store.history("prod", limit=2, before=4)] == [3, 2]
    assert [summary.number for summary in store.history("prod", before=2)] == [1]


def test_a_version_is_found_where_it_last_succeeded(store: Store) -> None:
    first = j.deployed(store, "1.0")
    assert store.find_version("prod", None) is None
    second = j.deployed(store, "2.0")
    again = j.deployed(store, "1.0")
    j.deployed(store, "3.0", status=Status.FAILED)
    assert [found and found.id for found in (store.find_version("prod", v) for v in ("1.0", "2.0", "3.0", "4.0"))] == [
        again,
        second,
        None,
        None,
    ]
    assert first != again
    back = store.find_version("prod", None)
    assert back is not None and back.id == second
    for version in ("2.0", "1.0"):  # by a person, who may go back further than a step
        stranded = j.deployed(store, "4.0", status=Status.STRANDED)
        resolved = ev.Resolved(version, unchecked=True)
        j.append(store, stranded, None, ev.ResolveRequested("me", "by hand", version=version, unchecked=True), resolved)
    j.deployed(store, "5.0", status=Status.FAILED)
    row = store.environment("prod")
    assert (row.current_version, row.previous_version) == ("1.0", "2.0")
    back = store.find_version("prod", None)
    assert back is not None and back.version == "2.0"


def test_places_in_the_queue(store: Store) -> None:
    first, second, third = (j.submit(store, v) for v in "123")
    assert [store.queue_position(d) for d in (first, second, third)] == [1, 2, 3]
    grant = j.claim(store, first)
    assert [store.queue_position(d) for d in (first, second, third)] == [None, 1, 2]
    assert store.environment("prod").running == first
    assert store.environment("prod").queue == (second, third)
    j.finish(store, first, grant)
    assert store.environment("prod").running is None


# -- leases ------------------------------------------------------------------------------------------------------


def test_work_is_the_next_one_of_each_environment_oldest_first(store: Store) -> None:
    assert store.work() == []
    j.submit(store, "1", "b"), j.submit(store, "1", "a"), j.submit(store, "2", "b")
    assert [(work.environment, work.deployment) for work in store.work()] == [("b", "b-1"), ("a", "a-1")]
    grant = j.claim(store, "b-1")
    (work,) = [work for work in store.work() if work.environment == "b"]
    assert work.deployment == "b-1" and work.holder_present
    assert (work.lease.holder, work.lease.token, work.lease.ttl) == ("a", 1, 5.0)
    j.finish(store, "b-1", grant)
    assert [work.deployment for work in store.work()] == ["a-1", "b-2"]


def test_what_is_queued_waits_while_the_environment_is_locked(store: Store) -> None:
    j.deployed(store, "1.0")
    stranded = j.submit(store, "2.0")
    waiting = j.submit(store, "3.0")
    early = j.a_claim(store, waiting)
    j.finish(store, stranded, j.claim(store, stranded), Status.STRANDED)
    assert store.work() == []
    assert store.claim(early) is None
    assert store.claim(j.a_claim(store, waiting)) is None
    j.append(store, stranded, None, ev.ResolveRequested("me", "repaired"))
    assert [work.deployment for work in store.work()] == [stranded]
    grant = j.claim(store, stranded)
    j.append(store, stranded, grant, ev.Resolved("1.0"), release=True)
    assert [work.deployment for work in store.work()] == [waiting]


def test_a_claim_of_a_lease_that_has_changed_is_nobodys(store: Store) -> None:
    deployment = j.submit(store)
    first, second = j.a_claim(store, deployment, "a"), j.a_claim(store, deployment, "b")
    grant = store.claim(first)
    assert grant == Grant("prod", "a", 1)
    assert store.claim(second) is None
    late = j.a_claim(store, deployment, "b")
    store.renew(grant)
    assert store.claim(late) is None
    taken = store.claim(j.a_claim(store, deployment, "b"))
    assert taken == Grant("prod", "b", 2)
    with pytest.raises(LeaseLostError):
        store.renew(grant)
    store.renew(taken)


def test_a_repeated_claim_happens_once(store: Store) -> None:
    deployment = j.submit(store)
    claim = j.a_claim(store, deployment)
    grant = store.claim(claim)
    assert grant is not None and store.claim(claim) == grant
    assert len(store.journal(deployment)) == 2
    j.claim(store, deployment, "b")
    assert store.claim(claim) is None


def test_a_renewal_moves_what_observers_watch(store: Store) -> None:
    deployment = j.submit(store)
    grant = j.claim(store, deployment)
    before = j.seen(store)
    store.renew(grant)
    after = j.seen(store)
    assert (after.token, after.renewals) == (before.token, before.renewals + 1)
    assert 0 <= after.age < 30


def test_of_many_that_claim_at_once_one_gets_the_lease(opened: Callable[[], Store]) -> None:
    stores = [opened() for _ in range(6)]
    for round_ in range(5):
        deployment = j.submit(stores[0], str(round_))
        claims = [j.a_claim(store, deployment, f"agent-{n}") for n, store in enumerate(stores)]
        start = threading.Barrier(len(stores))

        def race(n: int, start: threading.Barrier = start, claims: list[object] = claims) -> Grant | None:
            start.wait()
            return stores[n].claim(claims[n])

        with ThreadPoolExecutor(len(stores)) as pool:
            grants = [grant for grant in pool.map(race, range(len(stores))) if grant is not None]
        assert len(grants) == 1
        assert len(stores[0].journal(deployment)) == 2
        j.finish(stores[0], deployment, grants[0])


def test_a_second_deployment_of_an_environment_never_starts_beside_the_first(store: Store) -> None:
    first, second = j.submit(store, "1"), j.submit(store, "2")
    grant = j.claim(store, first)
    assert store.claim(j.a_claim(store, second, "b")) is None
    j.append(store, first, grant, ev.HandedOver("SIGTERM"), release=True)
    assert store.claim(j.a_claim(store, second, "b")) is None
    assert [work.deployment for work in store.work()] == [first]


def test_a_claim_loses_to_a_cancel_that_came_first(store: Store) -> None:
    deployment = j.submit(store)
    claim = j.a_claim(store, deployment)
    j.append(store, deployment, None, ev.CancelRequested("me"))
    assert store.claim(claim) is None
    assert j.seen(store).holder is None and j.seen(store).token == 0


def test_what_has_ended_is_nobodys_to_claim(store: Store) -> None:
    cancelled = j.submit(store, "1")
    j.append(store, cancelled, None, ev.CancelRequested("me"), ev.Finished(Status.CANCELLED))
    assert store.claim(j.a_claim(store, cancelled)) is None
    succeeded = j.deployed(store, "2")
    assert store.claim(j.a_claim(store, succeeded)) is None
    stranded = j.deployed(store, "3", status=Status.STRANDED)
    assert store.claim(j.a_claim(store, stranded)) is None
    j.append(store, stranded, None, ev.ResolveRequested("me", "repaired"))
    grant = store.claim(j.a_claim(store, stranded))
    assert grant is not None
    j.append(store, stranded, grant, ev.Resolved("3"), release=True)
    assert store.claim(j.a_claim(store, stranded)) is None


# -- agents ------------------------------------------------------------------------------------------------------


def test_agents_are_seen_as_they_report(store: Store) -> None:
    assert store.agents(5.0) == []
    assert store.report(report("a", preference=1, cpu_percent=12.5, running="prod-1")) is Standing.WELCOME
    assert store.report(report("b", "b-1", degraded="disk 97 %", ends_with="prod-2")) is Standing.WELCOME
    assert store.report(report("c", "c-1", stopping=True)) is Standing.WELCOME
    store.set_drain("a", True)
    a, b, c = store.agents(60.0)
    assert (a.status, b.status, c.status) == (AgentStatus.DRAINING, AgentStatus.DEGRADED, AgentStatus.OFFLINE)
    assert a.report == report("a", preference=1, cpu_percent=12.5, running="prod-1")
    assert (b.reason, b.report.ends_with) == ("disk 97 %", "prod-2")
    assert abs(a.last_seen_at - store.now()) < 30
    assert store.report(report("a", "a-2")) is Standing.DRAINED
    assert store.agents(60.0)[0].status is AgentStatus.DRAINING
    store.set_drain("a", False)
    assert store.agents(60.0)[0].status is AgentStatus.ONLINE


def test_an_agent_unheard_of_is_offline_until_it_reports(store: Store) -> None:
    store.report(report())
    time.sleep(0.05)
    (agent,) = store.agents(0.01)
    assert agent.status is AgentStatus.OFFLINE and "unheard" in agent.reason
    store.report(report())
    assert store.agents(5.0)[0].status is AgentStatus.ONLINE


def test_an_agent_that_came_for_a_while_leaves_nothing(opened: Callable[[], Store]) -> None:
    store, other = opened(), opened()
    store.enter("a", "a-1")
    store.report(report("a", "a-1"))
    store.report(report("b", "b-1"))
    store.leave("a", "another life of it")
    assert len(other.agents(60.0)) == 2
    store.leave("a", "a-1")
    assert [row.report.name for row in other.agents(60.0)] == ["b"]
    store.leave("a", "a-1")


def test_an_agent_that_holds_a_lease_is_not_forgotten(store: Store) -> None:
    store.enter("a", "a-1")
    store.report(report("a", "a-1"))
    j.claim(store, j.submit(store), "a")
    store.leave("a", "a-1")
    assert [row.report.name for row in store.agents(60.0)] == ["a"]


def test_a_second_process_of_one_name_is_refused(opened: Callable[[], Store]) -> None:
    first, second = opened(), opened()
    first.enter("a", "a-1")
    assert first.enter("a", "a-1") == first.enter("a", "a-1")
    assert first.report(report("a", "a-1")) is Standing.WELCOME
    with pytest.raises(NotAllowedError) as refused:
        second.enter("a", "a-2")
    assert refused.value.code is Code.AGENT_DUPLICATE
    assert second.report(report("a", "a-2")) is Standing.TAKEN
    assert first.agents(60.0)[0].report.incarnation == "a-1"
    assert second.enter("other", "o-1") is not None


def test_many_agents_that_enter_at_once_all_have_their_presence(opened: Callable[[], Store]) -> None:
    stores = [opened() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: stores[n].enter(f"agent {n}/ä", f"{n}"), range(8)))
    for n in range(8):
        with pytest.raises(NotAllowedError):
            stores[0].enter(f"agent {n}/ä", "another")
    assert stores[0].enter("new", "1") is not None


def test_a_new_process_takes_over_the_name_of_one_that_has_no_presence(store: Store) -> None:
    assert store.report(report("a", "a-1")) is Standing.WELCOME
    assert store.report(report("a", "a-2")) is Standing.WELCOME
    assert store.agents(60.0)[0].report.incarnation == "a-2"


def test_without_presence_a_holder_is_never_called_gone(opened: Callable[[], Store]) -> None:
    store = opened()
    deployment = j.submit(store)
    j.claim(store, deployment)
    assert [work.holder_present for work in store.work()] == [True]


# -- logs and bundles --------------------------------------------------------------------------------------------


def test_log_lines_keep_their_order(store: Store) -> None:
    deployment = j.submit(store)
    grant = j.claim(store, deployment)
    store.append_log(deployment, [])
    store.append_log(deployment, [LogLine(f"line {n}", step="only", attempt=1, token=1) for n in range(5)], grant)
    store.append_log(deployment, [LogLine("last", stream="stderr")], grant)
    lines = store.log(deployment)
    assert [line.text for line in lines] == [*(f"line {n}" for n in range(5)), "last"]
    assert lines[5].stream == "stderr" and lines[0].step == "only"
    ids = [line.id for line in lines if line.id is not None]
    assert ids == sorted(set(ids)) and all(line.at for line in lines)
    assert store.log(deployment, after=ids[2], limit=2) == lines[3:5]
    assert store.log("prod-9") == []


def test_lines_of_an_agent_that_lost_the_lease_are_dropped(store: Store) -> None:
    deployment = j.submit(store)
    old = j.claim(store, deployment, "a")
    j.claim(store, deployment, "b")
    store.append_log(deployment, [LogLine("a ghost speaks")], old)
    assert store.log(deployment) == []


def test_who_follows_a_log_misses_no_line_of_many_writers(opened: Callable[[], Store]) -> None:
    store = opened()
    deployment = j.submit(store)
    writers = [opened() for _ in range(4)]

    def write(n: int) -> None:
        for i in range(15):
            writers[n].append_log(deployment, [LogLine(f"{n} {i}"), LogLine(f"{n} {i} more")])

    followed: list[LogLine] = []
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(write, n) for n in range(4)]
        while not all(future.done() for future in done):
            followed += store.log(deployment, after=followed[-1].id or 0 if followed else 0)
        for future in done:
            future.result()
    followed += store.log(deployment, after=followed[-1].id or 0 if followed else 0)
    assert len(followed) == 4 * 15 * 2
    assert followed == store.log(deployment)


def test_a_bundle_comes_back_as_it_was_put(store: Store) -> None:
    data = bytes(range(256)) * 10_000
    store.put_bundle("d1", (data[n : n + 70_000] for n in range(0, len(data), 70_000)))
    store.put_bundle("d1", iter([b"never read"]))
    store.put_bundle("empty", [])
    assert b"".join(store.get_bundle("d1")) == data
    assert b"".join(store.get_bundle("empty")) == b""


def test_a_bundle_whose_upload_broke_off_is_not_there(store: Store) -> None:
    def breaks() -> object:
        yield b"x" * 2_000_000
        raise RuntimeError("the line is cut")

    with pytest.raises(RuntimeError):
        store.put_bundle("d1", breaks())
    with pytest.raises(NotFoundError):
        store.get_bundle("d1")
    store.put_bundle("d1", [b"whole"])
    assert b"".join(store.get_bundle("d1")) == b"whole"


def test_one_bundle_put_by_many_at_once_is_whole(opened: Callable[[], Store]) -> None:
    stores = [opened() for _ in range(4)]
    data = b"z" * 3_000_000
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda store: store.put_bundle("d", [data]), stores))
    assert b"".join(stores[0].get_bundle("d")) == data


# -- changes -----------------------------------------------------------------------------------------------------


def settle(store: Store) -> None:
    while store.wait(0.15):
        pass


def test_waiting_ends_when_another_handle_changes_something(opened: Callable[[], Store]) -> None:
    store, other = opened(), opened()
    j.submit(store)
    settle(store)
    assert store.wait(0.0) is False
    for change in (
        lambda: j.submit(other, "2"),
        lambda: j.append(other, "prod-1", None, ev.CancelRequested("me")),
        lambda: j.claim(other, "prod-1"),
    ):
        timer = threading.Timer(0.1, change)
        timer.start()
        began = time.monotonic()
        assert store.wait(10.0)
        assert time.monotonic() - began < 5.0
        timer.join()
        settle(store)


def test_waiting_ends_when_this_process_changes_something(store: Store) -> None:
    settle(store)
    timer = threading.Timer(0.1, lambda: j.submit(store))
    timer.start()
    assert store.wait(10.0)
    timer.join()


def test_a_change_between_reading_and_waiting_is_not_missed(store: Store) -> None:
    settle(store)
    j.submit(store)
    assert store.wait(10.0)
    mark = store.mark()
    settle(store)
    j.submit(store)
    assert store.wait(10.0, mark)


def test_signs_of_life_wake_nobody(store: Store) -> None:
    grant = j.claim(store, j.submit(store))
    settle(store)

    def wakes() -> bool:
        store.renew(grant)
        store.report(report())
        return store.wait(0.3)

    # A late word of the claim may wake once, where much else goes on; a sign of life that wakes does so each time.
    assert not all(wakes() for _ in range(4))


def test_agents_hear_of_what_they_may_have_to_act_upon(opened: Callable[[], Store]) -> None:
    store, other = opened(), opened()
    while store.wait_as_agent(0.15) is not None:
        pass
    deployment = j.submit(other)
    assert store.wait_as_agent(10.0) is not None
    grant = j.claim(other, deployment)
    while store.wait_as_agent(0.15) is not None:
        pass
    j.append(other, deployment, None, ev.CancelRequested("me"))
    news = store.wait_as_agent(10.0)
    assert news is not None and (news.asked is None or deployment in news.asked)
    while store.wait_as_agent(0.15) is not None:
        pass
    j.finish(other, deployment, grant)
    assert store.wait_as_agent(10.0) is not None


# -- whole lives ------------------------------------------------------------------------------------------------------


def test_agents_that_race_for_a_queue_do_each_deployment_once_and_one_at_a_time(opened: Callable[[], Store]) -> None:
    store = opened()
    for n in range(24):
        j.submit(store, str(n), f"env{n % 3}")
    problems: list[str] = []
    busy: dict[str, str] = {}
    guard = threading.Lock()

    def agent(name: str) -> int:
        mine, done = opened(), 0
        while work := mine.work():
            for item in work:
                if item.lease.holder is not None:
                    continue
                grant = mine.claim(j.a_claim(mine, item.deployment, name, lease=item.lease))
                if grant is None:
                    continue
                with guard:
                    if item.environment in busy:
                        problems.append(f"{item.deployment} beside {busy[item.environment]}")
                    busy[item.environment] = item.deployment
                j.append(mine, item.deployment, grant, STARTED)
                j.append(mine, item.deployment, grant, ev.StepSucceeded("only", Direction.FORWARD, 1))
                with guard:
                    del busy[item.environment]
                j.finish(mine, item.deployment, grant)
                done += 1
        return done

    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(agent, "abcd"))
    assert problems == []
    assert sum(counts) == 24
    for environment in ("env0", "env1", "env2"):
        history = store.history(environment)
        assert [summary.token for summary in history] == list(range(8, 0, -1))
        assert {summary.status for summary in history} == {Status.SUCCEEDED}


def test_a_failure_is_kept_with_its_reason(store: Store) -> None:
    deployment = j.submit(store)
    grant = j.claim(store, deployment)
    failure = Failure(Code.PREFLIGHT_FAILED, "no image", hint="push it", agent="a")
    j.append(store, deployment, grant, ev.PreflightFailed(failure), ev.Finished(Status.FAILED, failure), release=True)
    assert store.summary(deployment).reason == failure


def test_the_end_of_a_log_is_the_id_of_its_last_line(store: Store) -> None:
    deployment = j.submit(store)
    assert store.log_end(deployment) == 0
    store.append_log(deployment, [LogLine(str(n)) for n in range(70)])
    end = store.log_end(deployment)
    assert [line.text for line in store.log(deployment, after=end - 3)] == ["67", "68", "69"]


# -- the outbox --------------------------------------------------------------------------------------------------

TOLD = Webhook("hook", "https://example.invalid", on=(Moment.ACCEPTED, Moment.ROLLED_BACK, Moment.RESOLVED))


def told_submission(version: str = "1.0") -> Submission:
    plain = j.submission(version)
    return replace(plain, plan=structs.replace(plain.plan, targets=(TOLD,)))


def rolled_back(store: Store) -> tuple[str, int]:
    """A deployment whose end is to be told, with its acceptance told already; and the seq of its end."""
    deployment, _ = store.submit(told_submission())
    j.append(store, deployment, None, ev.Delivered("hook", 1, "sent"))
    grant = j.claim(store, deployment)
    return deployment, j.finish(store, deployment, grant, Status.ROLLED_BACK).seq


def test_an_end_that_is_to_be_told_is_in_the_outbox_as_soon_as_it_is_in_the_journal(store: Store) -> None:
    deployment, end = rolled_back(store)
    (delivery,) = store.deliveries()
    assert (delivery.deployment, delivery.of, delivery.target, delivery.tries) == (deployment, end, "hook", 0)
    assert delivery.due_in <= 0


def test_nothing_is_in_the_outbox_of_a_deployment_that_nobody_wants_to_hear_of(store: Store) -> None:
    j.deployed(store, "1.0", status=Status.ROLLED_BACK)
    assert store.deliveries(within=1e6) == []


def test_what_was_told_is_in_the_journal_and_out_of_the_outbox(store: Store) -> None:
    deployment, end = rolled_back(store)
    before = store.summary(deployment)
    state = j.append(store, deployment, None, ev.Delivered("hook", end, "sent", by="a"))
    assert store.deliveries(within=1e6) == []
    assert state.deliveries[-1].of == end
    after = store.summary(deployment)
    assert (after.status, after.reason, after.finished_at) == (before.status, before.reason, before.finished_at)


def test_a_try_that_failed_stays_in_the_outbox_until_it_is_given_up(store: Store) -> None:
    deployment, end = rolled_back(store)
    failure = Failure(Code.DELIVERY_FAILED, "no answer")
    j.append(store, deployment, None, ev.DeliveryFailed("hook", end, failure))
    assert len(store.deliveries()) == 1
    j.append(store, deployment, None, ev.DeliveryFailed("hook", end, failure, tries=9, given_up=True))
    assert store.deliveries(within=1e6) == []


def test_of_many_who_try_a_delivery_at_once_one_gets_it(opened: Callable[[], Store]) -> None:
    stores = [opened() for _ in range(6)]
    rolled_back(stores[0])
    (delivery,) = stores[0].deliveries()
    with ThreadPoolExecutor(len(stores)) as pool:
        taken = list(pool.map(lambda store: store.take_delivery(delivery, 60.0), stores))
    assert sum(taken) == 1
    assert stores[0].deliveries() == []


def test_a_delivery_whose_agent_died_is_due_again_after_a_while(store: Store) -> None:
    rolled_back(store)
    (delivery,) = store.deliveries()
    assert store.take_delivery(delivery, 0.05)
    deadline = time.monotonic() + 10
    while not (again := store.deliveries()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert again[0].tries == 1
    assert store.take_delivery(again[0], 60.0)


def test_a_postponed_delivery_waits(store: Store) -> None:
    rolled_back(store)
    (delivery,) = store.deliveries()
    assert store.take_delivery(delivery, 60.0)
    store.postpone_delivery(delivery, 30.0)
    assert store.deliveries() == []
    (waiting,) = store.deliveries(within=40.0)
    assert 0 < waiting.due_in <= 30.0
    store.postpone_delivery(delivery, 0.0)
    assert len(store.deliveries()) == 1


def test_what_comes_after_a_postponed_delivery_is_due_as_soon_as_that_is_told(store: Store) -> None:
    deployment, _ = store.submit(told_submission())
    grant = j.claim(store, deployment)
    end = j.finish(store, deployment, grant, Status.ROLLED_BACK).seq
    (first,) = store.deliveries()
    assert store.take_delivery(first, 60.0)
    store.postpone_delivery(first, 3600.0)
    assert store.deliveries() == []
    assert [delivery.of for delivery in store.deliveries(within=4000.0)] == [1]
    j.append(store, deployment, None, ev.Delivered("hook", 1, "sent"))
    (second,) = store.deliveries()
    assert (second.of, second.tries) == (end, 0)


def test_a_story_is_told_in_its_order(store: Store) -> None:
    deployment, _ = store.submit(told_submission())
    grant = j.claim(store, deployment)
    end = j.finish(store, deployment, grant, Status.ROLLED_BACK).seq
    assert [delivery.of for delivery in store.deliveries()] == [1]
    j.append(store, deployment, None, ev.Delivered("hook", 1, "sent"))
    assert [delivery.of for delivery in store.deliveries()] == [end]
