# SPDX-License-Identifier: Apache-2.0
"""The public JSON forms of deployments, steps and events: one place for the command line and the HTTP API.

Times are RFC 3339 UTC with milliseconds; durations are seconds. Key names are part of the public contract.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from surefoot.core.deployment import Deployment, StepRun
from surefoot.core.environment import EnvironmentEntry, Freeze
from surefoot.core.errors import Failure
from surefoot.core.events import Entry
from surefoot.core.gates import Wait
from surefoot.core.summary import Summary, summarise

Json = dict[str, Any]


def rfc3339(at: float | None) -> str | None:
    """Return a time since 1970 as `2026-01-31T09:30:00.123Z`."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def reason(failure: Failure | None) -> Json | None:
    """Return why a deployment ended as it did."""
    if failure is None:
        return None
    return {
        "code": str(failure.code),
        "message": failure.message,
        "hint": failure.hint,
        "agent": failure.agent,
        "host": failure.host,
        "step": failure.step,
    }


def _error(failure: Failure | None) -> Json | None:
    return None if failure is None else {**(reason(failure) or {}), "evidence": failure.evidence}


def step(run: StepRun) -> Json:
    """Return one step in one direction."""
    return {
        "name": run.name,
        "direction": str(run.direction),
        "status": str(run.status),
        "attempt": run.attempt,
        "agent": run.agent,
        "token": run.token,
        "started_at": rfc3339(run.started_at),
        "finished_at": rfc3339(run.finished_at),
        "error": _error(run.failure),
    }


def row(summary: Summary, project: str, queue_position: int | None = None) -> Json:
    """Return a deployment without its steps, as `history` shows it."""
    return {
        "id": summary.id,
        "project": project,
        "environment": summary.environment,
        "version": summary.version,
        "previous_version": summary.previous_version,
        "status": str(summary.status),
        "reason": reason(summary.reason),
        "requested_by": summary.requested_by,
        "requested_at": rfc3339(summary.requested_at),
        "started_at": rfc3339(summary.started_at),
        "finished_at": rfc3339(summary.finished_at),
        "agent": summary.agent,
        "token": summary.token or None,
        "queue_position": queue_position,
        "takeovers": summary.takeovers,
        "commit": summary.commit,
    }


def waits(found: Iterable[Wait]) -> list[Json]:
    """Return what a deployment waits for."""
    return [{"gate": str(wait.gate), "message": wait.message, "until": rfc3339(wait.until)} for wait in found]


def freeze(found: Freeze | None) -> Json | None:
    """Return an environment's freeze; None where it is not frozen."""
    if found is None:
        return None
    return {"by": found.by, "reason": found.reason, "since": rfc3339(found.at), "until": rfc3339(found.until)}


def deed(entry: EnvironmentEntry) -> Json:
    """Return one entry of an environment's own journal, as `events` shows it."""
    data = msgspec.to_builtins(entry.event)
    return {"seq": entry.seq, "at": rfc3339(entry.at), "type": data.pop("type"), "data": data}


def _gates(state: Deployment) -> Json:
    gate, evidence = state.approvals_gate, state.promoted
    return {
        "not_before": rfc3339(state.not_before),
        "override": state.override,
        "approvals": None
        if gate is None
        else {
            "required": gate.required,
            "from": list(gate.groups),
            "given": [
                {"by": given.by, "at": rfc3339(given.at), "reason": given.reason, "groups": list(given.groups)}
                for given in state.approvals
            ],
        },
        "promoted_from": None
        if evidence is None
        else {
            "environment": evidence.environment,
            "deployment": evidence.deployment,
            "version": evidence.version,
            "finished_at": rfc3339(evidence.finished_at),
            "bundle": evidence.bundle,
            "commit": evidence.commit,
        },
    }


def show(state: Deployment, queue_position: int | None = None, waiting_for: Iterable[Wait] = ()) -> Json:
    """Return a deployment with its steps, as `show` shows it."""
    shown = row(summarise(state), state.plan.project, queue_position)
    told = [{"target": e.target, "what": e.what, "where": e.where or None, "by": e.by} for e in state.deliveries]
    surveyed = None if state.survey is None else {**state.survey.versions, **dict.fromkeys(state.survey.unknown)}
    shown["hosts_surveyed"] = surveyed
    gates = {"waiting_for": waits(waiting_for), **_gates(state)}
    return {**shown, **gates, "steps": [step(run) for run in state.steps], "told": told}


def event(entry: Entry) -> Json:
    """Return one entry of a journal, as `events` shows it."""
    data = msgspec.to_builtins(entry.event)
    return {
        "seq": entry.seq,
        "at": rfc3339(entry.at),
        "type": data.pop("type"),
        "agent": entry.agent,
        "token": entry.token,
        "data": data,
    }
