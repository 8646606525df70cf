# SPDX-License-Identifier: Apache-2.0
"""Agents of commands, where the config names none, side by side: none waits for another that will never do the work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from surefoot.cli.app import SILENT
from surefoot.core.errors import Exit
from tests.e2e.test_cli_deploy import DEADLINE, Project, eventually
from tests.support.forked import Surefoot

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


CONTAINER = "import os, socket; os.getpid, socket.gethostname = lambda: 7, lambda: 'ci'"


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


def kill_one_at_work(project: Project) -> None:
    """Leave other-1 half done."""
    deploy = project.start("deploy", "other", "1.0")
    eventually((project.live.parent / "begun").exists)
    deploy.kill()


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
    kill_one_at_work(project)
    eventually(lambda: project.json("show", "other-1")["takeovers"] == 1)
    assert project.run("cancel", "asked-1").returncode == Exit.DONE
    assert waiting.wait(DEADLINE) == Exit.CANCELLED
    (project.live.parent / "go").touch()
    eventually(lambda: project.status_of("other-1") == "succeeded")


def test_what_is_approved_does_not_wait_for_what_its_own_agent_goes_on_with(
    project: Project, waiting: subprocess.Popen[str]
) -> None:
    kill_one_at_work(project)
    eventually(lambda: project.json("show", "other-1")["takeovers"] == 1)
    assert project.run("approve", "asked-1", USER="somebody-else").returncode == Exit.DONE
    assert waiting.wait(DEADLINE) == Exit.DONE
    assert project.status_of("other-1") == "running"
    (project.live.parent / "go").touch()
    eventually(lambda: project.status_of("other-1") == "succeeded")


def test_what_is_approved_does_not_wait_for_what_an_agent_in_the_background_does(project: Project) -> None:
    assert project.run("deploy", "asked", "1.0", "--detach").returncode == Exit.DONE
    log = project.folder / ".surefoot" / "background.log"
    eventually(lambda: "has ended" in log.read_text())
    assert project.run("deploy", "other", "1.0", "--detach").returncode == Exit.DONE
    eventually((project.live.parent / "begun").exists)
    assert project.run("approve", "asked-1", USER="somebody-else").returncode == Exit.DONE
    eventually(lambda: project.status_of("asked-1") == "succeeded")
    assert project.status_of("other-1") == "running"


def test_no_more_agents_work_in_the_background_than_there_are_environments_to_do(project: Project) -> None:
    commands = [project.start("deploy", "other", str(version), "--detach") for version in range(6)]
    assert [command.wait(DEADLINE) for command in commands] == [Exit.DONE] * 6
    log = project.folder / ".surefoot" / "background.log"
    eventually(lambda: log.read_text().count("has ended") == 5)
    (project.live.parent / "go").touch()
    eventually(lambda: project.json("history", "other")["deployments"][0]["status"] == "succeeded")
    eventually(lambda: log.read_text().count("has ended") == 6)
    statuses = [deployment["status"] for deployment in project.json("history", "other")["deployments"]]
    assert statuses == ["succeeded"] * 6


def test_a_deploy_that_is_killed_is_finished_in_the_background_beside_another_that_waits(
    project: Project, waiting: subprocess.Popen[str]
) -> None:
    kill_one_at_work(project)
    (project.live.parent / "go").touch()
    assert project.run("cancel", "other-1").returncode == Exit.DONE
    eventually(lambda: project.status_of("other-1") == "cancelled")
    assert waiting.poll() is None
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(30) == Exit.CANCELLED


def test_what_a_killed_deploy_has_not_begun_is_left_to_the_background_by_the_next_command(
    project: Project, busy: subprocess.Popen[str]
) -> None:
    queued = project.start("deploy", "other", "2.0")
    eventually(lambda: sum(a["status"] == "online" for a in project.json("agents")["agents"]) == 2)
    queued.kill()
    queued.wait()
    eventually(lambda: accepted_long_ago(project, "other-2"))
    (project.live.parent / "go").touch()
    assert busy.wait(DEADLINE) == Exit.DONE
    eventually(lambda: project.status_of("other-2") == "succeeded")


def test_so_it_is_by_one_that_goes_on_itself(project: Project, waiting: subprocess.Popen[str]) -> None:
    deploy = project.start("deploy", "prod", "1.0", "--at", "6s")
    eventually(lambda: sum(a["status"] == "online" for a in project.json("agents")["agents"]) == 2)
    deploy.kill()
    deploy.wait()
    eventually(lambda: accepted_long_ago(project, "prod-1"))
    other = project.start("deploy", "asked", "2.0")
    eventually(lambda: project.status_of("prod-1") == "succeeded")
    assert (waiting.poll(), other.poll()) == (None, None)


def accepted_long_ago(project: Project, deployment: str) -> bool:
    """Whether nobody need be about to see to it any more."""
    asked = datetime.fromisoformat(project.json("show", deployment)["requested_at"])
    return (datetime.now(UTC) - asked).total_seconds() > SILENT


def test_a_freeze_that_has_an_end_has_somebody_there_when_it_ends(project: Project) -> None:
    assert project.run("freeze", "prod", "--reason", "audit").returncode == Exit.DONE
    assert project.run("deploy", "prod", "1.0", "--detach", "--when-open").returncode == Exit.DONE
    log = project.folder / ".surefoot" / "background.log"
    eventually(lambda: log.read_text().rstrip().endswith("has ended"))
    assert project.run("freeze", "prod", "--reason", "audit", "--until", "2s").returncode == Exit.DONE
    eventually(lambda: project.status_of("prod-1") == "succeeded")


def test_commands_of_containers_with_one_host_name_and_the_same_processes_work_side_by_side(project: Project) -> None:
    def in_a_container(*args: str) -> subprocess.Popen[str]:
        process = Surefoot(
            args, first=CONTAINER, cwd=project.folder, env=project.env, text=True, stderr=subprocess.PIPE
        )
        project.started.append(process)
        return process

    first = in_a_container("deploy", "other", "1.0")
    eventually((project.live.parent / "begun").exists)
    second = in_a_container("deploy", "prod", "1.0")
    assert second.wait(DEADLINE) == Exit.DONE
    (project.live.parent / "go").touch()
    assert first.wait(DEADLINE) == Exit.DONE
    ran = {project.json("show", deployment)["agent"] for deployment in ("other-1", "prod-1")}
    assert len(ran) == 2 and all(name.startswith("ci-7-") for name in ran)


def test_an_agent_in_the_background_finds_what_is_named_relative_to_this_folder(project: Project) -> None:
    """Certificates in the store's URL, $PGPASSFILE, $PYTHONPATH."""
    seen, beside = project.folder.parent / "seen", project.folder / "beside"
    beside.mkdir()
    (beside / "sitecustomize.py").write_text(
        f"import sys\nif '--once' in sys.orig_argv:\n    open({str(seen)!r}, 'w')\n"
    )
    path = os.pathsep.join(["beside", *filter(None, [os.environ.get("PYTHONPATH")])])
    assert project.run("deploy", "prod", "1.0", "--detach", PYTHONPATH=path).returncode == Exit.DONE
    eventually(lambda: project.status_of("prod-1") == "succeeded")
    assert seen.exists()


