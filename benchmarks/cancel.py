# SPDX-License-Identifier: Apache-2.0
"""How soon a cancelled step's processes are gone.

From the request's entry in the journal to the end of the last process of the step, taken by pid from outside; told too
is the time from the start of `surefoot cancel`, whose start-up is a matter of its own. The step ignores SIGTERM and has
a daemon in a session of its own.
"""

from __future__ import annotations

import subprocess
import time

from benchmarks.report import Figure, main, p99
from benchmarks.stage import STORES, Deaths, stage, stubborn

WHAT = "`surefoot cancel` → the step's processes are gone"
RUNS = 30
LIMIT = 1.0


def measure(runs: int | None = None) -> list[Figure]:
    """Measure on both stores."""
    figures = []
    for store in STORES:
        called, requested = measure_on(store, runs or RUNS)
        figures.append(p99(f"{store}: cancel requested → gone (p99)", requested, LIMIT))
        figures.append(p99(f"{store}: `surefoot cancel` started → gone", called))
    return figures


def measure_on(store: str, runs: int) -> tuple[list[float], list[float]]:
    """Return seconds from each call, and from what the journal says was the request, to the last process's end."""
    called, requested = [], []
    with stage(store, ("only",), stubborn(5.0)) as on:
        on.start("only")
        on.online("only")
        for _ in range(runs):
            deployment = on.submit_stubborn()
            deaths = Deaths(on.attempt(deployment).pids)
            begun = time.time()
            command = subprocess.Popen(
                on.command("cancel", deployment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            gone = deaths.wait()
            assert command.wait() == 0
            assert on.ended(deployment) == "cancelled"
            request = next(e for e in on.store.journal(deployment) if type(e.event).__name__ == "CancelRequested")
            called.append(gone - begun)
            requested.append(gone - request.at)
    return called, requested


if __name__ == "__main__":
    main("cancel", WHAT, measure)
