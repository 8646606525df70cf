# SPDX-License-Identifier: Apache-2.0
"""Statuses of deployments and steps; their names are part of the public contract."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property


class Status(StrEnum):
    """Where a deployment is. The last five are terminal: nothing leads from one of them to another."""

    QUEUED = "queued"
    WAITING = "waiting"
    RUNNING = "running"
    ROLLING_BACK = "rolling_back"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  #: refused before anything was touched
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"
    STRANDED = "stranded"  #: could not be put back; needs a person

    @cached_property
    def terminal(self) -> bool:
        """Whether the deployment has ended."""
        return self in _TERMINAL

    @property
    def started(self) -> bool:
        """Whether an agent is (or should be) at work on it."""
        return self in (Status.RUNNING, Status.ROLLING_BACK)


_TERMINAL = (Status.SUCCEEDED, Status.FAILED, Status.ROLLED_BACK, Status.CANCELLED, Status.STRANDED)


#: The ends that count as failures of a deployment: hosts were touched, and do not run what was asked for.
FAILURES = (Status.ROLLED_BACK, Status.STRANDED)


class StepStatus(StrEnum):
    """Where a step is, in one direction."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    SKIPPED = "skipped"