def test_nor_does_it_take_a_file_of_the_project_for_a_module(project: Project) -> None:
    (project.folder / "surefoot.py").write_text("raise SystemExit(9)")
    assert project.run("deploy", "prod", "1.0", "--detach").returncode == Exit.DONE
    eventually(lambda: project.status_of("prod-1") == "succeeded")


WARNING = "warning: the agent in the background, which is to do what is left, ends with this "


def test_who_leaves_something_to_a_process_that_will_be_ended_is_told(project: Project) -> None:
    as_service = ["sh", "-c", 'SYSTEMD_EXEC_PID=$$ exec "$@"', "sh", sys.executable, "-m", "surefoot"]
    options = {"cwd": project.folder, "env": project.env, "capture_output": True, "text": True, "timeout": DEADLINE}
    done = subprocess.run([*as_service, "deploy", "prod", "1.0", "--detach"], check=True, **options)  # type: ignore[call-overload]
    assert f"{WARNING}unit of systemd" in done.stderr
    eventually(lambda: project.status_of("prod-1") == "succeeded")
    assert "warning" not in project.run("deploy", "prod", "2.0", "--detach").stderr
    eventually(lambda: project.status_of("prod-2") == "succeeded")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a namespace of processes")
def test_what_a_container_took_with_it_is_done_by_the_next_command(project: Project) -> None:
    container = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "surefoot"]
    options = {"cwd": project.folder, "env": project.env, "capture_output": True, "text": True, "timeout": DEADLINE}
    done = subprocess.run([*container, "deploy", "prod", "1.0", "--detach"], check=True, **options)  # type: ignore[call-overload]
    assert f"{WARNING}container" in done.stderr
    assert project.run("deploy", "prod", "2.0").returncode == Exit.DONE
    assert project.status_of("prod-1") == "succeeded"


def test_nobody_is_told_to_start_an_agent_where_deploy_runs_its_own(project: Project) -> None:
    assert project.run("agents").stdout == "No agent is at work. The config names none: deploy runs its own.\n"
