# SPDX-License-Identifier: Apache-2.0
"""Nothing goes wrong; an emergency is not one of these."""

from __future__ import annotations

from surefoot.drills.drill import Drill, Portable
from surefoot.drills.lab_stage import LabStage
from surefoot.drills.site import EMERGENCY, PRIMARY, SECONDARY
from surefoot.drills.stage import Stage


def healthy_primary(stage: Stage) -> None:
    """Deploy, with everybody well."""
    version, deploy = stage.deploys()
    stage.ends_well(deploy, version)
    stage.done_by_the_primary(deploy)
    stage.no_takeover(deploy)


def again(stage: Stage) -> None:
    """Deploy what runs already."""
    site = stage.site
    stage.say(f"surefoot deploy {site.environment} {stage.before}, which runs already")
    deploy = site.deploy(stage.before)
    stage.ends_well(deploy, stage.before)


def both_offline(stage: LabStage) -> None:
    """Both runners are gone; somebody starts a third."""
    site = stage.site
    site[PRIMARY].power_off()
    site[SECONDARY].power_off()
    stage.say("both runners have lost power")
    version = site.version()
    deploy = site.deploy(version)
    site.named(deploy)
    stage.say("a deployment is accepted, and waits")
    site[EMERGENCY].systemctl("start", "surefoot-agent")
    stage.say(f"{EMERGENCY}: surefoot agent run {EMERGENCY} --role emergency")
    stage.exits(deploy, 0)
    stage.all_run(version)
    for reign in stage.one_at_a_time():
        stage.ran_by(reign, site[EMERGENCY])


DRILLS = (
    Portable(
        "healthy-primary",
        "healthy-primary",
        "Everybody is well, and the primary deploys.",
        (
            "deploys a new version, with both runners online",
            "expects exit 0, the new version on both hosts, every command from the primary",
        ),
        healthy_primary,
    ),
    Portable(
        "same-version",
        "healthy-primary",
        "What runs already is deployed again.",
        ("deploys the version that runs", "expects exit 0 and the same version"),
        again,
    ),
    Drill(
        "both-offline",
        "emergency",
        "Both runners have lost power; an emergency runner is started.",
        (
            "takes the power of both runners, asks for a deployment, and starts the emergency runner",
            "expects exit 0, the new version on both hosts, every command from the emergency runner",
        ),
        both_offline,
    ),
)
