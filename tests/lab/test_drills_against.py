# SPDX-License-Identifier: Apache-2.0
"""Drills against an environment that is there already: a lab's production, as if it were somebody's staging.

The drill knows of it what it would know of any: its config, its store, its hosts' addresses, and a key to its runners.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from surefoot.drills import evidence
from surefoot.drills.site import AGENT, PRIMARY, Site

#: Both are well in the lab, as every version is.
VERSIONS = ["1.4.1", "1.4.2"]
LONG = 600.0


@pytest.fixture(scope="module")
def site(laboratory: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Production, with a version that nobody drills with."""
    with Site(folder=tmp_path_factory.mktemp("site")) as one:
        config = one.config()
        production = config["environments"]["production"]  # whose steps may take long where much else goes on
        production["retry"]["timeout"] = production["health_policy"]["within"] = "10m"
        one.config_path.write_text(yaml.safe_dump(config, sort_keys=False))
        assert one.ready() == "1.0"
        yield one


@pytest.fixture
def there(site: Site, tmp_path: Path) -> list[str]:
    """The command that drills it."""
    key = tmp_path / "key"
    assert site.lab is not None
    key.write_text(site.lab.private_key)
    key.chmod(0o600)
    ssh = f"ssh -i {key} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    runner = f"{ssh} root@{site[PRIMARY].address}"
    path = site.project.folder / "drill.yml"
    said = yaml.safe_load(path.read_text())
    said["staging"] = {
        "environment": "production",
        "versions": VERSIONS,
        "hosts": {host.name: host.address for host in site.web},
        "patience": "30m",
        "takeover_within": "5m",  # whether it is soon enough is judged where nothing else goes on
        "faults": {
            "kill": {
                "make": f"test {{agent}} = {PRIMARY} && {runner} systemctl kill -s KILL {AGENT}",
                "mend": f"{runner} systemctl start {AGENT}",
            },
            # Has not ended yet, when the fault has long been made.
            "stop": {
                "make": f"{runner} systemctl stop {AGENT}; touch {tmp_path / 'stopped'}; sleep 600",
                "mend": f"{runner} systemctl start {AGENT}",
            },
        },
    }
    path.write_text(yaml.safe_dump(said))
    named = ["--project", str(site.project.folder), "--against", "production", "--confirm", "production"]
    return [sys.executable, "-m", "surefoot", "drill", *named, "--keep", str(tmp_path / "kept")]


def called(site: Site) -> dict[str, str]:
    return {**os.environ, "SUREFOOT_STORE": site.store, "COVERAGE_PROCESS_START": ""}


def as_it_was(site: Site) -> None:
    assert {host.name: site.runs(host) for host in site.web} == {"web-01": "1.0", "web-02": "1.0"}
    (row,) = site.ask("status", "production")["environments"]
    assert (row["current_version"], row["running"], row["queue"], row["locked_by"]) == ("1.0", None, [], None)
    assert site[PRIMARY].active(AGENT)


def test_an_environment_is_drilled_judged_by_its_hosts_and_put_back(
    site: Site, there: list[str], tmp_path: Path
) -> None:
    began = time.time()
    report, junit = tmp_path / "drill.md", tmp_path / "drill.xml"
    drills = ["healthy-primary", "cancel", "failover-kill", "--report", str(report), "--junit", str(junit)]
    done = subprocess.run([*there, *drills, "--output", "json"], env=called(site), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["passed"], said["environment"], said["left"]) == (True, "production", [])
    assert [drill["name"] for drill in said["drills"]] == ["healthy-primary", "same-version", "failover-kill", "cancel"]
    for drill in said["drills"]:
        found = {finding["promise"]: finding["kept"] for finding in drill["findings"]}
        assert found["one at a time"] is None  # hosts of somebody's staging have no black box
        assert found["all or nothing"] is True
        assert {m["name"]: m["value"] for m in drill["measures"]}["requests of customers"] > 0
    killed = next(drill for drill in said["drills"] if drill["name"] == "failover-kill")
    assert ("a takeover", True) in [(finding["promise"], finding["kept"]) for finding in killed["findings"]]
    assert any(m["name"] == "from the fault until the next step was seen to begin" for m in killed["measures"])
    assert f"mended by: ssh -i {tmp_path / 'key'}" in done.stderr

    as_it_was(site)
    assert site.lab is not None
    seen = evidence.reigns(evidence.since(site.lab.commands([host.name for host in site.web]), began))
    rows = site.ask("history", "production", "--limit", "20")["deployments"][:-1]
    assert [row["version"] for row in reversed(rows)] == ["1.4.1", "1.0", "1.0", "1.4.1", "1.0", "1.4.1"]
    assert len(seen) >= len(rows) + 1  # hosts saw each of them, and the takeover
    reasons = {site.events(row["id"])[0]["data"]["reason"] for row in rows}
    assert {"drill healthy-primary", "drill failover-kill: as it was before"} <= reasons
    assert "not judged" in report.read_text() and "4 of 4 passed" in report.read_text()
    assert ET.parse(junit).getroot().attrib["failures"] == "0"


def test_a_drill_that_is_ended_in_the_middle_of_a_fault_mends_it_and_puts_the_version_back(
    site: Site, there: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "said"
    with out.open("wb") as file:
        process = subprocess.Popen([*there, "failover-stop"], env=called(site), stderr=file)
    try:
        end = time.monotonic() + LONG
        while not (tmp_path / "stopped").exists():
            assert process.poll() is None and time.monotonic() < end, out.read_text()
            time.sleep(0.05)
        assert not site[PRIMARY].active(AGENT)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)  # who asks twice does not get less
        assert process.wait(LONG) == 130, out.read_text()
    finally:
        process.kill()
        process.wait()
    as_it_was(site)
    assert "stop is mended" in out.read_text()
    assert not [row for row in site.ask("history", "production")["deployments"] if row["finished_at"] is None]
