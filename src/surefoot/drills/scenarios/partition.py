# SPDX-License-Identifier: Apache-2.0
"""The network splits: the primary is cut from the store, and still reaches the hosts."""

from __future__ import annotations

import time
from shlex import quote

from surefoot.drills.drill import Drill, Stage
from surefoot.drills.scenarios.failover import judge_takeover
from surefoot.drills.site import DATABASE, PRIMARY, STANDBY
from surefoot.steps.fence import STALE, Fence

FENCES = "/var/lib/surefoot/fence"


def cut_from_the_store(stage: Stage) -> None:
    """Cut the primary from the store alone; later it tries the hosts with the token that it had."""
    site = stage.site
    version, deploy = stage.in_the_middle()
    fault = time.time()
    for server in (DATABASE, STANDBY):
        site[PRIMARY].cut(site[server])
    stage.say(f"{PRIMARY} is cut from the store; it still reaches {' and '.join(h.name for h in site.web)}")
    stage.exits(deploy, 0)
    stage.all_run(version)
    judge_takeover(stage, fault)
    refuse_by_hand(stage)


def refuse_by_hand(stage: Stage) -> None:
    """From the stale runner, run a command on each host with its old token: it must be refused."""
    site = stage.site
    old = min(command.token for command in stage.commands() if command.token is not None)
    for host in site.web:
        token = next(iter(sorted(host.disk.at(FENCES).rglob("token"))))
        name = str(token.parent.relative_to(host.disk.at(FENCES)))
        command = Fence(name, old, "").guard("echo obeyed")
        said = site[PRIMARY].sh(f"ssh -o ControlPath=none root@{host.name} {quote(command)} 2>&1; echo exit $?")
        stage.check(
            f"{host.name} refuses the stale runner",
            f"exit {STALE}" in said and "obeyed" not in said,
            " ".join(said.split())[-200:],
        )
    stage.say(f"{PRIMARY} tries the hosts with its old token, and is refused")


DRILLS = (
    Drill(
        "partition",
        "partition",
        "In the middle of a deployment the primary is cut from the store, and still reaches the hosts.",
        (
            "deploys, and cuts the primary from both database servers while one host runs the new version",
            "expects that the secondary finishes it, that hosts ran nothing of the primary's after the secondary's"
            " first task, and that hosts refuse the primary's old token",
        ),
        cut_from_the_store,
    ),
)
