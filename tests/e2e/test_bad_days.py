# SPDX-License-Identifier: Apache-2.0
"""What goes wrong around a deployment, as people meet it: each is said in a sentence, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_cli_deploy import DEADLINE, Project, eventually

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    one = Project(tmp_path)
    yield one
    one.close()


def test_a_secret_that_is_too_short_to_be_kept_out_of_output_is_warned_of(project: Project) -> None:
    project.config.write_text(project.config.read_text() + "secrets: [PIN]\n")
    assert project.run("deploy", "prod", "1.0", PIN="12").returncode == 0
    assert "the secret PIN is shorter than 4 characters" in project.run("logs", "prod-1").stdout


def test_what_is_no_file_is_not_deployed_and_that_is_said(project: Project) -> None:
    os.mkfifo(project.folder / "pipe")
    done = project.run("deploy", "prod", "1.0")
    assert done.returncode == 0
    assert "not deployed, because they are no files: pipe" in done.stderr


def test_a_full_disk_on_the_agent_is_a_failure_that_says_so(project: Project) -> None:
    (project.folder / "large").write_bytes(os.urandom(3_000_000))
    state = project.folder / ".surefoot"
    state.mkdir()
    store = f"{project.folder.parent}/elsewhere.db"
    deploy = f"{sys.executable} -m surefoot --store {store} deploy prod 1"
    inside = f"mount -t tmpfs -o size=1m tmpfs {state} && exec {deploy}"
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: a full disk on the agent; run as root")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inside],
        cwd=project.folder,
        env=project.env,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 3, done.stderr
    assert "could not begin" in done.stderr and "No space left on device" in done.stderr
    assert "hint: " in done.stderr
    assert project.json("show", "prod-1", "--store", store)["status"] == "failed", "nothing was touched"


@pytest.mark.skipif(FAKETIME is None, reason="NOT TESTED: clocks that jump; install faketime")
def test_clocks_that_jump_an_hour_either_way_change_nothing(project: Project, tmp_path: Path) -> None:
    """The wall clock of everything (agent, store, steps) jumps while a step waits for its second attempt."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    project.config.write_text(
        f"""\
project: shop
environments:
  prod:
    steps:
      - name: flaky
        run: |
          case $SUREFOOT_ATTEMPT in 1) echo -3600 > {clock}; exit 1;; 2) echo +7200 > {clock}; exit 1;; esac
    retry: {{attempts: 3, delay: 2s, timeout: 50s}}
"""
    )
    env = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    began = time.monotonic()
    # libfaketime 0.9.10 refuses the absolute sleeps of Python's time.sleep.
    program = (
        "import runpy, select, time; time.sleep = lambda s: select.select([], [], [], s); "
        "runpy.run_module('surefoot', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "deploy", "prod", "1.0"],
        cwd=project.folder,
        env={**project.env, **env},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    took = time.monotonic() - began
    assert took >= 3.0, "both delays were waited for"
    entries = [json.loads(line) for line in project.run("events", "prod-1", "--output", "json").stdout.splitlines()]
    hours = [entry["at"][11:13] for entry in entries]
    assert len(set(hours)) >= 3, "the clocks did jump"


def test_the_name_of_an_agent_that_lives_is_refused_to_a_second_one(project: Project) -> None:
    folder = project.live.parent
    project.config.write_text(
        f"""\
project: shop
agents: {{runner: {{role: primary}}}}
lease: {{ttl: 1s}}
environments:
  prod:
    steps:
      - name: wait
        run: touch made {folder}/begun; while ! test -e {folder}/go; do sleep 0.1; done; test -e made
    retry: {{attempts: 1}}
"""
    )
    first = project.start("agent", "run", "runner")
    deploy = project.start("deploy", "prod", "1.0")
    eventually((folder / "begun").exists)
    second = project.run("agent", "run", "runner")
    assert second.returncode == 7
    assert "error[SF-AGENT-DUPLICATE]" in second.stderr
    assert "hint: give each agent a name of its own" in second.stderr
    (folder / "go").touch()
    assert deploy.wait(DEADLINE) == 0, "what the first one works on is not disturbed"
    assert first.poll() is None


def test_a_folder_that_somebody_has_tidied_away_is_made_anew_for_the_next_attempt(project: Project) -> None:
    project.config.write_text(
        """\
project: shop
environments:
  prod:
    steps:
      - name: only
        run: 'test "$SUREFOOT_ATTEMPT" != 1 || { rm -rf "$PWD"; exit 1; }; test -e surefoot.yml'
    retry: {attempts: 2, delay: 0s}
"""
    )
    done = project.run("deploy", "prod", "1.0")
    assert done.returncode == 0, done.stderr


def test_a_gigabyte_of_output_takes_no_gigabyte_of_memory(project: Project) -> None:
    """A part of it: what grows with the output would show."""
    project.config.write_text(
        """\
project: shop
environments:
  prod:
    steps:
      - name: chatty
        run: head -c 60000000 /dev/zero | tr '\\0' x | fold -w 100000
"""
    )
    argv = [sys.executable, "-m", "surefoot", "deploy", "prod", "1.0"]
    null = subprocess.DEVNULL
    deploy = subprocess.Popen(argv, cwd=project.folder, env=project.env, stdout=null, stderr=null)
    most = 0
    while deploy.poll() is None:
        most = max(most, _resident(deploy.pid))
        time.sleep(0.05)
    assert deploy.returncode == 0
    assert most < 300_000_000


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_an_agent_whose_folder_is_gone_for_a_while_says_so_and_works_when_it_is_back(project: Project) -> None:
    text = project.config.read_text()
    project.config.write_text("agents: {runner: {role: primary}}\nlease: {ttl: 1s}\n" + text)
    store, config = f"{project.folder.parent}/elsewhere.db", str(project.config)
    agent = project.start("agent", "run", "runner", "--store", store, "--config", config)

    def agent_is(status: str) -> Callable[[], bool]:
        def holds() -> bool:
            rows = json.loads(project.run("agents", "--store", store, "--output", "json", "--config", config).stdout)
            return any(row["status"] == status for row in rows["agents"])

        return holds

    eventually(agent_is("online"))
    state, away = project.folder / ".surefoot", project.folder.parent / "away"
    state.rename(away)
    eventually(agent_is("degraded"))
    away.rename(state)
    eventually(agent_is("online"))
    assert project.run("deploy", "prod", "1.0", "--store", store).returncode == 0
    assert agent.poll() is None
