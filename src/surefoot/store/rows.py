# SPDX-License-Identifier: Apache-2.0
"""From rows of the named queries to the store's types, and back. The order of columns is that of the queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import msgspec

from surefoot.core import events as ev
from surefoot.core.deployment import Deployment
from surefoot.core.environment import EnvironmentEntry, Freeze
from surefoot.core.environment import decode as decode_deed
from surefoot.core.errors import NewerStoreError
from surefoot.core.lease import AgentStatus, Role
from surefoot.core.status import Status
from surefoot.core.summary import Summary, summarise
from surefoot.store.migrations import UPGRADE
from surefoot.store.protocol import AgentReport, AgentRow, EnvironmentRow, Grant, Journal, LeaseRow, LogLine
from surefoot.store.rules import clean

T = TypeVar("T")
Row = Sequence[Any]

_summary = msgspec.json.Decoder(Summary)
_freeze = msgspec.json.Decoder(Freeze)
#: When a freeze without an end is over.
NEVER = 1e18
_encoder = msgspec.json.Encoder()


class Locked(NamedTuple):
    """An environment's row, as `lock_environment` gives it."""

    next_number: int
    current_version: str | None
    previous_version: str | None
    locked_by: str | None
    holder: str | None
    token: int
    frozen: str | None
    at: float  #: the store's clock

    @property
    def freeze(self) -> Freeze | None:
        """Return the last freeze, be it over or not."""
        return None if self.frozen is None else _known(_freeze.decode, self.frozen)

    def grant(self, environment: str) -> Grant | None:
        """Return the lease, if anyone holds it."""
        return None if self.holder is None else Grant(environment, self.holder, self.token)


def _known(decode: Callable[[str], T], data: str) -> T:
    """Decode what some program has written; what this one does not know, a newer one has."""
    try:
        return decode(data)
    except msgspec.ValidationError as error:
        raise NewerStoreError(f"the store holds what this program does not know: {error}", hint=UPGRADE) from error


def entry(row: Row) -> ev.Entry:
    """Return a journal's entry."""
    seq, at, data, agent, token = row
    return ev.Entry(seq=seq, at=at, event=_known(ev.decode, data), agent=agent, token=token)


def journals(rows: Iterable[Row]) -> list[Journal]:
    """Return journals from rows that hold one entry each."""
    return [
        Journal(deployment, number, tuple(entry(row[2:]) for row in group))
        for (deployment, number), group in groupby(rows, key=lambda row: (str(row[0]), int(row[1])))
    ]


def summary(data: str) -> Summary:
    """Return a summary from its JSON."""
    return _known(_summary.decode, data)


def state_columns(state: Deployment) -> dict[str, Any]:
    """Return a state's summary as JSON, with the columns beside it that change with each append."""
    value = summarise(state)
    return {
        "id": value.id,
        "status": str(value.status),
        "wants_agent": int(value.wants_agent),
        "token": value.token,
        "seq": value.seq,
        "finished_at": value.finished_at,
        "ready_at": state.ready_at,
        "bar": int(state.bar),
        "summary": _encoder.encode(value).decode(),
    }


def event_columns(deployment: str, entries: Iterable[ev.Entry], event_id: str) -> Iterator[dict[str, Any]]:
    """Return an append's entries as rows."""
    for place, item in enumerate(entries):
        yield {
            "deployment": deployment,
            "seq": item.seq,
            "at": item.at,
            "type": ev.type_of(item.event),
            "agent": item.agent,
            "token": item.token,
            "data": ev.encode(item.event),
            "event_id": event_id,
            "place": place,
        }


def environments(rows: Iterable[Row]) -> list[EnvironmentRow]:
    """Return environments from rows that name one open deployment each."""
    return [_environment(name, list(group)) for name, group in groupby(rows, key=lambda row: str(row[0]))]


