# SPDX-License-Identifier: Apache-2.0
"""The user's Ansible stays the user's: its settings, callbacks and connections; and what reaches a playbook from us."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from surefoot.core.errors import Code
from tests.ansible.hosts import SUDO_USER, SshHost
from tests.ansible.play import Project

CALLBACK = """
from ansible.plugins.callback import CallbackBase
class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "{name}"
    CALLBACK_NEEDS_ENABLED = {asked}
    def v2_playbook_on_stats(self, stats):
        print("{name} ran")
"""


@pytest.mark.parametrize("where", ["ansible.cfg", "named", "environment", "home"])
def test_a_users_own_callbacks_still_run(local: Project, where: str) -> None:
    theirs = local.home / ".ansible/plugins/callback" if where == "home" else local.folder / "plugins"
    theirs.mkdir(parents=True)
    for name, asked in (("always", False), ("asked_for", True)):
        (theirs / f"{name}.py").write_text(CALLBACK.format(name=name, asked=asked))
    local.environ["ANSIBLE_CALLBACKS_ENABLED"] = "asked_for"
    match where:
        case "ansible.cfg":
            (local.folder / "ansible.cfg").write_text("[defaults]\ncallback_plugins = ./plugins\n")
        case "named":
            (local.folder / "conf").mkdir()
            (local.folder / "conf/ansible.cfg").write_text("[defaults]\ncallback_plugins = ../plugins\n")
            local.environ["ANSIBLE_CONFIG"] = "conf"
        case "environment":
            local.environ["ANSIBLE_CALLBACK_PLUGINS"] = str(theirs)
    done = local.play("- {debug: {msg: hello}}", raises=False)
    assert done.code == 0, done.output
    assert "always ran" in done.output
    assert "asked_for ran" in done.output


@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize("where", ["beside the playbook", "not there"])
def test_without_our_callback_nothing_is_run_on_hosts(
    local: Project, where: str, raises: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (local.folder / "plays").mkdir()
    if where == "beside the playbook":  # Ansible takes the last one of a name
        (local.folder / "plays/callback_plugins").mkdir()
        (local.folder / "plays/callback_plugins/surefoot.py").write_text(CALLBACK.format(name="surefoot", asked=False))
    else:  # Ansible skips it, with a warning
        monkeypatch.setattr("surefoot.steps.ansible.SCRIPT", local.folder / "gone")
    local.environ["SUREFOOT_ON_HOSTS"] = "true"  # as below a step of Surefoot's
    failure = local.failure(f"- command: touch {local.folder}/touched", raises=raises, folder="plays/")
    assert (failure.code, "surefoot.py" in failure.hint) == (Code.FENCE_FAILED, True)
    assert not (local.folder / "touched").exists()


@pytest.mark.parametrize(
    "settings", ["[tags]\nrun = deploy", "[tags]\nskip = untagged,all", "[defaults]\nstrategy = free"]
)
def test_no_setting_keeps_our_own_play_from_any_host(project: Project, hosts: list[SshHost], settings: str) -> None:
    (project.folder / "ansible.cfg").write_text(f"{settings}\n")
    done = project.play("- command: 'true'", 2)
    assert done.code == 0, done.output
    assert {host: answer.code for host, answer in done.progress.answers.items()} == {host.name: 0 for host in hosts}
    project.replace("[all]\n", "[all]\ngone ansible_host=127.0.0.1 ansible_port=1\n")
    assert "gone" in project.failure("- command: touch /root/begun\n  tags: [deploy]", 3).message
    assert not any(host.disk("/root/begun").exists() for host in hosts)


@pytest.mark.parametrize("raises", [True, False])
def test_what_hosts_answer_is_heard_whatever_is_kept_out_of_logs_or_timed(local: Project, raises: bool) -> None:
    (local.folder / "ansible.cfg").write_text("[defaults]\nno_log = True\ntask_timeout = 1\n")
    done = local.play("", on_hosts="sleep 2; echo 1.2.3", looks=not raises)
    assert done.code == 0, done.output
    assert done.progress.answers["here"].stdout.strip() == "1.2.3"


def test_a_setting_that_keeps_our_own_play_away_keeps_the_user_s_away_too(
    project: Project, hosts: list[SshHost]
) -> None:
    failure = project.failure("- command: touch /root/begun", ANSIBLE_SKIP_TAGS="always")
    assert (failure.code, "`always`" in failure.hint) == (Code.FENCE_FAILED, True)
    assert not any(host.disk("/root/begun").exists() for host in hosts)


@pytest.mark.parametrize("what", ["play", "raise", "look"])
def test_hosts_are_reached_by_what_lies_beside_the_playbook(
    project: Project, hosts: list[SshHost], key: Path, what: str
) -> None:
    """Else another machine would be raised than the one that is then changed, or the same one as another user."""
    alpha, _ = hosts
    beside = project.folder / "plays/group_vars"
    beside.mkdir(parents=True)
    project.reach([alpha], key)
    project.replace(f" ansible_port={alpha.port} ansible_user=root", "")
    project.replace(str(key), "{{ playbook_dir }}/key")
    (beside / "all.yml").write_text(f"ansible_user: {SUDO_USER}\nansible_port: {alpha.port}\n")
    (beside.parent / "key").symlink_to(key)
    tasks = "- command: 'true'" if what == "play" else ""
    done = project.play(tasks, 3, folder="plays/", looks=what == "look", on_hosts="id -un")
    assert done.code == 0, done.output
    assert done.progress.answers["alpha"].stdout.strip() == SUDO_USER
    assert "surefoot: alpha" not in done.output


CONNECTION = """
from ansible.plugins.connection.ssh import Connection as Base, DOCUMENTATION
class Connection(Base):
    def exec_command(self, cmd, in_data=None, sudoable=True):
        command = self._build_command(self.get_option("ssh_executable"), "ssh", self.host, cmd)
        return self._run(command, in_data, sudoable=sudoable)
