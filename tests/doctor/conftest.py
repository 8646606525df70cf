# SPDX-License-Identifier: Apache-2.0
"""A project whose agents are real processes, and the doctor looking at it in this process."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from surefoot.checks.registry import KINDS
from surefoot.config.loading import load
from surefoot.core.errors import ConfigError
from surefoot.doctor.collect import Question, collect
from surefoot.doctor.facts import Facts, Trouble
from surefoot.doctor.findings import Finding
from surefoot.doctor.rules import diagnose
from tests.support import forked

PATIENCE = 120.0
_numbers = itertools.count(1)

CONFIG = """\
project: shop
secrets: [RELEASE_TOKEN]
agents:
  FIRST: {role: primary}
  SECOND: {role: secondary}
environments:
  prod:
    preflight:
      - secret: {name: RELEASE_TOKEN, min_length: 8}
      - file: {path: "ROOT/{version}.tar.gz"}
    steps:
      - {name: activate, run: "case $SUREFOOT_VERSION in slow*) echo begun; sleep 300;; bad*) exit 3;; esac"}
    retry: {attempts: 1, delay: 0s, timeout: 301s}
    health:
      - file: {path: ROOT/healthy}
    health_policy: {within: 5s, interval: 500ms, successes: 1}
"""


def until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"did not come true in {PATIENCE:.0f} s: {what}"
        time.sleep(0.2)


@dataclass
class Patient:
    """A project that something is wrong with."""

    root: Path
    first: str
    second: str
    environ: dict[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.root / "project"

    @property
    def store(self) -> Path:
        return self.folder / ".surefoot" / "surefoot.db"

    def start(self, *args: str, **env: str) -> subprocess.Popen[bytes]:
        with (self.root / "output").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "surefoot", *args],
                cwd=self.folder,
                env=self.environ | env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.started.append(process)
        return process

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return forked.run(
            args,
            cwd=self.folder,
            env=self.environ | env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
        )

    def agent(self, name: str) -> subprocess.Popen[bytes]:
        process = self.start("agent", "run", name)
        until(lambda: f"{name}  " in self.run("agents").stdout, f"{name} has reported")
        return process

    def submitted(self, version: str) -> str:
        """Ask for a deployment, and return its id."""
        done = self.run("deploy", "prod", version, "--detach")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def ended(self, deployment: str) -> str:
        """Return how a deployment has ended."""
        until(
            lambda: json.loads(self.run("show", deployment, "--output", "json").stdout)["finished_at"], "it has ended"
        )
        return str(json.loads(self.run("show", deployment, "--output", "json").stdout)["status"])

    def facts(self, deployment: str | None = None, **changes: str) -> Facts:
        config, trouble = None, None
        try:
            config = load(self.folder / "surefoot.yml", kinds=KINDS, environ=self.environ)
        except ConfigError as error:
            trouble = Trouble(error.code, error.message, error.hint)
        question = Question(
            changes.get("store", str(self.store)),
            self.folder / ".surefoot",
            config,
            trouble,
            deployment,
            environ=self.environ,
            seconds=PATIENCE,
        )
        facts, _ = asyncio.run(collect(question))
        return facts

    def found(self, deployment: str | None = None, **changes: str) -> list[Finding]:
        return diagnose(self.facts(deployment, **changes))

    def first_found(self, deployment: str | None = None, **changes: str) -> Finding:
        facts = self.facts(deployment, **changes)
        found = diagnose(facts)
        assert found, facts.unchecked
        return found[0]

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


def admit(root: Path) -> Patient:
    """Return a project in which all is well but that no agent runs yet; its agents' names are nobody else's."""
    mark = f"{os.getpid()}-{next(_numbers)}"
    hidden = ("SUREFOOT_", "GITHUB_", "ANSIBLE_")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    environ["RELEASE_TOKEN"] = "a-token-of-some-length"
    one = Patient(root, f"runner-01-{mark}", f"runner-02-{mark}", environ)
    one.folder.mkdir()
    text = CONFIG.replace("ROOT", str(root)).replace("FIRST", one.first).replace("SECOND", one.second)
    (one.folder / "surefoot.yml").write_text(text)
    for name in ("1.0.tar.gz", "slow-1.tar.gz", "bad-1.tar.gz", "healthy"):
        (root / name).touch()
    return one


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Patient]:
    """A project of a test's own."""
    one = admit(tmp_path)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    """One with both agents at work, and 1.0 deployed; each test leaves it as it was, but for its journal."""
    one = admit(tmp_path_factory.mktemp("served"))
    try:
        one.start("agent", "run", one.first)
        one.start("agent", "run", one.second)
        until(lambda: one.run("agents").stdout.count(" online ") == 2, "both agents are online")
        done = one.run("deploy", "prod", "1.0")
        assert done.returncode == 0, done.stderr
        yield one
    finally:
        one.close()
