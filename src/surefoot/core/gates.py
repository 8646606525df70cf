# SPDX-License-Identifier: Apache-2.0
"""What stands between a deployment and its start: the gates of a plan, a freeze, and what a deployment waits for.

Values alone, frozen with the plan. Whether a gate is open is decided in `opening`, when a window is open in `windows`.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec

#: How long a deployment waits for approvals where the config does not say: it has to end some day (promise 2).
APPROVALS_EXPIRE = 7 * 24 * 3600.0
MINUTES_OF_A_DAY = 24 * 60


class Gate(StrEnum):
    """What a deployment may wait for."""

    SCHEDULE = "schedule"  #: its own time, that it was asked for
    FREEZE = "freeze"
    WINDOW = "window"
    APPROVAL = "approval"


class Wait(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that a deployment waits for. `until` is when that is over by itself, or (of an approval) too late."""

    gate: Gate
    message: str
    until: float | None = None


class Approvals(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose agreement is needed. A group without members is one that the config does not know: nobody can tell who
    belongs to it, so anyone counts.
    """

    required: int = 1
    groups: dict[str, tuple[str, ...] | None] = {}
    expires: float = APPROVALS_EXPIRE
    rollbacks: bool = False  #: whether going back to an earlier version needs them too


class Window(msgspec.Struct, frozen=True):
    """When deployments may start: on these days (0 is Monday), from one minute of the day to another, which may be of
    the next day.
    """

    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    start: int = 0
    end: int = MINUTES_OF_A_DAY
    time_zone: str = "UTC"


class PromoteFrom(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a version must have succeeded first: not longer ago than `within`, and at least `after` ago."""

    environment: str
    within: float | None = None
    after: float = 0.0


class Gates(msgspec.Struct, frozen=True, omit_defaults=True):
    """All gates of an environment that its config names."""

    approvals: Approvals | None = None
    windows: tuple[Window, ...] = ()
    promote_from: PromoteFrom | None = None
    latest: bool = False  #: whether a newer deployment takes the place of those that have not begun


class Promoted(msgspec.Struct, frozen=True):
    """The evidence that a version has succeeded where it is promoted from."""

    environment: str
    deployment: str
    version: str
    finished_at: float
    bundle: str | None = None  #: digest of the files that it ran from there
    commit: str | None = None


class Approval(msgspec.Struct, frozen=True):
    """One person's agreement."""

    by: str
    at: float
    reason: str = ""
    groups: tuple[str, ...] = ()  #: those of the gate that the person belongs to


class Bar(IntEnum):
    """What of its environment keeps agents from looking at a deployment."""

    NOTHING = 0
    LOCK = 1
    FREEZE = 2  #: a freeze, and a lock too
