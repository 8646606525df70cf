# SPDX-License-Identifier: Apache-2.0
"""A few of the points at which an agent can die; all of them are tried by `make crash-points`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("scenario", "store", "sample"),
    [
        ("forward", "sqlite", 5),
        ("undo", "postgres", 4),
        ("takeover-forward", "postgres", 2),
        ("takeover-undo", "sqlite", 2),
        ("playbook-forward", "sqlite", 1),
    ],
)
def test_an_agent_that_dies_at_any_point_leaves_what_another_can_finish(scenario: str, store: str, sample: int) -> None:
    points = [sys.executable, "-m", "tests.crash.points", "--scenario", scenario, "--store", store]
    done = subprocess.run([*points, "--sample", str(sample)], cwd=ROOT, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " deaths" in done.stdout and " 0 deaths" not in done.stdout
