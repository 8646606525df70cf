# SPDX-License-Identifier: Apache-2.0
"""A round of chaos in the lab; `make chaos` plays as many as are wanted."""

from __future__ import annotations

import os
from pathlib import Path

from tests.chaos.lab import Tally, run, together


def test_promises_hold_while_runners_hosts_lines_and_the_store_fail(laboratory: None, tmp_path: Path) -> None:
    # Always the same seed here: what is new is looked for by the script. Faults still hit at other instants each time.
    tally = run(int(os.environ.get("SUREFOOT_SEED", "5")), 1, tmp_path)
    assert not tally.broken
    assert tally.rounds == 1
    assert tally.faults and tally.tasks and sum(tally.statuses.values()) == tally.deployments


def test_tallies_of_several_labs_are_added_up() -> None:
    one = Tally(1, rounds=2, deployments=3, faults={"a": 1, "b": 2}, broken=["x"])
    two = Tally(2, rounds=1, deployments=1, faults={"b": 1, "c": 1}, broken=["y"])
    both = together([one, two])
    assert both["seed"] == [1, 2]
    assert (both["rounds"], both["deployments"], both["broken"]) == (3, 4, ["x", "y"])
    assert both["faults"] == {"a": 1, "b": 3, "c": 1}
    assert together([one])["seed"] == 1
