# SPDX-License-Identifier: Apache-2.0
"""Agents of commands, where the config names none, side by side: none waits for another that will never do the work."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from surefoot.core.errors import Exit
from tests.e2e.test_cli_deploy import DEADLINE, Project, eventually

OTHER = """
  other:
    steps:
      - name: wait
        run: "touch {folder}/begun; while ! test -e {folder}/go; do sleep 0.1; done"
  asked:
    steps:
      - name: work
        run: "true"
    approvals: {{from: [anyone]}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    made.config.write_text(made.config.read_text().rstrip("\n") + OTHER.format(folder=tmp_path))
    yield made
    made.close()


@pytest.fixture
def busy(project: Project) -> subprocess.Popen[str]:
    """A deploy whose own agent is at work for a long time."""
    deploy = project.start("deploy", "other", "1.0")
    eventually((project.live.parent / "begun").exists)
    return deploy


@pytest.fixture
def waiting(project: Project) -> subprocess.Popen[str]:
    """A deploy whose own agent waits for somebody's approval."""
    deploy = project.start("deploy", "asked", "1.0")
    eventually(lambda: [a for a in project.json("agents")["agents"] if a["status"] == "online"] != [])
    return deploy


@pytest.mark.parametrize("other", ["busy", "waiting"])
def test_what_is_left_to_the_background_does_not_wait_for_another_command(
    project: Project, other: str, request: pytest.FixtureRequest
) -> None:
    deploy: subprocess.Popen[str] = request.getfixturevalue(other)
    assert project.run("deploy", "prod", "1.0", "--detach").returncode == Exit.DONE
    eventually(lambda: project.status_of("prod-1") == "succeeded")
    assert deploy.poll() is None


def test_what_was_taken_over_by_a_command_that_ends_is_left_to_the_background(
    project: Project, waiting: subprocess.Popen[str]
) -> None:
    deploy = project.start("deploy", "other", "1.0")
    eventually((project.live.parent / "begun").exists)
    deploy.kill()
    eventually(lambda: project.json("show", "other-1")["takeovers"] == 1)
    assert project.run("cancel", "asked-1").returncode == Exit.DONE
    assert waiting.wait(DEADLINE) == Exit.CANCELLED
    (project.live.parent / "go").touch()
    eventually(lambda: project.status_of("other-1") == "succeeded")


def test_a_deploy_that_is_killed_is_finished_in_the_background_beside_another_that_waits(
    project: Project, waiting: subprocess.Popen[str]
) -> None:
    deploy = project.start("deploy", "other", "1.0")
    eventually((project.live.parent / "begun").exists)
    deploy.kill()
    (project.live.parent / "go").touch()
    assert project.run("cancel", "other-1").returncode == Exit.DONE
    eventually(lambda: project.status_of("other-1") == "cancelled")
    assert waiting.poll() is None
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(30) == Exit.CANCELLED
