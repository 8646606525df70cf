# SPDX-License-Identifier: Apache-2.0
"""The five main runbooks, carried out: the fault is made on real hosts, doctor names it first, the page's own commands
are run in their order, and the fault is gone at the end.

What is run is what the page says, where it says so: blocks after `<!-- tested: FAULT -->` on the runner, after
`<!-- tested: FAULT on HOST -->` on that host.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from surefoot.drills.lab import Lab

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
FOLDER = "/srv/shop"
ENVIRONMENT = "/etc/surefoot-agent/environment"
LONG = 300.0
WEB = ("web-01", "web-02")
_BLOCK = re.compile(r"<!-- tested: (\w+)(?: on ([\w-]+))? -->\n```sh\n(.*?)```", re.DOTALL)

_CONFIG = """\
project: shop
secrets: [RELEASE_TOKEN]
agents:
  production-runner-01: {role: primary}
  emergency: {role: emergency}
lease: {ttl: 10s}
environments:
  production:
    inventory: production.ini
    state_file: /var/lib/shop.json
    preflight:
      - secret: {name: RELEASE_TOKEN, format: jwt}
      - file: {path: "/srv/releases/{version}.tar.gz"}
    steps:
      - {name: activate, playbook: activate.yml, undo: {playbook: activate.yml}}
    retry: {attempts: 1, delay: 0s, timeout: 240s}
    health:
      - http: {url: "http://{host}:8080/", status: 200, timeout: 30s}
    health_policy: {within: 120s, interval: 1s, successes: 1}
"""
_PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.raw: systemctl restart shop
"""
_SHOP = "[Service]\nExecStart=/usr/bin/python3 -m http.server 8080 --directory /srv/shop-web\n"
_AGENT = """\
[Service]
WorkingDirectory={folder}
EnvironmentFile={environment}
Environment=PATH={path} HOME=/root PYTHONPATH={source} LC_ALL=C.UTF-8
ExecStart={python} -m surefoot agent run production-runner-01 --role primary
KillMode=mixed
"""


def token(seconds: float) -> str:
    """A token that expires in so many seconds."""
    parts = ({"alg": "HS256"}, {"exp": int(time.time() + seconds)}, {"not": "signed"})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)


def until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < end, f"did not come true in {LONG:.0f} s: {what}"
        time.sleep(0.3)


class Shop:
    """A runner and two web hosts that run 1.0."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.runner = lab.add("production-runner-01")
        self.web = [lab.add(name) for name in WEB]
        disk = self.runner.disk
        disk.write("root/.ssh/id_ed25519", lab.private_key, mode=0o600)
        disk.write("root/.ssh/known_hosts", lab.known_hosts())
        disk.write("srv/shop/surefoot.yml", _CONFIG)
        disk.write("srv/shop/activate.yml", _PLAYBOOK)
        hosts = "\n".join(f"{host.name} ansible_host={host.address}" for host in self.web)
        python = "ansible_python_interpreter=/usr/bin/python3"
        disk.write("srv/shop/production.ini", f"[all]\n{hosts}\n[all:vars]\nansible_user=root\n{python}\n")
        for version in ("1.0", "2.0"):
            disk.write(f"srv/releases/{version}.tar.gz", version)
        disk.write("srv/shop/build/2.0.tar.gz", "2.0")
        lab.power_on()
        self.path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        self.source = ":".join(p for p in sys.path if p)
        for host in self.web:
            host.sh("mkdir -p /srv/shop-web")
            host.unit("shop", _SHOP)
            # What a Debian host calls its sshd.
            host.sh(
                "ln -s /etc/systemd/system/lab-ssh.service /etc/systemd/system/ssh.service && systemctl daemon-reload"
            )
            host.systemctl("start", "shop")
        self.give_token(token(86400 * 60))
        fill = {"folder": FOLDER, "environment": ENVIRONMENT, "path": self.path, "source": self.source}
        self.runner.unit("surefoot-agent", _AGENT.format(**fill, python=sys.executable))
        self.runner.systemctl("start", "surefoot-agent")
        self.run("surefoot deploy production 1.0")

    def give_token(self, value: str) -> None:
        self.runner.sh(f"mkdir -p {Path(ENVIRONMENT).parent}")
        self.runner.write(ENVIRONMENT, f"RELEASE_TOKEN={value}\n", 0o600)

    def run(self, script: str, *, check: bool = True, new: str = "") -> str:
        """Run what somebody types on the runner, in the project's folder."""
        python = f"exec {sys.executable} -m surefoot"
        program = f'surefoot() {{ env PYTHONPATH="{self.source}" PATH="{self.path}" sh -c \'{python} "$@"\' sh "$@"; }}'
        text = f"cd {FOLDER}; NEW={new}; {program}\n{script}"
        return self.runner.sh(text, check=check, timeout=LONG)

    def doctor(self) -> str:
        return self.run("surefoot doctor --timeout 90s")

    def follow(self, page: str, fault: str, **variables: str) -> list[str]:
        """Do what a page says of a fault, and return what each of its blocks has printed."""
        blocks = [found for found in _BLOCK.findall((RUNBOOKS / page).read_text()) if found[0] == fault]
        assert len(blocks) >= 3, f"{page} has too little to do against {fault}"
        printed = []
        for _, where, script in blocks:
            if where:
                printed.append(self.lab[where].sh(script, timeout=LONG))
            else:
                patient = script.replace("surefoot doctor", "surefoot doctor --timeout 90s")
                printed.append(self.run(f"set -e\n{patient}", **variables))
        return printed


