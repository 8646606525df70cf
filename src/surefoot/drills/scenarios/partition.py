# SPDX-License-Identifier: Apache-2.0
"""The network splits: the primary is cut from the store, and still reaches the hosts."""

from __future__ import annotations

from surefoot.drills.drill import Portable
from surefoot.drills.stage import Stage


def cut_from_the_store(stage: Stage) -> None:
    """Cut the primary from the store alone; later it tries the hosts with the token that it had."""
    version, deploy = stage.in_the_middle()
    stage.lose("partition", deploy)
    stage.say(
        f"the primary is cut from the store; it still reaches {' and '.join(host.name for host in stage.site.web)}"
    )
    stage.exits(deploy, 0)
    stage.all_run(version)
    stage.taken_over(deploy)
    stage.stale_is_refused()


DRILLS = (
    Portable(
        "partition",
        "partition",
        "In the middle of a deployment the primary is cut from the store, and still reaches the hosts.",
        (
            "deploys, and cuts the primary from both database servers while one host runs the new version",
            "expects that the secondary finishes it, that hosts ran nothing of the primary's after the secondary's"
            " first task, and that hosts refuse the primary's old token",
        ),
        cut_from_the_store,
        needs=("partition",),
    ),
)