def _environment(name: str, rows: list[Row]) -> EnvironmentRow:
    _, current, previous, locked_by, holder, token, renewals, ttl, age, freeze, _, _ = rows[0]
    running = [row[10] for row in rows if row[11] is not None and Status(row[11]).started]
    queue = tuple(row[10] for row in rows if row[11] in (Status.QUEUED, Status.WAITING))
    return EnvironmentRow(
        name=name,
        current_version=current,
        previous_version=previous,
        locked_by=locked_by,
        running=running[0] if running else None,
        queue=queue,
        lease=lease_row(name, holder, token, renewals, ttl, age),
        freeze=None if freeze is None else _known(_freeze.decode, freeze),
    )


def freeze_columns(freeze: Freeze | None) -> dict[str, Any]:
    """Return a freeze as columns of its environment."""
    if freeze is None:
        return {"frozen": None, "frozen_until": 0.0}
    return {
        "frozen": _encoder.encode(freeze).decode(),
        "frozen_until": NEVER if freeze.until is None else freeze.until,
    }


def environment_entry(row: Row) -> EnvironmentEntry:
    """Return an entry of an environment's own journal."""
    seq, at, data = row
    return EnvironmentEntry(seq=seq, at=at, event=_known(decode_deed, data))


def lease_row(  # noqa: PLR0917 - the columns of a row
    environment: str, holder: str | None, token: int, renewals: int, ttl: float, age: float
) -> LeaseRow:
    """Return a lease; one that was never granted has no age."""
    return LeaseRow(environment, holder, token, renewals, ttl, max(0.0, age) if token else 0.0)


def report_columns(report: AgentReport) -> dict[str, Any]:
    """Return what an agent says of itself as columns."""
    return {
        "name": report.name,
        "role": str(report.role),
        "incarnation": report.incarnation,
        "preference": report.preference,
        "cpu_percent": report.cpu_percent,
        "memory_percent": report.memory_percent,
        "disk_percent": report.disk_percent,
        "degraded": clean(report.degraded),
        "running": report.running,
        "stopping": int(report.stopping),
        "ends_with": report.ends_with,
    }


def agent_report(row: Row) -> AgentReport:
    """Return what an agent said of itself, from the first columns of `agents`."""
    name, role, incarnation, preference, cpu, memory, disk, degraded, running, stopping, ends_with = row
    return AgentReport(
        name, Role(role), incarnation, preference, cpu, memory, disk, degraded, running, bool(stopping), ends_with
    )


def agent_row(
    report: AgentReport, *, draining: bool, last_seen_at: float, age: float, offline_after: float, gone: bool
) -> AgentRow:
    """Return an agent as others see it, and why it is not simply online."""
    if report.stopping:
        status, reason = AgentStatus.OFFLINE, "stopped"
    elif gone:
        status, reason = AgentStatus.OFFLINE, "its process is gone"
    elif age > offline_after:
        status, reason = AgentStatus.OFFLINE, f"unheard of for {age:.0f} s"
    elif draining:
        status, reason = AgentStatus.DRAINING, "drained"
    elif report.degraded:
        status, reason = AgentStatus.DEGRADED, report.degraded
    else:
        status, reason = AgentStatus.ONLINE, ""
    return AgentRow(report=report, status=status, last_seen_at=last_seen_at, reason=reason)


def log_columns(deployment: str, first: int, lines: Sequence[LogLine]) -> list[dict[str, Any]]:
    """Return lines of a log as rows."""
    return [
        {
            "deployment": deployment,
            "id": first + place,
            "text": clean(line.text),
            "stream": line.stream,
            "step": line.step,
            "direction": line.direction,
            "attempt": line.attempt,
            "agent": line.agent,
            "token": line.token,
        }
        for place, line in enumerate(lines)
    ]


def log_line(row: Row) -> LogLine:
    """Return a line of a log."""
    text, stream, step, direction, attempt, agent, token, at, id_ = row
    return LogLine(text, stream, step, direction, attempt, agent, token, at, id_)
