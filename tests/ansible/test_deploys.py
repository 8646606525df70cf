# SPDX-License-Identifier: Apache-2.0
"""Whole deployments to real hosts, by the command line: what people get to see, and what hosts end up with."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from surefoot.core.errors import Code
from tests.ansible.hosts import PLAIN_USER, SshHost, inventory, until
from tests.ansible.play import HIDDEN
from tests.support.forked import Surefoot

#: Two tests never share a state file.
_numbers = itertools.count(1)
CONFIG = """\
project: shop
environments:
  prod:
    inventory: hosts.ini
    state_file: STATE
    steps:
      - name: activate
        playbook: activate.yml
        undo: {playbook: activate.yml}
    retry: {attempts: 1, delay: 0s, timeout: 50s}
"""
ACTIVATE = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Show the way
      copy:
        dest: /root/shown
        content: |
          {% for name in names %}{{ name }}={{ lookup('vars', name) }}
          {% endfor %}
      vars:
        names: [surefoot_deployment, surefoot_environment, surefoot_version, surefoot_previous_version, surefoot_step,
                surefoot_direction, surefoot_attempt, surefoot_agent, surefoot_token]
"""


#: Hosts are given ten seconds for a raise.
IMPATIENT = "from surefoot.agent import hosts; hosts.HOSTS_TIMEOUT = 10.0"
#: Each run of ansible-playbook finds the agent out of descriptors.
NO_DESCRIPTORS = """
from surefoot.agent import playbooks
class Os:
    path = playbooks.os.path
    def pipe(self):
        raise OSError(24, "Too many open files")
playbooks.os = Os()
"""

#: What comes of a raise before it is written down.
RAISED = """
import asyncio, os
from surefoot.agent.worker import Worker
from surefoot.core.events import FenceRaised
right = Worker._fact
async def fact(self, event, **more):
    if isinstance(event, FenceRaised):
        {first}
    await right(self, event, **more)
Worker._fact = fact
"""


def running(mark: str) -> list[object]:
    """Return the commands that have a mark in their arguments or their environment."""
    return [p.info["cmdline"] for p in psutil.process_iter(["cmdline", "environ"]) if mark in str(p.info)]


