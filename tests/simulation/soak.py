# SPDX-License-Identifier: Apache-2.0
"""Plays many schedules: `python -m tests.simulation.soak --schedules 1000000 --first 1`.

Seeds are played in order, in pieces, by as many processes as asked for. What has been played is printed, so that a
later run goes on with `--first`; each seed that breaks a promise is shrunk and told. Exits 1 if there was one.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tests.simulation.draw import draw
from tests.simulation.replay import told
from tests.simulation.schedule import broken_by
from tests.simulation.shrink import shrink

#: Seeds in one piece of work.
PIECE = 100
#: Failures after which it is not worth going on.
MOST = 5
#: Seconds between words on a terminal, and elsewhere.
OFTEN, SELDOM = 1.0, 60.0


@dataclass(frozen=True)
class Played:
    """What came of one piece."""

    seeds: Counter[str]  #: by store
    seconds: Counter[str]  #: of the processor, by store
    broken: list[tuple[int, str]]


def settle() -> None:
    """Spare the collector of garbage what stays to the end, and most of its rounds: a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def play(first: int, seeds: int) -> Played:
    """Play a piece of seeds."""
    played = Played(Counter(), Counter(), [])
    for seed in range(first, first + seeds):
        began = time.process_time()
        script = draw(seed)
        if (promise := broken_by(script)) is not None:
            played.broken.append((seed, promise))
        played.seeds[script.store] += 1
        played.seconds[script.store] += time.process_time() - began
    return played


def _piece(given: tuple[int, int]) -> Played:
    return play(*given)


@dataclass
class Soak:
    """A run, as far as it has come."""

    first: int
    schedules: int
    began: float
    seeds: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    broken: list[tuple[int, str]] = field(default_factory=list)
    said: float = 0.0

    @property
    def done(self) -> int:
        """How many schedules were played."""
        return self.seeds.total()

    def add(self, played: Played) -> None:
        """Count a piece, and say so from time to time."""
        self.seeds.update(played.seeds)
        self.seconds.update(played.seconds)
        self.broken += played.broken
        for seed, promise in played.broken:
            print(f"seed {seed} breaks: {promise}", file=sys.stderr, flush=True)
        tty = sys.stderr.isatty()
        if time.monotonic() - self.said > (OFTEN if tty else SELDOM):
            self.said = time.monotonic()
            print(self.line(), end="\r" if tty else "\n", file=sys.stderr, flush=True)

    def line(self) -> str:
        """Say how far it has come."""
        wall = time.monotonic() - self.began
        rates = [f"{self.seeds[store] / self.seconds[store]:.0f} ({store})" for store in sorted(self.seeds)]
        return (
            f"seeds {self.first} to {self.first + self.done - 1}: {self.done} schedules, {len(self.broken)} broken, "
            f"{' and '.join(rates)} a second of one core, {wall / 60:.1f} min"
        )


def run(first: int, schedules: int, jobs: int, seconds: float | None) -> Soak:
    """Play so many seeds, or as many as fit into the time."""
    soak = Soak(first, schedules, time.monotonic())

    def pieces() -> Iterator[tuple[int, int]]:
        for start in range(first, first + schedules, PIECE):
            if seconds is not None and time.monotonic() - soak.began > seconds:
                return
            yield start, min(PIECE, first + schedules - start)

    def follow(results: Iterator[Played]) -> None:
        for played in results:
            soak.add(played)
            if len(soak.broken) >= MOST:
                return

    if jobs == 1:
        settle()
        follow(map(_piece, pieces()))
        return soak
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=settle) as pool:
        # A pool takes all that it is given at once: it is given a round at a time.
        given = pieces()
        while len(soak.broken) < MOST and (some := list(islice(given, 4 * jobs))):
            follow(pool.imap(_piece, some))
    return soak


def tell(seed: int, promise: str, folder: Path | None) -> None:
    """Say what a seed breaks, with the least that breaks it."""
    print(f"\nseed {seed} breaks: {promise}")
    small = shrink(draw(seed), promise)
    story, again = told(small)
    print(small)
    print("\n".join(story))
    print(f"BROKEN: {again}\nagain with: python -m tests.simulation.replay {seed} --shrink")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{seed}.txt").write_text(f"{small}\n" + "\n".join(story), encoding="utf-8")


def main() -> int:
    """Soak; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=1, help="the first seed; a later run goes on from here")
    parser.add_argument("--seconds", type=float, help="end after so many seconds")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--keep", type=Path, help="a folder for the stories of what was broken")
    chosen = parser.parse_args()
    soak = run(chosen.first, chosen.schedules, chosen.jobs, chosen.seconds)
    print(soak.line())
    for seed, promise in soak.broken:
        tell(seed, promise, chosen.keep)
    if not soak.broken:
        print(f"no promise was broken; go on with: --first {soak.first + soak.done}")
    return 1 if soak.broken else 0


if __name__ == "__main__":
    sys.exit(main())
