# SPDX-License-Identifier: Apache-2.0
"""Whether a long history slows the next deployment's claim.

Two stores side by side, one with a thousand ended deployments and one with a million, in the same environment. By
turns, in each: submit a deployment, then do what an agent does to claim it (look for work and agents, read the journal
and the environment, claim) and what it does to end it. Only the claim is measured. Judged is the ratio of the medians.
"""

from __future__ import annotations

import contextlib
import statistics
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.report import Figure, main, p99
from benchmarks.stage import STORES, Stage, stage, stubborn
from surefoot.core import events as ev
from surefoot.core.deployment import fold
from surefoot.core.lease import Role
from surefoot.core.status import Status
from surefoot.store.protocol import AgentReport, Append, Claim, Submission
from tests.support.history import add_history

WHAT = "claim of the next deployment with 1,000,000 deployments in history beside 1,000"
RUNS = 300
SHORT, LONG = 1_000, 1_000_000
LIMIT = 1.5
AGENT = "bench"


def measure(runs: int | None = None) -> list[Figure]:
    """Measure on both stores; a number of runs that is not its own is for trying it out, with a shorter history."""
    long = LONG if runs is None else SHORT * 10
    figures = []
    for store in STORES:
        short_times, long_times = measure_on(store, runs or RUNS, long)
        value = statistics.median(long_times) / statistics.median(short_times)
        figures.append(Figure(f"{store}: {long:,} ÷ {SHORT:,} deployments (medians)", value, "x", LIMIT))
        figures.append(p99(f"{store}: claim with {SHORT:,}", short_times))
        figures.append(p99(f"{store}: claim with {long:,}", long_times))
    return figures


def measure_on(store: str, runs: int, long: int) -> tuple[list[float], list[float]]:
    """Return the seconds of claims with a short and with a long history."""
    with past(store, SHORT) as short_past, past(store, long) as long_past:
        for _ in range(5):  # first calls open connections and fill caches
            short_past.claim()
            long_past.claim()
        pairs = [(short_past.claim(), long_past.claim()) for _ in range(runs)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


@dataclass
class Past:
    """A store with a history."""

    stage: Stage
    submission: Submission

    def claim(self) -> float:
        """Claim one new deployment and end it; return the seconds until it was claimed."""
        store = self.stage.store
        store.submit(self.submission)
        begun = time.monotonic()
        (work,) = store.work()
        store.agents(3.0)
        state = fold(store.journal(work.deployment))
        store.environment(work.environment)
        granted = ev.LeaseGranted(agent=AGENT, token=work.lease.token + 1, reasons=("chosen",), previous_version=None)
        append = Append(state, (granted,), uuid.uuid4().hex)
        grant = store.claim(Claim(agent=AGENT, incarnation="bench", ttl=5.0, seen=work.lease, append=append))
        took = time.monotonic() - begun
        assert grant is not None
        state = fold(store.journal(work.deployment))
        asked = store.append(Append(state, (ev.CancelRequested(by="bench"),), uuid.uuid4().hex))
        state = fold(asked, state)
        ended = ev.Finished(Status.CANCELLED)
        store.append(Append(state, (ended,), uuid.uuid4().hex, grant, release=True))
        return took


@contextlib.contextmanager
def past(store: str, count: int) -> Iterator[Past]:
    """Give a store with so many ended deployments."""
    with stage(store, (AGENT,), stubborn(5.0)) as on:
        submission = on.submission("prod")
        first = Past(on, submission)
        on.store.report(AgentReport(AGENT, Role.PRIMARY, "bench"))
        first.claim()
        add_history(on.store_url, count)
        settle(on.store_url)
        yield first


def settle(url: str) -> None:
    """Do what a database's own housekeeping does within minutes of such a load."""
    if url.startswith("postgresql"):
        import psycopg

        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("VACUUM ANALYZE")


if __name__ == "__main__":
    main("claim", WHAT, measure)
