# SPDX-License-Identifier: Apache-2.0
"""The real agent code on virtual time, with faults chosen by seed. A failure prints the seed that replays it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

from msgspec.structs import replace

from surefoot.agent.performer import Job
from surefoot.core.events import HealthPassed
from tests.simulation.draw import draw
from tests.simulation.performer import SimPerformer
from tests.simulation.replay import told
from tests.simulation.schedule import Schedule, broken_by
from tests.simulation.script import PRODUCTION, STAGING, Kind, Script
from tests.simulation.shrink import kind, shrink

ROOT = Path(__file__).parents[2]
#: Where the seeds begin (always at the same place: exploring is what `make soak` is for), and for how many seconds of
#: each core they are played at most.
FIRST = os.environ.get("SUREFOOT_SEED", "1")
SECONDS = os.environ.get("SUREFOOT_SIMULATION_SECONDS", "60")
SCHEDULES = 12_000


def test_promises_hold_under_random_faults() -> None:
    # In processes of their own: measuring what is run takes three quarters of the schedules away.
    soak = [sys.executable, "-m", "tests.simulation.soak", "--jobs", "1", "--first", FIRST]
    done = subprocess.run(
        [*soak, "--schedules", str(SCHEDULES), "--seconds", SECONDS], cwd=ROOT, capture_output=True, text=True
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promises_hold_while_coverage_is_measured_and_on_sql() -> None:
    for seed in range(1, 101):
        Schedule(replace(draw(seed), store="sqlite" if seed % 10 == 0 else "memory")).run()


def test_a_seed_replays_to_the_last_event() -> None:
    for seed in range(1, 20):
        assert told(draw(seed)) == told(draw(seed))


def test_a_seed_replays_in_another_process() -> None:
    # The order of sets is another one there.
    told_there = {
        subprocess.run(
            [sys.executable, "-m", "tests.simulation.replay", "8"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(order)},
            capture_output=True,
            check=True,
        ).stdout
        for order in range(4)
    }
    assert len(told_there) == 1


def test_every_kind_of_fault_is_drawn() -> None:
    drawn = {fault.kind for seed in range(1, 1000) for fault in draw(seed).faults}
    assert drawn == set(Kind)


def test_every_way_to_ask_and_to_work_is_drawn() -> None:
    scripts = [draw(seed) for seed in range(1, 1000)]
    versions = [version for script in scripts for version in script.versions]
    assert {script.alone for script in scripts} == {bool(version.repeats) for version in versions} == {True, False}
    assert {version.back for version in versions} == {version.waits > 0 for version in versions} == {True, False}


def test_a_few_schedules_have_a_second_environment() -> None:
    beside = [script for script in map(draw, range(1, 1000)) if STAGING in script.environments]
    assert 0.04 < len(beside) / 1000 < 0.12
    assert any(script.halted is not None for script in beside)


def test_what_breaks_a_promise_is_shrunk_until_nothing_can_be_left_out() -> None:
    # Health is never asked for: a version that is not healthy is enough.
    def careless(script: Script) -> str | None:
        return broken_by(script, lambda: patch.object(SimPerformer, "health", well))

    async def well(_: SimPerformer, job: Job) -> HealthPassed:
        return HealthPassed(job.state.direction)

    scripts = (
        script for script in map(draw, range(1, 2000)) if len(script.faults) > 1 and STAGING in script.environments
    )
    script = next(script for script in scripts if careless(script))
    promise = careless(script)
    assert promise is not None
    small = shrink(script, promise, careless, tries=400)
    again = careless(small)
    assert again is not None and kind(again) == kind(promise)
    assert not small.faults and small.environments == (PRODUCTION,)
    assert len(small.versions) == len(small.agents) == len(small.steps) == 1
