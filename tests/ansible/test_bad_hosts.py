# SPDX-License-Identifier: Apache-2.0
"""Hosts that can't be reached or used: each way has its code, names the host, and a command that leads to its cause."""

from __future__ import annotations

import subprocess
from pathlib import Path

from surefoot.core.errors import Code, Failure
from tests.ansible.hosts import PLAIN_USER, SshHost
from tests.ansible.play import Project


def told(failure: Failure, code: Code, host: str, command: str) -> bool:
    """Whether a failure has this code, names this host, and has a hint with this command in it."""
    assert (failure.code, failure.host) == (code, host), failure
    assert command in failure.hint
    return host in failure.message


def test_a_host_that_is_not_there(project: Project, hosts: list[SshHost]) -> None:
    project.replace(f"ansible_port={hosts[1].port}", "ansible_port=1")
    failure = project.failure()
    assert told(failure, Code.HOST_UNREACHABLE, "beta", "ansible beta -i hosts.ini -m ping -vvv")


def test_a_host_whose_key_is_another(project: Project, hosts: list[SshHost]) -> None:
    alpha, beta = hosts
    project.known_hosts.write_text(alpha.known() + alpha.known().replace(str(alpha.port), str(beta.port)))
    failure = project.failure()
    assert told(failure, Code.HOST_KEY_CHANGED, "beta", f"ssh-keygen -R '[127.0.0.1]:{beta.port}'")


def test_a_host_whose_key_nobody_knows(project: Project, hosts: list[SshHost]) -> None:
    alpha, beta = hosts
    project.known_hosts.write_text(alpha.known())
    failure = project.failure()
    assert told(failure, Code.HOST_KEY_UNKNOWN, "beta", f"ssh-keyscan -p {beta.port} 127.0.0.1")


def test_a_key_that_the_host_does_not_accept(project: Project, hosts: list[SshHost], tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(other)], check=True)
    project.replace(hosts[1].line(), f"{hosts[1].line()} ansible_ssh_private_key_file={other}")
    failure = project.failure()
    assert told(failure, Code.HOST_AUTH, "beta", "ansible beta -i hosts.ini -m ping -vvv")


def test_a_key_file_that_is_not_there(project: Project, hosts: list[SshHost], tmp_path: Path) -> None:
    project.replace(hosts[1].line(), f"{hosts[1].line()} ansible_ssh_private_key_file={tmp_path}/none")
    failure = project.failure()
    assert failure.code in (Code.HOST_AUTH, Code.HOST_UNREACHABLE)
    assert failure.host == "beta"


def test_a_host_without_python(project: Project) -> None:
    failure = project.failure(head="hosts: beta\nvars: {ansible_python_interpreter: /usr/bin/no-python3}")
    assert told(failure, Code.HOST_PYTHON, "beta", "apt-get install python3")


def test_a_user_of_whom_sudo_wants_a_password(project: Project, hosts: list[SshHost], key: Path) -> None:
    project.reach(hosts, key, PLAIN_USER)
    failure = project.failure("- command: 'true'\n  become: true", head="hosts: beta")
    assert told(failure, Code.HOST_SUDO, "beta", "sudo visudo")


def test_a_fence_folder_that_the_user_may_not_write(project: Project, hosts: list[SshHost], key: Path) -> None:
    project.reach(hosts[:1], key, PLAIN_USER)
    project.path = "/var/lib/fences"
    failure = project.failure()
    command = f"sh -c 'mkdir -p {project.path}/{project.fence} && chown -R {PLAIN_USER} {project.path}/{project.fence}'"
    assert told(failure, Code.FENCE_FOLDER, "alpha", f"sudo {command}")
    assert hosts[0].sh(command).returncode == 0
    project.raise_to(1)


def test_a_login_shell_that_runs_nothing_and_says_that_all_is_well(
    own_host: SshHost, project: Project, key: Path
) -> None:
    accounts = own_host.folder / "passwd"
    accounts.write_text(accounts.read_text().replace("/root:/bin/sh", "/root:/bin/true"))
    project.reach([own_host], key)
    assert told(project.failure(), Code.FENCE_FAILED, "own", "getent passwd root")


def test_a_host_whose_disk_is_full(own_host: SshHost, project: Project, key: Path) -> None:
    own_host.sh("mount -t tmpfs -o size=16k tmpfs /var/lib && dd if=/dev/zero of=/var/lib/filler bs=4k")
    project.reach([own_host], key)
    assert told(project.failure(), Code.HOST_DISK_FULL, "own", "df -h /var/lib")


def test_a_disk_that_is_full_in_the_middle_of_a_step(own_host: SshHost, project: Project, key: Path) -> None:
    own_host.sh("mount -t tmpfs -o size=64k tmpfs /home")
    project.reach([own_host], key)
    failure = project.failure("- shell: dd if=/dev/zero of=/home/release bs=4k count=100")
    assert told(failure, Code.HOST_DISK_FULL, "own", "df -h")