"""


def test_a_host_that_goes_past_the_guard_by_a_connection_of_the_users_is_named(project: Project) -> None:
    (project.folder / "connection_plugins").mkdir()
    (project.folder / "connection_plugins/own_way.py").write_text(CONNECTION)
    project.replace("[all]\nalpha", "[all]\nalpha ansible_connection=own_way")
    done = project.play("- command: 'true'")
    assert done.code == 0, done.output
    said = done.output.replace("\n", " ")
    assert "surefoot: alpha is reached by own_way: a stale agent is not kept out" in said
    assert "surefoot: beta" not in said


WINDOWS = """
from ansible.plugins.connection import ConnectionBase
DOCUMENTATION = "name: windows"
class Connection(ConnectionBase):
    transport, allow_executable = "windows", False
    put_file = fetch_file = close = None
    def __init__(self, *args, **kwargs):
        self._shell_type = "powershell"
        super().__init__(*args, **kwargs)
    def _connect(self):
        return self
    def exec_command(self, cmd, in_data=None, sudoable=True):
        return 1, b"", b"The term 'true' is not recognized"
"""


def test_a_windows_host_is_named_and_does_not_keep_a_deployment_from_the_others(local: Project) -> None:
    (local.folder / "connection_plugins").mkdir()
    (local.folder / "connection_plugins/windows.py").write_text(WINDOWS)
    local.here("here ansible_connection=local\nwin ansible_connection=windows")
    done = local.play("- command: 'true'", head="hosts: here")
    assert done.code == 0, done.output
    assert done.output.count("surefoot: ") == 2, done.output  # its warning, and that the playbook begins
    assert "surefoot: win is reached by windows: a stale agent" in done.output
    assert local.play("", on_hosts="date").code != 0, "only what a raise runs is left out"


def test_a_host_that_was_not_raised_before_the_playbook_began_is_named(
    project: Project, hosts: list[SshHost], key: Path
) -> None:
    alpha, beta = hosts
    project.reach([alpha], key)
    project.known_hosts.write_text(alpha.known() + beta.known())
    project.path = str(alpha.shared)  # which each user of a host may have a folder in
    tasks = f"""
- add_host: {{name: new, ansible_host: 127.0.0.1, ansible_port: {beta.port}, ansible_user: root}}
- raw: printf hello
  delegate_to: new
  register: said
- assert: {{that: said.stdout == "hello" and "surefoot" not in said.stderr}}
- command: 'true'
- command: 'true'
  delegate_to: localhost