class Shop:
    """A project that is deployed with the command line."""

    def __init__(self, root: Path, hosts: list[SshHost], key: Path) -> None:
        self.folder = root / "shop"
        self.folder.mkdir()
        self.config = self.folder / "surefoot.yml"
        self.state_file = f"/var/lib/shop-{next(_numbers)}.json"
        self.config.write_text(CONFIG.replace("STATE", self.state_file))
        (self.folder / "activate.yml").write_text(ACTIVATE)
        self.known_hosts = root / "known_hosts"
        self.inventory = self.folder / "hosts.ini"
        self.reach(hosts, key)
        self.sockets = Path(tempfile.mkdtemp(prefix="sf-"))
        self.env = {k: v for k, v in os.environ.items() if not k.startswith((*HIDDEN, "GITHUB_"))}
        self.env |= {"HOME": str(root), "TMPDIR": str(self.sockets)}

    def reach(self, hosts: list[SshHost], key: Path, user: str = "root") -> None:
        self.inventory.write_text(inventory(hosts, key, self.known_hosts, user))

    def configure(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def run(self, *args: str, first: str = "") -> subprocess.CompletedProcess[str]:
        with self.start(*args, first=first) as process:
            try:
                out, err = process.communicate(timeout=120)
            finally:
                process.kill()
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def start(self, *args: str, first: str = "") -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return Surefoot(args, first=first, cwd=self.folder, env=self.env, stdout=pipe, stderr=pipe, text=True)

    def show(self, deployment: str) -> Any:
        return json.loads(self.run("show", deployment, "--output", "json").stdout)


@pytest.fixture
def shop(tmp_path: Path, hosts: list[SshHost], key: Path) -> Iterator[Shop]:
    """A project that deploys to both hosts as root."""
    one = Shop(tmp_path, hosts, key)
    yield one
    shutil.rmtree(one.sockets)


def test_a_deploy_tells_its_tasks_and_hands_its_variables_over(shop: Shop, hosts: list[SshHost]) -> None:
    assert shop.run("deploy", "prod", "1.0").returncode == 0
    done = shop.run("deploy", "prod", "1.10")
    assert done.returncode == 0, done.stderr
    shown = shop.show("prod-2")
    logs = shop.run("logs", "prod-2").stdout
    assert "TASK [Show the way]" in logs
    assert "changed: [beta]" in logs
    assert "TASK [Raise the fence]" not in logs, "what is ours is not the user's to read"
    for host in hosts:
        lines = host.disk("/root/shown").read_text().splitlines()
        assert dict(line.split("=", 1) for line in lines) == {
            "surefoot_deployment": "prod-2",
            "surefoot_environment": "prod",
            "surefoot_version": "1.10",
            "surefoot_previous_version": "1.0",
            "surefoot_step": "activate",
            "surefoot_direction": "forward",
            "surefoot_attempt": "1",
            "surefoot_agent": shown["agent"],
            "surefoot_token": str(shown["token"]),
        }
        assert json.loads(host.disk(shop.state_file).read_text())["current_version"] == "1.10"


def test_the_journal_and_the_trace_keep_what_a_playbook_came_to_on_each_host(shop: Shop) -> None:
    """Forward it fails on one of the two hosts; on the way back it succeeds on both."""
    broken = ACTIVATE + "    - {name: Break, fail: {msg: broken}, when: inventory_hostname == 'beta'}\n"
    (shop.folder / "broken.yml").write_text(broken)
    shop.configure("        playbook: activate.yml\n", "        playbook: broken.yml\n")
    assert shop.run("deploy", "prod", "1.0").returncode == 4
    told = [json.loads(line) for line in shop.run("events", "prod-1", "--output", "json").stdout.splitlines()]
    for kind, lost in (("step_failed", {"beta"}), ("step_succeeded", set())):
        (entry,) = [entry for entry in told if entry["type"] == kind]
        hosts = {host["host"]: host for host in entry["data"]["hosts"]}
        assert set(hosts) == {"alpha", "beta"}
        assert {name for name, host in hosts.items() if host.get("failed")} == lost
        assert all(host["after"] > 0 and host["seconds"] > 0 for host in hosts.values())
    spans = json.loads(shop.run("report", "trace", "prod-1", "--output", "json").stdout)["spans"]
    names = {span["span_id"]: span["name"] for span in spans}
    found = [(names[s["parent_span_id"]], s["name"], s["error"]) for s in spans if s["name"].startswith("host ")]
    assert sorted(found, key=str) == [
        ("step activate", "host alpha", None),
        ("step activate", "host beta", "failed there"),
        ("undo activate", "host alpha", None),
        ("undo activate", "host beta", None),
    ]


def test_a_state_file_that_names_the_version_already_is_left_as_it_is(shop: Shop, hosts: list[SshHost]) -> None:
    """Whoever wrote it, and however: a second run of the same version changes nothing."""
    alpha, beta = hosts
    alpha.disk(shop.state_file).write_text('{"by":"a playbook","current_version" : "1.0"}')
    beta.disk(shop.state_file).write_text('{"current_version": "1x0"}')
    assert shop.run("deploy", "prod", "1.0").returncode == 0
    assert alpha.disk(shop.state_file).read_text() == '{"by":"a playbook","current_version" : "1.0"}'
    assert json.loads(beta.disk(shop.state_file).read_text())["current_version"] == "1.0"


def test_tasks_are_told_as_they_run_and_may_take_longer_than_a_raise(shop: Shop, host: SshHost) -> None:
    last = host.disk(f"/root/last-{Path(shop.state_file).stem}")
    with (shop.folder / "activate.yml").open("a") as playbook:
        playbook.write("    - {pause: {seconds: 12}, run_once: true}\n")
        playbook.write(f"    - file: {{path: /root/{last.name}, state: touch}}\n")
    with shop.start("deploy", "prod", "1.0", first=IMPATIENT) as deploy:
        assert deploy.stderr is not None
        early = next(line for line in deploy.stderr if "changed: [beta]" in line)
        assert early
        assert not last.exists()
        rest = deploy.stderr.read()
        assert deploy.wait(60) == 0, rest
    assert last.exists()


def test_a_deploy_leaves_no_connection_behind(shop: Shop) -> None:
    done = shop.run("deploy", "prod", "1.0")
    assert done.returncode == 0, done.stderr
    assert [p.name for p in shop.sockets.iterdir() if p.name.startswith("sf-")] == []
    assert [words for words in command_lines() if str(shop.sockets) in words] == []


def command_lines() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def refused(shop: Shop, hosts: list[SshHost], **settings: str) -> Any:
    """Return the reason of a deployment that must fail before anything was touched."""
    done = shop.run("deploy", "prod", "1.0", **settings)
    assert done.returncode == 3, done.stderr
    shown = shop.show("prod-1")
    assert shown["status"] == "failed"
    assert f"error[{shown['reason']['code']}]" in done.stderr
    assert shown["reason"]["hint"] in " ".join(done.stderr.split())
    assert not any(host.disk(shop.state_file).exists() for host in hosts)
    return shown["reason"]


def test_a_host_that_is_not_there_is_told_by_deploy(shop: Shop, hosts: list[SshHost]) -> None:
    text = shop.inventory.read_text()
    shop.inventory.write_text(text.replace(f"ansible_port={hosts[1].port}", "ansible_port=1"))
    reason = refused(shop, hosts)
    assert (reason["code"], reason["host"]) == (Code.HOST_UNREACHABLE, "beta")
    assert "ansible beta -i hosts.ini -m ping -vvv" in reason["hint"]


def test_a_host_whose_key_is_another_is_told_by_deploy(shop: Shop, hosts: list[SshHost]) -> None:
    alpha, beta = hosts
    shop.known_hosts.write_text(alpha.known() + alpha.known().replace(str(alpha.port), str(beta.port)))
    reason = refused(shop, hosts)
    assert (reason["code"], reason["host"]) == (Code.HOST_KEY_CHANGED, "beta")
    assert f"ssh-keygen -R '[127.0.0.1]:{beta.port}'" in reason["hint"]


def test_a_host_that_takes_a_command_and_never_answers_is_told_by_deploy(
    shop: Shop, own_host: SshHost, key: Path
) -> None:
    passwd = own_host.folder / "passwd"
    passwd.write_text(passwd.read_text().replace(":/root:/bin/sh", f":/root:{stuck(own_host)}"))
    shop.reach([own_host], key)
    began = time.monotonic()
    reason = refused(shop, [own_host], first=IMPATIENT)
    assert time.monotonic() - began < 45, "not as long as a step may take"
    assert (reason["code"], reason["host"]) == (Code.HOST_UNREACHABLE, "own")
    assert "did not answer" in reason["message"]


def stuck(host: SshHost) -> str:
    """Return a login shell that does nothing."""
    shell = host.folder / "stuck"
    shell.write_text("#!/bin/sh\nexec sleep 5010\n")
    shell.chmod(0o755)
    return str(shell)


def test_a_fence_that_may_not_be_written_is_told_by_deploy(shop: Shop, hosts: list[SshHost], key: Path) -> None:
    shop.configure("prod:\n", "prod:\n    fence: {path: /var/lib/fences}\n")
    shop.reach(hosts[:1], key, PLAIN_USER)
    reason = refused(shop, hosts[:1])
    assert (reason["code"], reason["host"]) == (Code.FENCE_FOLDER, "alpha")
    assert f"chown -R {PLAIN_USER} /var/lib/fences/shop/prod" in reason["hint"]


def test_a_host_whose_disk_is_full_is_told_by_deploy(shop: Shop, own_host: SshHost, key: Path) -> None:
    own_host.sh("mount -t tmpfs -o size=16k tmpfs /var/lib && dd if=/dev/zero of=/var/lib/filler bs=4k")
    shop.reach([own_host], key)
    reason = refused(shop, [own_host])
    assert (reason["code"], reason["host"]) == (Code.HOST_DISK_FULL, "own")


def test_what_a_step_fails_of_on_a_host_is_told_by_deploy(shop: Shop, hosts: list[SshHost], key: Path) -> None:
    shop.reach(hosts, key, PLAIN_USER)
    text = (shop.folder / "activate.yml").read_text()
    (shop.folder / "activate.yml").write_text(text.replace("  tasks:", "  become: true\n  tasks:"))
    assert shop.run("deploy", "prod", "1.0").returncode != 0
    reason = shop.show("prod-1")["steps"][0]["error"]
    assert reason["code"] == Code.HOST_SUDO
    assert reason["host"] in ("alpha", "beta")
    assert "sudo visudo" in reason["hint"]


def test_a_preflight_check_of_hosts_raises_no_fence(shop: Shop, hosts: list[SshHost]) -> None:
    """Of those that are not reachable by ssh either, each check says what it found itself."""
    shop.configure("    steps:\n", "    preflight:\n      - tcp: {address: '{host}:1'}\n    steps:\n")
    shop.inventory.write_text(f"{shop.inventory.read_text()}\n[more]\ngone ansible_host=127.0.0.1 ansible_port=1\n")
    reason = refused(shop, hosts)
    assert reason["code"] == Code.PREFLIGHT_FAILED
    assert "tcp on gone: 127.0.0.1:1: Connection refused" in reason["message"]
    assert "fence" not in shop.run("events", "prod-1").stdout
    assert "PLAY" not in shop.run("logs", "prod-1").stdout, "what is ours is not the user's to read"


def test_a_check_of_hosts_that_cannot_be_known_fails_with_the_cause(shop: Shop, hosts: list[SshHost]) -> None:
    """Not with what becomes of a check of no hosts."""
    shop.configure("    steps:\n", "    preflight:\n      - tcp: {address: '{host}:1'}\n    steps:\n")
    shop.inventory.write_text("[web:children]\nnobody\n")
    reason = refused(shop, hosts)
    assert reason["code"] == Code.PREFLIGHT_FAILED
    assert "nobody" in reason["message"] or "no hosts" in reason["message"]


def test_a_task_that_outlives_its_controller_does_not_land_after_the_undo(shop: Shop, host: SshHost) -> None:
    at = Path(shop.state_file).stem
    begun, landed = host.disk(f"/root/begun-{at}"), host.disk(f"/root/version-{at}")
    (shop.folder / "activate.yml").write_text(f"""\
- hosts: all
  gather_facts: false
  tasks:
    - raw: "trap '' HUP TERM PIPE; touch /root/begun-{at}; sleep 8; echo new > /root/version-{at}"
      when: surefoot_direction == 'forward'
    - raw: "echo old > /root/version-{at}"
      when: surefoot_direction == 'undo'
""")
    with shop.start("deploy", "prod", "1.0") as deploy:
        try:
            until = time.monotonic() + 60
            while not begun.exists() and time.monotonic() < until:
                time.sleep(0.05)
            started = time.monotonic()
            assert begun.exists()
            assert shop.run("cancel", "prod-1").returncode == 0
            deploy.communicate(timeout=120)
        finally:
            deploy.kill()
    assert deploy.returncode == 6
    assert landed.read_text().strip() == "old"
    time.sleep(max(0.0, started + 9.0 - time.monotonic()))
    assert landed.read_text().strip() == "old", "what the attempt left on the host was ended before the undo"


def test_a_second_playbook_that_can_not_begin_is_tried_as_often_as_it_may_be_and_put_back(shop: Shop) -> None:
    shop.configure(
        "    retry: {attempts: 1,",
        "      - {name: more, playbook: more.yml, undo: {playbook: activate.yml}}\n    retry: {attempts: 2,",
    )
    (shop.folder / "more.yml").write_text("- hosts: all\n  roles: [missing]\n")
    done = shop.run("deploy", "prod", "1.0")
    assert done.returncode == 4, done.stderr
    assert "missing" in done.stderr
    events = [json.loads(line) for line in shop.run("events", "prod-1", "--output", "json").stdout.splitlines()]
    begun = [(event["data"]["step"], event["data"]["direction"]) for event in events if event["type"] == "step_started"]
    assert begun == [("activate", "forward"), *[("more", "forward")] * 2, ("activate", "undo")], "it never began"


def test_a_first_playbook_that_can_not_begin_has_touched_nothing(shop: Shop) -> None:
    (shop.folder / "activate.yml").write_text("- hosts: all\n  roles: [missing]\n")
    done = shop.run("deploy", "prod", "1.0")
    assert done.returncode == 3, done.stderr
    assert "could not begin" in done.stderr and "missing" in done.stderr
    assert "fence not raised" not in done.stderr
    assert "could not begin: activate: the role 'missing' was not found" in done.stderr.replace(": The", ": the")


def test_an_agent_out_of_descriptors_has_touched_nothing_and_leaves_nothing_behind(shop: Shop) -> None:
    done = shop.run("deploy", "prod", "1.0", first=NO_DESCRIPTORS)
    assert done.returncode == 3, done.stderr
    assert "could not begin" in done.stderr and "Too many open files" in done.stderr
    assert "LimitNOFILE" in done.stderr
    assert list(shop.sockets.iterdir()) == []


def test_a_playbook_waits_until_the_journal_knows_the_hosts_that_it_is_about_to_change(
    shop: Shop, hosts: list[SshHost]
) -> None:
    done = shop.run("deploy", "prod", "1.0", first=RAISED.format(first="await asyncio.sleep(3)"))
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in shop.run("events", "prod-1", "--output", "json").stdout.splitlines()]
    known = next(datetime.fromisoformat(event["at"]) for event in events if event["type"] == "fence_raised")
    for host in hosts:
        assert host.disk("/root/shown").stat().st_mtime >= known.timestamp()


