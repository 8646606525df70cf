# SPDX-License-Identifier: Apache-2.0
"""Protocol bugs that are put into the product must break a promise in the simulation; all of them by `make mutants`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_protocol_bugs_are_caught() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.mutants", "--quick"], cwd=ROOT, capture_output=True, text=True
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