"""
    done = project.play(tasks, 3)
    assert done.code == 0, done.output
    late = [line for line in done.output.replace("\n", " ").split("[WARNING]: ") if "when the fence was raised" in line]
    assert len(late) == 1, done.output
    assert "surefoot: new was not reached as root" in late[0]


@pytest.mark.parametrize("section", ["defaults", "connection", "ssh_connection"])
def test_what_a_user_has_set_is_left_as_set(local: Project, section: str) -> None:
    ours = local.environment()
    assert ours["ANSIBLE_PIPELINING"] == "True"
    assert ours["ANSIBLE_FORKS"] == "20"
    more = "" if section == "defaults" else "[defaults]\n"
    (local.folder / "ansible.cfg").write_text(f"[{section}]\npipelining = False\n{more}forks = 3\n")
    theirs = local.environment()
    assert "ANSIBLE_PIPELINING" not in theirs
    assert "ANSIBLE_FORKS" not in theirs


def test_an_ansible_cfg_that_ansible_passes_over_counts_for_nothing(local: Project) -> None:
    (local.folder / "ansible.cfg").write_text("[defaults]\nforks = 3\n")
    local.folder.chmod(0o777)
    assert local.environment()["ANSIBLE_FORKS"] == "20"


@pytest.mark.parametrize("copied", [True, False])
def test_pipelining_is_on_where_the_user_left_it_open(project: Project, copied: bool) -> None:
    if copied:
        (project.folder / "ansible.cfg").write_text("[defaults]\npipelining = False\nforks = 1\n")
    done = project.play(
        "- debug: msg={{ ansible_forks }}\n- command: 'true'", head="hosts: alpha", ANSIBLE_VERBOSITY="3"
    )
    assert done.code == 0, done.output
    assert ("PUT " in done.output) is copied, "without pipelining modules are copied"
    assert '"msg": 1\n' in done.output or not copied


def test_a_users_keepalive_wins_over_ours(project: Project) -> None:
    (project.folder / "ansible.cfg").write_text(
        "[ssh_connection]\nssh_args = -o ControlMaster=auto -o ControlPersist=9s -o ServerAliveInterval=31\n"
    )
    done = project.play("")
    assert done.code == 0, done.output
    argv = done.progress.reachable()["alpha"].argv
    assert argv.index("ServerAliveInterval=31") < argv.index("ServerAliveInterval=2")
    assert "ControlPersist=9s" in argv


def test_the_users_ssh_arguments_reach_every_connection(project: Project, hosts: list[SshHost], tmp_path: Path) -> None:
    log, proxy = tmp_path / "proxied", tmp_path / "proxy"
    (tmp_path / "relay.py").write_text(RELAY)
    proxy.write_text(f'#!/bin/sh\necho "$1 $2" >> {log}\nexec /usr/bin/python3 {tmp_path}/relay.py "$1" "$2"\n')
    proxy.chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="sf-") as sockets:  # a socket's path is short
        (project.folder / "ansible.cfg").write_text(
            f"[defaults]\nforks = 1\n[ssh_connection]\nssh_args = -o ProxyCommand='{proxy} %h %p'"
            f" -o ControlMaster=auto -o ControlPersist=90 -o ControlPath={sockets}/%C\n"
        )
        done = project.play("- command: 'true'")
        masters = list(Path(sockets).iterdir())
        for master in masters:
            subprocess.run(["ssh", "-S", str(master), "-O", "exit", "any"], capture_output=True, timeout=20)
    assert done.code == 0, done.output
    assert masters, "the user's own control path"
    assert set(log.read_text().splitlines()) == {f"127.0.0.1 {host.port}" for host in hosts}


RELAY = """
import os, socket, sys, threading
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536):
        s.sendall(data)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := s.recv(65536):
    os.write(1, data)
"""


def test_by_hand_our_callback_changes_nothing(local: Project, tmp_path: Path) -> None:
    (local.folder / "play.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        "    - command: sh -c 'echo \"[$SUREFOOT_FENCE]\"'\n"
        "      register: r\n    - debug: {var: r.stdout}\n"
    )
    program = local.run_of("play.yml", 1, tmp_path).argv()[0]
    done = subprocess.run(
        [program, "-i", "hosts.ini", "play.yml"],
        cwd=local.folder,
        env={**local.environ, "ANSIBLE_CALLBACK_PLUGINS": local.environment()["ANSIBLE_CALLBACK_PLUGINS"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"r.stdout": "[]"' in done.stdout or '"r.stdout": []' in done.stdout
    assert "surefoot" not in done.stderr


ODD = [
    "1.0",
    "1.10",
    "{{ 7 * 7 }}",
    "{% raw %}x",
    """it's "quoted" \\ $(touch /tmp/x) `id` #no comment""",
    "ünï/cødé-😀-\u200b\x7f",
    "null",
    "!unsafe yes",
    "@file",
    "",
]


def test_a_version_reaches_a_playbook_letter_by_letter(local: Project, tmp_path: Path) -> None:
    variables = {f"surefoot_v{n}": version for n, version in enumerate(ODD)}
    tasks = "".join(
        f"- {{assert: {{that: [{name} is string]}}}}\n"
        f"- shell: printf %s \"$GIVEN\" > {tmp_path}/{name}\n  environment: {{GIVEN: '{{{{ {name} }}}}'}}\n"
        for name in variables
    )
    done = local.play(tasks, raises=False, variables=variables)
    assert done.code == 0, done.output
    assert {name: (tmp_path / name).read_text() for name in variables} == variables
    assert json.loads(local.run_of("p", 1, tmp_path, variables=variables).argv()[4]).keys() == variables.keys()


def test_every_remote_program_sees_the_fence_it_stands_behind(project: Project, host: SshHost) -> None:
    done = project.play("- shell: echo $SUREFOOT_FENCE > /root/mark\n  become: true", 3, head="hosts: alpha")
    assert done.code == 0, done.output
    assert host.disk("/root/mark").read_text().startswith(f"{project.fence}:3:")