def test_an_agent_that_dies_before_the_journal_knows_its_hosts_has_changed_none(
    shop: Shop, hosts: list[SshHost]
) -> None:
    at = Path(shop.state_file).stem
    (shop.folder / "activate.yml").write_text(
        f"- hosts: all\n  gather_facts: false\n  tasks:\n    - raw: touch /root/begun-{at}\n"
    )
    died = shop.run(
        "deploy", "prod", "1.0", first=RAISED.format(first="await asyncio.sleep(3); os.kill(os.getpid(), 9)")
    )
    assert died.returncode == -9
    until(lambda: not running(str(shop.folder)), "the end of what the agent had started")
    assert not any(host.disk(f"/root/begun-{at}").exists() for host in hosts)
    assert shop.run("deploy", "prod", "2.0").returncode == 0
    assert all(host.disk(f"/root/begun-{at}").exists() for host in hosts)


def test_what_is_stranded_leaves_nothing_running_on_a_host(shop: Shop, host: SshHost) -> None:
    """Who repairs a host by hand has it to himself: what the undo that was given up has left there was ended."""
    at = Path(shop.state_file).stem
    shop.configure("timeout: 50s", "timeout: 15s")
    (shop.folder / "activate.yml").write_text(f"""\
- hosts: all
  gather_facts: false
  tasks:
    - fail: {{msg: it broke}}
      when: surefoot_direction == 'forward'
    - raw: "trap '' HUP TERM PIPE; touch /root/begun-{at}; sleep 300; echo late > /root/version-{at}"
""")
    done = shop.run("deploy", "prod", "1.0")
    assert done.returncode == 5, done.stderr
    assert host.disk(f"/root/begun-{at}").exists()
    until(lambda: not running(at), "the end of what the undo has left")
    types = [json.loads(line)["type"] for line in shop.run("events", "prod-1", "--output", "json").stdout.splitlines()]
    assert types[-3:] == ["fence_raised", "versions_surveyed", "finished"]


