# SPDX-License-Identifier: Apache-2.0
"""Deployments that go wrong are told of, by the command line's own agent and by the next one; nothing waits for it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from surefoot.agent.courier import HOLD
from tests.e2e.test_cli_deploy import CONFIG, DEADLINE, Project, eventually

SECRET = "hook-path-that-nobody-may-see"
APPROVALS = "    approvals: {from: [anyone]}\n"


class Hook:
    """Takes webhooks, or refuses them."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.status = 200
        self.open = threading.Event()
        self.open.set()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.open.wait(DEADLINE)
                if hook.status == 200:
                    hook.taken.append({"path": self.path, "key": self.headers["Idempotency-Key"], **body})
                self.send_response(hook.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.open.set()
    hook.server.shutdown()
    hook.server.server_close()


@pytest.fixture
def project(tmp_path: Path, hook: Hook) -> Iterator[Project]:
    project = Project(tmp_path)
    config = CONFIG.replace("../", f"{tmp_path}/")
    notify = f'notify:\n  - {{webhook: "{hook.url}/${{HOOK_PATH}}", on: [succeeded, rolled_back, failed]}}\n'
    project.config.write_text(notify + config)
    project.env |= {"HOOK_PATH": SECRET, "NO_PROXY": "*"}
    yield project
    project.close()


def events(project: Project, deployment: str) -> list[dict[str, Any]]:
    result = project.run("events", deployment, "--output", "json")
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_agent_of_deploy_tells_before_it_ends(project: Project, hook: Hook) -> None:
    assert project.run("deploy", "prod", "1.0").returncode == 0
    run = {"GITHUB_SERVER_URL": "https://github.invalid", "GITHUB_REPOSITORY": "a/b", "GITHUB_RUN_ID": "7"}
    result = project.run("deploy", "prod", "bad", **run)
    assert result.returncode == 4
    assert [told["event"] for told in hook.taken] == ["succeeded", "rolled_back"]
    assert hook.taken[1]["deployment"]["id"] == "prod-2"
    assert hook.taken[1]["run_url"] == "https://github.invalid/a/b/actions/runs/7"
    assert hook.taken[1]["path"] == f"/{SECRET}"
    assert "notify-1: sent rolled_back" in result.stderr
    assert [e["type"] for e in events(project, "prod-2")][-2:] == ["finished", "delivered"]


def test_a_hook_that_is_down_changes_no_outcome_and_is_told_later(project: Project, hook: Hook) -> None:
    hook.status = 503
    started = time.monotonic()
    result = project.run("deploy", "prod", "1.0")
    assert (result.returncode, project.live.read_text().strip()) == (0, "1.0")
    assert time.monotonic() - started < DEADLINE / 2
    assert "notify-1: not delivered yet" in result.stderr
    assert hook.taken == []
    hook.status = 200
    assert project.run("deploy", "prod", "2.0").returncode == 0
    deadline = time.monotonic() + DEADLINE
    while len(hook.taken) < 2 and time.monotonic() < deadline:
        project.run("agent", "run", "later", "--role", "emergency", "--once")
    assert sorted(told["deployment"]["version"] for told in hook.taken) == ["1.0", "2.0"]


def test_an_agent_that_is_killed_right_after_a_rollback_leaves_its_news_to_the_next(
    project: Project, hook: Hook
) -> None:
    project.config.write_text("agents: {one: {}, two: {}}\n" + project.config.read_text())
    hook.status = 503
    first = project.start("agent", "run", "one")
    assert project.run("deploy", "prod", "1.0").returncode == 0
    assert project.run("deploy", "prod", "bad").returncode == 4
    first.send_signal(signal.SIGKILL)
    first.wait(DEADLINE)
    assert hook.taken == []
    hook.status = 200
    second = project.start("agent", "run", "two")
    # What the first was telling when it was killed is its own for a while.
    eventually(lambda: len({told["key"] for told in hook.taken}) == 2, HOLD + DEADLINE)
    second.send_signal(signal.SIGTERM)
    assert second.wait(DEADLINE) == 0
    assert {told["event"] for told in hook.taken} == {"succeeded", "rolled_back"}
    assert project.json("show", "prod-2")["told"][0]["by"] == "two"


def test_a_hook_that_hangs_holds_up_no_deployment(project: Project, hook: Hook) -> None:
    project.config.write_text("agents: {one: {}}\n" + project.config.read_text())
    hook.open.clear()
    agent = project.start("agent", "run", "one")
    for version in ("1.0", "2.0", "3.0"):
        assert project.run("deploy", "prod", version).returncode == 0
    assert hook.taken == [] and project.live.read_text().strip() == "3.0"
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(DEADLINE) == 0


def test_a_rollback_tells_those_who_are_told_today(project: Project, hook: Hook) -> None:
    with_hook = project.config.read_text()
    project.config.write_text(with_hook[with_hook.index("project:") :])
    assert project.run("deploy", "prod", "1.0").returncode == 0
    assert project.run("deploy", "prod", "2.0").returncode == 0
    project.config.write_text(with_hook)
    assert project.run("rollback", "prod").returncode == 0
    assert [told["deployment"]["version"] for told in hook.taken] == ["1.0"]


def test_the_secret_of_an_address_is_nowhere(project: Project, hook: Hook) -> None:
    hook.status = 404
    project.config.write_text(project.config.read_text().replace('echo "staging', 'echo "$HOOK_PATH staging'))
    outputs = []
    for call in (("deploy", "prod", "1.0"), ("show", "prod-1"), ("logs", "prod-1"), ("events", "prod-1")):
        result = subprocess.run(
            [sys.executable, "-m", "surefoot", *call],
            cwd=project.folder, env=project.env, capture_output=True, text=True, timeout=DEADLINE,
        )  # fmt: skip
        outputs.append(result.stdout + result.stderr)
    assert "refused a POST (404)" in outputs[0]
    assert SECRET not in "".join(outputs)
    files = [path for path in (project.folder / ".surefoot").rglob("*") if path.is_file()]
    assert files and not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_reports_are_made_from_the_journal(project: Project, hook: Hook) -> None:
    assert project.run("deploy", "prod", "1.0").returncode == 0
    assert project.run("deploy", "prod", "bad").returncode == 4
    (levels,) = project.json("report", "slo")["environments"]
    assert (levels["name"], levels["counted"], levels["success_rate"]) == ("prod", 2, 0.5)
    drawn = project.run("report", "slo", "--svg", "slo.svg")
    assert drawn.returncode == 0 and "50.0 %" in drawn.stdout
    assert "<title>Service levels of deployments: prod</title>" in (project.folder / "slo.svg").read_text()
    assert project.run("report", "slo", "--svg", "nowhere/slo.svg").returncode == 2
    (figures,) = project.json("report", "dora", "prod", "--days", "7")["environments"]
    assert figures["change_failure_rate"] == 0.5
    assert project.json("report", "postmortem", "prod-2")["deployment"]["status"] == "rolled_back"
    assert "## To be answered" in project.run("report", "postmortem", "prod-2").stdout
    assert "SF-STEP-FAILED" in project.run("report", "jira").stdout
    assert project.json("report", "jira", "prod-1")["type"] == "doc"
    nowhere = project.run("report", "jira", "prod-1", "--issue", "A-1", "--post")
    assert nowhere.returncode == 2 and "JIRA_URL" in nowhere.stderr
    down = {"JIRA_URL": "http://127.0.0.1:1", "JIRA_TOKEN": "jira-token-value"}
    failed = project.run("report", "jira", "prod-1", "--issue", "A-1", "--post", **down)
    assert failed.returncode == 1 and "SF-DELIVERY-FAILED" in failed.stderr and "jira-token-value" not in failed.stderr
    assert project.run("report", "slo", "nowhere").returncode == 7


@pytest.mark.parametrize("word", ["reject", "cancel"])
def test_what_a_person_ends_where_no_agent_is_left_is_told_by_one_in_the_background(
    project: Project, hook: Hook, word: str
) -> None:
    project.config.write_text(project.config.read_text().replace("failed]}", "failed, cancelled]}") + APPROVALS)
    deploy = project.start("deploy", "prod", "1.0")
    eventually(lambda: '"status": "waiting"' in project.run("show", "prod-1", "--output", "json").stdout)
    deploy.kill()
    assert project.run(word, "prod-1", "--reason", "not today").returncode == 0
    eventually(lambda: [told["event"] for told in hook.taken] == ["failed" if word == "reject" else "cancelled"])
