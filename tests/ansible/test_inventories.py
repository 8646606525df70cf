# SPDX-License-Identifier: Apache-2.0
"""Inventories that do not name the same hosts twice: none is left with half of a deployment, and nobody told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from surefoot.core.errors import Code, Exit
from tests.ansible.hosts import SshHost
from tests.ansible.test_deploys import Shop

#: What a cloud tells, say: without those hosts that it has lost sight of.
TOLD = """\
#!/usr/bin/env python3
import json, pathlib
folder = pathlib.Path("@")
told = json.loads((folder / "all.json").read_text())
lost = {path.name.removeprefix("without-") for path in folder.glob("without-*")}
names = sorted(set(told) - lost)
print(json.dumps({"all": {"hosts": names}, "_meta": {"hostvars": {name: told[name] for name in names}}}))
"""
STEPS = """\
    steps:
      - name: first
        playbook: first.yml
        undo: {playbook: first.yml}
      - name: second
        playbook: second.yml
        undo: {playbook: second.yml}
"""
#: A step that leaves a word on each host, and then does on the agent's machine what a test wants to happen.
STEP = """\
- hosts: all
  gather_facts: false
  tasks:
    - raw: "echo {{ surefoot_version }} {{ surefoot_direction }} > /root/NAME"
- hosts: localhost
  gather_facts: false
  tasks:
    - shell: "AFTER"
"""


class Cloud:
    """A shop whose hosts a program tells, and which can lose sight of one."""

    def __init__(self, shop: Shop, hosts: list[SshHost]) -> None:
        self.shop, self.hosts, self.folder = shop, hosts, shop.folder.parent
        program = Path(sys.executable).with_name("ansible-inventory")
        listed = subprocess.run([program, "-i", shop.inventory, "--list"], check=True, capture_output=True).stdout
        (self.folder / "all.json").write_text(json.dumps(json.loads(listed)["_meta"]["hostvars"]))
        (shop.folder / "hosts.py").write_text(TOLD.replace("@", str(self.folder)))
        (shop.folder / "hosts.py").chmod(0o755)
        shop.configure("inventory: hosts.ini", "inventory: hosts.py")
        before, _, rest = shop.config.read_text().partition("    steps:\n")
        shop.config.write_text(before + STEPS + rest[rest.index("    retry:") :])
        self.step("first")
        self.step("second")

    def step(self, name: str, after: str = "true") -> None:
        """Write a step; `@` in `after` is a file that has the cloud lose sight of the second host."""
        lost = self.folder / f"without-{self.hosts[1].name}"
        text = STEP.replace("NAME", name).replace("AFTER", after.replace("@", str(lost)))
        (self.shop.folder / f"{name}.yml").write_text(text)

    def left(self, name: str) -> list[str]:
        """Return what a step has left on each host."""
        return [host.disk(f"/root/{name}").read_text().strip() for host in self.hosts]


@pytest.fixture
def cloud(tmp_path: Path, hosts: list[SshHost], key: Path) -> Iterator[Cloud]:
    made = Cloud(Shop(tmp_path, hosts, key), hosts)
    done = made.shop.run("deploy", "prod", "1.0")
    assert done.returncode == Exit.DONE, done.stderr
    yield made
    shutil.rmtree(made.shop.sockets)


def test_a_host_that_the_inventory_loses_between_two_steps_is_not_left_out(cloud: Cloud) -> None:
    cloud.step("first", after="touch @")
    done = cloud.shop.run("deploy", "prod", "2.0")
    second = cloud.hosts[1].name
    assert done.returncode == Exit.STRANDED, done.stderr
    assert f"error[{Code.HOSTS_CHANGED}]" in done.stderr and f"without {second}" in done.stderr
    assert cloud.left("second") == ["1.0 forward"] * 2, "the second step has begun nowhere"


def test_a_host_that_comes_back_in_time_is_put_back_with_the_others(cloud: Cloud) -> None:
    cloud.step("first", after="if test {{ surefoot_direction }} = forward; then touch @; fi")
    cloud.shop.configure("attempts: 1, delay: 0s", "attempts: 3, delay: 1s")
    lost = cloud.folder / f"without-{cloud.hosts[1].name}"
    (cloud.shop.folder / "hosts.py").write_text(
        (cloud.shop.folder / "hosts.py").read_text() + f"pathlib.Path('{lost}').unlink(missing_ok=True)\n"
    )
    done = cloud.shop.run("deploy", "prod", "2.0")
    assert done.returncode == Exit.DONE, done.stderr
    assert cloud.left("second") == ["2.0 forward"] * 2


def test_a_host_that_comes_between_two_steps_does_not_get_the_second_alone(cloud: Cloud) -> None:
    lost = cloud.folder / f"without-{cloud.hosts[1].name}"
    lost.touch()
    cloud.step("first", after="rm -f @")
    done = cloud.shop.run("deploy", "prod", "2.0")
    assert done.returncode == Exit.PUT_BACK, done.stderr
    assert f"with {cloud.hosts[1].name}" in done.stderr
    assert (cloud.left("first"), cloud.left("second")) == (["2.0 undo"] * 2, ["1.0 forward"] * 2)


def test_what_can_not_be_put_back_for_want_of_a_host_is_not_called_put_back(cloud: Cloud) -> None:
    cloud.step("second", after="touch @; test {{ surefoot_direction }} = undo")
    done = cloud.shop.run("deploy", "prod", "2.0")
    second = cloud.hosts[1].name
    assert done.returncode == Exit.STRANDED, done.stderr
    assert f"error[{Code.HOSTS_CHANGED}]" in done.stderr and f"without {second}" in done.stderr
    assert cloud.left("first") == ["2.0 forward"] * 2
    unseen = cloud.shop.run("resolve", "prod-2", "--reason", "put back by hand", "--version", "2.0")
    assert unseen.returncode == Exit.REFUSED and f"without {second}" in unseen.stderr
    resolved = cloud.shop.run(
        "resolve", "prod-2", "--reason", f"{second} is gone for good", "--unchecked", "--version", "2.0"
    )
    assert resolved.returncode == Exit.DONE, resolved.stderr
