# SPDX-License-Identifier: Apache-2.0
"""A private key that is a secret: hosts are reached by it, no file holds it, and nothing of it outlives the attempt."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ansible.hosts import PLAIN_USER, SshHost, until
from tests.ansible.test_deploys import Shop

CONFIG = """\
project: shop
secrets: [DEPLOY_KEY]
environments:
  prod:
    inventory: hosts.ini
    state_file: /home/worker/shop-state.json
    fence: {path: /home/worker/fence}
    ssh: {private_key: "${DEPLOY_KEY}", user: "${DEPLOY_USER}"}
    health:
      - command: {run: 'ssh-add -l >&2'}
    health_policy: {within: 20s, interval: 100ms, successes: 1}
    steps:
      - name: by hand
        run: 'ssh-add -l; echo "$SSH_AUTH_SOCK $SSH_AGENT_PID" > ROOT/socket; MORE'
      - name: activate
        playbook: activate.yml
    retry: {attempts: 1, delay: 0s, timeout: 50s}
"""
PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - command: id -un
      register: who
    - debug: {var: who.stdout}
"""


@pytest.fixture
def shop(tmp_path: Path, hosts: list[SshHost], key: Path) -> Iterator[Shop]:
    one = Shop(tmp_path, hosts, key)
    text = one.inventory.read_text().replace(f"ansible_ssh_private_key_file={key}\n", "")
    one.inventory.write_text(text.replace(" ansible_user=root", "").replace(" -o IdentitiesOnly=yes", ""))
    (one.folder / "activate.yml").write_text(PLAYBOOK)
    one.env |= {"DEPLOY_KEY": key.read_text(), "DEPLOY_USER": PLAIN_USER}
    configure(one, "true")
    yield one


def configure(shop: Shop, more: str) -> None:
    shop.config.write_text(CONFIG.replace("ROOT", str(shop.folder.parent)).replace("MORE", more))


def socket_of(shop: Shop) -> tuple[Path, int]:
    path, pid = (shop.folder.parent / "socket").read_text().split()
    return Path(path), int(pid)


def holds(path: Path, text: bytes) -> bool:
    try:
        return path.is_file() and text in path.read_bytes()
    except OSError:
        return False


def test_hosts_are_reached_by_a_key_that_is_in_no_file(shop: Shop, hosts: list[SshHost], key: Path) -> None:
    done = shop.run("deploy", "prod", "1.0")
    assert done.returncode == 0, done.stderr
    fingerprint = subprocess.run(["ssh-keygen", "-lf", str(key)], capture_output=True, text=True).stdout.split()[1]
    logs = shop.run("logs", "prod-1").stdout
    assert logs.count(fingerprint) == 2, "in a step, and in a check"
    assert f'"who.stdout": "{PLAIN_USER}"' in logs
    assert all(host.disk("/home/worker/shop-state.json").exists() for host in hosts)
    path, pid = socket_of(shop)
    assert not path.parent.exists() and not Path(f"/proc/{pid}").exists()
    line = key.read_text().splitlines()[2].encode()
    places = (shop.folder, shop.sockets, path.parents[2])
    assert [p for place in places for p in place.rglob("*") if holds(p, line)] == []


def test_nothing_of_the_key_is_left_when_the_agent_is_killed(shop: Shop) -> None:
    configure(shop, "sleep 5021")
    with shop.start("deploy", "prod", "1.0") as deploy:
        try:
            until(lambda: (shop.folder.parent / "socket").exists() and socket_of(shop), "the step runs", 60)
            path, pid = socket_of(shop)
            assert path.is_socket() and path.parent.stat().st_mode & 0o777 == 0o700
            assert path.parent.parent.stat().st_mode & 0o777 == 0o700
        finally:
            deploy.send_signal(signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the ssh-agent has ended", 60)
    until(lambda: not path.parent.exists(), "its folder is gone", 60)
    until(lambda: [p for p in shop.sockets.iterdir() if p.name.startswith("sf-")] == [], "nor are there others", 60)


def test_a_folder_that_nobody_could_remove_is_removed_by_the_next_agent(shop: Shop) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = Path(f"/run/surefoot-{os.geteuid()}") if os.geteuid() == 0 else Path(os.environ["XDG_RUNTIME_DIR"])
    folder = left / "ssh" / f"{gone.pid}-1-left"
    folder.mkdir(parents=True)
    shop.run("agent", "run", "next", "--role", "emergency", "--once")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("key_text", "message"),
    [
        ("no key", "DEPLOY_KEY is no private key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\n-----END OPENSSH PRIVATE KEY-----", "can't be read"),
    ],
)
def test_what_is_no_key_is_told_before_anything_is_touched(shop: Shop, key_text: str, message: str) -> None:
    shop.env["DEPLOY_KEY"] = key_text
    done = shop.run("deploy", "prod", "1.0")
    assert done.returncode == 3
    assert "error[SF-SECRET-INVALID]" in done.stderr and message in done.stderr


def test_a_user_that_is_not_set_is_told(shop: Shop) -> None:
    del shop.env["DEPLOY_USER"]
    done = shop.run("deploy", "prod", "1.0")
    assert done.returncode == 3
    assert "DEPLOY_USER not set in the environment of agent" in done.stderr
