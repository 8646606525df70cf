# SPDX-License-Identifier: Apache-2.0
"""The store on a SQL database: all that SQLite and PostgreSQL have in common.

Guarantees what `protocol` promises, by two means. Every transaction that writes in an environment locks that
environment's row first (`lock_environment`), so that all of them happen one after another, in one order of locks. And
the database itself refuses two deployments at work in one environment (index `deployments_one_at_a_time`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import structs

from surefoot.core import outbox
from surefoot.core.environment import Deed, EnvironmentEntry, encode, freeze_after, type_of
from surefoot.core.errors import Code, ConflictError, NotFoundError
from surefoot.core.events import Entry
from surefoot.core.status import Status
from surefoot.core.summary import Summary
from surefoot.store import rows, rules
from surefoot.store.protocol import (
    AgentReport,
    AgentRow,
    Append,
    Claim,
    Delivery,
    EnvironmentRow,
    Grant,
    Journal,
    LogLine,
    Standing,
    Submission,
    Weakness,
    Work,
)
from surefoot.store.sightings import Sightings
from surefoot.store.transactions import Presence, Transactions

#: Size of a bundle's pieces: a transaction for each stays short.
CHUNK = 1024 * 1024
#: An upload that is older than this was given up: its process died.
UPLOAD_GIVEN_UP = 24 * 3600.0
#: More than any count of rows; means "no limit" to both databases.
NO_LIMIT = 2**62


class SqlStore(Transactions):
    """See the module's docstring. Subclasses are databases."""

    def __init__(self, queries: Any) -> None:
        """Take the named queries."""
        super().__init__(queries)
        self._sightings = Sightings(time.monotonic)

    # -- deployments -------------------------------------------------------------------------------------------

    def submit(self, submission: Submission) -> tuple[str, bool]:
        """Accept a deployment; see the protocol."""
        rules.check_submission(submission)
        environment = rules.clean(submission.environment)
        name = f"once:{uuid.uuid4()}" if submission.key is None else f"key:{rules.clean(submission.key)}"

        def work(conn: Any) -> tuple[str, bool]:
            locked = self._q.lock_environment(conn, name=environment)
            if locked is None:
                self._q.add_environment(conn, name=environment)
                locked = self._q.lock_environment(conn, name=environment)
            self._check_schema(conn)
            row = rows.Locked(*locked)
            known = self._q.find_submission(conn, environment=environment, submission=name)
            if known is not None:
                return str(known), submission.key is None
            if row.locked_by is not None:
                raise rules.refuse_locked(environment, row.locked_by)
            entries, state = rules.accepted(submission, row.next_number, row.at, row.freeze)
            self._q.take_number(conn, name=environment)
            self._q.add_deployment(
                conn,
                environment=environment,
                number=state.number,
                submission=name,
                version=state.version,
                requested_at=state.requested_at,
                **rows.state_columns(state),
            )
            self._add_events(conn, state.id, entries, name)
            self._note_outbox(conn, state.id, outbox.changes(entries))
            self._notify(conn)
            return state.id, True

        return self._write(work)

    def append(self, append: Append) -> tuple[Entry, ...]:
        """Append to a journal; see the protocol."""
        return self._write(lambda conn: self._append(conn, append))

    def _append(self, conn: Any, append: Append) -> tuple[Entry, ...]:
        environment, deployment = append.state.environment, append.state.id
        locked = self._q.lock_environment(conn, name=environment)
        found = self._q.head(conn, deployment=deployment, event_id=append.event_id)
        if locked is None or found is None:
            raise _unknown(deployment)
        where, seq, had, status, repeated = found
        if repeated:
            made = list(self._q.find_append(conn, deployment=deployment, event_id=append.event_id))
            return tuple(rows.entry(row) for row in made)
        lease = rows.Locked(*locked)
        rules.check_append(append, rules.Head(where, seq, had, Status(status)), lease.grant(environment))
        entries, after = rules.apply(append, lease.at)
        self._q.save_deployment(conn, expected_seq=append.state.seq, **rows.state_columns(after))
        self._add_events(conn, deployment, entries, append.event_id)
        self._note_outbox(conn, deployment, outbox.changes(entries, append.state))
        change = rules.environment_change(append, after, current=lease.current_version, previous=lease.previous_version)
        if change is not None:
            self._q.change_environment(
                conn,
                name=environment,
                current_version=rules.clean_or_none(change.current_version),
                previous_version=rules.clean_or_none(change.previous_version),
                locked_by=change.locked_by,
            )
        if append.release:
            self._q.release_lease(conn, name=environment)
        if append.grant is None:
            self._notify(conn, asked=deployment)
        elif append.release:
            self._notify(conn)
        else:
            self._notify_followers(conn)
        return entries

    def _add_events(self, conn: Any, deployment: str, entries: Iterable[Entry], event_id: str) -> None:
        for columns in rows.event_columns(deployment, entries, event_id):
            self._q.add_event(conn, **columns)

    def _note_outbox(self, conn: Any, deployment: str, changes: outbox.Changes) -> None:
        for due in changes.added:
            self._q.add_delivery(conn, deployment=deployment, of=due.of, target=due.target)
        for due in changes.settled:
            self._q.drop_delivery(conn, deployment=deployment, of=due.of, target=due.target)
            self._q.advance_deliveries(conn, deployment=deployment, of=due.of, target=due.target)

    def journal(self, deployment: str, after: int = 0, limit: int | None = None) -> list[Entry]:
        """Return the journal's entries; see the protocol."""
        up_to = NO_LIMIT if limit is None else after + limit

        def work(conn: Any) -> list[Any]:
            found = list(self._q.journal(conn, deployment=deployment, after=after, up_to=up_to))
            if not found and self._q.summary(conn, deployment=deployment) is None:
                raise _unknown(deployment)
            return found

        return [rows.entry(row) for row in self._read(work)]

    def journals(self, environment: str, after: int, limit: int) -> list[Journal]:
        """Return whole journals; see the protocol."""
        found = self._read(
            lambda conn: list(self._q.journals(conn, environment=environment, after=after, up_to=after + limit))
        )
        return rows.journals(found)

    def openings(self, environment: str, after: int, limit: int) -> list[Journal]:
        """Return first entries; see the protocol."""
        found = self._read(
            lambda conn: list(self._q.openings(conn, environment=environment, after=after, up_to=after + limit))
        )
        return rows.journals(found)

    def summary(self, deployment: str) -> Summary:
        """Return the deployment's summary; see the protocol."""
        data = self._read(lambda conn: self._q.summary(conn, deployment=rules.clean(deployment)))
        if data is None:
            raise _unknown(deployment)
        return rows.summary(data)

    def history(self, environment: str, limit: int = 20, before: int | None = None) -> list[Summary]:
        """Return summaries, newest first; see the protocol."""
        below = NO_LIMIT if before is None else before
        found: list[tuple[str]] = self._read(
            lambda conn: list(self._q.history(conn, environment=environment, before=below, up_to=limit))
        )
        return [rows.summary(data) for (data,) in found]

    def find_version(self, environment: str, version: str | None) -> Summary | None:
        """Return the newest success of a version; see the protocol."""

        def work(conn: Any) -> str | None:
            def find(wanted: str) -> str | None:
                found: str | None = self._q.find_version(conn, environment=environment, version=wanted)
                return found

            if version is not None:
                return find(version)
            row = next(iter(rows.environments(list(self._q.environment(conn, name=environment)))), None)
            if row is None:
                return None
            # Nearly always the environment's previous version, which the index finds however long the history is.
            if row.previous_version not in (None, row.current_version):
                assert row.previous_version is not None
                if (found := find(row.previous_version)) is not None:
                    return found
            other: str | None = self._q.find_other_version(
                conn, environment=environment, version=row.current_version or ""
            )
            return other

        data = self._read(work)
        return None if data is None else rows.summary(data)

    def queue_position(self, deployment: str) -> int | None:
        """Return the place in the queue; see the protocol."""
        return self._read(lambda conn: int(self._q.queue_position(conn, deployment=deployment))) or None

    def environments(self) -> list[EnvironmentRow]:
        """Return all environments; see the protocol."""
        return rows.environments(self._read(lambda conn: list(self._q.environments(conn))))

    def environment(self, name: str) -> EnvironmentRow:
        """Return one environment; see the protocol."""
        found = rows.environments(self._read(lambda conn: list(self._q.environment(conn, name=name))))
        return found[0] if found else EnvironmentRow(name)

    def note(self, environment: str, event: Deed, event_id: str) -> EnvironmentEntry:
        """Append to an environment's own journal; see the protocol."""
        environment, event = rules.clean(environment), rules.clean_struct(event)
        rules.check_environment(environment)

        def work(conn: Any) -> EnvironmentEntry:
            self._q.add_environment(conn, name=environment)
            row = rows.Locked(*self._q.lock_environment(conn, name=environment))
            self._check_schema(conn)
            made = list(self._q.find_deed(conn, environment=environment, event_id=event_id))
            if made:
                return rows.environment_entry(made[0])
            self._q.add_deed(
                conn, environment=environment, at=row.at, type=type_of(event), data=encode(event), event_id=event_id
            )
            (added,) = self._q.find_deed(conn, environment=environment, event_id=event_id)
            entry = rows.environment_entry(added)
            self._q.set_freeze(conn, name=environment, **rows.freeze_columns(freeze_after(entry)))
            self._notify(conn)
            return entry

        return self._write(work)

    def chronicle(self, environment: str) -> list[EnvironmentEntry]:
        """Return an environment's own journal; see the protocol."""
        found = self._read(lambda conn: list(self._q.chronicle(conn, environment=rules.clean(environment))))
        return [rows.environment_entry(row) for row in found]

    def identity(self) -> str:
        """Return the store's own name; see the protocol."""
        return str(self._read(self._q.identity))

    def weaknesses(self) -> list[Weakness]:
        """Return none, where no server's settings matter; see the protocol."""
        return []

    # -- leases and agents ---------------------------------------------------------------------------------------

    def work(self) -> list[Work]:
        """Return the environments that want an agent; see the protocol."""

        def look(conn: Any) -> list[Any]:
            self._check_schema(conn)
            return list(self._q.work(conn))

        found = self._read(look)
        presences = self._presences() if any(row[2] is not None for row in found) else {}
        return [
            Work(
                environment=environment,
                deployment=deployment,
                lease=rows.lease_row(environment, holder, token, renewals, ttl, age),
                holder_present=holder is None or not (entered and _gone(presences.get(holder), incarnation)),
            )
            for environment, deployment, holder, incarnation, entered, token, renewals, ttl, age in found
        ]

    def next_ready(self) -> float | None:
        """Return in how many seconds something is ready; see the protocol."""
        found = self._read(self._q.next_ready)
        return None if found is None else max(0.0, float(found))

    def claim(self, claim: Claim) -> Grant | None:
        """Take the lease if it is still what was seen; see the protocol."""
        seen = claim.seen
        grant = Grant(seen.environment, claim.agent, seen.token + 1)
        append = structs.replace(claim.append, grant=grant)
        deployment = append.state.id

        def work(conn: Any) -> Grant | None:
            locked = self._q.lock_environment(conn, name=seen.environment)
            if locked is None:
                return None
            self._check_schema(conn)
            row = rows.Locked(*locked)
            if row.grant(seen.environment) == grant:
                # Our own claim, whose reply was lost; or another claim of ours, which this one must not repeat.
                made = list(self._q.find_append(conn, deployment=deployment, event_id=append.event_id))
                return grant if made else None
            if not rules.may_claim(append.state, row.freeze, row.at):
                return None
            granted = self._q.grant_lease(
                conn,
                name=seen.environment,
                deployment=deployment,
                agent=claim.agent,
                incarnation=claim.incarnation,
                ttl=claim.ttl,
                holder=seen.holder or "",
                token=seen.token,
                renewals=seen.renewals,
                at=row.at,
            )
            if not granted:
                return None
            self._append(conn, append)
            return grant

        try:
            return self._write(work)
        except (ConflictError, self.duplicate_error):
            return None

    def renew(self, grant: Grant) -> None:
        """Show a sign of life for a lease; see the protocol."""
        # Not durable on SQLite, where a loss of power takes the holder down together with the store.
        renewed = self._write(
            lambda conn: self._q.renew_lease(conn, name=grant.environment, agent=grant.agent, token=grant.token),
            durable=False,
        )
        if not renewed:
            raise rules.lease_lost(grant)

    def report(self, report: AgentReport) -> Standing:
        """Record an agent's sign of life; see the protocol."""
        columns = rows.report_columns(report)

        def put(may_replace: int) -> Standing | None:
            drained = self._write(lambda conn: self._q.report(conn, **columns, replace=may_replace), durable=False)
            return None if drained is None else Standing.DRAINED if drained else Standing.WELCOME

        if (standing := put(0)) is not None:
            return standing
        presence = self._presences().get(report.name)
        last = self._read(lambda conn: self._q.last_report(conn, name=report.name))
        if last is not None and presence is not None and presence.held and presence.incarnation != report.incarnation:
            incarnation, age, stopping = last
            if incarnation == presence.incarnation and age < rules.DUPLICATE_WITHIN and not stopping:
                return Standing.TAKEN
        return put(1) or Standing.TAKEN

    def agents(self, offline_after: float) -> list[AgentRow]:
        """Return all agents; see the protocol."""
        found = self._read(lambda conn: list(self._q.agents(conn)))
        presences = self._presences() if found else {}
        result = []
        for row in found:
            report = rows.agent_report(row[:11])
            draining, beats, last_seen_at, by_wall_clock = row[11:]
            result.append(
                rows.agent_row(
                    report,
                    draining=bool(draining),
                    last_seen_at=last_seen_at,
                    age=self._sightings.age(report.name, report.incarnation, beats, by_wall_clock),
                    offline_after=offline_after,
                    gone=_gone(presences.get(report.name), report.incarnation, same=True),
                )
            )
        return result

    def set_drain(self, agent: str, draining: bool) -> None:
        """Ask an agent to take no more work, or allow it again; see the protocol."""

        def work(conn: Any) -> bool:
            changed = bool(self._q.set_drain(conn, name=agent, draining=int(draining)))
            self._notify(conn)
            return changed

        if not self._write(work):
            raise NotFoundError(f"no agent {agent} has ever reported", code=Code.AGENT_UNKNOWN, hint="surefoot agents")

    def leave(self, agent: str, incarnation: str) -> None:
        """Forget an agent; see the protocol."""

        def work(conn: Any) -> bool:
            if not self._q.forget_agent(conn, name=agent, incarnation=incarnation):
                return False
            return bool(self._q.forget_presence(conn, agent=agent, incarnation=incarnation))

        if self._write(work):
            self._forget_presence(agent)

    # -- the outbox ------------------------------------------------------------------------------------------------

    def deliveries(self, within: float = 0.0, limit: int = 20) -> list[Delivery]:
        """Return what is due; see the protocol."""
        found = self._read(lambda conn: list(self._q.deliveries(conn, seconds=within, up_to=limit)))
        return [Delivery(*row) for row in found]

    def take_delivery(self, delivery: Delivery, hold: float) -> bool:
        """Keep others from trying it; see the protocol."""
        # Not repeatable: a second time would find its own first one, and take it for somebody else's.
        taken = self._write(
            lambda conn: self._q.take_delivery(
                conn,
                deployment=delivery.deployment,
                of=delivery.of,
                target=delivery.target,
                tries=delivery.tries,
                seconds=hold,
            ),
            repeatable=False,
        )
        return bool(taken)

    def postpone_delivery(self, delivery: Delivery, seconds: float) -> None:
        """Have one tried again later; see the protocol."""
        story = {"deployment": delivery.deployment, "of": delivery.of, "target": delivery.target, "seconds": seconds}

        def work(conn: Any) -> None:
            if self._q.postpone_delivery(conn, **story, tries=delivery.tries + 1):
                self._q.hold_deliveries(conn, **story)

        self._write(work)

    # -- logs and bundles ------------------------------------------------------------------------------------------

    def append_log(self, deployment: str, lines: Sequence[LogLine], grant: Grant | None = None) -> None:
        """Add lines to a deployment's log; see the protocol."""
        if not lines:
            return

        def work(conn: Any) -> None:
            if grant is not None and not self._q.holds_lease(
                conn, name=grant.environment, agent=grant.agent, token=grant.token
            ):
                return
            last = self._q.take_log_ids(conn, deployment=deployment, count=len(lines))
            self._q.add_log_line(conn, rows.log_columns(deployment, last - len(lines) + 1, lines))

        self._write(work, repeatable=False, durable=False)

    def log(self, deployment: str, after: int = 0, limit: int = 1000) -> list[LogLine]:
        """Return log lines; see the protocol."""
        found = self._read(lambda conn: list(self._q.log(conn, deployment=deployment, after=after, up_to=limit)))
        return [rows.log_line(row) for row in found]

    def log_end(self, deployment: str) -> int:
        """Return the last line's id; see the protocol."""
        return int(self._read(lambda conn: self._q.log_end(conn, deployment=deployment)) or 0)

    def put_bundle(self, digest: str, chunks: Iterable[bytes]) -> None:
        """Keep a bundle's bytes under its digest; see the protocol."""
        if self._read(lambda conn: self._q.find_bundle(conn, digest=digest)) is not None:
            return
        self._drop_old_uploads()
        upload = str(uuid.uuid4())
        self._write(lambda conn: self._q.begin_upload(conn, upload=upload, digest=digest))
        for place, data in enumerate(_pieces(chunks)):
            self._put_chunk(upload, place, data)
        try:
            self._write(lambda conn: self._q.complete_upload(conn, upload=upload))
        except self.duplicate_error:
            self._drop_upload(upload)

    def _put_chunk(self, upload: str, place: int, data: bytes) -> None:
        self._write(lambda conn: self._q.add_chunk(conn, upload=upload, place=place, data=data))

    def _drop_old_uploads(self) -> None:
        for (upload,) in self._read(lambda conn: list(self._q.old_uploads(conn, seconds=UPLOAD_GIVEN_UP))):
            self._drop_upload(upload)

    def _drop_upload(self, upload: str) -> None:
        def work(conn: Any) -> None:
            self._q.drop_chunks(conn, upload=upload)
            self._q.drop_upload(conn, upload=upload)

        self._write(work)

    def get_bundle(self, digest: str) -> Iterable[bytes]:
        """Return a bundle's bytes; see the protocol."""
        upload = self._read(lambda conn: self._q.find_bundle(conn, digest=digest))
        if upload is None:
            raise NotFoundError(f"the store has no bundle {digest}", code=Code.BUNDLE, hint="deploy the version again")
        return self._chunks(str(upload))

    def _chunks(self, upload: str) -> Iterator[bytes]:
        place = 0
        while (data := self._chunk(upload, place)) is not None:
            yield data
            if len(data) < CHUNK:
                return  # only the last piece is smaller
            place += 1

    def _chunk(self, upload: str, place: int) -> bytes | None:
        data = self._read(lambda conn: self._q.chunk(conn, upload=upload, place=place))
        return None if data is None else bytes(data)

    def now(self) -> float:
        """Return the store's clock."""
        return float(self._read(self._q.clock))


def _unknown(deployment: str) -> NotFoundError:
    return NotFoundError(f"there is no deployment {deployment}", hint="surefoot status")


def _gone(presence: Presence | None, incarnation: str | None, *, same: bool = False) -> bool:
    """Whether a process that had taken its presence is known to have lost it.

    Another process can take a presence only once the first one and its shims are gone. `same` leaves that out, where
    nobody knows whether the process ever took it.
    """
    if presence is None:
        return False
    if presence.incarnation != incarnation:
        return not same
    return presence.held is False


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut bytes into pieces of one size."""
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= CHUNK:
            yield bytes(buffer[:CHUNK])
            del buffer[:CHUNK]
    if buffer:
        yield bytes(buffer)
