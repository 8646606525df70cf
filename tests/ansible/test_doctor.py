# SPDX-License-Identifier: Apache-2.0
"""What doctor says of real hosts behind real sshd: faults of hosts, and hosts that run what they should not."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from surefoot.checks.registry import KINDS
from surefoot.config.loading import load
from surefoot.core.deployment import FENCES
from surefoot.doctor.collect import Question, collect
from surefoot.doctor.facts import Facts
from surefoot.doctor.findings import Finding
from surefoot.doctor.rules import diagnose
from surefoot.doctor.where import where
from tests.ansible.hosts import PLAIN_USER, SshHost, inventory

PATIENCE = 120.0
_CONFIG = """\
project: FENCE
environments:
  prod:
    inventory: hosts.ini
    state_file: /var/lib/doctor-FENCE.json
    steps:
      - {name: activate, run: 'test "$SUREFOOT_VERSION" != broken', undo: {run: test -e ROOT/way-back}}
    retry: {attempts: 1, delay: 0s, timeout: 100s}
"""


class Shop:
    """A project whose 1.0 was deployed to two hosts."""

    def __init__(self, root: Path, hosts: list[SshHost], key: Path) -> None:
        self.root, self.hosts, self.key = root, hosts, key
        self.folder = root / "project"
        self.folder.mkdir()
        self.known = root / "known_hosts"
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "SUREFOOT_", "SSH_"))}
        self.environ["HOME"] = str(root)
        self.name = f"doctor-{root.name}"
        text = _CONFIG.replace("FENCE", self.name).replace("ROOT", str(root))
        self.config = self.folder / "surefoot.yml"
        self.config.write_text(text)
        self.reach()
        done = self.deploy("1.0")
        assert done.returncode == 0, done.stderr

    def reach(self, hosts: list[SshHost] | None = None, key: Path | None = None, user: str = "root") -> None:
        text = inventory(hosts or self.hosts, key or self.key, self.known, user)
        (self.folder / "hosts.ini").write_text(text)

    def deploy(self, version: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "surefoot", "deploy", "prod", version],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def facts(self, deployment: str | None = None) -> Facts:
        store = self.folder / ".surefoot" / "surefoot.db"
        config = load(self.config, kinds=KINDS, environ=self.environ)
        question = Question(str(store), store.parent, config, None, deployment, environ=self.environ, seconds=PATIENCE)
        facts, _ = asyncio.run(collect(question))
        return facts

    def found(self) -> list[Finding]:
        return diagnose(self.facts())

    def first_found(self) -> Finding:
        facts = self.facts()
        found = diagnose(facts)
        assert found, facts
        return found[0]

    def fence(self, host: SshHost) -> Path:
        """Return where the host keeps the fence of this project."""
        (folder,) = host.disk(f"/var/lib/surefoot/fence/{self.name}/prod").iterdir()
        return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, hosts: list[SshHost], key: Path) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"), hosts, key)


@pytest.fixture
def shop(made: Shop) -> Iterator[Shop]:
    """The project, which is as it was when a test begins."""
    before = made.config.read_text()
    yield made
    made.config.write_text(before)
    made.reach()


def test_hosts_that_are_well_give_no_finding(shop: Shop) -> None:
    facts = shop.facts()
    assert diagnose(facts) == [], facts.unchecked
    (environment,) = facts.environments
    assert [(h.version, (h.token or 0) // FENCES) for h in environment.hosts] == [("1.0", 1), ("1.0", 1)]


def test_wrong_key(shop: Shop) -> None:
    other = shop.root / "other"
    if not other.exists():
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(other)], check=True)
    shop.reach(key=other)
    found = shop.first_found()
    assert (found.rule, str(found.code), found.runbook) == ("host-auth", "SF-HOST-AUTH", "secret-rotation")
    assert "so it is with all 2 hosts" in found.evidence[-1]


def test_host_key_changed(shop: Shop) -> None:
    kind, key, *_ = Path(f"{shop.key}.pub").read_text().split()
    lines = shop.known.read_text().splitlines()
    shop.known.write_text(f"{lines[0]}\n{lines[1].split()[0]} {kind} {key}\n")
    found = shop.first_found()
    assert (found.rule, found.host) == ("host-key-changed", "beta")
    assert found.fix.partition("ssh-keygen -R")[1]


def test_host_unreachable(shop: Shop, own_host: SshHost) -> None:
    shop.reach([*shop.hosts, own_host])
    own_host.stop()
    found = shop.first_found()
    assert (found.rule, found.host) == ("host-unreachable", "own")
    assert "nothing listens there" in found.title


def test_name_that_can_not_be_resolved(shop: Shop) -> None:
    file = shop.folder / "hosts.ini"
    file.write_text(file.read_text().replace("beta ansible_host=127.0.0.1", "beta ansible_host=no-such-host.invalid"))
    found = shop.first_found()
    assert (found.rule, found.host) == ("host-unreachable", "beta")
    assert "the name no-such-host.invalid can't be resolved" in found.title


def test_inventory_that_asks_and_finds_no_hosts(shop: Shop) -> None:
    asks = shop.folder / "hosts.sh"
    asks.write_text("#!/bin/sh\necho '{}'\n")
    asks.chmod(0o755)
    shop.config.write_text(shop.config.read_text().replace("hosts.ini", "hosts.sh"))
    found = shop.first_found()
    assert (found.rule, str(found.code)) == ("inventory", "SF-NO-HOSTS")


def test_fence_folder_that_can_not_be_written(shop: Shop) -> None:
    shop.reach(user=PLAIN_USER)
    shop.config.write_text(
        shop.config.read_text().replace("    steps:", "    fence: {path: /var/lib/kept}\n    steps:")
    )
    found = next(one for one in shop.found() if one.rule == "fence-folder")
    assert (str(found.code), found.host) == ("SF-FENCE-FOLDER", "alpha")
    assert "/var/lib/kept" in found.fix


def test_mixed_versions(shop: Shop) -> None:
    file = shop.hosts[1].disk(f"/var/lib/doctor-{shop.name}.json")
    before = file.read_text()
    file.write_text(before.replace('"1.0"', '"0.9"'))
    found = shop.first_found()
    file.write_text(before)
    assert (found.rule, found.host, found.fix) == ("versions-mixed", "beta", "surefoot deploy prod 1.0")
    assert found.evidence == ("alpha runs 1.0", "beta runs 0.9")


def test_store_that_was_restored_from_a_backup(shop: Shop) -> None:
    token = shop.fence(shop.hosts[1]) / "token"
    before = token.read_text()
    token.write_text(f"{7 * FENCES}\n")
    found = shop.first_found()
    token.write_text(before)
    assert (found.rule, found.host, found.runbook) == ("fence-ahead", "beta", "store-down")
    assert "token 7" in found.title


def test_fence_that_was_lost(shop: Shop) -> None:
    folder = shop.fence(shop.hosts[1])
    kept = shop.root / "kept"
    shutil.move(folder, kept)
    found = shop.first_found()
    shutil.move(kept, folder)
    assert (found.rule, found.host) == ("fence-lost", "beta")


def test_stranded_says_which_host_runs_what_and_what_to_run(tmp_path: Path, hosts: list[SshHost], key: Path) -> None:
    shop = Shop(tmp_path, hosts, key)
    assert shop.deploy("broken").returncode == 5
    facts = shop.facts("prod-2")
    stranded = next(one for one in diagnose(facts) if one.rule == "stranded")
    assert stranded.fix == "surefoot resolve prod-2 --reason TEXT"
    assert {"alpha runs 1.0", "beta runs 1.0"} <= set(stranded.evidence)
    assert "could not be put back" in where(facts)[0]
    file = hosts[1].disk(f"/var/lib/doctor-{shop.name}.json")
    file.write_text(file.read_text().replace('"1.0"', '"broken"'))
    stranded = next(one for one in shop.found() if one.rule == "stranded")
    assert stranded.fix.startswith("bring beta to 1.0 by hand; then: surefoot resolve prod-2")
