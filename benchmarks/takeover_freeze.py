# SPDX-License-Identifier: Apache-2.0
"""How long a deployment stands still when its agent freezes, or loses its line to the store, and what the old one does.

Nobody can see such an agent die, so the lease has to run out: from the SIGSTOP (or the cut) to the first line of the
step's next attempt on another agent. Meanwhile the old attempt's processes, one of which ignores SIGTERM and one of
which is a daemon in a session of its own, must be gone within the ttl, and before the next attempt begins: their ends
are taken by pid, from outside. Several pairs of agents are measured side by side, each on a store of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.proxy import Proxy
from benchmarks.report import Figure, longest, main, p99
from benchmarks.stage import Deaths, Stage, postgres, stage, stubborn

WHAT = "SIGSTOP of the agent, or its line to the store cut → the step's next attempt runs on another agent"
RUNS = 30
TTL = 5.0
LIMIT = TTL + 1.0
AGENTS = ("first", "second")
#: Pairs of agents side by side: what is measured is waiting, mostly.
LANES = 6


@dataclass(frozen=True)
class Lane:
    """One pair of agents, each with a line of its own to a store on PostgreSQL."""

    stage: Stage
    lines: dict[str, Proxy]

    def start(self, name: str) -> None:
        """Start an agent whose line is whole."""
        line = self.lines.get(name)
        if line is None:
            self.stage.start(name)
            return
        line.mend()
        url = urlsplit(self.stage.store_url)
        self.stage.start(name, store=url._replace(netloc=f"{url.username}@127.0.0.1:{line.port}").geturl())


Fault = Callable[[Lane, str], None]


def freeze(lane: Lane, agent: str) -> None:
    """Stop the agent's process in its tracks; its shim goes on, as it does when a process is stopped."""
    os.kill(lane.stage.pid(agent), signal.SIGSTOP)


def silence(lane: Lane, agent: str) -> None:
    """Let the agent's line carry nothing more, as a firewall that drops does."""
    lane.lines[agent].go_silent()


def break_off(lane: Lane, agent: str) -> None:
    """End the agent's connections and refuse new ones, as a proxy that goes down does."""
    lane.lines[agent].break_off()


FAULTS: tuple[tuple[str, str, Fault], ...] = (
    ("postgres", "SIGSTOP", freeze),
    ("sqlite", "SIGSTOP", freeze),
    ("postgres", "line silent", silence),
    ("postgres", "line broken", break_off),
)


def measure(runs: int | None = None) -> list[Figure]:
    """Measure each fault."""
    figures = []
    for store, name, fault in FAULTS:
        found = measure_fault(store, fault, runs or RUNS)
        figures.append(p99(f"{store}, {name} → next attempt (p99)", (t.began for t in found), LIMIT))
        figures.append(longest(f"{store}, {name} → old processes gone (max)", (t.gone for t in found), TTL))
        overlaps = [max(0.0, t.gone - t.began) for t in found]
        figures.append(longest(f"{store}, {name}: old and new attempt at once (max)", overlaps))
    return figures


@dataclass(frozen=True, slots=True)
class Takeover:
    """Seconds from the fault to the next attempt's beginning, and to the end of the old one's last process."""

    began: float
    gone: float


def measure_fault(store: str, fault: Fault, runs: int, ttl: float = TTL) -> list[Takeover]:
    """Measure one fault, spread over lanes."""
    lanes = min(LANES, runs)
    shares = [runs // lanes + (lane < runs % lanes) for lane in range(lanes)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(postgres()) if store == "postgres" else None
        pool = stack.enter_context(ThreadPoolExecutor(lanes))

        def run(lane: int) -> list[Takeover]:
            with lane_on(server.new_database() if server else store, ttl, lines=fault is not freeze) as on:
                return [takeover(on, fault, lane / lanes + run * 0.37) for run in range(shares[lane])]

        return [found for lane in pool.map(run, range(lanes)) for found in lane]


@contextlib.contextmanager
def lane_on(store: str, ttl: float, *, lines: bool) -> Iterator[Lane]:
    """Give a lane with both agents running."""
    with contextlib.ExitStack() as stack:
        on = stack.enter_context(stage(store, AGENTS, stubborn(ttl)))
        lane = Lane(on, {})
        for name in AGENTS:
            if lines:
                url = urlsplit(on.store_url)
                lane.lines[name] = Proxy((url.hostname or "", url.port or 0))
                stack.callback(lane.lines[name].close)
            lane.start(name)
        yield lane


def takeover(lane: Lane, fault: Fault, delay: float) -> Takeover:
    """Run one deployment through a fault."""
    on = lane.stage
    on.online(*AGENTS)
    deployment = on.submit_stubborn()
    first = on.attempt(deployment)
    deaths = Deaths(first.pids)
    time.sleep(delay % 1)  # anywhere between two renewals
    at = time.time()
    fault(lane, first.agent)
    gone = deaths.wait() - at
    began = on.attempt(deployment, other_than=first.agent).began - at
    assert on.ended(deployment) == "succeeded"
    on.end(first.agent)
    lane.start(first.agent)
    return Takeover(began, gone)


if __name__ == "__main__":
    main("takeover-freeze", WHAT, measure)
