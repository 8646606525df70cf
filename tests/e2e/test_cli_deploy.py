# SPDX-License-Identifier: Apache-2.0
"""The command line as people and CI jobs use it: real processes, a real SQLite store, real steps."""

from __future__ import annotations

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from surefoot.store.sqlite import BUSY_SECONDS
from tests.support.forked import Surefoot

CONFIG = """\
project: shop
environments:
  prod:
    steps:
      - name: stage
        run: |
          echo "staging $SUREFOOT_VERSION"; sleep 0.4
          test "$SUREFOOT_VERSION" != broken
      - name: activate
        run: |
          echo "$SUREFOOT_VERSION" > ../live
          case "$SUREFOOT_VERSION" in slow*) touch ../slow; sleep 60;; bad*) exit 3;; esac
        undo: {run: 'test ! -e ../stuck && echo "$SUREFOOT_PREVIOUS_VERSION" > ../live'}
    retry: {attempts: 1, delay: 0s, timeout: 50s}
"""
DEADLINE = 60


class Project:
    """A project in a temporary folder, and the processes that were started in it."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "project"
        self.folder.mkdir()
        self.live = root / "live"
        self.config = self.folder / "surefoot.yml"
        # Steps run in a copy of the folder: what they tell the tests goes by absolute paths.
        self.config.write_text(CONFIG.replace("../", f"{root}/"))
        hidden = ("SUREFOOT_", "GITHUB_", "GITLAB_")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        process = Surefoot(
            args,
            cwd=self.folder,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*args, **env)
        out, err = process.communicate(timeout=DEADLINE)
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def json(self, *args: str) -> Any:
        done = self.run(*args, "--output", "json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def status_of(self, deployment: str) -> str:
        return str(self.json("show", deployment)["status"])

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=DEADLINE)
        for agent in self.json("agents")["agents"] if (self.folder / ".surefoot" / "surefoot.db").exists() else ():
            if agent["status"] != "offline" and agent["name"].endswith("-background"):
                self._end(agent["name"])

    @staticmethod
    def _end(name: str) -> None:
        """End a background agent by the process that bears its name as an argument."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if name.encode() in arguments:
                os.kill(int(entry.name), signal.SIGTERM)


def eventually(holds: Callable[[], bool], within: float = DEADLINE) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.1)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    yield made
    made.close()


def test_a_deploy_ends_with_0_and_one_sentence_on_stdout(project: Project) -> None:
    done = project.run("deploy", "prod", "1.0", "--reason", "first")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("prod-1 prod 1.0: succeeded after ")
    assert "staging 1.0" in done.stderr, "what a step prints is progress"
    assert project.live.read_text() == "1.0\n"
    shown = project.json("show", "prod-1")
    assert [step["status"] for step in shown["steps"]] == ["succeeded", "succeeded"]
    (row,) = project.json("status")["environments"]
    assert (row["name"], row["current_version"], row["running"], row["queue"]) == ("prod", "1.0", None, [])


