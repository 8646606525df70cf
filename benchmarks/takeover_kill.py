# SPDX-License-Identifier: Apache-2.0
"""How long a deployment stands still when its agent is killed.

From the SIGKILL, taken just before it is sent, to the first line of the step's next attempt on another agent, written
by the step itself. Everything between counts: noticing, claiming, unpacking the bundle, starting the process.
"""

from __future__ import annotations

import os
import signal
import time

from benchmarks.report import Figure, main, p99
from benchmarks.stage import STORES, Deaths, stage, stubborn

WHAT = "SIGKILL of the agent → the step's next attempt runs on another agent"
RUNS = 30
TTL = 5.0
LIMIT = 1.5
AGENTS = ("first", "second")


def measure(runs: int | None = None) -> list[Figure]:
    """Measure on both stores."""
    figures = []
    for store in STORES:
        takeovers, deaths = measure_on(store, runs or RUNS)
        figures.append(p99(f"{store}: kill → next attempt (p99)", takeovers, LIMIT))
        figures.append(p99(f"{store}: kill → the old attempt's processes are gone", deaths))
    return figures


def measure_on(store: str, runs: int) -> tuple[list[float], list[float]]:
    """Return seconds from each kill to the next attempt, and to the end of the old one's processes."""
    takeovers: list[float] = []
    deaths: list[float] = []
    with stage(store, AGENTS, stubborn(TTL)) as on:
        for name in AGENTS:
            on.start(name)
        for _ in range(runs):
            on.online(*AGENTS)
            deployment = on.submit_stubborn()
            first = on.attempt(deployment)
            gone = Deaths(first.pids)
            # Anywhere between two renewals, not always right after one.
            time.sleep((os.getpid() + len(takeovers) * 0.37) % 1)
            killed = time.time()
            os.kill(on.pid(first.agent), signal.SIGKILL)
            deaths.append(gone.wait() - killed)
            takeovers.append(on.attempt(deployment, other_than=first.agent).began - killed)
            assert on.ended(deployment) == "succeeded"
            on.end(first.agent)
            on.start(first.agent)
    return takeovers, deaths


if __name__ == "__main__":
    main("takeover-kill", WHAT, measure)
