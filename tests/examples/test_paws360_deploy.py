# SPDX-License-Identifier: Apache-2.0
"""The PAWS360 example as a whole: its files are what they should be, and from a copy outside of the repository it
deploys to hosts of the lab, changes nothing twice, and goes back.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from surefoot.drills.lab import Host, Lab, missing
from tests.support import paws360
from tests.support.paws360 import ANSIBLE, BIN, ENVIRON, EXAMPLE

PATIENCE = 900.0


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The example, copied to where nothing of the repository is."""
    folder = tmp_path / "paws360"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".surefoot", "__pycache__"))
    return folder


def run(folder: Path, *words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    call = [BIN / words[0], *words[1:]]
    return subprocess.run(
        call,
        cwd=folder,
        env={**ENVIRON, **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
    )


def test_the_config_is_valid_in_a_copy(copy: Path) -> None:
    checked = run(copy, "surefoot", "check")
    assert checked.returncode == 0, checked.stderr


def test_what_is_asked_of_production_is_there(copy: Path) -> None:
    from surefoot.checks.registry import KINDS
    from surefoot.config.freeze import freeze
    from surefoot.config.loading import load

    plan = freeze(load(copy / "surefoot.yml", kinds=KINDS, environ={}), "production")
    assert plan.state_file == "/var/lib/paws360-production-state.json"
    assert [step.name for step in plan.steps] == ["stage", "migrate", "activate"]
    for step in plan.steps:
        assert (step.retry.attempts, step.retry.delay, step.retry.timeout) == (3, 30.0, 600.0)
    assert plan.gates.promote_from is not None and plan.gates.promote_from.environment == "staging"
    assert plan.gates.approvals is not None and list(plan.gates.approvals.groups) == ["sre"]
    health = {check.kind for check in plan.health}
    assert health == {"http", "redis", "saml_metadata", "systemd", "disk", "memory"}


def test_every_playbook_is_valid(copy: Path) -> None:
    playbooks = sorted(path.relative_to(copy) for path in (copy / ANSIBLE).glob("*.yml"))
    assert len(playbooks) == 6
    checked = run(copy, "ansible-playbook", "--syntax-check", "-i", ANSIBLE / "inventories" / "staging.ini", *playbooks)
    assert checked.returncode == 0, checked.stderr


def test_ansible_lint_finds_nothing_at_its_strictest_profile(copy: Path, tmp_path: Path) -> None:
    # It looks for its own ansible by the path, and writes into its home.
    collections = tmp_path / "collections" / "ansible_collections" / "surefoot"
    collections.mkdir(parents=True)
    (collections / "platform").symlink_to(Path(__file__).parents[2] / "ansible")
    env = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "NO_COLOR": "1"}
    env |= {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections")}
    linted = run(copy, "ansible-lint", "--offline", "--strict", ANSIBLE, **env)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "Profile 'production' was required, and it passed" in linted.stderr


# -- on hosts ----------------------------------------------------------------------------------------------------


@dataclass
class Site:
    """The copy, its hosts, and an agent that runs whenever something is deployed."""

    folder: Path
    web: list[Host]
    env: dict[str, str]
    failed: list[str] = field(default_factory=list)

    def ansible(self, *playbooks: str, **variables: str) -> str:
        given = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
        done = run(
            self.folder, "ansible-playbook", "-i", ANSIBLE / "inventories" / "staging.ini", *given,
            *(ANSIBLE / f"{name}.yml" for name in playbooks), ANSIBLE_PIPELINING="1", **self.env,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.rpartition("PLAY RECAP")[2]

    def surefoot(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run(self.folder, "surefoot", *words, **self.env)

    def deploy(self, version: str) -> dict[str, Any]:
        """Deploy a version; return how it ended."""
        asked = self.surefoot("--output", "json", "deploy", "staging", version, "--detach")
        assert asked.returncode == 0, asked.stderr
        name = json.loads(asked.stdout)["id"]
        worked = self.surefoot("agent", "run", "production-runner-01", "--once")
        assert worked.returncode == 0, worked.stderr
        shown: dict[str, Any] = json.loads(self.surefoot("--output", "json", "show", name).stdout)
        shown["log"] = worked.stderr + self.surefoot("logs", name).stdout
        return shown

    def changed(self, name: str) -> dict[str, int]:
        """Return how many things each step has changed."""
        events = [json.loads(line) for line in self.surefoot("--output", "json", "events", name).stdout.splitlines()]
        return {e["data"]["step"]: e["data"]["changed"] for e in events if e["type"] == "step_succeeded"}

    def versions(self) -> set[str]:
        """Return what the hosts' services say that they run."""
        return {self._get(host, f":{port}{path}") for host in self.web for port, path in
                ((8080, "/actuator/health"), (3000, "/api/health"))}  # fmt: skip

    def _get(self, host: Host, path: str) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{host.address}{path}", timeout=30) as response:
            return str(response.headers["X-Paws360-Version"])

    def started(self) -> list[str]:
        """Return since when each service runs."""
        units = ("paws360-backend", "paws360-frontend")
        ask = ("show", "--value", "--property=ExecMainStartTimestampMonotonic")
        return [host.systemctl(*ask, unit).strip() for host in self.web for unit in units]

    @contextlib.contextmanager
    def visited(self) -> Iterator[None]:
        """Ask nginx on both hosts, ten times a second; note what is not answered well."""
        over = threading.Event()

        def visit(host: Host) -> None:
            while not over.wait(0.1):
                try:
                    self._get(host, "/")
                except OSError as error:
                    self.failed.append(f"{host.name}: {error}")

        visitors = [threading.Thread(target=visit, args=(host,)) for host in self.web]
        for visitor in visitors:
            visitor.start()
        try:
            yield
        finally:
            over.set()
            for visitor in visitors:
                visitor.join()


@pytest.fixture
def site(copy: Path, tmp_path: Path) -> Iterator[Site]:
    if reason := missing():
        warnings.warn(f"the PAWS360 example is NOT deployed: {reason}", stacklevel=1)
        pytest.skip(reason)
    if not paws360.programs() or not shutil.which("redis-server") or not Path("/usr/sbin/nginx").exists():
        pytest.skip("the example needs PostgreSQL, Redis and nginx: make debian")
    with Lab() as lab:
        web, database = [lab.add("staging-01"), lab.add("staging-02")], lab.add("staging-db")
        lab.power_on()
        paws360.let_in(lab, tmp_path)
        paws360.aim(copy, "staging", web, database, tmp_path)
        config = copy / "surefoot.yml"
        config.write_text(
            config.read_text()
            .replace("attempts: 3, delay: 30s", "attempts: 1, delay: 1s")
            .replace("cpu_below: 90%, ", "")
            .replace("within: 60s", "within: 600s")
        )
        env = {"PRODUCTION_SSH_USER": "root", "PRODUCTION_SSH_PRIVATE_KEY": lab.private_key, "HOME": str(tmp_path)}
        with tempfile.TemporaryDirectory(prefix="sf-") as sockets:  # whose paths have to be short
            yield Site(copy, web, {**env, "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets})


def test_it_changes_nothing_twice_and_goes_back_without_losing_a_request(site: Site) -> None:
    recap = site.ansible("provision", "stage", "migrate", "activate", surefoot_version="1.0")
    assert recap.count("failed=0") == 2
    assert site.versions() == {"1.0"}

    # The version that runs already: nothing is changed, and nothing is restarted.
    started = site.started()
    again = site.deploy("1.0")
    assert again["status"] == "succeeded", again["log"]
    assert site.changed(again["id"]) == {"stage": 0, "migrate": 0, "activate": 0}
    assert site.started() == started

    # A version that does not start on the second host: both hosts are put back, and nobody outside has noticed.
    site.web[1].sh("echo 2.0 >/var/lib/paws360/faults/frontend-crash")
    with site.visited():
        broken = site.deploy("2.0")
    assert broken["status"] == "rolled_back", broken["log"]
    assert (broken["reason"]["host"], broken["reason"]["step"]) == ("staging-02", "activate")
    assert site.versions() == {"1.0"}
    assert site.failed == []
