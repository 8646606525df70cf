# SPDX-License-Identifier: Apache-2.0
"""Gates on the command line: who may, who is refused, what waits and what is said of it. No agent runs here."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from surefoot.cli.main import cli  # noqa: E402
from surefoot.cli.params import TIME  # noqa: E402
from surefoot.core.errors import Code  # noqa: E402
from surefoot.core.status import Status  # noqa: E402
from surefoot.store import open_store  # noqa: E402
from tests.store import journal as j  # noqa: E402
from tests.support.signals import put_back  # noqa: E402

CONFIG = """\
project: shop
agents: {a: {}}
store: store.db
groups: {sre: [ann, bob]}
environments:
  staging: {steps: [{name: go, run: 'true'}]}
  prod:
    steps: [{name: go, run: 'true'}]
    approvals: {required: 2, from: [sre], expires: 1h}
    promote_from: staging
  anyone:
    steps: [{name: go, run: 'true'}]
    approvals: {from: [people]}
  office:
    steps: [{name: go, run: 'true'}]
    windows: [{days: [WEEKDAY], from: "11:00", to: "11:01"}]
    bake: 10m
    health: [{command: {run: 'true'}}]
    rollback: {run: ./back.sh}
"""


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    names = ("SUREFOOT_STORE", "SUREFOOT_CONFIG", "NO_COLOR", "GITHUB_ACTIONS", "GITHUB_ACTOR", "GITLAB_USER_LOGIN")
    for name in (*names, "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
    in_three_days = ("thu", "fri", "sat", "sun", "mon", "tue", "wed")[time.gmtime().tm_wday]
    (tmp_path / "surefoot.yml").write_text(CONFIG.replace("WEEKDAY", in_three_days))
    return tmp_path


def call(*args: str, by: str = "eve") -> Result:
    with put_back():
        return CliRunner(env={"USER": by}).invoke(cli, list(args))


def document(*args: str, by: str = "eve") -> Any:
    done = call(*args, "--output", "json", by=by)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def run(deployment: str, status: Status = Status.SUCCEEDED) -> None:
    """Be the agent."""
    store = open_store("store.db")
    j.finish(store, deployment, j.claim(store, deployment), status)
    store.close()


def staged(version: str) -> None:
    assert call("deploy", "staging", version, "--detach").exit_code == 0
    run("staging-1")


def test_a_version_that_has_not_succeeded_where_it_is_promoted_from_is_refused(project: Path) -> None:
    refused = call("deploy", "prod", "1.0", "--detach")
    assert refused.exit_code == 3 and "SF-NOT-PROMOTED" in refused.stderr
    assert "surefoot deploy staging 1.0" in refused.stderr
    planned = document("plan", "prod", "1.0")
    assert planned["refused"]["code"] == "SF-NOT-PROMOTED"
    staged("1.0")
    assert document("plan", "prod", "1.0")["gates"] == ["2 approvals from sre needed"]
    shown = document("deploy", "prod", "1.0", "--detach")
    evidence = shown["promoted_from"]
    assert (evidence["deployment"], evidence["version"]) == ("staging-1", "1.0")
    assert evidence["bundle"] and evidence["finished_at"]
    assert call("deploy", "prod", "2.0", "--detach").exit_code == 3


def test_what_was_taken_back_or_failed_where_it_is_promoted_from_must_succeed_there_again(project: Path) -> None:
    for number, version in enumerate(("0.9", "1.0"), 1):
        assert call("deploy", "staging", version, "--detach").exit_code == 0
        run(f"staging-{number}")
    assert document("plan", "prod", "1.0")["refused"] is None
    assert call("rollback", "staging", "--detach", by="ann").exit_code == 0
    assert document("plan", "prod", "1.0")["refused"] is None, "nobody knows yet whether it will be taken back"
    run("staging-3")
    refused = call("deploy", "prod", "1.0", "--detach")
    assert refused.exit_code == 3 and "SF-NOT-PROMOTED" in refused.stderr
    assert "was then taken back there by ann@" in refused.stderr and "(staging-3)" in refused.stderr
    assert call("deploy", "staging", "1.0", "--detach").exit_code == 0
    run("staging-4")
    assert document("plan", "prod", "1.0")["refused"] is None, "it has succeeded once more"
    assert call("deploy", "staging", "1.0", "--detach").exit_code == 0
    run("staging-5", Status.ROLLED_BACK)
    refused = call("deploy", "prod", "1.0", "--detach")
    assert refused.exit_code == 3 and "failed there when it was deployed again (staging-5)" in refused.stderr
    assert document("plan", "prod", "0.9")["refused"] is None, "the other version did nothing wrong"


def test_other_files_than_those_that_succeeded_are_warned_of(project: Path) -> None:
    for words in (["init", "-q"], ["add", "surefoot.yml"], ["commit", "-qm", "one"]):
        who = ("-c", "user.name=ann", "-c", "user.email=ann@example.invalid")
        subprocess.run(["git", *who, *words], cwd=project, check=True)
    staged("1.0")
    assert "files are not those" not in call("deploy", "prod", "1.0", "--detach").stderr
    (project / "surefoot.yml").write_text((project / "surefoot.yml").read_text() + "# never seen in staging\n")
    warned = call("deploy", "prod", "1.0", "--detach")
    assert warned.exit_code == 0 and "the files are not those that staging-1 ran with" in warned.stderr


def test_so_many_others_of_the_group_must_approve(project: Path) -> None:
    staged("1.0")
    shown = document("deploy", "prod", "1.0", "--detach")
    assert (shown["status"], shown["queue_position"]) == ("waiting", 1)
    assert [wait["gate"] for wait in shown["waiting_for"]] == ["approval"]
    assert "prod-1 waits: 2 approvals from sre needed" in call("status", "prod").stdout
    assert "waits for  2 approvals from sre needed" in call("show", "prod-1").stdout
    for who in ("eve", "mallory"):
        refused = call("approve", "prod-1", by=who)
        assert refused.exit_code == 7 and f"error[{Code.APPROVAL_NOT_ALLOWED}]" in refused.stderr, who
    approved = call("approve", "prod-1", "--reason", "looks good", by="ann")
    assert approved.exit_code == 0 and "1 more needed" in approved.stdout
    assert call("approve", "prod-1", by="ann").exit_code == 0, "twice does no harm"
    assert document("show", "prod-1")["status"] == "waiting"
    shown = document("approve", "prod-1", by="bob")
    assert shown["status"] == "queued" and shown["waiting_for"] == []
    given = shown["approvals"]["given"]
    assert [(g["by"].partition("@")[0], g["reason"], g["groups"]) for g in given] == [
        ("ann", "looks good", ["sre"]),
        ("bob", "", ["sre"]),
    ]
    run("prod-1")
    assert call("approve", "prod-1", by="cyn").exit_code == 7
    assert call("reject", "prod-1", "--reason", "late", by="ann").exit_code == 7
    types = [json.loads(line)["type"] for line in call("events", "prod-1", "--output", "json").stdout.splitlines()]
    assert types[:4] == ["accepted", "waiting", "approval_given", "approval_given"]


def test_a_rejected_deployment_has_failed_untouched(project: Path) -> None:
    staged("1.0")
    assert call("deploy", "prod", "1.0", "--detach").exit_code == 0
    assert call("reject", "prod-1", by="ann").exit_code == 2, "it needs a reason"
    assert call("reject", "prod-1", "--reason", "x", by="mallory").exit_code == 7
    assert call("reject", "prod-1", "--reason", "not today", by="ann").exit_code == 0
    assert call("reject", "prod-1", "--reason", "not today", by="ann").exit_code == 0, "twice does no harm"
    shown = document("show", "prod-1")
    assert (shown["status"], shown["reason"]["code"], shown["started_at"]) == ("failed", "SF-REJECTED", None)
    assert "not today" in shown["reason"]["message"]
    assert call("approve", "prod-1", by="bob").exit_code == 7
    follower = call("deploy", "prod", "1.0", "--key", "same", "--detach")
    assert follower.exit_code == 0
    assert call("reject", "prod-2", "--reason", "no", by="ann").exit_code == 0
    follower = call("deploy", "prod", "1.0", "--key", "same")
    assert follower.exit_code == 3 and "error[SF-REJECTED]" in follower.stderr, "for whoever follows"
    assert call("approve", "prod-9").exit_code == 7


def test_of_a_group_that_the_config_does_not_list_anyone_but_the_requester_counts(project: Path) -> None:
    assert call("deploy", "anyone", "1.0", "--detach").exit_code == 0
    assert call("approve", "anyone-1", by="eve").exit_code == 7
    approved = call("approve", "anyone-1", by="ann")
    assert approved.exit_code == 0 and "lists no members of people" in approved.stderr


def test_an_approval_warns_of_what_is_newer_and_there_already(project: Path) -> None:
    assert call("deploy", "anyone", "1.0", "--detach").exit_code == 0
    assert call("deploy", "anyone", "2.0", "--detach").exit_code == 0
    assert call("approve", "anyone-2", by="ann").exit_code == 0
    run("anyone-2")
    approved = call("approve", "anyone-1", by="ann")
    assert approved.exit_code == 0 and "anyone-2 (2.0) is newer and was deployed already" in approved.stderr


def test_a_rollback_needs_no_approval_but_no_freeze_lets_it_through_without_a_word(project: Path) -> None:
    for number, version in enumerate(("1.0", "2.0"), 1):
        assert call("deploy", "anyone", version, "--detach").exit_code == 0
        assert call("approve", f"anyone-{number}", by="ann").exit_code == 0
        run(f"anyone-{number}")
    assert call("freeze", "anyone", "--reason", "audit").exit_code == 0
    assert call("rollback", "anyone", "--detach").exit_code == 3
    assert call("rollback", "anyone", "--detach", "--override-freeze").exit_code == 2, "it needs a reason"
    shown = document("rollback", "anyone", "--detach", "--override-freeze", "--reason", "the site is down")
    assert (shown["version"], shown["status"], shown["override"]) == ("1.0", "queued", True)


def test_a_freeze_refuses_or_lets_wait_and_is_told_everywhere(project: Path) -> None:
    assert call("freeze", "staging").exit_code == 2, "it needs a reason"
    assert call("freeze", "nowhere", "--reason", "x").exit_code == 7
    assert call("freeze", "staging", "--reason", "x", "--until", "2001-01-01").exit_code == 2
    frozen = document("freeze", "staging", "--reason", "Black Friday", by="ann")["frozen"]
    assert frozen["by"].startswith("ann@") and frozen["reason"] == "Black Friday" and frozen["until"] is None
    refused = call("deploy", "staging", "1.0", "--detach")
    assert refused.exit_code == 3 and "error[SF-FROZEN]" in refused.stderr and "--when-open" in refused.stderr
    planned = call("plan", "staging", "1.0")
    assert planned.exit_code == 0 and "would be refused: staging is frozen by ann@" in planned.stdout
    shown = document("deploy", "staging", "1.0", "--detach", "--when-open")
    assert shown["status"] == "waiting" and shown["waiting_for"][0]["gate"] == "freeze"
    rows = document("status")["environments"]
    assert {row["name"]: bool(row["frozen"]) for row in rows} == {
        "anyone": False,
        "office": False,
        "prod": False,
        "staging": True,
    }
    assert "staging is frozen by ann@" in call("status").stdout
    assert document("unfreeze", "staging")["frozen"] is None
    assert "is not frozen" in call("unfreeze", "staging").stdout
    run("staging-1")
    entries = [json.loads(line) for line in call("events", "staging", "--output", "json").stdout.splitlines()]
    assert [(entry["seq"], entry["type"]) for entry in entries] == [(1, "frozen"), (2, "unfrozen")]
    assert "Black Friday" in call("events", "staging").stdout
    assert call("events", "prod").exit_code == 0 and call("events", "nowhere").exit_code == 7


def test_outside_of_its_windows_a_deployment_is_refused_waits_or_goes_by_an_override(project: Path) -> None:
    refused = call("deploy", "office", "1.0", "--detach")
    assert refused.exit_code == 3 and "error[SF-WINDOW-CLOSED]" in refused.stderr and "opens at" in refused.stderr
    shown = document("deploy", "office", "1.0", "--detach", "--when-open")
    assert shown["status"] == "waiting" and shown["waiting_for"][0]["gate"] == "window"
    assert shown["waiting_for"][0]["until"].endswith(("T11:00:00.000Z",))
    override = document("deploy", "office", "1.1", "--detach", "--override-freeze", "--reason", "it burns")
    assert override["status"] == "queued"
    assert call("cancel", "office-1").exit_code == 0
    planned = call("plan", "office", "1.0").stdout
    assert "watched for 10 min" in planned and "put back by: run ./back.sh" in planned


def test_a_scheduled_deployment_waits_for_its_time(project: Path) -> None:
    shown = document("deploy", "staging", "1.0", "--detach", "--at", "2h")
    assert shown["status"] == "waiting" and shown["waiting_for"][0]["gate"] == "schedule"
    assert shown["not_before"] == shown["waiting_for"][0]["until"]
    wrong = call("deploy", "staging", "1.0", "--detach", "--at", "tomorrowish")
    assert wrong.exit_code == 2 and "is no time" in wrong.stderr


def test_a_time_that_is_over_is_a_slip_of_the_pen_unless_a_key_says_that_it_is_asked_again(project: Path) -> None:
    late = ("deploy", "staging", "1.0", "--detach", "--at", "2026-01-31T22:00Z")
    refused = call(*late)
    assert refused.exit_code == 2 and "--at is in the past" in refused.stderr
    assert document("status", "staging")["environments"][0]["queue"] == []
    assert document(*late, "--key", "build-1")["id"] == document(*late, "--key", "build-1")["id"] == "staging-1"


def test_times_are_read_as_people_write_them() -> None:
    now = 1_770_000_000.0
    assert TIME.convert("90m", None, None).after(now) == now + 5400
    assert TIME.convert("2026-01-31T22:00Z", None, None).after(now) == 1_769_896_800.0
    for text in ("00:00", "12:30", "23:59"):
        at = TIME.convert(text, None, None).after(now)
        assert now < at <= now + 25 * 3600
        assert time.strftime("%H:%M", time.localtime(at)) == text


def test_a_time_of_day_is_the_next_one_also_where_clocks_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        for now, text, wanted in (
            ("2026-10-25T02:10+02:00", "02:20", "2026-10-25T02:20+02:00"),
            ("2026-10-25T02:30+02:00", "02:20", "2026-10-25T02:20+01:00"),
            ("2026-10-25T02:10+01:00", "02:20", "2026-10-25T02:20+01:00"),
            ("2026-10-25T02:30+01:00", "02:20", "2026-10-26T02:20+01:00"),
            ("2026-03-29T01:50+01:00", "02:20", "2026-03-29T03:20+02:00"),
            ("2026-03-29T03:30+02:00", "02:20", "2026-03-30T02:20+02:00"),
        ):
            at = TIME.convert(text, None, None).after(datetime.fromisoformat(now).timestamp())
            assert at == datetime.fromisoformat(wanted).timestamp(), now
    finally:
        monkeypatch.undo()
        time.tzset()


def test_times_in_small_letters_are_read_and_those_that_no_calendar_has_are_refused(project: Path) -> None:
    assert TIME.convert("2026-01-31t22:00:00z", None, None).after(0.0) == 1_769_896_800.0
    wrong = call("freeze", "prod", "--reason", "x", "--until", "9999-12-31T23:59:59-05:00")
    assert wrong.exit_code == 2 and "is no time" in wrong.stderr


@pytest.fixture
def too_late(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than an hour has gone since prod-1 was asked for, and nobody has approved it."""
    staged("1.0")
    assert call("deploy", "prod", "1.0", "--detach").exit_code == 0
    real = time.time
    monkeypatch.setattr("surefoot.store.sqlite.time.time", lambda: real() + 3700)


@pytest.mark.usefixtures("too_late")
def test_it_is_told_that_it_is_too_late_for_approvals_while_no_agent_has_noticed() -> None:
    said = "2 approvals from sre needed; too late for that since 20"
    assert said in call("show", "prod-1").stdout and said in call("status", "prod").stdout


@pytest.mark.usefixtures("too_late")
def test_a_deployment_that_was_not_approved_in_time_has_failed_when_somebody_comes_too_late() -> None:
    late = call("approve", "prod-1", by="ann")
    assert late.exit_code == 7 and "came within 1 h" in late.stderr
    assert document("show", "prod-1")["reason"]["code"] == "SF-APPROVAL-EXPIRED"
