# SPDX-License-Identifier: Apache-2.0
"""Plays schedules with each mutant until one breaks a promise: `python -m tests.simulation.mutants`."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from dataclasses import dataclass
from functools import partial
from itertools import count, islice

from tests.simulation.draw import draw
from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import broken_by

#: Schedules after which a mutant counts as not caught.
SCHEDULES = 6_000

#: Those that take hundreds of schedules: `--quick` leaves them to `make mutants`.
RARE = (
    "word given before the fence rose is believed",
    "agent in the background does not stay for what waits",
    "holders deadline is counted from the reply",
    "claim does not compare what was seen",
    "host that could not be raised is skipped",
    "what was to write a version is not fenced off",
    "end without an undo is not fenced off",
    "versions are recorded in front of the fence",
    "request in the same words is taken for the one before",
    "news of what a person ends are left to nobody",
)


@dataclass(frozen=True)
class Verdict:
    """What came of a mutant."""

    name: str
    promise: str | None
    schedules: int


def attack(number: int, schedules: int = SCHEDULES) -> Verdict:
    """Play schedules with a mutant until one breaks a promise."""
    found = MUTANTS[number]
    scripts = filter(found.where, map(draw, count(1)))
    for played, script in enumerate(islice(scripts, schedules), 1):
        if (promise := broken_by(script, found.around)) is not None:
            return Verdict(found.name, promise, played)
    return Verdict(found.name, None, schedules)


def main() -> int:
    """Attack with all mutants; 0 if all are caught, and nothing is found without one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=SCHEDULES, help="how many before a mutant has got away")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("names", nargs="*", help="mutants whose name begins so; all if none is given")
    parser.add_argument("--quick", action="store_true", help="without those that take long to catch")
    chosen = parser.parse_args()
    numbers = [
        number
        for number, found in enumerate(MUTANTS)
        if (not chosen.quick or found.name not in RARE)
        and (not chosen.names or any(found.name.startswith(name) for name in chosen.names))
    ]
    escaped = 0
    with multiprocessing.Pool(chosen.jobs) as pool:
        for verdict in pool.imap(partial(attack, schedules=chosen.schedules), numbers):
            escaped += verdict.promise is None
            how = f"caught after {verdict.schedules:5}" if verdict.promise else f"NOT caught in {verdict.schedules:5}"
            print(f"{verdict.name:60} {how}  {(verdict.promise or '')[:100]}", flush=True)
    print(f"{len(numbers) - escaped} of {len(numbers)} mutants caught")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
