# SPDX-License-Identifier: Apache-2.0
"""What our callback tells of a run: the hosts and how each is reached, what failed of what, and no secret."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from surefoot.core.errors import Code
from surefoot.steps.ansible import explain
from tests.ansible.hosts import SshHost
from tests.ansible.play import Project


def test_hosts_at_one_address_are_told_apart(project: Project, hosts: list[SshHost]) -> None:
    """Two hosts that differ by their port alone: each has a channel of its own, which works without Ansible."""
    done = project.play("", on_hosts="echo $SSH_CONNECTION")
    assert done.code == 0, done.output
    channels = done.progress.reachable()
    assert set(channels) == {"alpha", "beta"}
    for host in hosts:
        argv = channels[host.name].argv
        said = subprocess.run([*argv, "echo $SSH_CONNECTION"], capture_output=True, text=True, timeout=30)
        assert said.returncode == 0, said.stderr
        assert said.stdout.split()[3] == str(host.port)
        assert done.progress.answers[host.name].stdout.split()[3] == str(host.port)


def test_the_python_that_the_inventory_names_is_told_and_nothing_else_of_ansible_s(project: Project) -> None:
    project.replace(
        "alpha ", "alpha colour=blue ansible_become_password=hunter2 ansible_python_interpreter='{{ other }}' "
    )
    project.replace("[all:vars]", "[all:vars]\nother=/opt/python")
    told = {name: dict(host.variables) for name, host in project.play("").progress.hosts.items()}
    common = {"other": "/opt/python"}
    assert told == {
        "alpha": common | {"colour": "blue", "ansible_python_interpreter": "/opt/python"},
        "beta": common | {"ansible_python_interpreter": "/usr/bin/python3"},
    }


def test_a_channel_is_told_only_if_it_opens_without_ansible(project: Project, hosts: list[SshHost], key: Path) -> None:
    project.reach(hosts, key, more="ansible_password=hunter2\nansible_ssh_password_mechanism=ssh_askpass")
    done = project.play("")
    assert done.progress.reachable() == {}
    assert "hunter2" not in done.told + done.output


def test_a_raise_reaches_every_host_before_the_first_task_of_the_playbook(
    project: Project, hosts: list[SshHost]
) -> None:
    done = project.play("- command: touch /root/began", 4, head="hosts: alpha")
    assert done.code == 0, done.output
    for host in hosts:
        assert (host.disk("/var/lib/surefoot/fence") / project.fence / "token").read_text() == "4\n"
    assert done.progress.begun
    assert done.progress.changed == 1


def test_a_host_that_cannot_be_raised_keeps_the_playbook_from_starting(project: Project, hosts: list[SshHost]) -> None:
    kept = hosts[1].disk("/var/lib/surefoot/fence") / project.fence
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("a file where a folder should be")
    failure = project.failure("- command: touch /root/half-way", head="hosts: alpha")
    assert (failure.code, failure.host) == (Code.FENCE_FOLDER, "beta")
    assert not hosts[0].disk("/root/half-way").exists()


@pytest.mark.parametrize("text", ["", "[web]\n", "# nothing\n"])
def test_an_inventory_without_hosts_stops_before_the_playbook(local: Project, tmp_path: Path, text: str) -> None:
    local.inventory.write_text(text)
    failure = local.failure(f"- command: touch {tmp_path}/began", head="hosts: localhost\nconnection: local")
    assert failure.code is Code.NO_HOSTS
    assert not (tmp_path / "began").exists()


def test_what_a_playbook_has_rescued_is_not_what_it_failed_of(local: Project) -> None:
    failure = local.failure("""
- block:
    - {name: Tried, command: sh -c 'echo first >&2; exit 1'}
  rescue:
    - {name: Put right, command: "true"}
- name: Each
  command: sh -c 'echo broken {{ item }} >&2; test {{ item }} != b'
  loop: [a, b, c]
""")
    assert (failure.code, failure.host) == (Code.STEP_FAILED, "here")
    assert failure.message.startswith("Each on here: ")
    assert "broken b" in failure.message


@pytest.mark.parametrize("loop", ["", "loop: [1, 2]"])
def test_the_result_of_a_task_with_no_log_is_told_to_nobody(local: Project, loop: str) -> None:
    done = local.play(f"- name: Quiet\n  command: sh -c 'echo hunter2 >&2; exit 1'\n  no_log: true\n  {loop}")
    failure = done.progress.failure("activate", "agent-1", done.output)
    assert failure is not None
    assert "Quiet on here" in failure.message
    assert "hunter2" not in done.told + failure.message + failure.hint + done.output


def test_a_tasks_own_ssh_trouble_is_not_taken_for_ours(local: Project) -> None:
    failure = local.failure("""- command: sh -c 'echo "git@x Permission denied (publickey)." >&2; exit 1'""")
    assert failure.code is Code.STEP_FAILED


def test_a_huge_output_comes_through_and_its_failure_stays_short(project: Project) -> None:
    failure = project.failure(
        "- shell: head -c 3000000 /dev/zero | tr '\\0' x; echo oops >&2; exit 1", head="hosts: alpha"
    )
    assert failure.code is Code.STEP_FAILED
    assert len(failure.message) < 1000


def test_the_inventorys_variables_are_told_as_a_task_would_see_them(local: Project) -> None:
    local.here(
        "web ansible_connection='{{ how }}' ansible_host='{{ net }}.7' how=local net=10.0.0 "
        "port=8080 url='http://{{ net }}.7:{{ port }}' broken='{{ nothing.here }}' db_password=hunter2"
    )
    done = local.play("")
    assert done.code == 0, done.output
    host = done.progress.hosts["web"]
    assert host.address == "10.0.0.7"
    assert host.variables["port"] == "8080"
    assert host.variables["url"] == "http://10.0.0.7:8080"
    assert "hunter2" not in done.told
    assert set(done.progress.reachable()) == {"web"}


def test_a_connection_that_cannot_be_fenced_is_named(local: Project) -> None:
    local.here("box ansible_connection=community_jail\nhere ansible_connection=local")
    (local.folder / "connection_plugins").mkdir()
    (local.folder / "ansible.cfg").write_text("[defaults]\nconnection_plugins = ./connection_plugins\n")
    (local.folder / "connection_plugins/community_jail.py").write_text(JAIL)
    done = local.play("- {debug: {msg: hello}}")
    assert done.output.count("box is reached by community_jail") == 1
    assert "here is reached" not in done.output


JAIL = """
DOCUMENTATION = '''
name: community_jail
short_description: another kind of connection
description: It runs nothing.
'''
from ansible.plugins.connection import ConnectionBase
class Connection(ConnectionBase):
    transport = "community_jail"
    has_pipelining = False
    def _connect(self): return self
    def exec_command(self, cmd, in_data=None, sudoable=True): return 0, b"", b""
    def put_file(self, in_path, out_path): pass
    def fetch_file(self, in_path, out_path): pass
    def close(self): pass
"""


def test_what_is_told_is_json_a_line(project: Project) -> None:
    for line in project.play("- command: 'true'").told.splitlines():
        assert "event" in json.loads(line)


def test_well_known_words_are_explained() -> None:
    said = explain("sh: 1: cannot create /x: No space left on device", host="web", inventory="i")
    assert said is not None
    assert said[0] is Code.HOST_DISK_FULL
    assert explain("all is well", host="web", inventory="i") is None
