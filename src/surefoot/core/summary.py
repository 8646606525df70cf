# SPDX-License-Identifier: Apache-2.0
"""What the store keeps beside a deployment's journal, so that nobody need fold it to list deployments or to know what
an environment runs. Always equal to what the journal's fold says.
"""

from __future__ import annotations

import msgspec

from surefoot.core.deployment import Deployment
from surefoot.core.errors import Failure
from surefoot.core.status import Status


class Summary(msgspec.Struct, frozen=True):
    """The part of a deployment's state that lists and the queue need."""

    id: str
    environment: str
    number: int
    version: str
    status: Status
    previous_version: str | None
    requested_by: str
    requested_at: float
    started_at: float | None
    finished_at: float | None
    agent: str | None
    token: int
    takeovers: int
    seq: int
    wants_agent: bool
    reason: Failure | None = None
    commit: str | None = None
    bundle: str | None = None
    key: str | None = None
    rollback: bool = False
    resolved: bool = False


def summarise(s: Deployment) -> Summary:
    """Return the summary of a state."""
    return Summary(
        id=s.id,
        environment=s.environment,
        number=s.number,
        version=s.version,
        status=s.status,
        previous_version=s.previous_version,
        requested_by=s.requested_by,
        requested_at=s.requested_at,
        started_at=s.started_at,
        finished_at=s.finished_at,
        agent=s.agent,
        token=s.token,
        takeovers=s.takeovers,
        seq=s.seq,
        wants_agent=s.wants_agent,
        reason=s.outcome if s.status.terminal else s.cause,
        commit=s.commit,
        bundle=s.bundle,
        key=s.key,
        rollback=s.rollback,
        resolved=s.resolved is not None,
    )


class EnvironmentChange(msgspec.Struct, frozen=True):
    """What the end of a deployment (or its resolution) makes of its environment."""

    current_version: str | None
    previous_version: str | None
    locked_by: str | None


def environment_after(s: Deployment, *, current: str | None, previous: str | None) -> EnvironmentChange | None:
    """Return the environment as `s` leaves it, given what it was; None where it leaves it as it was."""
    if s.resolved is not None:
        version = s.resolved.version
        moved = version != current
        return EnvironmentChange(version, current if moved else previous, None)
    if s.status is Status.STRANDED:
        return EnvironmentChange(current, previous, s.id)
    if s.status is Status.SUCCEEDED and s.version != current:
        return EnvironmentChange(s.version, current, None)
    return None
