# SPDX-License-Identifier: Apache-2.0
"""Gates with real agents: what waited starts by itself, and health that is lost later is a reason to go back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_cli_deploy import DEADLINE, Project, eventually

CONFIG = """\
project: shop
environments:
  prod:
    steps: [{name: go, run: 'echo "$SUREFOOT_VERSION" > ../live'}]
    approvals: {from: [anyone]}
    queue: latest
  watched:
    steps: [{name: go, run: 'echo "$SUREFOOT_VERSION" > ../live'}]
    rollback: {run: 'echo "back to ${SUREFOOT_PREVIOUS_VERSION:-nothing}" > ../live; rm -f ../sick'}
    retry: {attempts: 1, delay: 0s, timeout: 50s}
    health: [{command: {run: 'test ! -e ../sick'}}]
    health_policy: {within: 20s, interval: 100ms, successes: 1}
    bake: 5m
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    made.config.write_text(CONFIG.replace("../", f"{tmp_path}/"))
    yield made
    made.close()


def test_an_approved_deployment_starts_although_nobody_follows_it_and_takes_the_place_of_older_ones(
    project: Project,
) -> None:
    for version in ("1.0", "2.0"):
        assert project.run("deploy", "prod", version, "--detach", USER="eve").returncode == 0
    assert project.status_of("prod-2") == "waiting"
    assert project.run("approve", "prod-2", USER="ann").returncode == 0
    eventually(lambda: project.status_of("prod-2") == "succeeded")
    assert project.live.read_text() == "2.0\n"
    eventually(lambda: project.status_of("prod-1") == "cancelled")
    reason = project.json("show", "prod-1")["reason"]
    assert reason["code"] == "SF-SUPERSEDED" and "prod-2" in reason["message"]


def test_what_waits_for_a_time_starts_then_although_nobody_follows_it(project: Project) -> None:
    assert project.run("deploy", "prod", "0.9", "--detach", "--at", "2s").returncode == 0
    assert project.run("approve", "prod-1", USER="ann").returncode == 0
    assert project.run("freeze", "prod", "--reason", "short", "--until", "3s").returncode == 0
    eventually(lambda: project.status_of("prod-1") == "succeeded")
    shown = project.json("show", "prod-1")
    assert shown["started_at"] >= shown["not_before"]


def test_health_that_is_lost_while_it_bakes_puts_everything_back_by_the_rollback(project: Project) -> None:
    sick = project.live.with_name("sick")
    following = project.start("deploy", "watched", "2.0")
    eventually(lambda: "health is watched" in project.run("events", "watched-1").stdout)
    assert project.status_of("watched-1") == "running", "it has not succeeded before its time is over"
    sick.touch()
    _, told = following.communicate(timeout=DEADLINE)
    assert following.returncode == 4, told
    assert "healthy no more" in told
    assert project.live.read_text() == "back to nothing\n"
    assert [(s["name"], s["direction"]) for s in project.json("show", "watched-1")["steps"]] == [
        ("go", "forward"),
        ("rollback", "undo"),
    ]
