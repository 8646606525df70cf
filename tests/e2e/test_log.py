# SPDX-License-Identifier: Apache-2.0
"""What an agent and an exporter log of themselves, and how the logs of several agents come together."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_cli_deploy import DEADLINE, Project, eventually

CONFIG = """\
project: shop
agents: {one: {role: primary}, two: {role: secondary}}
lease: {ttl: 2s}
secrets: [SHOP_TOKEN]
environments:
  prod:
    steps:
      - name: only
        run: |
          n=0
          while test "$SUREFOOT_VERSION" = long -a ! -e ../go; do
            n=$((n+1)); echo "line $n"; touch ../begun; sleep 0.1
          done
          test "$SUREFOOT_VERSION" != bad || { echo "login with $SHOP_TOKEN failed" >&2; exit 3; }
    retry: {attempts: 1, delay: 0s, timeout: 50s}
"""
TOKEN = "hunter2-and-some-more"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    made.env["SHOP_TOKEN"] = TOKEN
    made.config.write_text(CONFIG.replace("../", f"{tmp_path}/"))
    yield made
    made.close()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_as_json_each_line_is_a_document_and_names_deployment_and_token(project: Project) -> None:
    agent = project.start("agent", "run", "one", SUREFOOT_LOG_FORMAT="json")
    assert project.run("deploy", "prod", "1.0").returncode == 0
    assert project.run("deploy", "prod", "bad").returncode == 4
    agent.send_signal(signal.SIGTERM)
    _, err = agent.communicate(timeout=DEADLINE)
    found = lines(err)
    assert {line["agent"] for line in found} == {"one"}
    assert found[0]["type"] == "agent_started" and found[-1]["type"] == "agent_ended"
    assert all(line.keys() >= {"at", "level", "type", "message"} for line in found)
    first = [line for line in found if line.get("deployment") == "prod-1"]
    journal = lines(project.run("events", "prod-1", "--output", "json").stdout)
    told = [(line["seq"], line["type"]) for line in first if "seq" in line]
    assert told == [(entry["seq"], entry["type"]) for entry in journal if entry["type"] != "accepted"]
    assert {(line["environment"], line["token"]) for line in first} == {("prod", 1)}
    second = [line for line in found if line.get("deployment") == "prod-2"]
    assert {line["token"] for line in second} == {2}
    (failed,) = [line for line in second if line["type"] == "step_failed"]
    assert (failed["level"], failed["step"], failed["attempt"]) == ("warning", "only", 1)
    assert failed["code"] == "SF-STEP-FAILED"
    (ended,) = [line for line in second if line["type"] == "finished"]
    assert (ended["level"], ended["status"]) == ("error", "rolled_back")
    assert TOKEN not in err


def test_for_people_each_line_has_the_time_of_day_and_names_deployment_and_token(project: Project) -> None:
    agent = project.start("agent", "run", "one")
    assert project.run("deploy", "prod", "1.0").returncode == 0
    agent.send_signal(signal.SIGTERM)
    _, err = agent.communicate(timeout=DEADLINE)
    said = [line.partition(" ") for line in err.splitlines()]
    assert all(len(clock) == 8 and clock[2] == clock[5] == ":" for clock, _, _ in said), err
    texts = [text for _, _, text in said]
    assert texts[0] == "agent one (primary) runs; SIGTERM ends it" and texts[-1] == "agent one has ended"
    assert "prod-1 token 1: step only succeeded" in texts


def test_a_form_that_there_is_not_is_refused(project: Project) -> None:
    done = project.run("agent", "run", "one", SUREFOOT_LOG_FORMAT="yaml")
    assert done.returncode == 2 and "SUREFOOT_LOG_FORMAT is 'yaml'" in done.stderr


def test_an_agent_that_may_not_run_says_so_in_its_log_and_as_every_command_does(project: Project) -> None:
    project.start("agent", "run", "one")
    eventually(lambda: any(agent["status"] == "online" for agent in project.json("agents")["agents"]))
    done = project.run("agent", "run", "one", "--log-format", "json")
    assert done.returncode == 7
    *logged, error, hint = done.stderr.splitlines()
    last = lines("\n".join(logged))[-1]
    assert (last["type"], last["level"], last["code"]) == ("agent_ended", "error", "SF-AGENT-DUPLICATE")
    assert error.startswith("error[SF-AGENT-DUPLICATE]") and hint.startswith("hint: ")


def test_logs_of_agents_that_took_over_from_each_other_come_in_order(project: Project) -> None:
    begun, go = project.live.with_name("begun"), project.live.with_name("go")
    frozen = project.start("agent", "run", "one")
    eventually(lambda: any(agent["status"] == "online" for agent in project.json("agents")["agents"]))
    assert project.run("deploy", "prod", "long", "--detach").returncode == 0
    eventually(begun.exists)
    project.start("agent", "run", "two")
    eventually(lambda: len(project.run("logs", "prod-1").stdout.splitlines()) > 3)
    frozen.send_signal(signal.SIGSTOP)
    eventually(lambda: project.json("show", "prod-1")["agent"] == "two")
    begun.unlink()
    eventually(begun.exists)
    # It wakes up with lines that it has not written yet, in the midst of the other's.
    frozen.send_signal(signal.SIGCONT)
    eventually(lambda: "lost" in project.run("logs", "prod-1").stdout)
    go.touch()
    eventually(lambda: project.status_of("prod-1") == "succeeded")
    found = lines(project.run("logs", "prod-1", "--output", "json").stdout)
    assert [line["id"] for line in found] == list(range(1, len(found) + 1))
    assert [line["at"] for line in found] == sorted(line["at"] for line in found)
    printed = [line for line in found if line["stream"] == "stdout"]
    tokens = [line["token"] for line in printed]
    assert set(tokens) == {1, 2} and tokens == sorted(tokens), "the first agent prints nothing behind the second"
    for token, agent in ((1, "one"), (2, "two")):
        texts = [line["text"] for line in printed if line["token"] == token]
        assert texts == [f"line {n}" for n in range(1, len(texts) + 1)]
        assert {line["agent"] for line in printed if line["token"] == token} == {agent}
