# SPDX-License-Identifier: Apache-2.0
"""The Ansible collection is what ansible-lint asks of one that is fit for production, and says what its roles take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ROLES = sorted(path.name for path in (ROOT / "ansible" / "roles").iterdir())


def test_it_passes_ansible_lint_with_the_production_profile(tmp_path: Path) -> None:
    environ = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "ANSIBLE_HOME": str(tmp_path), "NO_COLOR": "1"}
    command = [str(BIN / "ansible-lint"), "--offline", "--profile", "production", "-q"]
    done = subprocess.run(command, cwd=ROOT / "ansible", capture_output=True, text=True, timeout=300, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("role", ROLES)
def test_every_default_of_a_role_is_among_its_arguments(role: str) -> None:
    folder = ROOT / "ansible" / "roles" / role
    defaults = yaml.safe_load((folder / "defaults" / "main.yml").read_text())
    specs = yaml.safe_load((folder / "meta" / "argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]
    assert set(defaults) == set(options)
    for name, option in options.items():
        assert option["description"].endswith("."), name
        if "default" in option:
            assert option["default"] == defaults[name], name
