# SPDX-License-Identifier: Apache-2.0
"""The store goes away: its primary loses power and the replica is promoted, or it is restarted in mid-commit."""

from __future__ import annotations

import time

from surefoot.drills.drill import Drill
from surefoot.drills.lab_stage import LabStage


def failed_over(stage: LabStage) -> None:
    """Take the power of the store's primary in mid-deploy, and promote its replica."""
    site = stage.site
    versions = site.version(), site.version()
    stage.say(f"surefoot deploy {site.environment} {versions[0]}, and {versions[1]} to come after it")
    deploy = site.deploy(versions[0])
    site.named(deploy)
    queued = site.submit(versions[1])
    stage.reach_the_middle(deploy, versions[0])
    lost, heir = site.servers.primary.host.name, site.servers.standby.host.name
    fault = time.time()
    site.servers.fail_over()
    stage.say(f"{lost}, the store's primary, loses power; {heir} is promoted")
    stage.exits(deploy, 0)
    site.settle()
    stage.measure("from the fault until both deployments have ended", time.time() - fault)
    status = site.ask("show", queued)["status"]
    stage.check("nothing that was accepted is lost", status == "succeeded", f"{queued} is {status}")
    stage.all_run(versions[1])
    stage.one_at_a_time()


def restarted(stage: LabStage) -> None:
    """Crash the store while a commit waits for its reply, and start it again."""
    site = stage.site
    version, deploy = stage.in_the_middle()
    site.servers.restart_in_mid_commit()
    stage.say("the store crashes with a commit in flight, and is started again")
    stage.ends_well(deploy, version)


DRILLS = (
    Drill(
        "store-restart",
        "store",
        "In the middle of a deployment the store crashes with a commit in flight.",
        ("deploys, crashes PostgreSQL while a commit waits for its reply, starts it again", "expects exit 0"),
        restarted,
    ),
    Drill(
        "store-failover",
        "store",
        "In the middle of a deployment the store's primary loses power, and its replica is promoted.",
        (
            "deploys, with another deployment in the queue; takes the store's power, promotes the replica",
            "expects that both deployments succeed, in order",
        ),
        failed_over,
        spoils=True,
    ),
)
