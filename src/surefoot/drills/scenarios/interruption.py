# SPDX-License-Identifier: Apache-2.0
"""Somebody interrupts: a cancel, a killed command line, a CI job that is cancelled."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from surefoot.drills.drill import Portable
from surefoot.drills.stage import Stage

#: What a cancelled job of GitHub Actions gets, and when.
CI_SIGNALS = ((0.0, signal.SIGINT), (7.5, signal.SIGTERM), (10.0, signal.SIGKILL))
#: A cancel, 30 s into a deployment: what the requirement names. A shorter one is cancelled in its middle.
LATE = 30.0


def cancelled(when: str) -> Callable[[Stage], None]:
    """Return the play in which a person cancels."""

    def play(stage: Stage) -> None:
        site = stage.site
        version, deploy = stage.deploys()
        name = site.named(deploy)
        if when == "middle":
            stage.reach_the_middle(deploy, version)
        else:
            site.until(lambda: "step" in deploy.said() or deploy.ended, "its first step has begun")
        asked = time.time()
        done = site.cli("cancel", name, "--reason", "drill")
        stage.say(f"surefoot cancel {name}")
        stage.check("the cancel is taken", done.wait() == 0, done.said().strip()[-200:])
        stage.exits(deploy, 6)
        stage.measure("from the cancel to its safe end", time.time() - asked)
        stage.all_run(stage.before)
        stage.one_at_a_time()

    return play


def killed_command(stage: Stage) -> None:
    """Kill the command line that follows: the deployment goes on."""
    site = stage.site
    version, deploy = stage.in_the_middle()
    deploy.process.kill()
    stage.say("the command line is killed (SIGKILL)")
    site.settle()
    stage.all_run(version)
    name = site.named(deploy)
    status = site.ask("show", name)["status"]
    stage.check("it goes on", status == "succeeded", f"{name} is {status}")
    stage.one_at_a_time()
    stage.no_takeover(deploy)


def ci_cancel(stage: Stage) -> None:
    """Cancel the job of a CI: its runner sends SIGINT, then SIGTERM, then SIGKILL."""
    site = stage.site
    version = site.version()
    stage.say(f"surefoot deploy {site.environment} {version}, in a job of a CI")
    deploy = site.deploy(version)
    stage.reach_the_middle(deploy, version)
    began = time.monotonic()
    for after, number in CI_SIGNALS:
        while time.monotonic() - began < after and not deploy.ended:
            time.sleep(0.05)
        if not deploy.ended:
            deploy.process.send_signal(number)
            stage.say(f"the job is cancelled: {number.name}")
    deploy.wait()
    site.settle()
    name = site.named(deploy)
    status = site.ask("show", name)["status"]
    stage.check("cancelled and put back", status == "cancelled", f"{name} is {status}")
    stage.all_run(stage.before)
    stage.one_at_a_time()


DRILLS = (
    Portable(
        "cancel-early",
        "interruption",
        "A person cancels as soon as the first step has begun.",
        ("deploys, and cancels at once", "expects exit 6 and the previous version on both hosts"),
        cancelled("early"),
    ),
    Portable(
        "cancel",
        "interruption",
        "A person cancels in the middle of a deployment.",
        (
            "deploys, and cancels while one host runs the new version and the other not yet",
            "expects exit 6 and the previous version on both hosts",
        ),
        cancelled("middle"),
    ),
    Portable(
        "killed-command",
        "interruption",
        "The command line that follows a deployment is killed.",
        ("deploys, and kills the command line", "expects that the deployment succeeds all the same"),
        killed_command,
    ),
    Portable(
        "ci-cancel",
        "interruption",
        "A CI cancels its job: SIGINT, SIGTERM after 7.5 s, SIGKILL after 10 s.",
        (
            "deploys, and sends what a CI's runner sends to a job that is cancelled",
            "expects the deployment to be cancelled, and the previous version on both hosts",
        ),
        ci_cancel,
    ),
)