def test_what_could_not_be_put_back_is_told_host_by_host(shop: Shop, hosts: list[SshHost]) -> None:
    """One host got the new version before the way back broke: a person reads which."""
    (shop.folder / "activate.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        f'    - copy: {{dest: {shop.state_file}, content: \'{{"current_version": "{{{{ surefoot_version }}}}"}}\'}}\n'
        "      when: inventory_hostname == 'alpha' or surefoot_version == '1.0'\n"
        "    - fail: {msg: it broke}\n"
        "      when: surefoot_version != '1.0'\n"
    )
    assert shop.run("deploy", "prod", "1.0").returncode == 0
    done = shop.run("deploy", "prod", "2.0")
    assert done.returncode == 5, done.stderr
    assert "alpha runs 2.0, beta runs 1.0" in done.stderr
    shown = shop.show("prod-2")
    assert shown["hosts_surveyed"] == {"alpha": "2.0", "beta": "1.0"}
    assert "alpha runs 2.0, beta runs 1.0" in shown["reason"]["message"]
    # What hosts can't say is not believed: not of a file that is damaged, nor of one that is gone everywhere.
    files = [host.disk(shop.state_file) for host in hosts]
    for text, says in (('{"current_ver', "unreadable"), (None, "alpha none, beta none"), ("1.0", "")):
        for file in files:
            if text is None:
                file.unlink()
            else:
                file.write_text(text if says else json.dumps({"current_version": text}))
        done = shop.run("resolve", "prod-2", "--reason", "by hand")
        assert (done.returncode, says in done.stderr) == (3 if says else 0, True), done.stderr


