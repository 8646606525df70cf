# SPDX-License-Identifier: Apache-2.0
"""What all commands of a deployment have in common, playbooks too: what they are told, who takes what they print, and
what is said of one that did not succeed.
"""

from __future__ import annotations

from typing import Protocol

from surefoot.agent.attempt import Ran
from surefoot.agent.performer import Job
from surefoot.agent.processes import EndReason
from surefoot.core.decide import RunStep
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Direction

#: Lines of a failed step's output that its failure carries.
EVIDENCE = 10


class Output(Protocol):
    """Takes what a process prints."""

    def feed(self, stream: str, data: bytes) -> None:
        """Take bytes as they come."""

    def close(self) -> None:
        """No more will come."""


def environment(job: Job) -> dict[str, str]:
    """Return what every command is told of its deployment."""
    state = job.state
    return {
        "SUREFOOT_DEPLOYMENT": state.id,
        "SUREFOOT_ENVIRONMENT": state.environment,
        "SUREFOOT_VERSION": state.version,
        "SUREFOOT_PREVIOUS_VERSION": state.previous_version or "",
        "SUREFOOT_AGENT": job.agent,
        "SUREFOOT_TOKEN": str(job.token),
    }


def step_environment(job: Job, action: RunStep) -> dict[str, str]:
    """Return what every attempt of a step is told."""
    pins = job.state.pins if action.run.direction is Direction.FORWARD else {}
    return (
        pins
        | environment(job)
        | {
            "SUREFOOT_STEP": action.run.name,
            "SUREFOOT_DIRECTION": str(action.run.direction),
            "SUREFOOT_ATTEMPT": str(action.attempt),
        }
    )


def why_failed(ran: Ran, step: str, timeout: float, agent: str, tail: list[str]) -> Failure:
    """Say in one sentence why a command did not succeed."""
    ended, evidence = ran.ended, "\n".join(tail)
    if ran.timed_out:
        message, code = f"{step} was still running after {timeout:g} s and was ended", Code.STEP_TIMED_OUT
    elif ended.reason is EndReason.FAILED:
        message, code = f"{step} could not be started: {ended.error}", Code.STEP_NOT_STARTED
    elif ended.reason is EndReason.ORPHANED or ended.reason is EndReason.KILLED:
        message, code = f"{step}: what watches over it was killed, so it was ended", Code.STEP_KILLED
    elif ended.signal is not None:
        message, code = f"{step} was killed by signal {ended.signal}", Code.STEP_KILLED
    else:
        last = f": {tail[-1]}" if tail and tail[-1].strip() else ""
        message, code = f"{step} ended with status {ended.exit_code}{last}", Code.STEP_FAILED
    return Failure(code, message, agent=agent, step=step, evidence=evidence)
