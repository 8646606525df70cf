# SPDX-License-Identifier: Apache-2.0
"""How long a scrape of the exporter takes with a long history, and how soon an exporter has read it all.

The exporter is a process of its own, scraped over HTTP as Prometheus does, while a deployment ends now and then. Its
start is measured from the call to the first scrape that has every deployment in it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.claim import settle
from benchmarks.report import Figure, longest, main, p99
from benchmarks.stage import STORES, stage, stubborn, until
from tests.support.history import add_measured_history

WHAT = "scrape of an exporter with 100,000 deployments in history, each with nine entries in its journal"
RUNS = 200
HISTORY = 100_000
LIMIT = 0.02


def measure(runs: int | None = None) -> list[Figure]:
    """Measure on both stores; a number of runs that is not its own is for trying it out, with a shorter history."""
    history = HISTORY if runs is None else HISTORY // 100
    figures = []
    for store in STORES:
        scrapes, start = measure_on(store, runs or RUNS, history)
        figures.append(p99(f"{store}: scrape with {history:,}", scrapes, LIMIT))
        figures.append(longest(f"{store}: start until all is read", [start]))
    return figures


def measure_on(store: str, runs: int, history: int) -> tuple[list[float], float]:
    """Return the seconds of scrapes, and of an exporter's start."""
    with stage(store, ("bench",), stubborn(5.0)) as on, tempfile.TemporaryDirectory() as folder:
        on.store.submit(on.submission("prod"))
        add_measured_history(on.store_url, history)
        settle(on.store_url)
        log = Path(folder, "log")
        options = ["--listen", "127.0.0.1:0", "--store", on.store_url, "--runner", "bench"]
        begun = time.monotonic()
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "surefoot", "exporter", *options], cwd=folder, stdout=output, stderr=output
            )
        try:
            until(lambda: "metrics at" in log.read_text(), "the exporter listens")
            url = log.read_text().split("metrics at ")[1].split()[0]
            wanted = f'surefoot_deployments_total{{environment="prod",outcome="succeeded"}} {float(history)}'.encode()
            until(lambda: wanted in _scrape(url)[0], "all is read", patience=300, every=0.1)
            start = time.monotonic() - begun
            return [_scrape(url)[1] for _ in range(runs)], start
        finally:
            process.kill()
            process.wait()


def _scrape(url: str) -> tuple[bytes, float]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    begun = time.monotonic()
    with opener.open(url, timeout=60) as response:
        body: bytes = response.read()
    time.sleep(0.02)
    return body, time.monotonic() - begun - 0.02


if __name__ == "__main__":
    main("scrape", WHAT, measure)
