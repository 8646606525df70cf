# SPDX-License-Identifier: Apache-2.0
"""Faults made for real, and what doctor says first. docs/doctor.md lists them."""

from __future__ import annotations

import json
import signal
import sqlite3
import tarfile
from pathlib import Path

from surefoot.doctor.findings import Severity
from surefoot.doctor.where import where
from tests.doctor.conftest import Patient, until


def test_nothing_wrong_is_said_so_with_what_was_looked_at(served: Patient) -> None:
    done = served.run("doctor", "--timeout", "100s")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nothing is wrong, as far as can be seen from here")
    assert "2 agents, and 2 processes here" in done.stdout
    assert f"1 secret in the environment of agent {served.first}" in done.stdout
    assert "3 checks" in done.stdout


def test_frozen_agent(served: Patient) -> None:
    process = served.started[0]
    process.send_signal(signal.SIGSTOP)
    found = served.first_found()
    assert (found.rule, found.agent) == ("agent-frozen", served.first)
    assert found.fix == f"kill -CONT {process.pid}"


def test_killed_agents(served: Patient) -> None:
    for process in served.started:
        process.kill()
        process.wait()
    found = served.first_found()
    assert (found.rule, found.severity) == ("agent-ended", Severity.BROKEN)
    assert found.fix == f"surefoot agent run {found.agent}"
    assert "its process is gone" in found.title


def test_two_agents_of_one_name(served: Patient) -> None:
    # The second one is refused as soon as it has started; one that hangs before that stays.
    other = served.start("agent", "run", served.first)
    other.send_signal(signal.SIGSTOP)
    found = served.found()
    assert {"agent-duplicate", "agent-frozen"} <= {one.rule for one in found}
    duplicate = next(one for one in found if one.rule == "agent-duplicate")
    assert str(other.pid) in duplicate.evidence[0]


def test_agent_that_never_came(patient: Patient) -> None:
    patient.agent(patient.first)
    found = patient.first_found()
    assert (found.rule, found.agent, found.severity) == ("agent-never-came", patient.second, Severity.WARNING)


def test_all_agents_drained(served: Patient) -> None:
    for name in (served.first, served.second):
        served.run("agent", "drain", name)
    assert served.run("deploy", "prod", "1.0", "--detach").returncode == 0
    found = served.first_found()
    assert (found.rule, found.severity) == ("agent-draining", Severity.BROKEN)
    assert found.fix == f"surefoot agent undrain {found.agent}"
    done = served.run("doctor", "prod-2", "--timeout", "100s")
    assert "no agent can take work" in done.stdout


def test_secret_missing_from_the_agents_own_environment(patient: Patient) -> None:
    del patient.environ["RELEASE_TOKEN"]
    patient.agent(patient.first)
    patient.environ["RELEASE_TOKEN"] = "only-this-shell-has-it"
    found = patient.found()
    missing = next(one for one in found if one.rule == "secret-missing")
    assert missing.severity is Severity.BROKEN
    assert f"agent {patient.first}" in missing.evidence[0]


def test_secret_that_is_not_what_it_should_be(patient: Patient) -> None:
    patient.environ["RELEASE_TOKEN"] = "short"
    patient.agent(patient.first)
    patient.agent(patient.second)
    found = patient.first_found()
    assert found.rule == "secret-invalid"
    assert "RELEASE_TOKEN is 5 characters long" in found.title


def test_secrets_are_not_judged_from_where_no_agent_runs(patient: Patient) -> None:
    del patient.environ["RELEASE_TOKEN"]
    facts = patient.facts()
    assert any("RELEASE_TOKEN" in one.what for one in facts.unchecked)


def test_artifact_missing(served: Patient) -> None:
    assert served.run("deploy", "prod", "2.0").returncode == 3
    found = served.found()
    assert found[0].rule == "artifact-file"
    assert "prod-2 failed of it" in found[0].evidence
    assert "deployment-failed" not in {one.rule for one in found}
    (served.root / "2.0.tar.gz").touch()
    assert "artifact-file" not in {one.rule for one in served.found()}


def test_health_check_failing_now(served: Patient) -> None:
    (served.root / "healthy").unlink()
    found = served.first_found()
    assert (found.rule, found.runbook) == ("health-file", "health-checks-failing")


