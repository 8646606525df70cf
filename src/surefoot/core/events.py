# SPDX-License-Identifier: Apache-2.0
"""What happened to a deployment: a closed sum of frozen events, and their one JSON form.

Requests (`Accepted`, `CancelRequested`, `ResolveRequested`) and what becomes of a deployment before any agent has begun
it (`Waiting`, `ApprovalGiven`, `Rejected`, `ApprovalExpired`, `Superseded`) may be appended by anyone; all other events
only by the holder of the environment's lease, with its token, but for what was told to others (`Delivered`,
`DeliveryFailed`): anyone may note that at any time, and it changes nothing of the deployment.

Events are never changed: a field that is added needs a default, so that the journals of older versions still decode; a
meaning that changes needs a new event.
"""

from __future__ import annotations

from typing import get_args

import msgspec

from surefoot.core.codec import Codec
from surefoot.core.errors import Failure
from surefoot.core.gates import Promoted, Wait
from surefoot.core.plan import Direction, Plan
from surefoot.core.status import Status


class Change(msgspec.Struct, frozen=True):
    """One commit that a deployment brings to its environment."""

    commit: str
    author: str
    subject: str
    at: float | None = None  #: when it was committed, by its author's clock


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a deployment was asked for: the CI's run, as its environment names it."""

    run_url: str = ""
    repository: str = ""
    ref: str = ""
    claims: dict[str, str] = {}  #: of the run's OIDC token, where the CI gives one; named, not verified here
    since: str | None = None  #: the commit that the environment ran when this was asked for
    changes: tuple[Change, ...] = ()  #: what came after it, newest first; the newest ones of many


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """The deployment is in the queue; from now on it will end."""

    id: str
    environment: str
    number: int
    version: str
    plan: Plan
    bundle: str | None = None  #: digest of the files it runs from
    requested_by: str = ""
    reason: str = ""
    key: str | None = None
    commit: str | None = None
    rollback: bool = False
    origin: Origin | None = None
    not_before: float | None = None  #: when it was asked to start
    override: bool = False  #: starts in spite of a freeze and outside of all windows; `reason` says why
    promoted: Promoted | None = None


class Waiting(msgspec.Struct, frozen=True, tag="waiting"):
    """Gates are closed: it does not start before all of these are over."""

    waits: tuple[Wait, ...]


class ApprovalGiven(msgspec.Struct, frozen=True, tag="approval_given"):
    """A person agrees."""

    by: str
    reason: str = ""
    groups: tuple[str, ...] = ()  #: those of the gate that the person belongs to


class Rejected(msgspec.Struct, frozen=True, tag="rejected"):
    """A person does not agree: it will not be deployed."""

    by: str
    reason: str


class ApprovalExpired(msgspec.Struct, frozen=True, tag="approval_expired"):
    """Nobody has agreed in time, or not enough people."""


class Superseded(msgspec.Struct, frozen=True, tag="superseded"):
    """A newer deployment takes its place before it has begun."""

    by: str
    version: str


class LeaseGranted(msgspec.Struct, frozen=True, tag="lease_granted"):
    """An agent holds the environment's lease for this deployment, with a greater token than any before."""

    agent: str
    token: int
    reasons: tuple[str, ...] = ()
    previous_version: str | None = None  #: what the environment ran when the first agent started; later ones repeat it
    taken_from: str | None = None  #: the agent that was lost, where one was
    waited_seconds: float | None = None  #: seconds from the last sign of life of the lost agent to this grant


class HandedOver(msgspec.Struct, frozen=True, tag="handed_over"):
    """The holder gave the lease back before the end, in good order."""

    cause: str


