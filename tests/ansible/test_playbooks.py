# SPDX-License-Identifier: Apache-2.0
"""Playbooks behind the fence, over real ssh: each way of changing a host is fenced, and none is broken by it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from surefoot.core.errors import Code
from tests.ansible.hosts import SUDO_USER, SshHost, until
from tests.ansible.play import Project

#: Each way of changing something, as a task that leaves /root/KIND behind; those with `local` in their name
#: leave it on the machine itself.
WAYS = {
    "command": "command: touch /root/T-command",
    "copy": "copy: {content: x, dest: /root/T-copy}",
    "template": "template: {src: t.j2, dest: /root/T-template}",
    "raw": "raw: touch /root/T-raw",
    "script": "script: s.sh T-script",
    "async": "command: touch /root/T-async\n  async: 20\n  poll: 1",
    "fire-and-forget": "command: touch /root/T-fire-and-forget\n  async: 20\n  poll: 0",
    "fqcn": "command: touch /root/T-fqcn\n  vars: {ansible_connection: ansible.builtin.ssh}",
    "no-pipelining": "command: touch /root/T-no-pipelining\n  vars: {ansible_pipelining: false}",
    "scp": "copy: {content: x, dest: /root/T-scp}\n"
    "  vars: {ansible_pipelining: false, ansible_ssh_transfer_method: scp}",
    "piped": "copy: {content: x, dest: /root/T-piped}\n"
    "  vars: {ansible_pipelining: false, ansible_ssh_transfer_method: piped}",
    "become": "command: touch /root/T-become\n  become: true",
    "become-terminal": "command: touch /root/T-become-terminal\n  become: true\n  vars: {ansible_pipelining: false}",
    "delegated": "command: touch /root/T-delegated\n"
    "  delegate_to: \"{{ 'beta' if inventory_hostname == 'alpha' else 'alpha' }}\"",
    "fetched-local": "fetch: {src: /etc/passwd, dest: LOCAL/T-fetched-local, flat: true}",
    "fetched-as-root-local": "fetch: {src: /etc/shadow, dest: LOCAL/T-fetched-as-root-local, flat: true}\n"
    "  become: true",
    "local": "command: touch LOCAL/T-local\n  connection: local",
    "local-fqcn": "command: touch LOCAL/T-local-fqcn\n  connection: ansible.builtin.local",
    "delegated-local": "command: touch LOCAL/T-delegated-local\n  delegate_to: localhost",
}


def tasks_of_all_ways(local: Path, tag: str) -> str:
    """Return a play's tasks; each is tried, whatever came of the one before."""
    return "".join(
        f"- {text}\n  ignore_errors: true\n  ignore_unreachable: true\n".replace("T-", f"{tag}-").replace(
            "LOCAL", str(local)
        )
        for text in WAYS.values()
    )


def found(hosts: list[SshHost], local: Path, tag: str) -> dict[str, set[str]]:
    places = {host.name: host.disk("/root") for host in hosts} | {"local": local}
    return {name: {p.name.removeprefix(f"{tag}-") for p in place.glob(f"{tag}-*")} for name, place in places.items()}


def test_every_way_of_changing_a_host_works_and_is_refused_once_stale(
    project: Project, hosts: list[SshHost], tmp_path: Path
) -> None:
    (project.folder / "t.j2").write_text("hello\n")
    (project.folder / "s.sh").write_text("#!/bin/sh\ntouch /root/$1\n")
    local = tmp_path / "local"
    local.mkdir()
    project.path = str(hosts[0].shared)  # on the machine itself the default folder is not ours to use

    done = project.play(tasks_of_all_ways(local, "good"), 5)
    assert done.code == 0, done.output
    ways = {name for name in WAYS if "local" not in name}
    until(lambda: "fire-and-forget" in found(hosts, local, "good")["beta"], "the job in the background has run")
    changed = found(hosts, local, "good")
    assert changed == {"alpha": ways, "beta": ways, "local": {name for name in WAYS if "local" in name}}, done.output

    assert project.play("", 7).code == 0
    raised_here = project.play("- command: 'true'\n  delegate_to: localhost", 7, raises=False)
    assert raised_here.code == 0, raised_here.output
    late = project.play(tasks_of_all_ways(local, "late"), 5, raises=False)
    assert found(hosts, local, "late") == {"alpha": set(), "beta": set(), "local": set()}
    assert "token 5 is behind 7" in late.output
    refused = late.progress.failure("step", "agent", late.output)
    assert refused is not None
    assert refused.code is Code.FENCE_STALE
    assert len(late.progress.refused) >= 2 * len(WAYS)


def test_a_stale_run_ends_before_its_first_task(project: Project, hosts: list[SshHost]) -> None:
    project.raise_to(7)
    failure = project.failure("- command: touch /root/too-late", 6)
    assert failure.code is Code.FENCE_STALE
    assert failure.host in {"alpha", "beta"}
    assert not any(host.disk("/root/too-late").exists() for host in hosts)


def test_a_playbook_can_neither_ignore_nor_rescue_a_refusal(project: Project) -> None:
    project.raise_to(7)
    late = project.play(
        """
- block:
    - raw: "true"
      ignore_errors: true
    - debug: {msg: carried on}
  rescue:
    - debug: {msg: carried on}
""",
        6,
        raises=False,
    )
    assert late.code != 0
    assert "token 6 is behind 7" in late.output
    assert "carried on" not in late.output


