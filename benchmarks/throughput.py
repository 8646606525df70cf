# SPDX-License-Identifier: Apache-2.0
"""How many deployments a second many agents get through a queue, and that none overlaps another or is lost.

All agents wait, drained, while the queue is filled; then they may begin, one after the other within moments. The time
runs from the first claim to the end of the last deployment, by the store's clock. Steps do nothing, so what is
measured is Surefoot's own cost: journal, lease, fence tokens, shim, bundle. Overlaps are looked for in what the steps
wrote themselves, not only in the journal.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, main, p99
from benchmarks.stage import stage, until

WHAT = "16 agents, 200 queued deployments over 50 environments, steps that do nothing, on PostgreSQL"
RUNS = 3
AGENTS = 16
ENVIRONMENTS = 50
DEPLOYMENTS = 200
LIMIT = 20.0

#: All that a step does is to say that it begins and ends, in one file for each environment: what overlapped would show.
STEP = "; ".join(f"echo $SUREFOOT_DEPLOYMENT {word} >> NOTES/$SUREFOOT_ENVIRONMENT" for word in ("begin", "end"))


def measure(runs: int | None = None) -> list[Figure]:
    """Measure a few times; the rate is the worst."""
    rates, waits, wrong = [], [], 0
    for _ in range(runs or RUNS):
        rate, latencies, found = measure_once(AGENTS, ENVIRONMENTS, DEPLOYMENTS)
        rates.append(rate)
        waits += latencies
        wrong += found
    return [
        Figure("deployments a second (worst run)", min(rates), "/s", LIMIT, at_least=True, samples=tuple(rates)),
        Figure("deployments that overlapped or were lost", wrong, "", 0),
        p99("claimed → ended, of one deployment", waits),
    ]


def measure_once(agents: int, environments: int, deployments: int) -> tuple[float, list[float], int]:
    """Return the rate, each deployment's seconds from claim to end, and how many overlapped another or were lost."""
    names = [f"agent-{n:02}" for n in range(agents)]
    with stage("postgres", names, lambda notes: config(environments, notes)) as on:
        for name in names:
            on.start(name)
        on.online(*names)
        for name in names:
            on.store.set_drain(name, True)
        submissions = [on.submission(f"env-{n:02}") for n in range(environments)]
        ids = [on.store.submit(replace(submissions[n % environments], version=f"1.{n}"))[0] for n in range(deployments)]
        begun = on.store.now()
        for name in names:
            on.store.set_drain(name, False)
        until(lambda: not on.store.work(), "the queue is empty", patience=180, every=0.5)
        found = [on.store.summary(id_) for id_ in ids]
        lost = sum(summary.status != "succeeded" or (summary.started_at or 0.0) < begun for summary in found)
        overlaps = sum(overlaps_in(path) for path in on.notes.iterdir())
    spans = [(summary.started_at or 0.0, summary.finished_at or 0.0) for summary in found]
    rate = deployments / (max(end for _, end in spans) - min(start for start, _ in spans))
    return rate, [end - start for start, end in spans], lost + overlaps


def config(environments: int, notes: Path) -> dict[str, Any]:
    """Return the config of environments whose steps do nothing."""
    steps = [{"name": "nothing", "run": STEP.replace("NOTES", str(notes))}]
    return {"lease": {"ttl": "5s"}, "environments": {f"env-{n:02}": {"steps": steps} for n in range(environments)}}


def overlaps_in(path: Path) -> int:
    """Return how many lines of an environment's file are not where they would be if deployments ran one by one."""
    lines = path.read_text().splitlines()
    ids = list(dict.fromkeys(line.split()[0] for line in lines))
    right = [f"{deployment} {word}" for deployment in ids for word in ("begin", "end")]
    return abs(len(lines) - len(right)) + sum(a != b for a, b in zip(lines, right, strict=False))


if __name__ == "__main__":
    main("throughput", WHAT, measure)
