# SPDX-License-Identifier: Apache-2.0
"""Runs playbooks as an agent does, without the agent: ansible-playbook with our callback, over real ssh."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from surefoot.core.errors import Failure
from surefoot.steps.ansible import AnsibleRun, Progress
from surefoot.steps.fence import Fence
from tests.ansible.hosts import SshHost, inventory, kill_tree, until

#: Variables of the machine's that would change what Ansible does.
HIDDEN = ("ANSIBLE_", "SUREFOOT_", "SSH_")


@dataclass
class Done:
    """How a run ended."""

    code: int
    output: str
    progress: Progress
    told: str


class Running:
    """A run under way."""

    def __init__(self, process: subprocess.Popen[bytes], told: int, output: Path, control: Path) -> None:
        self.process, self._told, self._output, self._control = process, told, output, control
        self._lines = b""

    def _read(self, wait: float) -> None:
        while select.select([self._told], [], [], wait)[0]:
            data = os.read(self._told, 65536)
            if not data:
                return
            self._lines += data

    def wait(self, timeout: float = 300) -> Done:
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < end, f"ansible-playbook still runs: {self.output()}"
            self._read(0.05)
        self._read(0)
        progress = Progress("hosts.ini")
        for line in self._lines.splitlines():
            progress.take(line)
        self.close()
        return Done(self.process.returncode, self.output(), progress, self._lines.decode())

    def output(self) -> str:
        return self._output.read_text()

    def kill(self) -> None:
        """Kill ansible-playbook, its workers and its ssh clients, as an agent's end does."""
        kill_tree(self.process.pid)
        self.process.wait()

    def close(self) -> None:
        self.kill()
        if self._told >= 0:
            os.close(self._told)
            self._told = -1
        shutil.rmtree(self._control, ignore_errors=True)


class Project:
    """A folder with an inventory and playbooks, and the runs that were started in it."""

    def __init__(self, folder: Path, fence: str) -> None:
        self.folder, self.fence = folder, fence
        self.path = ""  #: where hosts keep their fences; empty for their default
        self.home = folder.parent / "home"
        self.home.mkdir()
        self.folder.mkdir()
        self.known_hosts = folder.parent / "known_hosts"
        self.inventory = folder / "hosts.ini"
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(HIDDEN)} | {"HOME": str(self.home)}
        # Else Ansible leaves sudo out where root becomes root.
        self.environ["ANSIBLE_BECOME_ALLOW_SAME_USER"] = "1"
        self._runs: list[Running] = []

    def reach(self, hosts: list[SshHost], key: Path, user: str = "root", more: str = "") -> None:
        """Have an inventory of hosts over ssh."""
        self.inventory.write_text(inventory(hosts, key, self.known_hosts, user, more))

    def here(self, lines: str = "here ansible_connection=local") -> None:
        """Have an inventory of hosts that are this machine, with their fence in a folder of ours."""
        self.inventory.write_text(f"{lines}\n[all:vars]\nansible_python_interpreter={sys.executable}\n")
        self.path = str(self.folder.parent / "fence")

    def replace(self, old: str, new: str) -> None:
        """Change the inventory's text."""
        text = self.inventory.read_text()
        assert old in text
        self.inventory.write_text(text.replace(old, new))

    def run_of(
        self,
        playbook: str | None,
        token: int,
        control: Path,
        *,
        variables: Mapping[str, str] | None = None,
        on_hosts: str = "true",
        raises: bool = True,
        looks: bool = False,
        beside: str | None = None,
    ) -> AnsibleRun:
        """Return what an agent would run; one that only `looks` is behind no fence."""
        fence = None if looks else Fence(self.fence, token, self.path)
        variables = variables or {}
        return AnsibleRun(
            self.folder, "hosts.ini", fence, control, playbook, variables, on_hosts, raises, beside=beside
        )

    def environment(self) -> dict[str, str]:
        """Return what an agent would add to the environment."""
        return self.run_of("play.yml", 1, self.folder / "s").environment(self.environ, 5)

    def start(
        self,
        tasks: str,
        token: int = 1,
        *,
        head: str = "hosts: all",
        raises: bool = True,
        looks: bool = False,
        variables: Mapping[str, str] | None = None,
        on_hosts: str = "true",
        folder: str = "",
        **environ: str,
    ) -> Running:
        """Start a play of `tasks` (YAML, one list), or with none of them only what runs on hosts; a playbook would lie
        in `folder`.
        """
        playbook = None
        if tasks:
            playbook = f"{folder}play-{len(self._runs)}.yml"
            heads = "\n  ".join(["gather_facts: false", *head.splitlines()])
            body = "\n    ".join(tasks.strip("\n").splitlines())
            (self.folder / playbook).write_text(f"- {heads}\n  tasks:\n    {body}\n")
        control = Path(tempfile.mkdtemp(prefix="sf-"))
        run = self.run_of(
            playbook,
            token,
            control,
            variables=variables,
            on_hosts=on_hosts,
            raises=raises,
            looks=looks,
            beside=f"{folder}first.yml",
        )
        mine = {**self.environ, **environ}
        told, tell = os.pipe()
        output = self.folder.parent / f"output-{len(self._runs)}"
        try:
            with output.open("wb") as out:
                process = subprocess.Popen(
                    run.argv(),
                    cwd=self.folder,
                    env={**mine, **run.environment(mine, tell), "SUREFOOT_TOKEN": str(token)},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    pass_fds=(tell,),
                )
        finally:
            os.close(tell)
        running = Running(process, told, output, control)
        self._runs.append(running)
        return running

    def play(self, tasks: str, token: int = 1, **options: object) -> Done:
        return self.start(tasks, token, **options).wait()

    def failure(self, tasks: str = "- command: 'true'", token: int = 1, **options: object) -> Failure:
        """Return what a play failed of, as an agent tells it."""
        done = self.play(tasks, token, **options)
        assert done.code != 0, done.output
        failure = done.progress.failure("activate", "agent-1", done.output)
        assert failure is not None, done.output
        return failure

    def raise_to(self, token: int) -> Done:
        done = self.play("", token)
        assert done.code == 0, done.output
        return done

    def until_runs(self, running: Running, host: SshHost, text: str) -> None:
        until(lambda: host.running(text) or self._ended(running), f"`{text}` runs on {host.name}", 60)

    @staticmethod
    def _ended(running: Running) -> bool:
        assert running.process.poll() is None, running.output()
        return False

    def close(self) -> None:
        for run in self._runs:
            run.close()
