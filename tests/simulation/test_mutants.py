# SPDX-License-Identifier: Apache-2.0
"""Each protocol bug that is put into the product must break a promise in the simulation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_protocol_bug_is_caught() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.simulation.mutants"], cwd=ROOT, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
