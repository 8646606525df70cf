# SPDX-License-Identifier: Apache-2.0
"""Checks that look at real hosts as Ansible reaches them: before the fence is raised, and behind it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.hosts import SshHost
from tests.ansible.test_deploys import Shop
from tests.support.images import registry

#: Each looks at both hosts. `#` stands for a file that only one test's hosts have.
CHECKS = """\
      - host: {sudo: true}
      - disk: {below: 100%, inodes_below: 100%}
      - memory: {below: 100%}
      - file: {path: /root/#, on: hosts, checksum: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
      - command: {run: "test {host_name} = alpha || test {host_name} = beta && test -e /root/#", on: hosts}
      - http: {url: "http://127.0.0.1:{sshd}/", on: hosts, status: 200}
        name: no http
"""
KINDS = ["host", "disk", "memory", "file", "command", "no http"]


@pytest.fixture
def shop(tmp_path: Path, hosts: list[SshHost], key: Path) -> Iterator[Shop]:
    one = Shop(tmp_path, hosts, key)
    # Ansible's own variables are not for checks.
    one.inventory.write_text(re.sub(r"ansible_port=(\d+)", r"\g<0> sshd=\1", one.inventory.read_text()))
    for host in hosts:
        host.disk(f"/root/{mark(one)}").touch()
    yield one
    shutil.rmtree(one.sockets)


def mark(shop: Shop) -> str:
    return Path(shop.state_file).stem


def configure(shop: Shop, key: str, checks: str) -> None:
    shop.configure("    retry:", f"    {key}:\n{checks.replace('#', mark(shop))}    retry:")


def preflight(shop: Shop) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    done = shop.run("preflight", "prod", "2.0", "--output", "json")
    assert done.stdout, done.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for check in json.loads(done.stdout)["checks"]:
        found.setdefault(check["name"], []).append(check)
    return done.returncode, found


def test_each_host_is_looked_at_before_anything_is_touched(shop: Shop, hosts: list[SshHost]) -> None:
    hosts[1].disk(f"/root/{mark(shop)}").unlink()
    configure(shop, "preflight", CHECKS)
    code, found = preflight(shop)
    assert code == 3
    assert {name: len(checks) for name, checks in found.items()} == dict.fromkeys(KINDS, 2)
    for name in KINDS[:-1]:
        second = "fail" if name in ("file", "command") else "pass"
        assert [check["status"] for check in found[name]] == ["pass", second], found[name]
    assert found["file"][1]["message"].startswith(f"beta: /root/{mark(shop)} is not there")
    for check in found["no http"]:  # what answers there is sshd
        assert check["status"] == "fail"
        assert "SSH-2.0" in check["message"], check["message"]
        assert "Traceback" not in check["message"]


def test_host_that_can_not_be_reached_fails_each_check_of_its_own(shop: Shop, hosts: list[SshHost]) -> None:
    configure(shop, "preflight", CHECKS)
    text = shop.inventory.read_text()
    shop.inventory.write_text(text.replace(f"ansible_port={hosts[1].port}", "ansible_port=9"))
    code, found = preflight(shop)
    assert code == 3
    for name in KINDS[:-1]:
        assert [check["status"] for check in found[name]] == ["pass", "fail"], found[name]
        assert "beta" in found[name][1]["message"]
        assert found[name][1]["hint"]


def test_checks_run_the_python_that_the_inventory_names(shop: Shop, host: SshHost) -> None:
    named, asked = host.disk(f"/root/{mark(shop)}.python"), host.disk(f"/root/{mark(shop)}.asked")
    named.write_text(f'#!/bin/sh\necho >>/root/{asked.name}\nexec /usr/bin/python3 "$@"\n')
    named.chmod(0o755)
    shop.inventory.write_text(
        shop.inventory.read_text().replace("alpha ", f"alpha ansible_python_interpreter=/root/{named.name} ", 1)
    )
    configure(shop, "preflight", '      - http: {url: "http://127.0.0.1:9/", on: hosts}\n')
    code, found = preflight(shop)
    assert code == 3
    assert ["refused" in check["message"] for check in found["http"]] == [True, True], found
    assert asked.read_text() == "\n"


def test_health_is_looked_at_behind_the_fence_and_steps_get_pinned_images(
    shop: Shop, host: SshHost, tmp_path: Path
) -> None:
    with registry(tmp_path / "registry") as images:
        digest = images.push("shop/back-end:2.0")
        configure(shop, "preflight", f'      - image: {{ref: "{images.address}/shop/back-end:{{version}}"}}\n')
        configure(shop, "health", CHECKS.rpartition("      - http")[0])
        step = f'      - {{name: pull, run: "echo $SUREFOOT_IMAGE_BACK_END > {tmp_path}/pin"}}'
        shop.configure("    steps:", f"    steps:\n{step}")
        playbook = (shop.folder / "activate.yml").read_text()
        (shop.folder / "activate.yml").write_text(playbook.replace("surefoot_token]", "surefoot_image_back_end]"))
        done = shop.run("deploy", "prod", "2.0")
    assert done.returncode == 0, done.stderr
    assert "healthy: 10 checks passed" in done.stderr
    pinned = f"{images.address}/shop/back-end@{digest}"
    assert (tmp_path / "pin").read_text().strip() == pinned
    assert f"surefoot_image_back_end={pinned}" in host.disk("/root/shown").read_text()
