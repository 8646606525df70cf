# SPDX-License-Identifier: Apache-2.0
"""An agent that is drained, or whose machine is not fit, hands over between two steps; one that is alone goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_cli_deploy import Project, eventually

#: Between the first step and the last there is time for an agent to notice that another has come.
STEPS = "".join(f"      - {{name: step-{n}, run: sleep 0.5}}\n" for n in range(12))
CONFIG = """\
project: shop
agents: {one: {role: primary}, two: {role: secondary}}
runner_gate: {memory_below: LIMIT}
environments:
  prod:
    steps:
      - {name: first, run: 'touch ../begun; while test ! -e ../go; do sleep 0.1; done'}
STEPS      - {name: last, run: 'echo "$SUREFOOT_AGENT" > ../live'}
    retry: {attempts: 1, delay: 0s, timeout: 50s}
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    (tmp_path / "unfit").mkdir()
    for folder, limit in ((made.folder, "100%"), (tmp_path / "unfit", "0.1%")):
        text = CONFIG.replace("../", f"{tmp_path}/").replace("LIMIT", limit).replace("STEPS", STEPS)
        (folder / "surefoot.yml").write_text(text)
    yield made
    made.close()


def online(project: Project, name: str, status: str = "online") -> bool:
    return any(agent["name"] == name and agent["status"] == status for agent in project.json("agents")["agents"])


def test_a_drained_agent_hands_over_after_the_step_in_flight(project: Project) -> None:
    project.start("agent", "run", "one")
    assert project.run("deploy", "prod", "1.0", "--detach").returncode == 0
    eventually(project.live.with_name("begun").exists)
    assert project.run("agent", "drain", "one").returncode == 0
    project.start("agent", "run", "two")
    eventually(lambda: online(project, "two"))
    assert project.json("show", "prod-1")["agent"] == "one", "not in the midst of a step"
    project.live.with_name("go").touch()
    eventually(lambda: project.status_of("prod-1") == "succeeded")
    assert project.live.read_text() == "two\n"
    told = project.run("events", "prod-1").stdout
    assert "one hands over: one drained; two can take it" in told
    assert "two chosen: secondary online; one draining (drained)" in told
    shown = project.json("show", "prod-1")
    steps = [(step["name"], step["agent"], step["attempt"]) for step in shown["steps"]]
    assert steps[0] == ("first", "one", 1) and steps[-1] == ("last", "two", 1)
    assert all(attempt == 1 for _, _, attempt in steps), "none was interrupted"


def test_an_agent_that_is_not_fit_works_while_it_is_alone_and_hands_over_when_it_is_not(project: Project) -> None:
    unfit = str(project.live.with_name("unfit") / "surefoot.yml")
    store = str(project.folder / ".surefoot" / "surefoot.db")
    project.start("agent", "run", "one", "--config", unfit, "--store", store)
    assert project.run("deploy", "prod", "1.0", "--detach").returncode == 0
    eventually(project.live.with_name("begun").exists)
    assert online(project, "one", "degraded")
    project.start("agent", "run", "two")
    eventually(lambda: online(project, "two"))
    project.live.with_name("go").touch()
    eventually(lambda: project.status_of("prod-1") == "succeeded")
    assert project.live.read_text() == "two\n"
    told = project.run("events", "prod-1").stdout
    assert "one chosen: primary degraded" in told
    assert "% > 0 %; two can take it" in told
    assert "two chosen: secondary online; one degraded (memory " in told
