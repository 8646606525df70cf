# SPDX-License-Identifier: Apache-2.0
"""Faults made for real, and what doctor says first. docs/doctor.md lists them."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from surefoot.doctor.findings import Severity
from surefoot.doctor.rules import diagnose
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
    process.send_signal(signal.SIGCONT)
    until(lambda: served.run("agents").stdout.count(" online ") == 2, "it is back")


def test_agent_that_never_came(patient: Patient) -> None:
    patient.agent(patient.first)
    found = patient.first_found()
    assert (found.rule, found.agent, found.severity) == ("agent-never-came", patient.second, Severity.WARNING)


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


def test_store_that_is_no_store(patient: Patient) -> None:
    patient.store.parent.mkdir()
    patient.store.write_bytes(b"no database at all" * 500)
    found = patient.first_found()
    assert (found.rule, str(found.code)) == ("store", "SF-STORE-CORRUPT")


def test_store_that_nobody_answers_for(patient: Patient) -> None:
    found = patient.first_found(store="postgresql://user:very-secret@127.0.0.1:9/surefoot")
    assert (found.rule, str(found.code)) == ("store", "SF-STORE-UNREACHABLE")
    assert any("127.0.0.1 port 9: Connection refused" in line for line in found.evidence)
    assert "very-secret" not in json.dumps(found.document())


def test_store_that_accepts_and_says_nothing_keeps_nobody_waiting(patient: Patient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = f"postgresql://user:very-secret@127.0.0.1:{silent.getsockname()[1]}/surefoot"
        done = patient.run("--store", store, "doctor", "--timeout", "2s")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1. broken: the store can't be used")
    assert "SF-STORE-UNREACHABLE" in done.stdout and "very-secret" not in done.stdout


def test_store_whose_name_nobody_knows(patient: Patient) -> None:
    found = patient.first_found(store="postgresql://user@no-such-host.invalid/surefoot")
    assert str(found.code) == "SF-STORE-UNREACHABLE"
    assert any("no-such-host.invalid" in line for line in found.evidence)


def test_id_that_does_not_exist(served: Patient) -> None:
    done = served.run("doctor", "prod-99")
    assert done.returncode == 7
    assert "error[SF-DEPLOYMENT-UNKNOWN]" in done.stderr


def test_doctor_leaves_no_trace(patient: Patient) -> None:
    before = sorted(patient.folder.iterdir())
    assert patient.run("doctor", "--timeout", "100s").returncode == 0
    assert sorted(patient.folder.iterdir()) == before


def test_artifact_missing(served: Patient) -> None:
    refused = served.submitted("2.0")
    assert served.ended(refused) == "failed"
    found = served.found()
    assert found[0].rule == "artifact-file"
    assert f"{refused} failed of it" in found[0].evidence
    assert "deployment-failed" not in {one.rule for one in found}
    (served.root / "2.0.tar.gz").touch()
    assert "artifact-file" not in {one.rule for one in served.found()}


def test_health_check_failing_now(served: Patient) -> None:
    (served.root / "healthy").unlink()
    found = served.first_found()
    assert (found.rule, found.runbook) == ("health-file", "health-checks-failing")
    (served.root / "healthy").touch()


def test_version_that_was_put_back(served: Patient) -> None:
    bad = served.submitted("bad-1")
    assert served.ended(bad) == "rolled_back"
    facts = served.facts(bad)
    found = diagnose(facts)
    assert (found[0].rule, str(found[0].code)) == ("deployment-failed", "SF-STEP-FAILED")
    assert where(facts)[0].startswith(f"{bad} failed, and 1.0 was put back")


def test_queued_deployment_says_what_it_waits_for(served: Patient) -> None:
    slow = served.submitted("slow-1")
    until(lambda: "begun" in served.run("logs", slow).stdout, "the step runs")
    second, third = served.submitted("1.0"), served.submitted("1.0")
    said = where(served.facts(third))
    served.run("cancel", slow)
    assert said[0].endswith("number 2")
    assert said[1] == f"before it: {second}"
    assert said[2].startswith(f"{slow} is running since")
    assert said[3].startswith("step activate, attempt 1, runs since")
    assert [served.ended(one) for one in (slow, second, third)] == ["cancelled", "succeeded", "succeeded"]


def test_all_agents_drained(served: Patient) -> None:
    for name in (served.first, served.second):
        served.run("agent", "drain", name)
    waiting = served.submitted("1.0")
    found = served.first_found()
    assert (found.rule, found.severity) == ("agent-draining", Severity.BROKEN)
    assert found.fix == f"surefoot agent undrain {found.agent}"
    assert "no agent can take work" in served.run("doctor", waiting, "--timeout", "100s").stdout
    for name in (served.first, served.second):
        served.run("agent", "undrain", name)
    assert served.ended(waiting) == "succeeded"


def test_services_that_checks_need(patient: Patient) -> None:
    patient.environ["CERTIFICATE"] = certificate(days=-2)
    config = patient.folder / "surefoot.yml"
    more = """\
      - secret: {name: CERTIFICATE, format: pem-certificate}
      - prometheus: {url: "http://127.0.0.1:9", query: up, equals: 1}
      - image: {ref: "127.0.0.1:9/shop:1.0"}
