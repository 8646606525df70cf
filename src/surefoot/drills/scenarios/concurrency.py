# SPDX-License-Identifier: Apache-2.0
"""Many deployments at once: first come, first served, none dropped, none overlapping, as the hosts saw it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from surefoot.drills.drill import Drill, Stage
from surefoot.drills.site import LONG


def at_once(count: int) -> Callable[[Stage], None]:
    """Return the play in which so many deployments are asked for at once."""

    def play(stage: Stage) -> None:
        site = stage.site
        versions = [site.version() for _ in range(count)]
        stage.say(f"{count} times surefoot deploy {site.project.environment}, at once")
        asked = [site.cli("--output", "json", "deploy", site.project.environment, v, "--detach") for v in versions]
        codes = [one.wait() for one in asked]
        stage.check("none is refused", set(codes) == {0}, f"exit codes {sorted(set(codes))}")
        stage.say("all are accepted")
        site.settle(LONG * count)
        rows = site.ask("history", site.project.environment, "--limit", str(count))["deployments"]
        ended = [row["status"] for row in rows if row["version"] in versions]
        stage.check(
            "none is dropped", ended == ["succeeded"] * count, f"{ended.count('succeeded')} of {count} succeeded"
        )
        reigns = stage.one_at_a_time()
        overlaps = [
            f"token {a.token} until {a.last:.3f}, token {b.token} from {b.first:.3f}"
            for a, b in pairwise(reigns)
            if b.first_task is not None and a.last > b.first_task
        ]
        pauses = [b.first - a.last for a, b in pairwise(reigns)]
        stage.check("none overlaps on a host", not overlaps, "; ".join(overlaps) or f"{len(reigns)} came one by one")
        stage.check("each had its turn", len(reigns) == count, f"{len(reigns)} tokens were seen on the hosts")
        accepted = [row["version"] for row in sorted(rows, key=lambda row: int(row["id"].rpartition("-")[2]))]
        stage.all_run(accepted[-1])
        starts = [row["started_at"] for row in sorted(rows, key=lambda row: int(row["id"].rpartition("-")[2]))]
        stage.check("first come, first served", starts == sorted(starts), "they began in the order of acceptance")
        if pauses:
            stage.measure("greatest pause between two", max(pauses))

    return play


DRILLS = tuple(
    Drill(
        f"concurrency-{count}",
        "concurrency",
        f"{count} deployments are asked for at once.",
        (
            f"asks for {count} deployments of different versions at once",
            "expects that all succeed one after the other, in the order of acceptance, without overlap on any host",
        ),
        at_once(count),
    )
    for count in (2, 20)
)
