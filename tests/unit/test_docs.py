# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows is as it says: each whole config in it is valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from surefoot.checks.registry import KINDS
from surefoot.config.loading import load

ROOT = Path(__file__).parents[2]
CONFIGS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in sorted((ROOT / "docs").glob("*.md"))
    for number, block in enumerate(re.findall(r"```yaml\n(project: .*?)```", page.read_text(), re.DOTALL), start=1)
]


def test_there_are_configs_to_look_at() -> None:
    assert len(CONFIGS) >= 4


@pytest.mark.parametrize("config", CONFIGS)
def test_each_config_in_the_documentation_is_valid(config: str, tmp_path: Path) -> None:
    for name in re.findall(r"(?:playbook|inventory): ([\w./-]+)", config):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("web-01\n" if "inventor" in name else "[]\n")
    (tmp_path / "surefoot.yml").write_text(config)
    assert load(tmp_path / "surefoot.yml", kinds=KINDS, environ={}).environments