def test_version_that_was_put_back(served: Patient) -> None:
    assert served.run("deploy", "prod", "bad-1").returncode == 4
    found = served.found("prod-2")
    assert (found[0].rule, str(found[0].code)) == ("deployment-failed", "SF-STEP-FAILED")
    assert where(served.facts("prod-2"))[0].startswith("prod-2 failed, and 1.0 was put back")


def test_queued_deployment_says_what_it_waits_for(served: Patient) -> None:
    served.run("deploy", "prod", "slow-1", "--detach")
    until(lambda: "begun" in served.run("logs", "prod-2").stdout, "the step runs")
    served.run("deploy", "prod", "1.0", "--detach")
    served.run("deploy", "prod", "1.0", "--detach")
    said = where(served.facts("prod-4"))
    assert said[0].endswith("number 2")
    assert said[1] == "before it: prod-3"
    assert said[2].startswith("prod-2 is running since")
    assert said[3].startswith("step activate, attempt 1, runs since")


def test_store_that_is_no_store(patient: Patient) -> None:
    patient.store.parent.mkdir()
    patient.store.write_bytes(b"no database at all" * 500)
    found = patient.first_found()
    assert (found.rule, str(found.code)) == ("store", "SF-STORE-CORRUPT")


def test_store_that_is_newer(served: Patient) -> None:
    with sqlite3.connect(served.store) as database:
        database.execute("PRAGMA user_version")
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        version = next(name for name in tables if "schema" in name or "version" in name)
        database.execute(f"UPDATE {version} SET version = 9999")
    found = served.first_found()
    assert (found.rule, str(found.code)) == ("store", "SF-STORE-NEWER")


def test_store_that_nobody_answers_for(patient: Patient) -> None:
    found = patient.first_found(store="postgresql://user:very-secret@127.0.0.1:9/surefoot")
    assert (found.rule, str(found.code)) == ("store", "SF-STORE-UNREACHABLE")
    assert any("127.0.0.1 port 9: Connection refused" in line for line in found.evidence)
    assert "very-secret" not in json.dumps(found.document())


def test_store_whose_name_nobody_knows(patient: Patient) -> None:
    found = patient.first_found(store="postgresql://user@no-such-host.invalid/surefoot")
    assert str(found.code) == "SF-STORE-UNREACHABLE"
    assert any("no-such-host.invalid" in line for line in found.evidence)


def test_config_that_is_wrong(served: Patient) -> None:
    config = served.folder / "surefoot.yml"
    config.write_text(config.read_text().replace("project: shop", "project: shop\nprojekt: shop"))
    found = served.first_found()
    assert (found.rule, str(found.code), found.fix) == ("config", "SF-CONFIG-KEY", "surefoot check")


def test_id_that_does_not_exist(served: Patient) -> None:
    done = served.run("doctor", "prod-99")
    assert done.returncode == 7
    assert "error[SF-DEPLOYMENT-UNKNOWN]" in done.stderr


def test_archive_holds_what_is_needed_and_no_secret(served: Patient) -> None:
    secret = "pa55-in-the-token-value"
    config = served.folder / "surefoot.yml"
    leak = f"{config.read_text()}# RELEASE_TOKEN was {secret}, at https://me:{secret}-x@example.com/\n"
    config.write_text(leak)
    for process in served.started:
        process.terminate()
        process.wait()
    served.environ["RELEASE_TOKEN"] = secret
    served.started.clear()
    served.agent(served.first)
    file = served.root / "support.tar.gz"
    done = served.run("doctor", "--bundle", str(file), "--output", "json", "--timeout", "100s")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["project"] == "shop"
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as tar:
        contents = {member.name: tar.extractfile(member).read().decode() for member in tar.getmembers()}  # type: ignore[union-attr]
    assert {Path(name).name for name in contents} >= {"report.txt", "report.json", "versions.txt", "surefoot.yml"}
    assert "surefoot-doctor/prod-1/events.jsonl" in contents
    assert "RELEASE_TOKEN" in contents["surefoot-doctor/environment.txt"]
    everything = "\n".join(contents.values()) + done.stdout
    assert secret not in everything
    assert "https://me:***@example.com/" in contents["surefoot-doctor/surefoot.yml"]


def test_doctor_leaves_no_trace(patient: Patient) -> None:
    before = sorted(patient.folder.iterdir())
    assert patient.run("doctor", "--timeout", "100s").returncode == 0
    assert sorted(patient.folder.iterdir()) == before
