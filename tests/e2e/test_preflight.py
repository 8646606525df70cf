# SPDX-License-Identifier: Apache-2.0
"""Preflight as people and CI jobs meet it: alone, and first in each deployment."""

from __future__ import annotations

import json
import signal
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_cli_deploy import DEADLINE, Project, eventually

CONFIG = """\
project: shop
secrets: [TOKEN]
environments:
  prod:
    preflight:
      - secret: {name: TOKEN, min_length: 8}
        name: the token
      - command: {run: 'test -e surefoot.yml && test "$SUREFOOT_VERSION {project}" = "{version} shop" && echo "$TOKEN"'}
      - {name: maybe, command: {run: "! test -e ROOT/broken", timeout: 2s}}
    steps:
      - {name: touch, run: touch ROOT/touched}
    retry: {attempts: 1, delay: 0s, timeout: 50s}
"""
SECRET = "s3cret-value-of-it"


@pytest.fixture
def project(tmp_path: Path) -> Any:
    one = Project(tmp_path)
    one.config.write_text(CONFIG.replace("ROOT", str(tmp_path)))
    try:
        yield one
    finally:
        for process in one.started:
            process.kill()
            process.communicate()


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_preflight_that_passes_ends_with_0_and_leaves_no_trace(project: Project) -> None:
    done = project.run("preflight", "prod", "2.0", "--output", "json", TOKEN=SECRET)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["passed"] is True
    assert [check["status"] for check in found["checks"]] == ["pass"] * 4
    assert all(check["duration_seconds"] >= 0 for check in found["checks"])
    assert not (project.folder / ".surefoot").exists()
    assert SECRET not in done.stdout + done.stderr