@pytest.fixture(scope="module")
def shop(lab: Lab) -> Iterator[Shop]:
    yield Shop(lab)


def found_first(printed: str) -> str:
    """Return what doctor says first, with what shows it and what mends it."""
    assert "1. broken: " in printed, printed
    return printed.partition("1. broken: ")[2].partition("\n2. ")[0].partition("\nlooked at: ")[0]


def mended(printed: str) -> bool:
    return "looked at: " in printed and " broken: " not in printed


def test_runner_offline(shop: Shop) -> None:
    shop.runner.kill("surefoot-agent")
    until(lambda: not shop.runner.active("surefoot-agent"), "the agent is dead")
    before, *_ = shop.follow("runner-offline.md", "killed")
    cause = found_first(before)
    assert cause.startswith("agent production-runner-01 has ended (its process is gone)")
    assert "fix: systemctl restart surefoot-agent.service" in cause
    until(lambda: mended(shop.doctor()), "the agent is back")


def test_secrets_expired(shop: Shop) -> None:
    shop.give_token(token(-3600))
    shop.runner.systemctl("restart", "surefoot-agent")
    assert "is a token that expired" in shop.run("surefoot deploy production 2.0 2>&1 || true")
    value = token(86400 * 60)
    before, *between, after = shop.follow("secrets-expired.md", "expired", new=value)
    cause = found_first(before)
    assert "RELEASE_TOKEN is a token that expired 1 hour ago" in cause
    assert "more: docs/runbooks/secrets-expired.md" in cause
    assert mended(after)
    assert value not in "".join((before, *between, after))


def test_network_unreachable(shop: Shop) -> None:
    shop.lab["web-02"].stop_sshd()
    before, *_, after = shop.follow("network-unreachable.md", "sshd")
    cause = found_first(before)
    assert "web-02 can't be reached" in cause and "nothing listens there" in cause
    assert "[SF-HOST-UNREACHABLE]" in cause and "more: docs/runbooks/network-unreachable.md" in cause
    assert mended(after)


def test_health_checks_failing(shop: Shop) -> None:
    shop.lab["web-02"].systemctl("stop", "shop")
    before, *_ = shop.follow("health-checks-failing.md", "service")
    cause = found_first(before)
    assert "the health check http on web-02 fails" in cause
    assert "more: docs/runbooks/health-checks-failing.md" in cause
    until(lambda: mended(shop.doctor()), "the service answers")


def test_artifact_missing(shop: Shop) -> None:
    shop.runner.sh("rm /srv/releases/2.0.tar.gz")
    assert "SF-PREFLIGHT-FAILED" in shop.run("surefoot deploy production 2.0 2>&1 || true")
    before, *_, after = shop.follow("artifact-missing.md", "artifact")
    cause = found_first(before)
    assert "/srv/releases/2.0.tar.gz is not there" in cause and "more: docs/runbooks/artifact-missing.md" in cause
    assert mended(after)


def test_every_main_runbook_is_carried_out_here() -> None:
    pages = ("runner-offline", "secrets-expired", "network-unreachable", "health-checks-failing", "artifact-missing")
    for page in pages:
        assert _BLOCK.search((RUNBOOKS / f"{page}.md").read_text()), page
