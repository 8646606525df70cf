# SPDX-License-Identifier: Apache-2.0
"""How fast the command line answers, beside `ansible-playbook --version` of the same environment.

Ours and theirs by turns, so that whatever else the machine does meets both; judged is the median of the pairs' ratios.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Figure, main, p99, ratio
from benchmarks.stage import Stage, stage, stubborn

WHAT = "`surefoot --version`, `--help` and `status` beside `ansible-playbook --version`"
RUNS = 20
LIMITS = {"--version": 0.25, "--help": 0.25, "status": 0.8}


def measure(runs: int | None = None) -> list[Figure]:
    """Measure each command; `status` on an SQLite store that holds a deployment."""
    with stage("sqlite", (), stubborn(5.0)) as on:
        on.submit_stubborn()
        return [figure for name, limit in LIMITS.items() for figure in measure_command(on, name, limit, runs or RUNS)]


def measure_command(on: Stage, name: str, limit: float, runs: int) -> list[Figure]:
    """Measure one command."""
    ours = on.command(name) if name == "status" else [on.command()[0], name]
    theirs = [str(Path(sys.executable).with_name("ansible-playbook")), "--version"]
    seconds(ours), seconds(theirs)  # what is read for the first time is not what is measured
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(runs)]
    return [
        ratio(f"surefoot {name} ÷ ansible-playbook --version", pairs, limit),
        p99(f"surefoot {name}", [pair[0] for pair in pairs]),
    ]


def seconds(command: Sequence[str]) -> float:
    """Return how long a command takes."""
    begun = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


if __name__ == "__main__":
    main("startup", WHAT, measure)
