# SPDX-License-Identifier: Apache-2.0
"""The primary goes away: stopped, killed, frozen, without power, cut off; before a deployment, in its middle, while it
is put back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from surefoot.drills.drill import Portable
from surefoot.drills.stage import Stage


@dataclass(frozen=True)
class Loss:
    """One way in which a runner is lost."""

    name: str
    title: str


LOSSES = (
    Loss("stop", "the primary's agent is stopped (SIGTERM)"),
    Loss("kill", "the primary's agent is killed (SIGKILL)"),
    Loss("freeze", "the primary's machine freezes"),
    Loss("power-off", "the primary's machine loses power"),
    Loss("cut-off", "the primary is cut off from everybody"),
)


def in_the_middle(loss: Loss) -> Callable[[Stage], None]:
    """Return the play in which the primary is lost while one host runs the new version and the other not yet."""

    def play(stage: Stage) -> None:
        version, deploy = stage.in_the_middle()
        stage.say("one host runs it, the other not yet")
        stage.lose(loss.name, deploy)
        stage.say(loss.title)
        stage.exits(deploy, 0)
        stage.all_run(version)
        stage.taken_over(deploy)
        if loss.name == "freeze":
            stage.wakes_up()

    return play


def before(loss: Loss) -> Callable[[Stage], None]:
    """Return the play in which the primary is lost before anything is asked for."""

    def play(stage: Stage) -> None:
        stage.lose(loss.name)
        stage.say(loss.title)
        version, deploy = stage.deploys()
        stage.exits(deploy, 0)
        stage.all_run(version)
        stage.done_by_another(deploy)

    return play


def in_the_undo(stage: Stage) -> None:
    """Lose the primary while it puts things back."""
    site = stage.site
    version = site.version()
    site.break_version(version)
    stage.say(f"{version} is going to be unhealthy; surefoot deploy {site.environment} {version}")
    deploy = site.deploy(version)
    site.until(lambda: "undo" in deploy.said() or deploy.ended, "it is being put back")
    stage.lose("kill", deploy)
    stage.say("it is being put back, and the primary's agent is killed")
    stage.exits(deploy, 4)
    stage.all_run(stage.before)
    stage.measure("from the fault to the end", time.time() - stage.fault)
    stage.one_at_a_time()


def _drills() -> list[Portable]:
    drills = []
    for loss in LOSSES:
        drills.append(
            Portable(
                f"failover-{loss.name}",
                "failover",
                f"In the middle of a deployment {loss.title}.",
                (
                    "deploys, and makes the fault while one host runs the new version and the other not yet",
                    "expects that the secondary finishes it within 30 s of the fault, that both hosts run the new"
                    " version, and that hosts ran nothing of the primary's after the secondary's first task",
                ),
                in_the_middle(loss),
                needs=(loss.name,),
            )
        )
    for loss in LOSSES:
        drills.append(
            Portable(
                f"failover-{loss.name}-before",
                "failover",
                f"Before a deployment {loss.title}.",
                (
                    "makes the fault, and asks for a deployment at once",
                    "expects that the secondary does it, beginning within 30 s",
                ),
                before(loss),
                needs=(loss.name,),
            )
        )
    drills.append(
        Portable(
            "failover-undo",
            "failover",
            "While a deployment is put back the primary's agent is killed.",
            (
                "deploys a version that is not healthy, and kills the agent that puts it back",
                "expects exit 4 and the previous version on both hosts",
            ),
            in_the_undo,
            needs=("kill", "break"),
        )
    )
    return drills


DRILLS = tuple(_drills())
