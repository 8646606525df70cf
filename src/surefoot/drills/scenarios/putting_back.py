# SPDX-License-Identifier: Apache-2.0
"""A version is not well: on both hosts, on one; it is mended and tried again; it can't be put back."""

from __future__ import annotations

from surefoot.drills.drill import Drill, Portable
from surefoot.drills.lab_stage import LabStage
from surefoot.drills.stage import Stage


def sick(stage: Stage) -> None:
    """Deploy a version whose health checks fail."""
    site = stage.site
    version = site.version()
    site.break_version(version)
    stage.say(f"{version} is going to be unhealthy; surefoot deploy {site.environment} {version}")
    stage.exits(site.deploy(version), 4)
    stage.all_run(stage.before)
    stage.one_at_a_time()


def one_host(stage: Stage) -> None:
    """Deploy a version that is not well on one of two hosts."""
    site = stage.site
    version = site.version()
    site.break_version(version, site.web[-1])
    stage.say(f"{version} is going to be unhealthy on {site.web[-1].name} alone")
    stage.exits(site.deploy(version), 4)
    stage.all_run(stage.before)
    stage.one_at_a_time()


def retry(stage: Stage) -> None:
    """Mend what failed, and deploy the same version again."""
    site = stage.site
    version = site.version()
    site.break_version(version)
    stage.say(f"{version} is going to be unhealthy; surefoot deploy {site.environment} {version}")
    stage.exits(site.deploy(version), 4)
    stage.all_run(stage.before)
    site.mend()
    stage.say(f"it is mended; surefoot deploy {site.environment} {version}, once more")
    stage.ends_well(site.deploy(version), version)


def stranded(stage: LabStage) -> None:
    """Take away a host in the middle, so that it can't be put back either; then repair it, and say so."""
    site = stage.site
    last = site.web[-1]
    version, deploy = stage.in_the_middle()
    last.stop_sshd()
    stage.say(f"{last.name}'s sshd is stopped for good")
    stage.exits(deploy, 5)
    name = site.named(deploy)
    refused = site.deploy(site.version())
    stage.check("locked", refused.wait() == 3, f"a new deployment ends with {refused.process.returncode}")
    last.start_sshd()
    site.put_back_by_hand(version, stage.before)
    stage.say(f"{last.name}'s sshd is started again, and a person has run the way back by hand")
    stage.resolves(name, "drill: sshd was down")


DRILLS = (
    Portable(
        "rollback",
        "rollback",
        "The new version's health checks fail.",
        ("deploys a version that is not healthy", "expects exit 4 and the previous version on both hosts"),
        sick,
        needs=("break",),
    ),
    Portable(
        "partial-failure",
        "rollback",
        "The new version is not healthy on one of two hosts.",
        ("deploys a version that is not healthy on one host", "expects exit 4 and the previous version on both hosts"),
        one_host,
        needs=("break",),
    ),
    Portable(
        "safe-retry",
        "rollback",
        "A version that was put back is mended, and deployed again.",
        ("deploys a version that is not healthy, mends it, deploys it again", "expects exit 4, then exit 0"),
        retry,
        needs=("break",),
    ),
    Drill(
        "stranded",
        "rollback",
        "A host goes away for good in the middle, so that nothing can be put back.",
        (
            "deploys, stops a host's sshd in the middle, starts it again after the deployment has ended",
            "expects exit 5, that new deployments are refused, and that they are let in again after `resolve`",
        ),
        stranded,
    ),
)
