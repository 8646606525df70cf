# SPDX-License-Identifier: Apache-2.0
"""The key that opens the hosts expires in the middle of a deployment; or it is changed there, by the book."""

from __future__ import annotations

from surefoot.core.errors import Code
from surefoot.drills.drill import Drill
from surefoot.drills.lab_stage import LabStage


def expired(stage: LabStage) -> None:
    """Have the hosts accept the key no more, so that there is no way back either; then renew it, and say so."""
    site = stage.site
    version, deploy = stage.in_the_middle()
    for host in site.web:
        host.accept("")
    stage.say("the hosts' key has expired: no host accepts it any more")
    stage.exits(deploy, 5)
    name = site.named(deploy)
    reason = site.ask("show", name)["reason"] or {}
    stage.check(
        "it says what is wrong", reason.get("code") == Code.HOST_AUTH, f"{reason.get('code')}: {reason.get('message')}"
    )
    site.rotate_key()
    site.put_back_by_hand(version, stage.before)
    stage.say("the key is renewed, and a person has run the way back by hand")
    stage.resolves(name, "drill: the key had expired")


def rotated(stage: LabStage) -> None:
    """Change the key on hosts and runners at once, and break all connections."""
    version, deploy = stage.in_the_middle()
    stage.site.rotate_key()
    stage.say("the hosts' key is changed, and every connection broken; the runners know the new one")
    stage.ends_well(deploy, version)


DRILLS = (
    Drill(
        "key-expired",
        "secrets",
        "In the middle of a deployment the key expires that opens the hosts.",
        (
            "deploys, and has no host accept the key any more while one host runs the new version",
            "expects exit 5 with the cause named, and that new deployments are let in after a new key and `resolve`",
        ),
        expired,
    ),
    Drill(
        "key-rotated",
        "secrets",
        "In the middle of a deployment the key is changed that opens the hosts.",
        (
            "deploys, and changes the key on hosts and runners while one host runs the new version",
            "expects exit 0 and the new version on both hosts: secrets are read again before each attempt",
        ),
        rotated,
    ),
)
