# SPDX-License-Identifier: Apache-2.0
"""The real agent code on virtual time, with faults chosen by seed. A failure prints the seed that replays it."""

from __future__ import annotations

import os
import time

from tests.simulation.schedule import Schedule

#: Where the seeds begin, and for how many seconds of real time schedules are tried.
FIRST = int(os.environ.get("SUREFOOT_SEED", "1"))
SECONDS = float(os.environ.get("SUREFOOT_SIMULATION_SECONDS", "20"))


def test_promises_hold_under_random_faults() -> None:
    end, seed = time.monotonic() + SECONDS, FIRST
    while time.monotonic() < end:
        Schedule(seed).run()
        seed += 1
    assert seed > FIRST
    print(f"{seed - FIRST} schedules")
