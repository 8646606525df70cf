# SPDX-License-Identifier: Apache-2.0
"""Who is told what of a deployment: the consequences that a plan holds, frozen when the deployment is accepted.

A target names secrets as `${NAME}`, never their values: an agent fills them in when it delivers. What is due, and
when, is decided in `outbox`; how it is delivered is no business of the core.
"""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec


class Moment(StrEnum):
    """What in a deployment's story somebody may want to be told of."""

    ACCEPTED = "accepted"
    WAITING = "waiting"  #: for an approval
    STARTED = "started"
    ROLLING_BACK = "rolling_back"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"
    STRANDED = "stranded"
    RESOLVE_REQUESTED = "resolve_requested"
    RESOLVE_REFUSED = "resolve_refused"
    RESOLVED = "resolved"


#: The ends of which an incident may be made.
INCIDENT_MOMENTS = (Moment.FAILED, Moment.ROLLED_BACK, Moment.CANCELLED, Moment.STRANDED)
#: What follows on such an end, and belongs to the same incident.
AFTERMATH = (Moment.RESOLVE_REQUESTED, Moment.RESOLVE_REFUSED, Moment.RESOLVED)
#: What GitHub's Deployments and commit statuses can say.
TOLD_AS_STATUS = (
    Moment.ACCEPTED,
    Moment.STARTED,
    Moment.SUCCEEDED,
    Moment.FAILED,
    Moment.ROLLED_BACK,
    Moment.CANCELLED,
    Moment.STRANDED,
    Moment.RESOLVED,
)


class GitHubAccess(msgspec.Struct, frozen=True):
    """A repository, and what opens it: a token, or an App's id and key."""

    repository: str  #: OWNER/NAME
    api: str = "https://api.github.com"
    token: str = ""
    app_id: str = ""
    private_key: str = ""


class GitHubIssue(msgspec.Struct, frozen=True, tag="github_issue"):
    """An incident: one issue for each deployment that ended so, with the story in its comments."""

    name: str
    github: GitHubAccess
    labels: tuple[str, ...] = ()
    assignees: tuple[str, ...] = ()
    on: tuple[Moment, ...] = ()
    runbook: str = ""


class GitHubStatus(msgspec.Struct, frozen=True, tag="github_status"):
    """A GitHub Deployment with its statuses, and the status of the commit."""

    name: str
    github: GitHubAccess
    deployments: bool = True
    commit_status: bool = True


class Webhook(msgspec.Struct, frozen=True, tag="webhook"):
    """A POST of JSON."""

    name: str
    url: str
    on: tuple[Moment, ...] = ()
    runbook: str = ""


class Message(msgspec.Struct, frozen=True, tag="message"):
    """A message to people, by any service that Apprise knows."""

    name: str
    url: str
    on: tuple[Moment, ...] = ()
    runbook: str = ""


Target = GitHubIssue | GitHubStatus | Webhook | Message


_REFERENCE = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)


def references(text: str) -> tuple[str, ...]:
    """Return the names of the secrets that a text speaks of as `${NAME}`."""
    return tuple(dict.fromkeys(_REFERENCE.findall(text)))


def secrets_of(target: Target) -> tuple[str, ...]:
    """Return the names of the secrets that a target's address or access needs."""
    return references(msgspec.json.encode(target).decode())


def wants(target: Target, moment: Moment, ended: Moment | None) -> bool:
    """Say whether a target is told of a moment, in a deployment that has `ended` so (None: it goes on)."""
    match target:
        case GitHubIssue(on=on):
            return moment in on or (moment in AFTERMATH and ended in on)
        case GitHubStatus():
            return moment in TOLD_AS_STATUS
        case Webhook(on=on) | Message(on=on):
            return moment in on