"""
    config.write_text(config.read_text().replace("    steps:\n", f"{more}    steps:\n"))
    patient.agent(patient.first)
    found = {one.rule: one for one in patient.found()}
    assert "CERTIFICATE is a certificate that expired 2 days ago" in found["secret-invalid"].title
    assert "127.0.0.1:9" in found["preflight-prometheus"].title
    assert found["artifact-image"].runbook == "artifact-missing"


def certificate(days: int) -> str:
    """A certificate that expires in so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop")])
    end = datetime.now(UTC) + timedelta(days=days)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, end - timedelta(days=30), end)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_config_that_is_wrong(served: Patient) -> None:
    config = served.folder / "surefoot.yml"
    before = config.read_text()
    config.write_text(config.read_text().replace("project: shop", "project: shop\nprojekt: shop"))
    found = served.first_found()
    config.write_text(before)
    assert (found.rule, str(found.code), found.fix) == ("config", "SF-CONFIG-KEY", "surefoot check")


def test_two_agents_of_one_name(served: Patient) -> None:
    # The second one is refused as soon as it has started; one that hangs before that stays.
    other = served.start("agent", "run", served.first)
    other.send_signal(signal.SIGSTOP)
    found = served.found()
    assert {"agent-duplicate", "agent-frozen"} <= {one.rule for one in found}
    duplicate = next(one for one in found if one.rule == "agent-duplicate")
    assert str(other.pid) in duplicate.evidence[0]


def test_killed_agents(served: Patient) -> None:
    for process in served.started:
        process.kill()
        process.wait()
    found = served.first_found()
    assert (found.rule, found.severity) == ("agent-ended", Severity.BROKEN)
    assert found.fix == f"surefoot agent run {found.agent}"
    assert "its process is gone" in found.title


def test_archive_holds_what_is_needed_and_no_secret(served: Patient) -> None:
    secret = served.environ["RELEASE_TOKEN"]
    config = served.folder / "surefoot.yml"
    leak = f"# RELEASE_TOKEN was {secret}, at https://me:{secret}-x@example.com/\n"
    config.write_text(config.read_text() + leak)
    file = served.root / "support.tar.gz"
    done = served.run("doctor", "--bundle", str(file), "--output", "json", "--timeout", "100s")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["project"] == "shop"
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as tar:
        contents = {member.name: tar.extractfile(member).read().decode() for member in tar.getmembers()}  # type: ignore[union-attr]
    assert {Path(name).name for name in contents} >= {"report.txt", "report.json", "versions.txt", "surefoot.yml"}
    newest = json.loads(served.run("history", "prod", "--limit", "1", "--output", "json").stdout)["deployments"][0]
    assert '"type": "accepted"' in contents[f"surefoot-doctor/{newest['id']}/events.jsonl"]
    assert "RELEASE_TOKEN" in contents["surefoot-doctor/environment.txt"]
    assert secret not in "\n".join(contents.values()) + done.stdout
    assert "https://me:***@example.com/" in contents["surefoot-doctor/surefoot.yml"]


def test_store_that_is_newer(served: Patient) -> None:
    with sqlite3.connect(served.store) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        version = next(name for name in tables if "schema" in name or "version" in name)
        database.execute(f"UPDATE {version} SET version = 9999")
    found = served.first_found()
    assert (found.rule, str(found.code)) == ("store", "SF-STORE-NEWER")
