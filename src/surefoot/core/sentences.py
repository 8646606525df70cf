# SPDX-License-Identifier: Apache-2.0
"""One sentence for each event of a journal, as the follow view, `events`, incidents and reports tell it."""

from __future__ import annotations

from typing import assert_never

from surefoot.core import events as ev
from surefoot.core.environment import EnvironmentEntry, Frozen, Unfrozen
from surefoot.core.errors import Failure
from surefoot.core.events import Entry
from surefoot.core.plan import Direction
from surefoot.core.wording import clock, duration

#: Hosts that a sentence names; the journal has all.
HOSTS_NAMED = 20


def sentence(entry: Entry) -> str:
    """Say what happened. The text is not clean yet."""
    match entry.event:  # in the order in which a fold asks for them: what happens most comes first
        case ev.StepStarted() as e:
            return f"{_step(e.step, e.direction)} started{_attempt(e.attempt)}"
        case ev.StepSucceeded() as e:
            changed = "" if e.changed is None else f", {e.changed} changed"
            return f"{_step(e.step, e.direction)} succeeded{changed}"
        case ev.LeaseGranted() as e:
            return _granted(e)
        case ev.FenceRaised(hosts=hosts):
            return f"fence raised to {entry.token} on {_hosts(hosts)}"
        case ev.FenceFailed(failure=failure):
            return f"fence not raised: {told(failure)}"
        case ev.Delivered() as e:
            return f"{e.target}: {e.what}" + (f" ({e.where})" if e.where else "")
        case ev.ResolveRequested() as e:
            return f"{e.by or 'someone'} says it is repaired: {e.reason}"
        case ev.ResolveRefused(failure=failure):
            return f"not repaired: {told(failure)}"
        case ev.Finished() as e:
            return f"{e.status}" + (f": {told(e.reason)}" if e.reason else "")
        case ev.VersionsRecorded() as e:
            return f"{_hosts(e.hosts)} run {e.version or 'no version'}"
        case ev.UndoStarted(cause=cause):
            return f"putting back: {told(cause)}"
        case ev.StepFailed() as e:
            return f"{_step(e.step, e.direction)} failed{_attempt(e.attempt)}: {told(e.failure)}"
        case ev.HealthPassed(checks=checks):
            return "healthy" + (f": {checks} check{'s' * (checks != 1)} passed" if checks else "")
        case ev.VersionsSurveyed() as e:
            return f"hosts say: {hosts_said(e)}"
        case ev.Accepted() as e:
            by = f" by {e.requested_by}" if e.requested_by else ""
            text = f"{e.id} accepted: {e.version} to {e.environment}{by}" + (f" ({e.reason})" if e.reason else "")
            if e.promoted is not None:
                text += f", promoted from {e.promoted.environment} ({e.promoted.deployment})"
            return text + (", in spite of freezes and windows" if e.override else "")
        case ev.Waiting(waits=waits):
            return f"waits: {'; '.join(wait.message for wait in waits)}"
        case ev.ApprovalGiven() as e:
            of = f" ({', '.join(e.groups)})" if e.groups else ""
            return f"approved by {e.by or 'someone'}{of}" + (f": {e.reason}" if e.reason else "")
        case ev.Rejected() as e:
            return f"rejected by {e.by or 'someone'}: {e.reason}"
        case ev.ApprovalExpired():
            return "too late for approvals"
        case ev.Superseded() as e:
            return f"superseded by {e.by} ({e.version})"
        case ev.HandedOver(cause=cause):
            return f"{entry.agent} hands over: {cause}"
        case ev.PreflightPassed(warnings=warnings):
            return "preflight passed" + (f", with warnings: {'; '.join(warnings)}" if warnings else "")
        case ev.PreflightFailed(failure=failure):
            return f"preflight failed: {told(failure)}"
        case ev.NotBegun(failure=failure):
            return f"could not begin: {told(failure)}"
        case ev.StepInterrupted() as e:
            return f"{_step(e.step, e.direction)} interrupted: {e.cause}"
        case ev.HealthFailed(failure=failure):
            return f"not healthy: {told(failure)}"
        case ev.VersionsMixed(failure=failure):
            return f"versions differ: {told(failure)}"
        case ev.BakeStarted(seconds=seconds):
            return f"health is watched for {duration(seconds)}"
        case ev.BakePassed():
            return "stayed healthy"
        case ev.BakeFailed(failure=failure):
            return f"healthy no more: {told(failure)}"
        case ev.CancelRequested() as e:
            return f"cancel requested by {e.by or 'someone'}" + (f": {e.reason}" if e.reason else "")
        case ev.Resolved() as e:
            return f"resolved{', unchecked' if e.unchecked else ''}: runs {e.version or 'no version'}"
        case ev.DeliveryFailed() as e:
            return f"{e.target}: {'given up' if e.given_up else 'not delivered yet'}: {e.failure.message}"
        case _:
            assert_never(entry.event)


def hosts_said(survey: ev.VersionsSurveyed) -> str:
    """Say which version each host runs, as far as it is known."""
    said = [f"{host} runs {version or 'no version'}" for host, version in survey.versions.items()]
    said += [f"{host} unknown ({why})" for host, why in survey.unknown.items()]
    more = f", and {len(said) - HOSTS_NAMED} more" if len(said) > HOSTS_NAMED else ""
    return ", ".join(said[:HOSTS_NAMED]) + more


def deed(entry: EnvironmentEntry) -> str:
    """Say what was done to an environment. The text is not clean yet."""
    match entry.event:
        case Frozen() as e:
            until = "" if e.until is None else f" until {clock(e.until)}"
            return f"frozen{until} by {e.by or 'someone'}: {e.reason}"
        case Unfrozen() as e:
            return f"unfrozen by {e.by or 'someone'}" + (f": {e.reason}" if e.reason else "")
        case _:
            assert_never(entry.event)


def told(failure: Failure) -> str:
    """Return a failure's message with where it happened."""
    return failure.message + (f" (on {failure.host})" if failure.host and failure.host not in failure.message else "")


def _granted(e: ev.LeaseGranted) -> str:
    why = f" ({'; '.join(e.reasons)})" if e.reasons else ""
    if e.taken_from is None:
        return f"{e.agent} runs it with token {e.token}{why}"
    after = "" if e.waited_seconds is None else f" after {duration(e.waited_seconds)}"
    return f"{e.agent} takes over from {e.taken_from}{after} with token {e.token}{why}"


def _step(name: str, direction: Direction) -> str:
    return f"undo of {name}" if direction is Direction.UNDO else f"step {name}"


def _attempt(number: int) -> str:
    return f" (attempt {number})" if number > 1 else ""


def _hosts(hosts: tuple[str, ...]) -> str:
    if not hosts:
        return "the hosts"
    return ", ".join(hosts) if len(hosts) <= 4 else f"{len(hosts)} hosts"
