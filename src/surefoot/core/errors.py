# SPDX-License-Identifier: Apache-2.0
"""The one tree of errors: each has a stable code, a sentence, a hint, and the exit code it ends with.

Errors are raised where they are known and rendered in one place (the command line or the HTTP API).
`Failure` is the journaled twin: what went wrong in a deployment, as a value.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec


class Exit(IntEnum):
    """Exit codes of every command; part of the public contract."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    REFUSED = 3
    PUT_BACK = 4
    STRANDED = 5
    CANCELLED = 6
    NOT_FOUND = 7
    TIMED_OUT = 8
    STORE = 9


class Code(StrEnum):
    """Stable codes of errors and failures. A code is never renamed and never reused."""

    INTERNAL = "SF-INTERNAL"
    USAGE = "SF-USAGE"
    OUTPUT = "SF-OUTPUT"
    VERSION_INVALID = "SF-VERSION-INVALID"
    CONFIG_MISSING = "SF-CONFIG-MISSING"
    CONFIG_SYNTAX = "SF-CONFIG-SYNTAX"
    CONFIG_KEY = "SF-CONFIG-KEY"
    CONFIG_VALUE = "SF-CONFIG-VALUE"
    CONFIG_VARIABLE = "SF-CONFIG-VARIABLE"
    CONFIG_FILE = "SF-CONFIG-FILE"
    CONFIG_TIMING = "SF-CONFIG-TIMING"
    BUNDLE = "SF-BUNDLE"
    ENVIRONMENT_UNKNOWN = "SF-ENVIRONMENT-UNKNOWN"
    DEPLOYMENT_UNKNOWN = "SF-DEPLOYMENT-UNKNOWN"
    AGENT_UNKNOWN = "SF-AGENT-UNKNOWN"
    AGENT_DUPLICATE = "SF-AGENT-DUPLICATE"
    AGENT_FOLDER = "SF-AGENT-FOLDER"
    NOT_ALLOWED = "SF-NOT-ALLOWED"
    LOCKED = "SF-LOCKED"
    FROZEN = "SF-FROZEN"
    WINDOW_CLOSED = "SF-WINDOW-CLOSED"
    NOT_PROMOTED = "SF-NOT-PROMOTED"
    APPROVAL_NOT_ALLOWED = "SF-APPROVAL-NOT-ALLOWED"
    APPROVAL_EXPIRED = "SF-APPROVAL-EXPIRED"
    REJECTED = "SF-REJECTED"
    SUPERSEDED = "SF-SUPERSEDED"
    NO_EARLIER_VERSION = "SF-NO-EARLIER-VERSION"
    TIMED_OUT = "SF-TIMED-OUT"
    STORE_UNREACHABLE = "SF-STORE-UNREACHABLE"
    STORE_AUTH = "SF-STORE-AUTH"
    STORE_UNFIT = "SF-STORE-UNFIT"
    STORE_READ_ONLY = "SF-STORE-READ-ONLY"
    STORE_FULL = "SF-STORE-FULL"
    STORE_BUSY = "SF-STORE-BUSY"
    STORE_NEWER = "SF-STORE-NEWER"
    STORE_CORRUPT = "SF-STORE-CORRUPT"
    LEASE_LOST = "SF-LEASE-LOST"
    PREFLIGHT_FAILED = "SF-PREFLIGHT-FAILED"
    STEP_FAILED = "SF-STEP-FAILED"
    STEP_TIMED_OUT = "SF-STEP-TIMED-OUT"
    STEP_KILLED = "SF-STEP-KILLED"
    STEP_NOT_STARTED = "SF-STEP-NOT-STARTED"
    SECRET_MISSING = "SF-SECRET-MISSING"  # noqa: S105 - a code, not a secret
    SECRET_UNREADABLE = "SF-SECRET-UNREADABLE"  # noqa: S105
    SECRET_EXPOSED = "SF-SECRET-EXPOSED"  # noqa: S105
    SECRET_COMMAND = "SF-SECRET-COMMAND"  # noqa: S105
    SECRET_VAULT = "SF-SECRET-VAULT"  # noqa: S105
    SECRET_INVALID = "SF-SECRET-INVALID"  # noqa: S105
    SECRET_EXPIRED = "SF-SECRET-EXPIRED"  # noqa: S105
    SSH_AGENT = "SF-SSH-AGENT"
    HOST_UNREACHABLE = "SF-HOST-UNREACHABLE"
    HOST_KEY_CHANGED = "SF-HOST-KEY-CHANGED"
    HOST_KEY_UNKNOWN = "SF-HOST-KEY-UNKNOWN"
    HOST_AUTH = "SF-HOST-AUTH"
    HOST_SUDO = "SF-HOST-SUDO"
    HOST_PYTHON = "SF-HOST-PYTHON"
    HOST_DISK_FULL = "SF-HOST-DISK-FULL"
    NO_HOSTS = "SF-NO-HOSTS"
    FENCE_FAILED = "SF-FENCE-FAILED"
    FENCE_STALE = "SF-FENCE-STALE"
    FENCE_FOLDER = "SF-FENCE-FOLDER"
    HEALTH_FAILED = "SF-HEALTH-FAILED"
    STATE_FILE = "SF-STATE-FILE"
    VERSIONS_MIXED = "SF-VERSIONS-MIXED"
    LOOK_AGAIN = "SF-LOOK-AGAIN"
    HOSTS_CHANGED = "SF-HOSTS-CHANGED"
    CANCELLED = "SF-CANCELLED"
    TAKEN_OVER_TOO_OFTEN = "SF-TAKEN-OVER-TOO-OFTEN"
    UNDO_FAILED = "SF-UNDO-FAILED"
    DELIVERY_FAILED = "SF-DELIVERY-FAILED"
    DELIVERY_REFUSED = "SF-DELIVERY-REFUSED"
    EXTRA_MISSING = "SF-EXTRA-MISSING"
    LAB = "SF-LAB"
    DRILL = "SF-DRILL"
    LISTEN = "SF-LISTEN"
    WEB_CONFIG = "SF-WEB-CONFIG"
    PUSH_FAILED = "SF-PUSH-FAILED"
    CODE_UNKNOWN = "SF-CODE-UNKNOWN"


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong, where, and what to do: one sentence each. Never holds a secret's value."""

    code: Code
    message: str
    hint: str = ""
    agent: str | None = None
    host: str | None = None
    step: str | None = None
    evidence: str = ""


