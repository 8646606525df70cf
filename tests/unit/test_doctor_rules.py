# SPDX-License-Identifier: Apache-2.0
"""Rules by themselves, where the fault takes hours, another machine or a broken database to make."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as restruct

from surefoot.checks.model import CheckResult, CheckStatus
from surefoot.core import events as ev
from surefoot.core.deployment import Deployment, fold
from surefoot.core.environment import Freeze
from surefoot.core.errors import Code, Failure
from surefoot.core.gates import Approvals, Gate, Gates, Wait
from surefoot.core.lease import AgentStatus, Role
from surefoot.core.plan import Check, Command, Direction, Plan, Retry, Step
from surefoot.core.status import Status
from surefoot.doctor.facts import (
    AgentProcess,
    Borrowed,
    Checked,
    EnvironmentFacts,
    Facts,
    HostFacts,
    StoreFacts,
    Trouble,
    Unchecked,
    Unit,
)
from surefoot.doctor.findings import Depth, Finding, Severity, ranked
from surefoot.doctor.report import document, lines
from surefoot.doctor.rules import diagnose
from surefoot.doctor.where import where
from surefoot.store.protocol import AgentReport, AgentRow, EnvironmentRow, LeaseRow, Weakness

NOW = 1_800_000_000.0
STORE = StoreFacts("postgresql://surefoot@db-01/surefoot", skew=0.0)
WELL = {
    "user": "deploy",
    "sudo": "yes",
    "python": "3.11.2",
    "fence": "/var/lib/surefoot/fence",
    "fence_writable": "yes",
}


def facts(**changes: Any) -> Facts:
    return replace(Facts("shop", "runner-01", NOW, STORE), **changes)


def deployment(*events: ev.Event, number: int = 1, ago: float = 60.0, **plan: Any) -> Deployment:
    """A deployment whose journal holds these events, one a second."""
    steps = (Step("activate", Command("true"), retry=Retry(1, 0.0, 600.0)),)
    accepted = ev.Accepted(
        f"prod-{number}", "prod", number, "2.0", Plan("shop", "prod", steps, **plan), requested_by="ada"
    )
    token = 0
    entries = []
    for seq, event in enumerate((accepted, *events), start=1):
        token = event.token if isinstance(event, ev.LeaseGranted) else token
        entries.append(ev.Entry(seq, NOW - ago + seq, event, "runner-01" if token else None, token or None))
    return fold(entries)


def at_work(*events: ev.Event, **more: Any) -> Deployment:
    started = ev.StepStarted("activate", Direction.FORWARD, 1)
    granted = ev.LeaseGranted(agent="runner-01", token=1)
    return deployment(granted, ev.PreflightPassed(), started, *events, **more)


def prod(row: EnvironmentRow | None = None, **more: Any) -> EnvironmentFacts:
    return EnvironmentFacts(row or EnvironmentRow("prod"), **more)


def agent(name: str, status: AgentStatus, reason: str = "", **more: Any) -> AgentRow:
    return AgentRow(AgentReport(name, Role.PRIMARY, "x", **more), status, NOW - 3.0, reason)


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, found
    return found[0]


def failing(kind: str, message: str, hint: str = "", *, health: bool = False, host: str | None = None) -> Checked:
    check = Check(kind, {})
    return Checked(check, CheckResult(kind, CheckStatus.FAIL, message, hint, host=host), health)


# -- the store and this machine ----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [Code.STORE_READ_ONLY, Code.STORE_AUTH, Code.STORE_FULL, Code.STORE_BUSY])
def test_store_that_can_not_be_used_is_the_first_cause_whatever_else_there_is(code: Code) -> None:
    store = replace(STORE, trouble=Trouble(code, "the store says no", "do this"))
    lost = HostFacts("web-01", "10.0.0.1", Failure(Code.HOST_UNREACHABLE, "no route"))
    first = diagnose(facts(store=store, environments=(prod(hosts=(lost,)),)))[0]
    assert (first.rule, first.code, first.fix, first.runbook) == ("store", code, "do this", "store-down")


def test_store_that_may_forget_is_a_warning_for_each_reason() -> None:
    weaknesses = (Weakness("fsync is off", "have it on"), Weakness("nobody replicates", "have somebody do it"))
    found = diagnose(facts(store=replace(STORE, weaknesses=weaknesses)))
    assert [(f.rule, f.severity, f.evidence, f.fix) for f in found] == [
        ("store-forgets", Severity.WARNING, (weakness.message,), weakness.hint) for weakness in weaknesses
    ]


@pytest.mark.parametrize(("skew", "words"), [(90.0, "90 s ahead of"), (-90.0, "90 s behind")])
def test_clock_that_is_off(skew: float, words: str) -> None:
    found = only(diagnose(facts(store=replace(STORE, skew=skew))))
    assert (found.rule, found.runbook) == ("clock-skew", "clock-skew")
    assert words in found.title
    assert not diagnose(facts(store=replace(STORE, skew=skew / 30)))


def test_full_disk_of_the_agent() -> None:
    found = only(diagnose(facts(disk_percent=99.0, disk_where="/srv")))
    assert (found.rule, found.code, found.severity) == ("agent-disk", Code.AGENT_FOLDER, Severity.BROKEN)


# -- agents --------------------------------------------------------------------------------------------------


def test_agent_that_nobody_hears_of_may_be_frozen_or_cut_off() -> None:
    rows = (agent("one", AgentStatus.OFFLINE, "unheard of for 60 s"), agent("two", AgentStatus.ONLINE))
    found = only(diagnose(facts(agents=rows, configured=("one", "two"))))
    assert (found.rule, found.severity, found.runbook) == ("agent-silent", Severity.WARNING, "runner-offline")


def test_agent_that_works_with_another_store() -> None:
    rows = (agent("one", AgentStatus.OFFLINE, "its process is gone"),)
    processes = (AgentProcess(12, "one", False, False),)
    first = diagnose(facts(agents=rows, configured=("one",), processes=processes))[0]
    assert first.rule == "agent-ended"
    assert "process 12 on runner-01 runs an agent of that name with another store or config" in first.evidence


def test_degraded_agent() -> None:
    rows = (agent("one", AgentStatus.DEGRADED, "memory 97 % > 95 %", memory_percent=97.0),)
    found = only(diagnose(facts(agents=rows, configured=("one",))))
    assert (found.rule, found.runbook) == ("agent-degraded", "runner-degraded")


def test_emergency_agents_are_not_missed() -> None:
    rows = (agent("one", AgentStatus.ONLINE), agent("laptop", AgentStatus.OFFLINE, "stopped"))
    known = facts(agents=rows, configured=("one", "anywhere"), emergency=frozenset({"anywhere"}))
    assert diagnose(known) == []


def test_runner_service_that_is_down_though_the_machine_is_up() -> None:
    units = (
        Unit("actions.runner.shop.runner-01.service", "failed", "failed"),
        Unit("surefoot-agent.service", "active", "running"),
    )
    found = only(diagnose(facts(units=units)))
    assert found.fix == "systemctl restart actions.runner.shop.runner-01.service"


# -- hosts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "rule", "code"),
    [
        ({"python": ""}, "host-python", Code.HOST_PYTHON),
        ({"missing": "flock"}, "fence-programs", Code.FENCE_FOLDER),
        ({"free": "0"}, "host-disk", Code.HOST_DISK_FULL),
        ({"fence_writable": ""}, "fence-folder", Code.FENCE_FOLDER),
    ],
)
def test_host_that_a_deployment_would_fail_on(change: dict[str, str], rule: str, code: Code) -> None:
    host = HostFacts("web-01", "10.0.0.1", told=WELL | change)
    found = only(diagnose(facts(environments=(prod(hosts=(host,)),))))
    assert (found.rule, found.code, found.host) == (rule, code, "web-01")


def test_sudo_is_only_missed_where_a_deployment_has_failed_of_it() -> None:
    host = HostFacts("web-01", "10.0.0.1", told=WELL | {"sudo": "no"})
    assert diagnose(facts(environments=(prod(hosts=(host,)),))) == []
    failure = Failure(Code.HOST_SUDO, "a password is required", host="web-01")
    failed = deployment(
        ev.LeaseGranted(agent="runner-01", token=1),
        ev.PreflightFailed(failure),
        ev.Finished(Status.FAILED, failure),
    )
    found = diagnose(facts(environments=(prod(hosts=(host,), last=failed),)))
    assert found[0].rule == "host-sudo"


def test_hosts_clock() -> None:
    host = HostFacts("web-01", "10.0.0.1", told=WELL, skew=600.0)
    assert only(diagnose(facts(environments=(prod(hosts=(host,)),)))).rule == "host-clock"


def test_check_on_a_host_that_nobody_reaches_is_no_cause_of_its_own() -> None:
    lost = HostFacts("web-01", "10.0.0.1", Failure(Code.HOST_UNREACHABLE, "no route"))
    checks = (failing("http", "no answer", health=True, host="web-01"),)
    assert only(diagnose(facts(environments=(prod(hosts=(lost,), checks=checks),)))).rule == "host-unreachable"


# -- deployments and gates -------------------------------------------------------------------------------------


def test_stuck_step() -> None:
    running = at_work(ago=400.0)
    row = EnvironmentRow("prod", running="prod-1")
    found = only(diagnose(facts(environments=(prod(row, running=running, silent_for=390.0),))))
    assert (found.rule, found.fix) == ("step-stuck", "surefoot cancel prod-1")
    assert diagnose(facts(environments=(prod(row, running=running, silent_for=3.0),))) == []


def test_step_near_its_timeout_though_it_talks() -> None:
    row = EnvironmentRow("prod", running="prod-1")
    found = only(diagnose(facts(environments=(prod(row, running=at_work(ago=580.0), silent_for=1.0),))))
    assert found.rule == "step-stuck"


def test_lease_that_nobody_takes_over() -> None:
    lease = LeaseRow("prod", "runner-01", 1, 9, 5.0, age=90.0)
    row = EnvironmentRow("prod", running="prod-1", lease=lease)
    found = only(diagnose(facts(environments=(prod(row, running=at_work(ago=30.0)),))))
    assert (found.rule, found.agent) == ("lease-stale", "runner-01")


def test_fence_that_does_not_rise() -> None:
    failure = Failure(Code.HOST_UNREACHABLE, "web-02: no route", hint="look there", host="web-02")
    running = deployment(ev.LeaseGranted(agent="runner-01", token=1), ev.PreflightPassed(), ev.FenceFailed(failure))
    row = EnvironmentRow("prod", running="prod-1")
    found = only(diagnose(facts(environments=(prod(row, running=running),))))
    assert (found.rule, found.host, found.fix) == ("fence-not-raised", "web-02", "look there")


def test_machine_on_which_nothing_can_be_begun() -> None:
    failure = Failure(Code.AGENT_FOLDER, "runner-01: no space left", hint="df -h")
    running = at_work(ev.NotBegun(failure))
    row = EnvironmentRow("prod", running="prod-1")
    found = only(diagnose(facts(environments=(prod(row, running=running),))))
    assert (found.rule, found.agent, found.fix) == ("nothing-begins", "runner-01", "df -h")
    assert found.runbook == "runner-degraded"


def test_deployment_that_goes_from_agent_to_agent() -> None:
    grants = [ev.LeaseGranted(agent="runner-01", token=token) for token in range(1, 5)]
    row = EnvironmentRow("prod", running="prod-1")
    found = only(diagnose(facts(environments=(prod(row, running=deployment(*grants)),))))
    assert found.rule == "taken-over-often"


def test_approval_that_somebody_waits_for() -> None:
    gates = Gates(approvals=Approvals(1, {"sre": ("grace",)}))
    waits = (Wait(Gate.APPROVAL, "it waits for 1 approval", NOW + 3600),)
    asked = deployment(ev.Waiting(waits), gates=gates)
    known = facts(environments=(prod(queued=(asked,)),), focus=asked)
    found = only(diagnose(known))
    assert (found.rule, found.fix, found.severity) == ("approval-waits", "surefoot approve prod-1", Severity.NOTE)
    assert "of sre" in found.title
    assert where(known) == ["prod-1 waits (approval): it waits for 1 approval"]


def test_approval_that_did_not_come_in_time_and_no_agent_has_noticed() -> None:
    waits = (Wait(Gate.APPROVAL, "it waits for 1 approval", NOW - 1),)
    asked = deployment(ev.Waiting(waits), gates=Gates(approvals=Approvals(1, {"sre": ("grace",)})))
    found = only(diagnose(facts(environments=(prod(queued=(asked,)),), focus=asked)))
    assert (found.rule, found.fix) == ("approval-expired", "surefoot cancel prod-1")


def test_freeze_that_was_forgotten() -> None:
    frozen = Freeze("grace", "the sale", NOW - 3 * 86400)
    found = only(diagnose(facts(environments=(prod(EnvironmentRow("prod", freeze=frozen)),))))
    assert (found.rule, found.severity, found.fix) == ("freeze-forgotten", Severity.WARNING, "surefoot unfreeze prod")
    young = EnvironmentRow("prod", freeze=restruct(frozen, at=NOW - 60))
    assert only(diagnose(facts(environments=(prod(young),)))).rule == "frozen"


def test_queue_that_grows() -> None:
    queued = tuple(deployment(number=number) for number in (2, 3, 4))
    row = EnvironmentRow("prod", locked_by="prod-1", queue=("prod-2", "prod-3", "prod-4"))
    found = only(diagnose(facts(environments=(prod(row, queued=queued),))))
    assert (found.rule, found.evidence) == ("queue-grows", ("behind the lock of prod-1",))


# -- the report --------------------------------------------------------------------------------------------------


def test_what_was_asked_after_comes_before_other_environments_and_causes_before_symptoms() -> None:
    def finding(rule: str, severity: Severity, depth: Depth, environment: str | None) -> Finding:
        return Finding(rule, severity, depth, rule, (), "", environment=environment)

    found = ranked(
        [
            finding("note", Severity.NOTE, Depth.STORE, None),
            finding("symptom", Severity.BROKEN, Depth.SYMPTOM, "prod"),
            finding("elsewhere", Severity.BROKEN, Depth.HOSTS, "staging"),
            finding("cause", Severity.BROKEN, Depth.HOSTS, "prod"),
        ],
        "prod",
    )
    assert [one.rule for one in found] == ["cause", "symptom", "elsewhere", "note"]


def test_report_says_what_it_could_not_check_and_shows_no_secret() -> None:
    checks = (failing("http", "answered hunter2-hunter2", "renew hunter2-hunter2"),)
    known = facts(environments=(prod(checks=checks, looked=True),), unchecked=(Unchecked("services", "no systemd"),))
    report = document(known, 0.5, lambda text: text.replace("hunter2-hunter2", "***"))
    said = list(lines(report))
    assert report["healthy"] is False
    assert "could not check services: no systemd" in said
    assert "   fix: renew ***" in said
    assert "hunter2" not in repr(report) + repr(said)


# -- where an agent belongs, and what a shell does not know --------------------------------------------------------


def test_agent_of_another_machine_is_started_there_and_not_here() -> None:
    rows = (agent("one", AgentStatus.ONLINE), agent("two", AgentStatus.OFFLINE, "its process is gone"))
    units = (Unit("surefoot-agent.service", "active", "running", "one"),)
    processes = (AgentProcess(12, "one", False, True),)
    found = only(diagnose(facts(agents=rows, configured=("one", "two"), units=units, processes=processes)))
    assert found.fix == "on the machine of two: systemctl restart surefoot-agent.service"


def test_agent_that_runs_on_another_machine_under_the_name_of_this_ones() -> None:
    units = (Unit("surefoot-agent.service", "failed", "failed", "one"),)
    found = only(diagnose(facts(agents=(agent("one", AgentStatus.ONLINE),), configured=("one",), units=units)))
    assert (found.rule, found.code) == ("agent-duplicate", Code.AGENT_DUPLICATE)
    assert "another machine" in found.title


def test_stopped_process_of_a_name_that_is_taken_is_killed_since_it_takes_no_other_signal() -> None:
    processes = (AgentProcess(12, "one", False, True), AgentProcess(13, "one", True, True))
    found = diagnose(facts(agents=(agent("one", AgentStatus.ONLINE),), configured=("one",), processes=processes))
    assert next(one for one in found if one.rule == "agent-duplicate").fix == "kill -KILL 13"


def test_sudo_is_missed_where_the_inventory_becomes() -> None:
    host = HostFacts("web-01", "10.0.0.1", told=WELL | {"sudo": "no"}, becomes=True)
    found = only(diagnose(facts(environments=(prod(hosts=(host,)),))))
    assert (found.rule, found.severity) == ("host-sudo", Severity.BROKEN)


def test_refused_deployment_whose_checks_pass_by_now_is_to_be_asked_for_again() -> None:
    failure = Failure(Code.PREFLIGHT_FAILED, "2.0.tar.gz is not there")
    refused = deployment(ev.LeaseGranted(agent="runner-01", token=1), ev.Finished(Status.FAILED, failure))
    missing = failing("file", "2.0.tar.gz is not there")
    first = diagnose(facts(environments=(prod(last=refused, looked=True, checks=(missing,)),)))
    assert [one.rule for one in first] == ["artifact-file"]
    found = only(diagnose(facts(environments=(prod(last=refused, looked=True),))))
    assert (found.severity, found.fix) == (Severity.NOTE, "surefoot deploy prod 2.0")


@pytest.mark.parametrize(
    ("network", "fix"),
    [
        (
            "10.0.0.1 port 22: Connection refused (the host is up, and nothing listens there: …)",
            "systemctl restart ssh",
        ),
        ("10.0.0.1 port 22 does not answer within 2 s: the host is off, or …", "power web-01 on"),
        ("the name web-01 can't be resolved: Name or service not known", "getent hosts 10.0.0.1"),
        ("", "ask it by hand"),
    ],
)
def test_what_mends_a_way_follows_from_how_far_it_goes(network: str, fix: str) -> None:
    failure = Failure(Code.HOST_UNREACHABLE, "no route", hint="ask it by hand", host="web-01")
    host = HostFacts("web-01", "10.0.0.1", failure, network)
    assert fix in only(diagnose(facts(environments=(prod(hosts=(host,)),)))).fix


def test_package_that_holds_a_missing_program_is_named() -> None:
    host = HostFacts("web-01", "10.0.0.1", told=WELL | {"missing": "flock awk"})
    assert (
        only(diagnose(facts(environments=(prod(hosts=(host,)),)))).fix == "on web-01: apt-get install mawk util-linux"
    )


def test_shell_that_does_not_know_what_the_agents_know() -> None:
    borrowed = Borrowed(("surefoot-agent.service works for /srv/shop",), "cd /srv/shop")
    found = only(diagnose(facts(borrowed=borrowed)))
    assert (found.rule, found.severity, found.fix) == ("shell", Severity.NOTE, "cd /srv/shop")
