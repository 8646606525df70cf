# SPDX-License-Identifier: Apache-2.0
"""The primary goes away: stopped, killed, frozen, without power, cut off; before a deployment, in its middle, while it
is put back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from surefoot.drills.drill import Drill, Stage
from surefoot.drills.site import PRIMARY, SECONDARY, Site

#: The runner must be replaced within this, whatever became of it.
REQUIRED = 30.0


@dataclass(frozen=True)
class Loss:
    """One way in which a runner is lost."""

    name: str
    title: str
    make: Callable[[Site], None]


def _stop(site: Site) -> None:
    site.stop_agent(PRIMARY)


def _kill(site: Site) -> None:
    site.kill_agent(PRIMARY)


def _freeze(site: Site) -> None:
    site[PRIMARY].freeze()


def _power_off(site: Site) -> None:
    site[PRIMARY].power_off()


def _cut_off(site: Site) -> None:
    site[PRIMARY].cut()


LOSSES = (
    Loss("stop", "the primary's agent is stopped (SIGTERM)", _stop),
    Loss("kill", "the primary's agent is killed (SIGKILL)", _kill),
    Loss("freeze", "the primary's machine freezes", _freeze),
    Loss("power-off", "the primary's machine loses power", _power_off),
    Loss("cut-off", "the primary is cut off from everybody", _cut_off),
)


def in_the_middle(loss: Loss) -> Callable[[Stage], None]:
    """Return the play in which the primary is lost while one host runs the new version and the other not yet."""

    def play(stage: Stage) -> None:
        site = stage.site
        version, deploy = stage.in_the_middle()
        stage.say("one host runs it, the other not yet")
        fault = time.time()
        loss.make(site)
        stage.say(loss.title)
        stage.exits(deploy, 0)
        stage.all_run(version)
        judge_takeover(stage, fault)
        if loss.name == "freeze":
            thaw_and_look(stage)

    return play


def judge_takeover(stage: Stage, fault: float) -> None:
    """The secondary must have taken over, soon, and the primary must have stayed away."""
    reigns = stage.one_at_a_time()
    last = reigns[-1]
    stage.check("a takeover", len(reigns) > 1, f"{len(reigns)} tokens were seen on the hosts")
    stage.ran_by(last, stage.site[SECONDARY])
    after = [reign for reign in reigns if reign.first_task is not None and reign.first_task > fault]
    if after and after[0].first_task is not None:
        stage.measure("from the fault to the fence raised on a host", after[0].first - fault)
        stage.measure("from the fault to the next task on a host", after[0].first_task - fault, at_most=REQUIRED)


def thaw_and_look(stage: Stage) -> None:
    """Wake the frozen primary up: hosts must not obey it."""
    seen = len(stage.commands())
    stage.site[PRIMARY].thaw()
    stage.say("the primary wakes up")
    stage.site.until(lambda: PRIMARY in stage.site.online(), f"{PRIMARY} is online again")
    new = stage.commands()[seen:]
    ran = [command for command in new if command.code != 97]
    stage.check(
        "a stale runner is refused",
        not ran,
        f"{len(new)} commands came after it woke up, {len(new) - len(ran)} of them refused",
    )
    stage.one_at_a_time()


def before(loss: Loss) -> Callable[[Stage], None]:
    """Return the play in which the primary is lost before anything is asked for."""

    def play(stage: Stage) -> None:
        site = stage.site
        loss.make(site)
        stage.say(loss.title)
        version, deploy = stage.deploys()
        stage.exits(deploy, 0)
        stage.all_run(version)
        reigns = stage.one_at_a_time()
        stage.ran_by(reigns[-1], site[SECONDARY])
        tasks = [reign.first_task for reign in reigns if reign.first_task is not None]
        if tasks:
            stage.measure("from the command to the first task on a host", tasks[0] - deploy.began, at_most=REQUIRED)

    return play


def in_the_undo(stage: Stage) -> None:
    """Lose the primary while it puts things back."""
    site = stage.site
    version = site.version()
    site.break_version(version)
    stage.say(f"{version} is going to be unhealthy; surefoot deploy {site.project.environment} {version}")
    deploy = site.deploy(version)
    site.until(lambda: "undo" in deploy.said() or deploy.ended, "it is being put back")
    fault = time.time()
    site.kill_agent(PRIMARY)
    stage.say("it is being put back, and the primary's agent is killed")
    stage.exits(deploy, 4)
    stage.all_run(stage.before)
    stage.measure("from the fault to the end", time.time() - fault)
    stage.one_at_a_time()


def _drills() -> list[Drill]:
    drills = []
    for loss in LOSSES:
        drills.append(
            Drill(
                f"failover-{loss.name}",
                "failover",
                f"In the middle of a deployment {loss.title}.",
                (
                    "deploys, and makes the fault while one host runs the new version and the other not yet",
                    "expects that the secondary finishes it within 30 s of the fault, that both hosts run the new"
                    " version, and that hosts ran nothing of the primary's after the secondary's first task",
                ),
                in_the_middle(loss),
            )
        )
    for loss in LOSSES:
        drills.append(
            Drill(
                f"failover-{loss.name}-before",
                "failover",
                f"Before a deployment {loss.title}.",
                (
                    "makes the fault, and asks for a deployment at once",
                    "expects that the secondary does it, beginning within 30 s",
                ),
                before(loss),
            )
        )
    drills.append(
        Drill(
            "failover-undo",
            "failover",
            "While a deployment is put back the primary's agent is killed.",
            (
                "deploys a version that is not healthy, and kills the agent that puts it back",
                "expects exit 4 and the previous version on both hosts",
            ),
            in_the_undo,
        )
    )
    return drills


DRILLS = tuple(_drills())
__all__ = ["DRILLS", "LOSSES", "in_the_middle", "judge_takeover"]