class SurefootError(Exception):
    """Base of all errors that a user can meet."""

    exit_code: Exit = Exit.INTERNAL
    default_code: Code = Code.INTERNAL

    def __init__(self, message: str, *, code: Code | None = None, hint: str = "") -> None:
        """Take one sentence about what happened, and one about what to do."""
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint


class UsageError(SurefootError):
    """The call itself is wrong: an argument, an option, a version that can't be one."""

    exit_code = Exit.USAGE
    default_code = Code.USAGE


class ConfigError(SurefootError):
    """The config is wrong. `problems` names each one with file, line and key."""

    exit_code = Exit.USAGE
    default_code = Code.CONFIG_VALUE


class RefusedError(SurefootError):
    """Refused before anything was touched: preflight, lock, freeze, gate."""

    exit_code = Exit.REFUSED
    default_code = Code.LOCKED


class NotFoundError(SurefootError):
    """No such deployment, environment or agent, or not allowed in its state."""

    exit_code = Exit.NOT_FOUND
    default_code = Code.DEPLOYMENT_UNKNOWN


class NotAllowedError(NotFoundError):
    """The thing exists, but its state does not allow what was asked."""

    default_code = Code.NOT_ALLOWED


class WaitTimeoutError(SurefootError):
    """The wait was over before the deployment was; the deployment goes on."""

    exit_code = Exit.TIMED_OUT
    default_code = Code.TIMED_OUT


class StoreError(SurefootError):
    """The store can't be used: unreachable, wrong password, read-only, full, newer than the program."""

    exit_code = Exit.STORE
    default_code = Code.STORE_UNREACHABLE


class NewerStoreError(StoreError):
    """A newer program has upgraded the store, or written what this one does not know. Trying again is of no use."""

    default_code = Code.STORE_NEWER


class LeaseLostError(SurefootError):
    """The store no longer grants this token: whoever holds it must stop touching anything."""

    default_code = Code.LEASE_LOST


class ConflictError(SurefootError):
    """Somebody else appended first; read the journal again and decide anew. Never shown to users."""
