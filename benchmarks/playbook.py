# SPDX-License-Identifier: Apache-2.0
"""What a deployment costs beside plain Ansible: the same playbook, the same hosts over SSH, by turns.

Ours is the whole of `surefoot deploy`: start-up, bundle, journal, own agent, the fence on both hosts, fourteen tasks
each, state files, health checks, the end. Theirs is `ansible-playbook` with default settings. Neither finds an SSH
connection of an earlier run open: deployments lie further apart than the minute for which Ansible keeps one.
Hosts are sshd's on loopback with namespaces of their own, where a round trip costs nothing: over a network pipelining
saves more than here.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.report import Figure, main, p99, ratio
from tests.ansible.hosts import SshHost, inventory, missing

WHAT = "`surefoot deploy` of 14 tasks on 2 hosts beside plain `ansible-playbook`, over SSH"
RUNS = 6
LIMIT = 0.95
INTERPRETER = r"(?<=ansible_python_interpreter=).*"

PLAYBOOK = """\
- name: Release
  hosts: all
  vars:
    base: /var/lib/app
    release: "{{ base }}/releases/{{ version | default(surefoot_version) }}"
  tasks:
    - name: Folder of releases
      ansible.builtin.file: {path: "{{ base }}/releases", state: directory, mode: "0755"}
    - name: Folder of what all releases share
      ansible.builtin.file: {path: "{{ base }}/shared", state: directory, mode: "0755"}
    - name: Folder of this release
      ansible.builtin.file: {path: "{{ release }}", state: directory, mode: "0755"}
    - name: The application
      ansible.builtin.copy: {src: files/app.txt, dest: "{{ release }}/app.txt", mode: "0644"}
    - name: Its settings
      ansible.builtin.template: {src: templates/settings.j2, dest: "{{ release }}/settings", mode: "0600"}
    - name: Its version
      ansible.builtin.copy: {content: "{{ release | basename }}\\n", dest: "{{ release }}/VERSION", mode: "0644"}
    - name: Its checksum
      ansible.builtin.command: sha256sum {{ release }}/app.txt
      changed_when: false
    - name: What all releases share, linked
      ansible.builtin.file: {src: "{{ base }}/shared", dest: "{{ release }}/shared", state: link}
    - name: Migrate
      ansible.builtin.shell: echo "{{ release | basename }}" >> {{ base }}/shared/migrations
    - name: What runs now
      ansible.builtin.stat: {path: "{{ base }}/current"}
      register: current
    - name: Activate
      ansible.builtin.file: {src: "{{ release }}", dest: "{{ base }}/current", state: link}
    - name: Restart
      ansible.builtin.command: touch {{ base }}/restarted
    - name: Verify
      ansible.builtin.command: cat {{ base }}/current/VERSION
      register: active
      changed_when: false
    - name: Keep a record
      ansible.builtin.lineinfile: {path: "{{ base }}/log", line: "{{ active.stdout }}", create: true, mode: "0644"}
"""
CONFIG = {
    "project": "bench",
    "environments": {
        "production": {
            "inventory": "hosts.ini",
            "retry": {"attempts": 1},
            "steps": [{"name": "release", "playbook": "release.yml"}],
            "health": [{"tcp": {"address": "127.0.0.1:PORT"}}],
            "health_policy": {"within": "10s", "interval": "1s", "successes": 1},
            "state_file": "/var/lib/bench-state.json",
        }
    },
}


def measure(runs: int | None = None) -> list[Figure]:
    """Measure pairs of runs."""
    if reason := missing():
        raise SystemExit(f"error: {reason}")
    with project() as folder:
        numbers = itertools.count(1)
        pairs = [(deploy(folder, next(numbers)), plain(folder, next(numbers))) for _ in range((runs or RUNS) + 1)]
    del pairs[0]  # what is read, compiled or created for the first time is not what is measured
    return [
        ratio("surefoot deploy ÷ ansible-playbook", pairs, LIMIT),
        p99("surefoot deploy", [ours for ours, _ in pairs]),
        p99("ansible-playbook", [theirs for _, theirs in pairs]),
    ]


def deploy(folder: Path, number: int) -> float:
    """Return the seconds of a whole deployment."""
    return seconds(folder, [program("surefoot"), "deploy", "production", f"1.{number}"])


def plain(folder: Path, number: int) -> float:
    """Return the seconds of the playbook alone."""
    return seconds(folder, [program("ansible-playbook"), "-i", "hosts.ini", "-e", f"version=1.{number}", "release.yml"])


def seconds(folder: Path, command: Sequence[str]) -> float:
    """Return how long a command takes with a home of its own, where no connection is open."""
    with tempfile.TemporaryDirectory(prefix="sf-") as home:
        begun = time.monotonic()
        done = subprocess.run(command, check=False, cwd=folder, env=environment(home), capture_output=True, text=True)
        took = time.monotonic() - begun
    if done.returncode != 0:
        raise SystemExit(f"error: {' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return took


def program(name: str) -> str:
    """Return a program of this environment."""
    return str(Path(sys.executable).with_name(name))


def environment(home: str) -> Mapping[str, str]:
    """Return an environment that says nothing about Ansible or Surefoot."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SUREFOOT_"))}
    return {**kept, "HOME": home, "ANSIBLE_HOME": f"{home}/.ansible", "NO_COLOR": "1"}


@contextlib.contextmanager
def project() -> Iterator[Path]:
    """Give a project with two hosts that run."""
    with contextlib.ExitStack() as stack:
        rooms = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sf-bench-")))
        rooms.chmod(0o755)
        key = rooms / "key"
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(key)], check=True)
        hosts = [SshHost(name, rooms / name, key) for name in ("alpha", "beta")]
        for host in hosts:
            stack.callback(host.stop)
            host.start()
        folder = rooms / "project"
        for name, text in (
            ("release.yml", PLAYBOOK),
            ("files/app.txt", "the application\n" * 2000),
            ("templates/settings.j2", "release={{ release }}\n"),
            # The machine's own Python: hosts hide the homes of this one's users.
            ("hosts.ini", re.sub(INTERPRETER, "/usr/bin/python3", inventory(hosts, key, rooms / "known_hosts"))),
            ("surefoot.yml", json.dumps(CONFIG).replace("PORT", str(stack.enter_context(listener())))),
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        yield folder


@contextlib.contextmanager
def listener() -> Iterator[int]:
    """Give a port that takes connections: what the health check looks at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server,), daemon=True).start()
        yield int(server.getsockname()[1])


def _accept(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            server.accept()[0].close()


if __name__ == "__main__":
    main("playbook", WHAT, measure)