def test_what_lies_beside_the_playbook_says_how_hosts_are_reached_from_the_first_look_on(
    shop: Shop, hosts: list[SshHost], key: Path
) -> None:
    beside = shop.folder / "plays/group_vars"
    beside.mkdir(parents=True)
    (beside / "all.yml").write_text(f"ansible_ssh_private_key_file: {key}\n")
    shop.inventory.write_text(shop.inventory.read_text().replace(f"ansible_ssh_private_key_file={key}\n", ""))
    (shop.folder / "activate.yml").rename(shop.folder / "plays/activate.yml")
    shop.configure("playbook: activate.yml\n", "playbook: plays/activate.yml\n")
    shop.configure("{playbook: activate.yml}", "{playbook: plays/activate.yml}")
    shop.configure("    steps:\n", "    preflight: [{host: {}}]\n    steps:\n")
    done = shop.run("deploy", "prod", "1.0")
    assert done.returncode == 0, done.stderr
    assert all(host.disk(shop.state_file).exists() for host in hosts)


SECRET = "hunter2-in-a-template"


def has_begun(mark: Path) -> None:
    until = time.monotonic() + 60
    while not mark.exists():
        assert time.monotonic() < until, "the task does not begin"
        time.sleep(0.05)


@pytest.mark.parametrize("end", ["cancelled", "killed"])
def test_what_ansible_put_down_for_a_task_that_was_ended_does_not_stay_behind(
    shop: Shop, hosts: list[SshHost], tmp_path: Path, end: str
) -> None:
    at = Path(shop.state_file).stem
    shop.env["TOKEN"] = SECRET
    shop.configure("environments:", "secrets: [TOKEN]\nenvironments:")
    (shop.folder / "activate.yml").write_text(f"""\
- hosts: all
  gather_facts: false
  tasks:
    - copy:
        dest: /root/config-{at}
        content: "{{{{ lookup('env', 'TOKEN') }}}}"
        validate: sh -c 'touch /root/begun-{at}; sleep 60' %s
      when: surefoot_direction == 'forward'
""")
    places = [tmp_path, *(host.disk("/root") for host in hosts)]
    with shop.start("deploy", "prod", "1.0") as deploy:
        try:
            has_begun(hosts[0].disk(f"/root/begun-{at}"))
            assert any(holding(place, SECRET) for place in places), "this test would find nothing"
            if end == "cancelled":
                assert shop.run("cancel", "prod-1").returncode == 0
            else:
                deploy.kill()
            deploy.communicate(timeout=120)
        finally:
            deploy.kill()
    shop.run("cancel", "prod-1")
    shop.run("events", "prod-1", "--follow")  # to its end, by an agent in the background if need be
    assert shop.show("prod-1")["status"] == "cancelled"
    assert [path for place in places for path in holding(place, SECRET)] == []


def holding(folder: Path, text: str) -> list[Path]:
    """Return the files below a folder that hold a text."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]
