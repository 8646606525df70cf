# SPDX-License-Identifier: Apache-2.0
"""Figures with their limits, and how they are told: a table for people, one JSON document for programs.

Percentiles are by nearest rank: the p99 of 30 runs is the worst of them, and nothing is made better by interpolation.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure. A limit is what `value` must not exceed (or, if `at_least`, not fall below)."""

    name: str
    value: float
    unit: str = "s"
    limit: float | None = None
    at_least: bool = False
    samples: tuple[float, ...] = ()

    @property
    def met(self) -> bool:
        """Whether the limit, if there is one, is met."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        shown: dict[str, Any] = {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "limit": self.limit,
            "at_least": self.at_least,
            "met": self.met,
        }
        if self.samples:
            shown |= {"runs": len(self.samples), **{key: fn(self.samples) for key, fn in _SPREAD.items()}}
        return shown

    def line(self) -> str:
        """Return it as a line of the table."""
        verdict = "" if self.limit is None else ("met" if self.met else "MISSED")
        sign = "" if self.limit is None else f"{'≥' if self.at_least else '≤'} {self.limit:g}"
        spread = "  ".join(f"{key} {fn(self.samples):.3f}" for key, fn in _SPREAD.items()) if self.samples else ""
        runs = f"  ({len(self.samples)} runs)" if self.samples else ""
        return f"  {self.name:<58} {self.value:>8.3f} {self.unit:<5} {sign:<8} {verdict:<7}{spread}{runs}".rstrip()


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return a percentile by nearest rank."""
    return sorted(samples)[max(0, math.ceil(percent / 100 * len(samples)) - 1)]


_SPREAD: dict[str, Callable[[Sequence[float]], float]] = {
    "p50": lambda samples: percentile(samples, 50),
    "p99": lambda samples: percentile(samples, 99),
    "max": max,
}


def p99(name: str, samples: Iterable[float], limit: float | None = None) -> Figure:
    """Return a figure that is judged by its 99th percentile, in seconds."""
    found = tuple(samples)
    return Figure(name, percentile(found, 99), limit=limit, samples=found)


def longest(name: str, samples: Iterable[float], limit: float | None = None) -> Figure:
    """Return a figure of which no run may exceed the limit, in seconds."""
    found = tuple(samples)
    return Figure(name, max(found), limit=limit, samples=found)


def ratio(name: str, pairs: Iterable[tuple[float, float]], limit: float) -> Figure:
    """Return how many times as long as theirs ours took: the median of pairs, measured one right after the other."""
    found = tuple(ours / theirs for ours, theirs in pairs)
    return Figure(name, statistics.median(found), unit="x", limit=limit, samples=found)


def machine() -> str:
    """Return where this was measured, and how busy it was."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} CPUs, load {load:.1f}, Python {platform.python_version()}, {platform.platform()}"


Measure = Callable[[int | None], list[Figure]]


def run(rows: Mapping[str, tuple[str, Measure]], arguments: Sequence[str] | None = None) -> int:
    """Measure rows, print what came of them; return 1 if a limit was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what Surefoot promises.")
    listed = "; ".join(f"{name}: {what}" for name, (what, _) in rows.items())
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these ({listed})")
    parser.add_argument("--runs", type=int, help="how often each thing is measured, instead of its own number")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.rows) - rows.keys()):
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(rows)}")
    told: dict[str, Any] = {"machine": machine(), "rows": []}
    if not given.json:
        print(told["machine"], flush=True)
    met = True
    for name in given.rows or rows:
        what, measure = rows[name]
        if not given.json:
            print(f"\n{name}: {what}", flush=True)
        figures = measure(given.runs)
        met = met and all(figure.met for figure in figures)
        told["rows"].append({"row": name, "what": what, "figures": [figure.document() for figure in figures]})
        if not given.json:
            print("\n".join(figure.line() for figure in figures), flush=True)
    if given.json:
        print(json.dumps(told, indent=2))
    else:
        print("\nevery limit is met" if met else "\na limit was MISSED")
    return 0 if met else 1


def main(name: str, what: str, measure: Measure) -> None:
    """Run one row as a program."""
    sys.exit(run({name: (what, measure)}))
