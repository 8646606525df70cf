# SPDX-License-Identifier: Apache-2.0
"""Many deployments at once: first come, first served, none dropped, none overlapping, as the hosts saw it."""

from __future__ import annotations

from collections.abc import Callable

from surefoot.drills.drill import Portable
from surefoot.drills.stage import Stage

#: More than this are a load that nobody asked for whose drills are played outside the lab.
FEW = 2


def at_once(count: int) -> Callable[[Stage], None]:
    """Return the play in which so many deployments are asked for at once."""

    def play(stage: Stage) -> None:
        site = stage.site
        versions = [site.version() for _ in range(count)]
        stage.say(f"{count} times surefoot deploy {site.environment}, at once")
        asked = [site.deploy(version, "--detach") for version in versions]
        codes = [one.wait() for one in asked]
        stage.check("none is refused", set(codes) == {0}, f"exit codes {sorted(set(codes))}")
        stage.say("all are accepted")
        site.settle(site.patience * count)
        rows = site.ask("history", site.environment, "--limit", str(count))["deployments"]
        rows.sort(key=lambda row: int(row["id"].rpartition("-")[2]))
        ended = [row["status"] for row in rows if row["version"] in versions]
        stage.check(
            "none is dropped", ended == ["succeeded"] * count, f"{ended.count('succeeded')} of {count} succeeded"
        )
        stage.one_by_one(rows)
        stage.all_run(rows[-1]["version"])
        starts = [row["started_at"] for row in rows]
        stage.check("first come, first served", starts == sorted(starts), "they began in the order of acceptance")

    return play


DRILLS = tuple(
    Portable(
        f"concurrency-{count}",
        "concurrency",
        f"{count} deployments are asked for at once.",
        (
            f"asks for {count} deployments of different versions at once",
            "expects that all succeed one after the other, in the order of acceptance, without overlap on any host",
        ),
        at_once(count),
        heavy=count > FEW,
    )
    for count in (2, 20)
)