def test_a_deploy_whose_warnings_are_errors_says_what_it_says_without(project: Project) -> None:
    done = project.run("deploy", "prod", "1.0", PYTHONWARNINGS="error")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_json_is_all_that_stdout_takes(project: Project) -> None:
    shown = project.json("deploy", "prod", "1.0")
    assert (shown["id"], shown["status"], len(shown["steps"])) == ("prod-1", "succeeded", 2)
    events = [json.loads(line) for line in project.run("events", "prod-1", "--output", "json").stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "accepted" and events[-1]["type"] == "finished"
    logs = [json.loads(line) for line in project.run("--output", "json", "logs", "prod-1").stdout.splitlines()]
    assert "staging 1.0" in [line["text"] for line in logs]


def test_what_failed_is_put_back_and_ends_with_4(project: Project) -> None:
    project.run("deploy", "prod", "1.0")
    done = project.run("deploy", "prod", "bad-2")
    assert done.returncode == 4
    assert "error[SF-STEP-FAILED]:" in done.stderr and "\nhint: " in done.stderr
    assert project.live.read_text() == "1.0\n"


def test_what_cannot_be_put_back_is_stranded_locked_and_resolved_by_a_person(project: Project) -> None:
    project.run("deploy", "prod", "1.0")
    (project.live.parent / "stuck").touch()
    done = project.run("deploy", "prod", "bad-2")
    assert done.returncode == 5
    assert "surefoot resolve prod-2 --reason TEXT" in done.stderr
    refused = project.run("deploy", "prod", "1.1")
    assert refused.returncode == 3 and "error[SF-LOCKED]:" in refused.stderr
    assert project.run("resolve", "prod-2").returncode == 2, "a reason is required"
    resolved = project.run("resolve", "prod-2", "--reason", "by hand", "--unchecked", "--version", "1.0")
    assert resolved.returncode == 0, resolved.stderr
    assert project.run("resolve", "prod-2", "--reason", "again").returncode == 7
    assert project.run("deploy", "prod", "1.2").returncode == 0


def test_a_resolution_is_checked_by_an_agent_of_its_own(project: Project) -> None:
    project.run("deploy", "prod", "1.0")
    (project.live.parent / "stuck").touch()
    project.run("deploy", "prod", "bad-2")
    resolved = project.run("resolve", "prod-2", "--reason", "by hand", "--version", "1.0")
    assert resolved.returncode == 0, resolved.stderr
    assert project.json("status", "prod")["environments"][0]["locked_by"] is None


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_following_cancels_and_follows_to_the_safe_end(project: Project, name: signal.Signals) -> None:
    project.run("deploy", "prod", "1.0")
    process = project.start("deploy", "prod", "slow-2")
    eventually((project.live.parent / "slow").exists)
    for _ in range(3):  # a person who presses it again means the same
        process.send_signal(name)
        time.sleep(0.05)
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 6, err
    assert out.startswith("prod-2 prod slow-2: cancelled")
    assert name.name in err
    assert project.live.read_text() == "1.0\n"


def test_a_closed_terminal_or_pipe_ends_neither_the_follower_nor_the_deployment(project: Project) -> None:
    process = project.start("deploy", "prod", "1.0")
    assert process.stderr is not None and process.stdout is not None
    process.stderr.close()
    process.stdout.close()
    assert process.wait(timeout=DEADLINE) == 0
    assert project.status_of("prod-1") == "succeeded"


def test_cancel_from_elsewhere_is_safe_and_repeatable(project: Project) -> None:
    project.run("deploy", "prod", "1.0")
    process = project.start("deploy", "prod", "slow-2")
    eventually((project.live.parent / "slow").exists)
    assert project.run("cancel", "prod-2", "--reason", "wrong branch").returncode == 0
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 6
    assert project.run("cancel", "prod-2").returncode == 0, "asked again, it does no harm"
    late = project.run("cancel", "prod-1")
    assert late.returncode == 7 and "error[SF-NOT-ALLOWED]:" in late.stderr


def test_a_follower_that_is_killed_leaves_a_deployment_that_the_next_deploy_ends(project: Project) -> None:
    project.run("deploy", "prod", "1.0")
    process = project.start("deploy", "prod", "slow-2")
    eventually((project.live.parent / "slow").exists)
    process.kill()
    process.communicate(timeout=DEADLINE)
    project.run("cancel", "prod-2")
    assert project.run("deploy", "prod", "1.3").returncode == 0
    assert project.status_of("prod-2") == "cancelled"
    assert project.live.read_text() == "1.3\n"


def test_detach_ends_once_accepted_and_the_deployment_goes_on_in_the_background(project: Project) -> None:
    done = project.run("deploy", "prod", "1.0", "--detach")
    assert (done.returncode, done.stdout) == (0, "prod-1\n")
    eventually(lambda: project.status_of("prod-1") == "succeeded")


def test_a_timeout_ends_the_waiting_alone(project: Project) -> None:
    done = project.run("deploy", "prod", "slow-1", "--timeout", "2s")
    assert done.returncode == 8
    assert "error[SF-TIMED-OUT]:" in done.stderr
    assert project.status_of("prod-1") == "running"
    assert project.run("cancel", "prod-1").returncode == 0
    eventually(lambda: project.status_of("prod-1") == "cancelled")


def test_a_cancel_is_done_though_whoever_followed_is_gone(project: Project) -> None:
    process = project.start("deploy", "prod", "slow-1")
    eventually((project.live.parent / "slow").exists)
    process.kill()
    process.communicate()
    assert project.run("cancel", "prod-1").returncode == 0
    eventually(lambda: project.status_of("prod-1") == "cancelled")


@pytest.fixture
def queued_behind(project: Project) -> Project:
    """prod-2 is stranded, prod-3 waits behind it, and no agent is left."""
    assert project.run("deploy", "prod", "1.0").returncode == 0
    stuck = project.live.parent / "stuck"
    stuck.touch()
    behind = project.start("deploy", "prod", "slow-bad", "--detach")
    behind.communicate(timeout=DEADLINE)
    eventually((project.live.parent / "slow").exists)
    assert project.run("deploy", "prod", "3.0", "--detach").returncode == 0
    project.run("cancel", "prod-2")
    eventually(lambda: project.status_of("prod-2") == "stranded")
    eventually(lambda: not any(a["status"] != "offline" for a in project.json("agents")["agents"]))
    stuck.unlink()
    project.live.write_text("1.0\n")
    return project


@pytest.mark.parametrize("unchecked", [(), ("--unchecked",)])
def test_what_waits_behind_a_stranded_one_goes_on_when_it_is_resolved(
    queued_behind: Project, unchecked: tuple[str]
) -> None:
    done = queued_behind.run("resolve", "prod-2", "--reason", "by hand", *unchecked)
    assert done.returncode == 0, done.stderr
    eventually(lambda: queued_behind.status_of("prod-3") == "succeeded")


def test_what_is_resolved_by_hand_is_resolved_though_the_config_is_broken(queued_behind: Project) -> None:
    queued_behind.config.write_text(queued_behind.config.read_text().replace("retry:", "retryy:"))
    done = queued_behind.run("resolve", "prod-2", "--reason", "by hand", "--unchecked")
    assert done.returncode == 0, done.stderr


def test_a_signal_may_mean_detach(project: Project) -> None:
    process = project.start("deploy", "prod", "slow-1", "--on-interrupt", "detach")
    eventually((project.live.parent / "slow").exists)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 8 and "prod-1 goes on" in err
    assert project.status_of("prod-1") == "running"
    project.run("cancel", "prod-1")
    eventually(lambda: project.status_of("prod-1") == "cancelled")


def test_the_same_key_is_the_same_deployment(project: Project) -> None:
    first = project.json("deploy", "prod", "1.0", "--key", "build-7")
    second = project.json("deploy", "prod", "1.0", "--key", "build-7")
    assert first["id"] == second["id"] == "prod-1"
    assert len(project.json("history", "prod")["deployments"]) == 1


def test_a_rollback_brings_back_the_version_before_even_if_the_config_is_broken_now(project: Project) -> None:
    nowhere = project.run("rollback", "prod")
    assert nowhere.returncode == 7 and "error[SF-NO-EARLIER-VERSION]:" in nowhere.stderr
    for version in ("1.0", "2.0", "3.0"):
        assert project.run("deploy", "prod", version).returncode == 0
    project.config.write_text(project.config.read_text().replace("retry:", "retryy:"))
    assert project.run("check").returncode == 2
    done = project.run("rollback", "prod")
    assert done.returncode == 0, done.stderr
    assert project.live.read_text() == "2.0\n"
    assert project.run("rollback", "prod", "--to", "1.0").returncode == 0
    assert project.live.read_text() == "1.0\n"
    assert project.run("rollback", "prod", "--to", "9.9").returncode == 7


def test_agents_of_the_config_do_the_work_and_a_deploy_without_any_says_so(project: Project) -> None:
    project.config.write_text(project.config.read_text() + "agents: {runner-1: {role: primary}}\n")
    process = project.start("deploy", "prod", "1.0")
    eventually(lambda: bool(project.json("history", "prod")["deployments"]))
    agent = project.start("agent", "run", "runner-1")
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    assert "warning: no agent is online" in err and "hint: surefoot agent run runner-1" in err
    assert project.json("show", "prod-1")["agent"] == "runner-1"
    (row,) = project.json("agents")["agents"]
    assert (row["name"], row["role"], row["status"]) == ("runner-1", "primary", "online")
    assert project.run("agent", "drain", "runner-1").returncode == 0
    eventually(lambda: project.json("agents")["agents"][0]["status"] == "draining")
    assert project.run("agent", "undrain", "runner-1").returncode == 0
    agent.send_signal(signal.SIGTERM)
    agent.communicate(timeout=DEADLINE)
    assert agent.returncode == 0


def test_an_agent_that_the_config_does_not_name_runs_only_in_an_emergency(project: Project) -> None:
    project.config.write_text(project.config.read_text() + "agents: {runner-1: {role: primary}}\n")
    refused = project.run("agent", "run", "runner-2")
    assert refused.returncode == 7 and "error[SF-AGENT-UNKNOWN]:" in refused.stderr and "runner-1" in refused.stderr
    assert project.run("agent", "run", "runner-2", "--role", "emergency", "--once").returncode == 0


@pytest.mark.parametrize("version", ["", "1\n2", "../x", "x" * 10240, 'a"b', "$(id)", "vérsion", "-rf"])
def test_a_version_that_could_do_harm_is_refused_before_anything_is_accepted(project: Project, version: str) -> None:
    done = project.run("deploy", "prod", "--", version)
    assert done.returncode == 2
    assert done.stderr.startswith("error[SF-VERSION-INVALID]: ") and "\nhint: " in done.stderr
    assert not (project.folder / ".surefoot").exists()


def test_actions_get_groups_and_annotations(project: Project) -> None:
    done = project.run("deploy", "prod", "broken", GITHUB_ACTIONS="true", GITHUB_ACTOR="octocat")
    lines = done.stderr.splitlines()
    assert "::group::step stage started" in lines and "::endgroup::" in lines
    assert any(line.startswith("::error title=SF-STEP-FAILED::") for line in lines)
    assert project.json("show", "prod-1")["requested_by"] == "octocat"


def test_a_terminal_gets_the_live_view_and_its_hangup_is_a_cancel(project: Project) -> None:
    project.run("deploy", "prod", "1.0")
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", sys.executable, "-m", "surefoot", "deploy", "prod", "slow-2"],
        cwd=project.folder,
        env={**project.env, "TERM": "xterm-256color", "COLUMNS": "100"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    try:
        shown = b""
        while b"\xe2\x96\xb8" not in shown or b"activate" not in shown:  # the mark of a step that runs
            shown += os.read(screen, 65536)
        eventually((project.live.parent / "slow").exists)
        os.close(screen)  # the terminal is gone: SIGHUP, and every write fails from now on
        eventually(lambda: project.status_of("prod-2") == "cancelled")
        assert process.wait(timeout=DEADLINE) == 6
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert b"1.0" in shown and b"stage" in shown


@pytest.mark.parametrize(("wait", "codes"), [((), (6,)), (("--timeout", "10s"), (6, 8))], ids=["", "timeout"])
def test_a_cancel_is_tried_until_the_store_takes_it(
    project: Project, wait: tuple[str, ...], codes: tuple[int, ...]
) -> None:
    """Also where the time to wait is over while the store takes nothing: the signal came in time."""
    project.config.write_text(project.config.read_text() + "agents: {runner-1: {role: primary}}\n")
    over = time.monotonic() + 13 if wait else 0.0
    process = project.start("deploy", "prod", "1.0", *wait)
    eventually(lambda: bool(project.json("history", "prod")["deployments"]))
    database = project.folder / ".surefoot" / "surefoot.db"
    with sqlite3.connect(database, isolation_level=None) as lock:
        lock.execute("BEGIN IMMEDIATE")
        process.send_signal(signal.SIGTERM)
        time.sleep(max(BUSY_SECONDS + 1, over - time.monotonic()))
        assert process.poll() is None, "neither the signal nor the store ends it"
        lock.execute("ROLLBACK")
    lock.close()
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode in codes, err
    assert "the cancel is not written yet" in err
    assert project.status_of("prod-1") == "cancelled"


def test_agents_that_deploys_ran_by_themselves_are_forgotten_the_killed_ones_too(project: Project) -> None:
    killed = project.start("deploy", "prod", "slow")
    eventually((project.live.parent / "slow").exists)
    killed.kill()
    killed.communicate()
    (project.live.parent / "slow").unlink()
    follower = project.start("deploy", "prod", "2.0")
    eventually((project.live.parent / "slow").exists)  # it runs again what the killed one ran
    project.run("cancel", "prod-1")
    follower.communicate(timeout=DEADLINE)
    assert follower.returncode == 0
    assert project.json("agents") == {"agents": []}
    assert list((project.folder / ".surefoot" / "surefoot.db.presence").iterdir()) == []
