# SPDX-License-Identifier: Apache-2.0
"""What `surefoot init` writes works as it stands, and writes over nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from surefoot.checks.registry import KINDS
from surefoot.config.freeze import freeze
from surefoot.config.loading import load
from surefoot.config.templates import templates, write_template
from surefoot.core.errors import Exit, UsageError
from surefoot.core.plan import Command, Plan


def plan_of(folder: Path, environment: str = "production") -> Plan:
    return freeze(load(folder / "surefoot.yml", kinds=KINDS, environ={}), environment)


def test_the_default_comes_first_and_is_the_one_without_a_name(tmp_path: Path) -> None:
    assert templates() == ["default", "minimal", "paws360"]
    write_template(None, tmp_path)
    write_template("default", tmp_path / "named")
    assert (tmp_path / "surefoot.yml").read_text() == (tmp_path / "named" / "surefoot.yml").read_text()


@pytest.mark.parametrize("name", ["default", "minimal", "paws360"])
def test_each_template_passes_the_check_as_it_stands(tmp_path: Path, name: str) -> None:
    written = write_template(name, tmp_path)
    assert written[0] == tmp_path / "surefoot.yml"
    assert all(path.is_file() for path in written)
    plan = plan_of(tmp_path)
    assert plan.steps
    assert load(tmp_path / "surefoot.yml", kinds=KINDS, environ={}).environment("production").unsupported_gates == ()


def test_a_script_may_be_executed(tmp_path: Path) -> None:
    scripts = [path for path in write_template("default", tmp_path) if path.suffix == ".sh"]
    assert scripts
    assert all(os.access(path, os.X_OK) for path in scripts)


def test_the_default_project_deploys_and_goes_back_on_this_machine(tmp_path: Path) -> None:
    project = tmp_path / "project"
    write_template("default", project)
    plan = plan_of(project)
    current = tmp_path / "state" / "surefoot-example" / "current" / "index.html"

    def run(command: str, version: str, previous: str) -> int:
        environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
        environ |= {"SUREFOOT_VERSION": version, "SUREFOOT_PREVIOUS_VERSION": previous}
        return subprocess.run(["/bin/sh", "-c", command], cwd=project, env=environ, timeout=30, check=False).returncode

    def deploy(version: str, previous: str) -> None:
        for step in plan.steps:
            assert isinstance(step.work, Command)
            for _ in range(2):  # a step must be safe to run again
                assert run(step.work.run, version, previous) == 0

    undo = plan.steps[1].undo
    assert isinstance(undo, Command)
    healthy = plan.health[0].options["run"]

    assert run(healthy, "1.0", "") != 0
    deploy("1.0", "")
    assert run(healthy, "1.0", "") == 0
    deploy("release/2.0", "1.0")
    assert "release/2.0" in current.read_text()
    assert run(undo.run, "release/2.0", "1.0") == 0
    assert "1.0" in current.read_text()
    assert run(undo.run, "1.0", "") == 0
    assert not current.exists()


def play(project: Path, root: Path, version: str, previous: str, *playbooks: str) -> str:
    """Run playbooks on this machine as its only host; return the recap."""
    variables = {
        "surefoot_version": version,
        "surefoot_previous_version": previous,
        "paws360_root": str(root),
        "paws360_restart": f"cp {root}/current/VERSION {root}/restarted",
        "ansible_connection": "local",
        "ansible_become": "false",
        "ansible_python_interpreter": sys.executable,
    }
    inventory = project / "inventories" / "here.ini"
    inventory.write_text("[web]\nhere\n")
    arguments = [part for key, value in variables.items() for part in ("-e", f"{key}='{value}'")]
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            "-i",
            inventory,
            *arguments,
            *(f"playbooks/{name}.yml" for name in playbooks),
        ],
        cwd=project,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(project / ".ansible")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.rpartition("PLAY RECAP")[2]


def test_the_paws360_playbooks_deploy_change_nothing_twice_and_go_back(tmp_path: Path) -> None:
    project, root = tmp_path / "project", tmp_path / "host"
    root.mkdir()
    write_template("paws360", project)

    play(project, root, "1.0", "", "stage", "activate")
    assert (root / "restarted").read_text() == "1.0\n"
    again = play(project, root, "1.0", "", "stage", "activate")
    assert "changed=0" in again

    # An attempt that was cut off between the switch and the restart is made good by the next.
    (root / "current").unlink()
    (root / "current").symlink_to("releases/2.0")
    play(project, root, "2.0", "1.0", "stage", "activate")
    assert (root / "restarted").read_text() == "2.0\n"

    play(project, root, "2.0", "1.0", "rollback-production")
    assert (root / "restarted").read_text() == "1.0\n"
    play(project, root, "1.0", "", "rollback-production")
    assert not (root / "current").exists()


def test_nothing_that_exists_is_overwritten_and_then_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "build.sh").write_text("mine")
    with pytest.raises(UsageError, match=r"scripts/build\.sh exists") as caught:
        write_template("default", tmp_path)
    assert caught.value.exit_code is Exit.USAGE
    assert (tmp_path / "scripts" / "build.sh").read_text() == "mine"
    assert not (tmp_path / "surefoot.yml").exists()


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "surefoot.yml").symlink_to(tmp_path / "elsewhere.yml")
    with pytest.raises(UsageError):
        write_template("minimal", tmp_path)
    assert not (tmp_path / "elsewhere.yml").exists()


def test_an_unknown_template_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'minimal'") as caught:
        write_template("minimall", tmp_path)
    assert "paws360" in caught.value.hint


def test_a_folder_that_can_not_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "scripts").write_text("a file where a folder is needed")
    with pytest.raises(UsageError, match="can't be written"):
        write_template("default", tmp_path)
    assert not (tmp_path / "surefoot.yml").exists()