def test_preflight_that_fails_ends_with_3_and_says_what_to_do(project: Project, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    done = project.run("preflight", "prod", "2.0", TOKEN="short", GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 3
    assert done.stderr.startswith("error[SF-PREFLIGHT-FAILED]: the token: TOKEN is 5 characters long")
    assert "hint: see that TOKEN was stored whole" in done.stderr
    assert "fix of maybe: " in done.stdout
    page = summary.read_text()
    assert page.startswith("before\n### ❌ Preflight of prod 2.0: 2 of 4 failed")
    rows = [line for line in page.splitlines() if line.startswith(("| ✅", "| ❌"))]
    assert len(rows) == 4
    assert all(line.split(" | ")[3] for line in rows if line.startswith("| ❌"))
    assert not (tmp_path / "touched").exists()


def test_missing_secret_fails_and_what_needs_it_is_skipped(project: Project) -> None:
    text = project.config.read_text()
    needy = '      - http: {url: "http://127.0.0.1:9/", headers: {Authorization: "Bearer ${TOKEN}"}}\n'
    project.config.write_text(text.replace("    steps:\n", f"{needy}    steps:\n"))
    done = project.run("preflight", "prod", "2.0", "--output", "json")
    assert done.returncode == 3
    found = checks(done)
    assert found["secrets"]["status"] == "fail"
    assert "TOKEN" in found["secrets"]["message"]
    assert found["the token"]["status"] == "fail"
    assert found["http"]["status"] == "skip"
    assert found["maybe"]["status"] == "pass"
    assert "error[SF-SECRET-MISSING]" in done.stderr


def test_hanging_check_fails_by_its_deadline_and_its_processes_are_gone(project: Project) -> None:
    text = project.config.read_text()
    project.config.write_text(text.replace('"! test -e', '"setsid sleep 7310 & sleep 7311; test -e'))
    start = time.monotonic()
    done = project.run("preflight", "prod", "2.0", "--output", "json", TOKEN=SECRET)
    assert time.monotonic() - start < 20
    assert done.returncode == 3
    assert checks(done)["maybe"]["status"] == "fail"
    assert checks(done)["the token"]["status"] == "pass"
    assert subprocess.run(["pgrep", "-f", "sleep 731[01]"], capture_output=True).stdout == b""


class Echo(socketserver.StreamRequestHandler):
    """Says in an error what it was told, as no server should; `tell` is what it says before."""

    tell = b"-ERR you said "

    def handle(self) -> None:
        data = self.request.recv(4096)
        self.wfile.write(self.tell + b" ".join(data.split()) + b"\r\n")


@pytest.mark.parametrize("length", [0, 150])
def test_password_that_a_server_repeats_is_in_nothing_that_is_told(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """Its name is listed nowhere; nor does it matter where an excerpt of the answer ends."""
    monkeypatch.setattr(Echo, "tell", b"-ERR " + b"x" * length)
    password = "pass-0123456789-0123456789-0123456789-word"
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = f'url: "redis://127.0.0.1:{server.server_address[1]}", password: "${{CACHE_PASSWORD}}"'
        text = project.config.read_text()
        project.config.write_text(text.replace("    steps:\n", f"      - redis: {{{options}}}\n    steps:\n"))
        env = {"TOKEN": SECRET, "CACHE_PASSWORD": password, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
        env["GITHUB_ACTIONS"] = "true"
        done = project.run("deploy", "prod", "2.0", **env)
        server.shutdown()
    assert done.returncode == 3, done.stderr
    assert "redis: redis://127.0.0.1:" in done.stderr
    told = [done.stdout, done.stderr, (tmp_path / "summary.md").read_text()]
    told += [project.run(*words, "--output", "json").stdout for words in (("events", "prod-1"), ("logs", "prod-1"))]
    told += [project.run("show", "prod-1").stdout]
    for text in told:
        assert "pass-0123" not in text
    store = b"".join(path.read_bytes() for path in (project.folder / ".surefoot").rglob("*") if path.is_file())
    assert b"pass-0123" not in store


def test_deployment_whose_preflight_fails_touches_nothing(project: Project, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    summary = tmp_path / "summary.md"
    done = project.run("deploy", "prod", "2.0", TOKEN=SECRET, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 3, done.stderr
    assert not (tmp_path / "touched").exists()
    shown = project.json("show", "prod-1")
    assert (shown["status"], shown["reason"]["code"]) == ("failed", "SF-PREFLIGHT-FAILED")
    page = summary.read_text()
    assert "| ❌ | maybe |" in page
    assert "| ✅ | the token |" in page
    assert "preflight fail: maybe" in project.run("logs", "prod-1").stdout
    events = [json.loads(line) for line in project.run("events", "prod-1", "--output", "json").stdout.splitlines()]
    (data,) = [event["data"] for event in events if event["type"] == "preflight_failed"]
    assert [check["status"] for check in data["checks"]] == ["pass", "pass", "pass", "fail"]
    assert SECRET not in page + done.stderr + json.dumps(events)


def test_deployment_whose_preflight_passes_goes_on(project: Project, tmp_path: Path) -> None:
    done = project.run("deploy", "prod", "2.0", TOKEN=SECRET)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "touched").exists()


def test_terminated_preflight_leaves_no_process(project: Project, tmp_path: Path) -> None:
    text = project.config.read_text()
    project.config.write_text(text.replace('"! test -e', '"touch ROOT/began; sleep 7312; test -e').replace("2s", "60s"))
    project.config.write_text(project.config.read_text().replace("ROOT", str(tmp_path)))
    process = project.start("preflight", "prod", "2.0", TOKEN=SECRET)
    end = time.monotonic() + DEADLINE
    while not (tmp_path / "began").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.terminate()
    process.communicate(timeout=DEADLINE)
    assert process.returncode != 0
    assert subprocess.run(["pgrep", "-f", "sleep 731[2]"], capture_output=True).stdout == b""


def test_preflight_under_nohup_outlives_its_terminal(project: Project, tmp_path: Path) -> None:
    text = project.config.read_text()
    project.config.write_text(text.replace(f'"! test -e {tmp_path}/broken"', f'"touch {tmp_path}/began; sleep 1"'))
    call = ["env", "--ignore-signal=HUP", sys.executable, "-m", "surefoot", "preflight", "prod", "2.0"]
    process = subprocess.Popen(call, cwd=project.folder, env={**project.env, "TOKEN": SECRET})
    eventually((tmp_path / "began").exists)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=DEADLINE) == 0


@pytest.mark.parametrize(("call", "code"), [(("nowhere", "2.0"), 7), (("prod", "; rm"), 2), ((), 2)])
def test_call_that_can_not_be_right_is_refused(project: Project, call: tuple[str, ...], code: int) -> None:
    assert project.run("preflight", *call, TOKEN=SECRET).returncode == code