HOLDS = {
    "pipelining": "- shell: sleep 5001; touch /root/T",
    "no-pipelining": "- shell: sleep 5001; touch /root/T\n  vars: {ansible_pipelining: false}",
    "raw": "- raw: sleep 5001; touch /root/T",
    "become": "- shell: sleep 5001; touch /root/T\n  become: true",
    "become-terminal": "- shell: sleep 5001; touch /root/T\n  become: true\n  vars: {ansible_pipelining: false}",
    "become-other": "- shell: sleep 5001; touch /home/worker/T\n  become: true\n  become_user: worker",
    "async": "- shell: sleep 5001; touch /root/T\n  async: 6000\n  poll: 1",
    "async-become": "- shell: sleep 5001; touch /root/T\n  async: 6000\n  poll: 0\n  become: true\n"
    "- pause: {seconds: 300}",
}


@pytest.mark.parametrize("way", HOLDS)
def test_what_a_killed_run_left_running_is_ended_by_the_raise(project: Project, host: SshHost, way: str) -> None:
    run = project.start(HOLDS[way], 5, head="hosts: alpha")
    project.until_runs(run, host, "sleep 5001")
    run.kill()
    began = time.monotonic()
    project.raise_to(6)
    took = time.monotonic() - began
    assert not host.running("sleep 5001")
    assert took < 30
    assert not host.disk("/root/T").exists()
    assert not host.disk("/home/worker/T").exists()


@pytest.mark.parametrize("way", ["pipelining", "become-terminal", "async"])
def test_what_stands_still_is_ended_too(project: Project, host: SshHost, way: str) -> None:
    run = project.start(HOLDS[way], 5, head="hosts: alpha")
    project.until_runs(run, host, "sleep 5001")
    for pid in (*host.guards(), *host.running("sleep 5001")):
        os.kill(pid, signal.SIGSTOP)
    run.kill()
    project.raise_to(6)
    assert not host.running("sleep 5001")
    assert not host.disk("/root/T").exists()


@pytest.mark.parametrize("become", ["false", "true"])
def test_another_user_with_sudo_is_fenced_and_what_it_left_is_ended(
    project: Project, host: SshHost, key: Path, become: str
) -> None:
    project.reach([host], key, SUDO_USER)
    run = project.start(f"- shell: sleep 5002; touch /tmp/never\n  become: {become}", 5)
    project.until_runs(run, host, "sleep 5002")
    run.kill()
    project.raise_to(6)
    assert not host.running("sleep 5002")
    assert (host.disk(f"/home/{SUDO_USER}/.surefoot/fence") / project.fence / "token").read_text() == "6\n"
    late = project.play("- command: touch /home/helper/late\n  become: true", 5)
    assert late.code != 0
    assert not host.disk("/home/helper/late").exists()


def test_a_daemon_of_a_finished_task_survives_the_raise(project: Project, host: SshHost) -> None:
    started = "- shell: setsid sleep 5003 >/dev/null 2>&1 </dev/null &\n  become: BECOME"
    try:
        for become in ("false", "true"):
            done = project.play(started.replace("BECOME", become), 5, head="hosts: alpha")
            assert done.code == 0, done.output
        assert len(host.running("sleep 5003")) == 2
        project.raise_to(6)
        assert len(host.running("sleep 5003")) == 2
    finally:
        for pid in host.running("sleep 5003"):
            os.kill(pid, signal.SIGKILL)


def test_a_host_that_freezes_in_the_middle_of_a_task_is_given_up_and_the_others_go_on(
    project: Project, host: SshHost, own_host: SshHost, key: Path
) -> None:
    project.reach([host, own_host], key)
    run = project.start(
        '- shell: "test {{ inventory_hostname }} = alpha || sleep 5004"\n- command: touch /root/went-on', 5
    )
    project.until_runs(run, own_host, "sleep 5004")
    frozen = own_host.everything()
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    done = run.wait(60)
    failure = done.progress.failure("activate", "agent-1", done.output)
    assert failure is not None
    assert (failure.code, failure.host) == (Code.HOST_UNREACHABLE, "own")
    assert host.disk("/root/went-on").exists()


def test_each_run_has_connections_of_its_own(project: Project, host: SshHost) -> None:
    """A connection that an earlier run left may lead to a host that is dead since."""
    ports = []
    for _ in range(2):
        done = project.play("- raw: echo $SSH_CONNECTION\n  register: r\n- debug: {var: r.stdout}", head="hosts: alpha")
        assert done.code == 0, done.output
        ports.append(done.output.partition('r.stdout": "')[2].split('"')[0])
    assert ports[0] != ports[1], ports


def test_a_refusal_names_the_host_that_refuses_also_where_a_task_is_delegated(project: Project) -> None:
    done = project.play("- command: 'true'", 7, head="hosts: beta", raises=False)
    assert done.code == 0, done.output
    late = project.play("- command: 'true'\n  delegate_to: beta", 6, head="hosts: alpha", raises=False)
    assert [host for host, _ in late.progress.refused] == ["beta"], late.output