class Checked(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one preflight check came out. `status` is as in the public contract: pass, fail, warn, skip."""

    name: str
    status: str
    message: str
    hint: str = ""
    duration_seconds: float = 0.0
    host: str | None = None


class PreflightPassed(msgspec.Struct, frozen=True, tag="preflight_passed"):
    """All preflight checks passed or warned."""

    warnings: tuple[str, ...] = ()
    checks: tuple[Checked, ...] = ()
    pins: dict[str, str] = {}  #: what all agents hold the rest of the deployment to, by variable


class PreflightFailed(msgspec.Struct, frozen=True, tag="preflight_failed"):
    """A preflight check failed; nothing was touched."""

    failure: Failure
    checks: tuple[Checked, ...] = ()


class FenceRaised(msgspec.Struct, frozen=True, tag="fence_raised"):
    """Every host refuses tokens smaller than this one, and runs nothing of theirs."""

    hosts: tuple[str, ...]


class FenceFailed(msgspec.Struct, frozen=True, tag="fence_failed"):
    """A host could not be raised; the step that it was raised for did not begin."""

    failure: Failure


class NotBegun(msgspec.Struct, frozen=True, tag="not_begun"):
    """What was to be done (the step in flight, or else a look at hosts) could not even be begun on the agent's machine:
    nothing of it has happened.
    """

    failure: Failure


class StepStarted(msgspec.Struct, frozen=True, tag="step_started"):
    """An attempt begins; written before its first process exists."""

    step: str
    direction: Direction
    attempt: int


class HostRun(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a playbook came to on one host: from its first task there to the end of its last."""

    host: str
    after: float  #: seconds since the attempt began
    seconds: float
    changed: int = 0  #: how many tasks changed something
    failed: bool = False  #: or could not be reached


class StepSucceeded(msgspec.Struct, frozen=True, tag="step_succeeded"):
    """The attempt ended well, and nothing of it runs any more."""

    step: str
    direction: Direction
    attempt: int
    changed: int | None = None  #: how many tasks changed something, where the step can tell
    hosts: tuple[HostRun, ...] = ()  #: where it is a playbook; of many hosts the slowest


class StepFailed(msgspec.Struct, frozen=True, tag="step_failed"):
    """The attempt failed, and nothing of it runs any more."""

    step: str
    direction: Direction
    attempt: int
    failure: Failure
    hosts: tuple[HostRun, ...] = ()  #: as above, where the playbook came to its end; those that failed first


class StepInterrupted(msgspec.Struct, frozen=True, tag="step_interrupted"):
    """The attempt was ended from outside (a cancel); nothing of it runs any more."""

    step: str
    direction: Direction
    attempt: int
    cause: str


class HealthPassed(msgspec.Struct, frozen=True, tag="health_passed"):
    """All health checks passed, as often as the policy asks."""

    direction: Direction
    checks: int = 0


class HealthFailed(msgspec.Struct, frozen=True, tag="health_failed"):
    """The health checks did not pass within the policy's time."""

    direction: Direction
    failure: Failure


class VersionsRecorded(msgspec.Struct, frozen=True, tag="versions_recorded"):
    """Every host says that it runs one and the same version."""

    direction: Direction
    version: str | None
    hosts: tuple[str, ...] = ()


class VersionsMixed(msgspec.Struct, frozen=True, tag="versions_mixed"):
    """Hosts could not be recorded, or do not all run the version."""

    direction: Direction
    failure: Failure
    versions: dict[str, str | None] = {}


class VersionsSurveyed(msgspec.Struct, frozen=True, tag="versions_surveyed"):
    """What each host said when nothing could put it back: the version that it runs, or why that is not known."""

    versions: dict[str, str | None]
    unknown: dict[str, str] = {}


class BakeStarted(msgspec.Struct, frozen=True, tag="bake_started"):
    """All is done and healthy; from now on health is watched for a time."""

    seconds: float


class BakePassed(msgspec.Struct, frozen=True, tag="bake_passed"):
    """It stayed healthy for all that time."""


class BakeFailed(msgspec.Struct, frozen=True, tag="bake_failed"):
    """It was healthy once and is no more."""

    failure: Failure


class CancelRequested(msgspec.Struct, frozen=True, tag="cancel_requested"):
    """Somebody asks for a safe end."""

    by: str
    reason: str = ""


class UndoStarted(msgspec.Struct, frozen=True, tag="undo_started"):
    """No way forward any more: from here on the deployment is put back."""

    cause: Failure


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The end. No event but a resolution may follow."""

    status: Status
    reason: Failure | None = None


class ResolveRequested(msgspec.Struct, frozen=True, tag="resolve_requested"):
    """A person says that a stranded environment is repaired, and asks to have it checked."""

    by: str
    reason: str
    unchecked: bool = False
    version: str | None = None  #: which version the person says it runs now; None: ask the hosts


class ResolveRefused(msgspec.Struct, frozen=True, tag="resolve_refused"):
    """The checks say that the environment is not repaired."""

    failure: Failure


class Resolved(msgspec.Struct, frozen=True, tag="resolved"):
    """The environment is repaired and takes deployments again."""

    version: str | None
    unchecked: bool = False


class Delivered(msgspec.Struct, frozen=True, tag="delivered"):
    """Somebody was told of what entry `of` says."""

    target: str
    of: int
    what: str  #: such as `issue opened`
    where: str = ""  #: an address that people can open; never one that holds a secret
    reference: str = ""  #: what the target calls it
    tries: int = 1
    by: str = ""  #: the agent that delivered


class DeliveryFailed(msgspec.Struct, frozen=True, tag="delivery_failed"):
    """Telling somebody failed: for the first time, or for good. It is no failure of the deployment."""

    target: str
    of: int
    failure: Failure
    tries: int = 1
    given_up: bool = False
    by: str = ""


Request = Accepted | CancelRequested | ResolveRequested
#: What came of something that could be begun.
Outcome = (
    PreflightPassed
    | PreflightFailed
    | FenceRaised
    | StepSucceeded
    | StepFailed
    | StepInterrupted
    | HealthPassed
    | HealthFailed
    | VersionsRecorded
    | VersionsMixed
    | BakePassed
    | BakeFailed
)
OUTCOMES = frozenset(get_args(Outcome))
Event = (
    Accepted
    | Waiting
    | ApprovalGiven
    | Rejected
    | ApprovalExpired
    | Superseded
    | LeaseGranted
    | HandedOver
    | FenceFailed
    | NotBegun
    | StepStarted
    | Outcome
    | VersionsSurveyed
    | BakeStarted
    | CancelRequested
    | UndoStarted
    | Finished
    | ResolveRequested
    | ResolveRefused
    | Resolved
    | Delivered
    | DeliveryFailed
)


class Entry(msgspec.Struct, frozen=True):
    """One line of a journal. `seq` counts from 1 without gaps; `at` is the store's clock, in seconds since 1970."""

    seq: int
    at: float
    event: Event
    agent: str | None = None
    token: int | None = None


_codec: Codec[Event] = Codec(Event)
encode, decode, type_of = _codec.encode, _codec.decode, _codec.type_of
