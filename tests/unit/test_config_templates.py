# SPDX-License-Identifier: Apache-2.0
"""What `surefoot init` writes works as it stands, and writes over nothing."""

from __future__ import annotations

import os
import subprocess
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
    assert templates() == ["default", "ansible", "minimal", "paws360"]
    write_template(None, tmp_path)
    write_template("default", tmp_path / "named")
    assert (tmp_path / "surefoot.yml").read_text() == (tmp_path / "named" / "surefoot.yml").read_text()


@pytest.mark.parametrize("name", ["default", "ansible", "minimal", "paws360"])
def test_each_template_passes_the_check_as_it_stands(tmp_path: Path, name: str) -> None:
    written = write_template(name, tmp_path)
    assert written[0] == tmp_path / "surefoot.yml"
    assert all(path.is_file() for path in written)
    plan = plan_of(tmp_path)
    assert plan.steps


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


def test_the_paws360_template_is_the_worked_example_and_nothing_beside_it(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "paws360"
    written = {path.relative_to(tmp_path) for path in write_template("paws360", tmp_path)}
    shipped = {path.relative_to(example) for path in example.rglob("*") if path.is_file()}
    assert written == {path for path in shipped if "__pycache__" not in path.parts}
    assert Path("surefoot.yml") in written and Path(".github/workflows/ci.yml") in written


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
