# SPDX-License-Identifier: Apache-2.0
"""The store in memory: the same promises without a disk, for simulations and tests.

Guarantees the protocol, under one lock and by the same rules (`rules`) as the stores on SQL databases; forgets all at
the end of the process. `depart` stands for what the kernel or the server notices elsewhere: that an agent's process
is gone.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from msgspec import structs

from surefoot.core import outbox
from surefoot.core.deployment import Deployment
from surefoot.core.environment import Deed, EnvironmentEntry, Freeze, freeze_after
from surefoot.core.errors import Code, ConflictError, NotFoundError
from surefoot.core.events import Entry
from surefoot.core.gates import Bar
from surefoot.core.status import Status
from surefoot.core.summary import Summary, summarise
from surefoot.store import rules
from surefoot.store.flock_presence import duplicate
from surefoot.store.protocol import (
    AgentReport,
    AgentRow,
    Append,
    Claim,
    Delivery,
    EnvironmentRow,
    Grant,
    Journal,
    LeaseRow,
    LogLine,
    News,
    Standing,
    Submission,
    Weakness,
    Work,
)
from surefoot.store.rows import agent_row, lease_row
from surefoot.store.sightings import Sightings


@dataclass(slots=True)
class _Environment:
    next_number: int = 1
    current: str | None = None
    previous: str | None = None
    locked_by: str | None = None
    holder: str | None = None
    incarnation: str | None = None
    entered: bool = False
    token: int = 0
    renewals: int = 0
    ttl: float = 5.0
    renewed_at: float = 0.0
    #: By key; and what is not ended or wants an agent, by number.
    submissions: dict[str, str] = field(default_factory=dict)
    open: dict[int, str] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    #: Its own journal, with the id of each call.
    chronicle: list[EnvironmentEntry] = field(default_factory=list)
    deeds: dict[str, EnvironmentEntry] = field(default_factory=dict)

    @property
    def freeze(self) -> Freeze | None:
        return freeze_after(self.chronicle[-1]) if self.chronicle else None

    def free_at(self, bar: Bar, now: float) -> float | None:
        """Return from when on neither a lock nor a freeze keeps agents from a deployment; None if a person must act."""
        if bar is not Bar.NOTHING and self.locked_by is not None:
            return None
        if bar is Bar.FREEZE and self.freeze is not None and self.freeze.in_force(now):
            return self.freeze.until
        return now


@dataclass(slots=True)
class _Deployment:
    state: Deployment
    journal: list[Entry]
    appends: dict[str, tuple[Entry, ...]] = field(default_factory=dict)

    @property
    def summary(self) -> Summary:
        return summarise(self.state)


@dataclass(slots=True)
class _Agent:
    report: AgentReport
    seen_at: float
    beats: int = 1
    draining: bool = False


@dataclass(slots=True)
class _Letter:
    due_at: float
    tries: int = 0


class MemoryStore:
    """See the module's docstring."""

    def __init__(self, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Take the store's clock, and the one that observers measure silence with."""
        self._clock = clock
        self._identity = uuid.uuid4().hex[:12]
        self._environments: dict[str, _Environment] = {}
        self._deployments: dict[str, _Deployment] = {}
        self._agents: dict[str, _Agent] = {}
        self._presence: dict[str, tuple[str, bool]] = {}
        self._logs: defaultdict[str, list[LogLine]] = defaultdict(list)
        self._bundles: dict[str, bytes] = {}
        self._outbox: dict[tuple[str, int, str], _Letter] = {}
        self._sightings = Sightings(monotonic)
        self._changes = 0
        self._seen = 0
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._lock:
            yield
            self._changes += 1
            self._changed.notify_all()

    # -- deployments -------------------------------------------------------------------------------------------

    def submit(self, submission: Submission) -> tuple[str, bool]:
        """Accept a deployment; see the protocol."""
        rules.check_submission(submission)
        with self._change():
            environment = self._environments.setdefault(submission.environment, _Environment())
            if submission.key is not None and (known := environment.submissions.get(submission.key)) is not None:
                return known, False
            if environment.locked_by is not None:
                raise rules.refuse_locked(submission.environment, environment.locked_by)
            entries, state = rules.accepted(submission, environment.next_number, self._clock(), environment.freeze)
            environment.next_number += 1
            environment.history.append(state.id)
            environment.open[state.number] = state.id
            if submission.key is not None:
                environment.submissions[submission.key] = state.id
            self._deployments[state.id] = _Deployment(state, list(entries))
            self._note_outbox(state.id, outbox.changes(entries))
            return state.id, True

    def append(self, append: Append) -> tuple[Entry, ...]:
        """Append to a journal; see the protocol."""
        with self._change():
            return self._append(append, self._lease(append.state.environment))

    def _append(self, append: Append, lease: Grant | None) -> tuple[Entry, ...]:
        deployment = self._deployment(append.state.id)
        if (made := deployment.appends.get(append.event_id)) is not None:
            return made
        was = deployment.state
        rules.check_append(append, rules.Head(was.environment, was.seq, was.token, was.status), lease)
        entries, after = rules.apply(append, self._clock())
        environment = self._environments[after.environment]
        change = rules.environment_change(append, after, current=environment.current, previous=environment.previous)
        if change is not None:
            environment.current, environment.previous = change.current_version, change.previous_version
            environment.locked_by = change.locked_by
        if append.release:
            environment.holder, environment.incarnation, environment.entered = None, None, False
        deployment.state = after
        deployment.journal.extend(entries)
        deployment.appends[append.event_id] = entries
        self._note_outbox(after.id, outbox.changes(entries, append.state))
        if after.status.terminal and not after.wants_agent:
            environment.open.pop(after.number, None)
        else:
            environment.open[after.number] = after.id
        return entries

    def _note_outbox(self, deployment: str, changes: outbox.Changes) -> None:
        for due in changes.added:
            self._outbox[deployment, due.of, due.target] = _Letter(self._clock())
        for due in changes.settled:
            self._outbox.pop((deployment, due.of, due.target), None)

    def _deployment(self, deployment: str) -> _Deployment:
        try:
            return self._deployments[deployment]
        except KeyError:
            raise NotFoundError(f"there is no deployment {deployment}", hint="surefoot status") from None

    def journal(self, deployment: str, after: int = 0, limit: int | None = None) -> list[Entry]:
        """Return the journal's entries; see the protocol."""
        with self._lock:
            return self._deployment(deployment).journal[after : None if limit is None else after + limit]

    def journals(self, environment: str, after: int, limit: int) -> list[Journal]:
        """Return whole journals; see the protocol."""
        with self._lock:
            found = self._environments.get(environment, _Environment()).history[after : after + limit]
            known = [self._deployments[id_] for id_ in found]
            return [Journal(one.summary.id, one.summary.number, tuple(one.journal)) for one in known]

    def openings(self, environment: str, after: int, limit: int) -> list[Journal]:
        """Return first entries; see the protocol."""
        return [replace(one, entries=one.entries[:1]) for one in self.journals(environment, after, limit)]

    def summary(self, deployment: str) -> Summary:
        """Return the deployment's summary; see the protocol."""
        with self._lock:
            return self._deployment(deployment).summary

    def history(self, environment: str, limit: int = 20, before: int | None = None) -> list[Summary]:
        """Return summaries, newest first; see the protocol."""
        with self._lock:
            found = self._environments.get(environment, _Environment()).history
            below = found if before is None else found[: max(0, before - 1)]
            return [self._deployments[id_].summary for id_ in below[::-1][:limit]]

    def find_version(self, environment: str, version: str | None) -> Summary | None:
        """Return the newest success of a version; see the protocol."""
        with self._lock:
            row = self._environments.get(environment, _Environment())

            def newest(holds: Callable[[str], bool]) -> Summary | None:
                summaries = (self._deployments[id_].summary for id_ in reversed(row.history))
                return next((s for s in summaries if s.status is Status.SUCCEEDED and holds(s.version)), None)

            if version is not None:
                return newest(lambda other: other == version)
            before = newest(lambda other: other == row.previous) if row.previous != row.current else None
            return before or newest(lambda other: other != row.current)

    def _queue(self, environment: _Environment) -> list[Summary]:
        summaries = (self._deployments[id_].summary for _, id_ in sorted(environment.open.items()))
        return [summary for summary in summaries if summary.status in (Status.QUEUED, Status.WAITING)]

    def queue_position(self, deployment: str) -> int | None:
        """Return the place in the queue; see the protocol."""
        with self._lock:
            found = self._deployments.get(deployment)
            if found is None or found.summary.status not in (Status.QUEUED, Status.WAITING):
                return None
            queue = self._queue(self._environments[found.summary.environment])
            return sum(summary.number <= found.summary.number for summary in queue)

    def environments(self) -> list[EnvironmentRow]:
        """Return all environments; see the protocol."""
        with self._lock:
            known = [name for name, row in self._environments.items() if row.history or row.chronicle]
            return [self.environment(name) for name in sorted(known)]

    def environment(self, name: str) -> EnvironmentRow:
        """Return one environment; see the protocol."""
        with self._lock:
            row = self._environments.get(name)
            if row is None or not (row.history or row.chronicle):
                return EnvironmentRow(name)
            running = [id_ for id_ in row.open.values() if self._deployments[id_].summary.status.started]
            return EnvironmentRow(
                name=name,
                current_version=row.current,
                previous_version=row.previous,
                locked_by=row.locked_by,
                running=running[0] if running else None,
                queue=tuple(summary.id for summary in self._queue(row)),
                lease=self._lease_row(name, row),
                freeze=row.freeze if row.freeze is not None and row.freeze.in_force(self._clock()) else None,
            )

    def note(self, environment: str, event: Deed, event_id: str) -> EnvironmentEntry:
        """Append to an environment's own journal; see the protocol."""
        rules.check_environment(environment)
        with self._change():
            row = self._environments.setdefault(environment, _Environment())
            if event_id not in row.deeds:
                entry = EnvironmentEntry(len(row.chronicle) + 1, self._clock(), rules.clean_struct(event))
                row.chronicle.append(entry)
                row.deeds[event_id] = entry
            return row.deeds[event_id]

    def chronicle(self, environment: str) -> list[EnvironmentEntry]:
        """Return an environment's own journal; see the protocol."""
        with self._lock:
            return list(self._environments.get(environment, _Environment()).chronicle)

    # -- leases and agents ---------------------------------------------------------------------------------------

    def _lease(self, environment: str) -> Grant | None:
        row = self._environments.get(environment)
        return None if row is None or row.holder is None else Grant(environment, row.holder, row.token)

    def _lease_row(self, name: str, row: _Environment) -> LeaseRow:
        return lease_row(name, row.holder, row.token, row.renewals, row.ttl, self._clock() - row.renewed_at)

    def work(self) -> list[Work]:
        """Return the environments that want an agent; see the protocol."""
        with self._lock:
            found, now = [], self._clock()
            for name, row in self._environments.items():
                wanting = [state for state, ready in self._wanting(row, now) if ready <= now]
                if wanting:
                    first = min(wanting, key=lambda state: (not state.begun, state.number))
                    found.append((first.requested_at, first.id, name, row))
            return [
                Work(name, id_, self._lease_row(name, row), holder_present=not self._holder_gone(row))
                for _, id_, name, row in sorted(found, key=lambda item: item[:2])
            ]

    def _wanting(self, row: _Environment, now: float) -> Iterator[tuple[Deployment, float]]:
        """Yield what wants an agent, each with when it is ready; without what only a person can free."""
        for id_ in row.open.values():
            state = self._deployments[id_].state
            free = row.free_at(state.bar, now)
            if state.wants_agent and free is not None:
                yield state, max(free, state.ready_at or free)  # 0: at once

    def next_ready(self) -> float | None:
        """Return in how many seconds something is ready; see the protocol."""
        with self._lock:
            now = self._clock()
            wanting = [found for row in self._environments.values() for found in self._wanting(row, now)]
            times = [ready for state, ready in wanting if state.bar is not Bar.NOTHING]
            return max(0.0, min(times) - now) if times else None

    def _holder_gone(self, row: _Environment) -> bool:
        if row.holder is None or not row.entered:
            return False
        incarnation, held = self._presence[row.holder]
        return incarnation != row.incarnation or not held

    def claim(self, claim: Claim) -> Grant | None:
        """Take the lease if it is still what was seen; see the protocol."""
        seen, name = claim.seen, claim.seen.environment
        grant = Grant(name, claim.agent, seen.token + 1)
        append = structs.replace(claim.append, grant=grant)
        with self._change():
            row = self._environments.get(name)
            if row is None:
                return None
            deployment = self._deployment(append.state.id)
            if self._lease(name) == grant:
                return grant if append.event_id in deployment.appends else None
            if (row.holder, row.token, row.renewals) != (seen.holder, seen.token, seen.renewals):
                return None
            others = [self._deployments[id_].summary for id_ in row.open.values() if id_ != append.state.id]
            if not rules.may_claim(append.state, row.freeze, self._clock()):
                return None
            if row.locked_by not in (None, append.state.id) or any(other.status.started for other in others):
                return None
            try:
                self._append(append, grant)
            except ConflictError:
                return None
            row.holder, row.incarnation, row.token = claim.agent, claim.incarnation, grant.token
            row.entered = self._presence.get(claim.agent, ("", False))[0] == claim.incarnation
            row.renewals, row.ttl, row.renewed_at = row.renewals + 1, claim.ttl, self._clock()
            return grant

    def renew(self, grant: Grant) -> None:
        """Show a sign of life for a lease; see the protocol."""
        with self._lock:
            if self._lease(grant.environment) != grant:
                raise rules.lease_lost(grant)
            row = self._environments[grant.environment]
            row.renewals, row.renewed_at = row.renewals + 1, self._clock()

    def report(self, report: AgentReport) -> Standing:
        """Record an agent's sign of life; see the protocol."""
        with self._lock:
            last = self._agents.get(report.name)
            if last is None:
                self._agents[report.name] = _Agent(report, self._clock())
                return Standing.WELCOME
            incarnation, held = self._presence.get(report.name, ("", False))
            if (
                held
                and incarnation == last.report.incarnation != report.incarnation
                and self._clock() - last.seen_at < rules.DUPLICATE_WITHIN
                and not last.report.stopping
            ):
                return Standing.TAKEN
            last.report, last.seen_at, last.beats = report, self._clock(), last.beats + 1
            return Standing.DRAINED if last.draining else Standing.WELCOME

    def agents(self, offline_after: float) -> list[AgentRow]:
        """Return all agents; see the protocol."""
        with self._lock:
            result = []
            for name, agent in sorted(self._agents.items()):
                incarnation, held = self._presence.get(name, ("", True))
                result.append(
                    agent_row(
                        agent.report,
                        draining=agent.draining,
                        last_seen_at=agent.seen_at,
                        age=self._sightings.age(
                            name, agent.report.incarnation, agent.beats, self._clock() - agent.seen_at
                        ),
                        offline_after=offline_after,
                        gone=incarnation == agent.report.incarnation and not held,
                    )
                )
            return result

    def set_drain(self, agent: str, draining: bool) -> None:
        """Ask an agent to take no more work, or allow it again; see the protocol."""
        with self._change():
            if agent not in self._agents:
                raise NotFoundError(
                    f"no agent {agent} has ever reported", code=Code.AGENT_UNKNOWN, hint="surefoot agents"
                )
            self._agents[agent].draining = draining

    def leave(self, agent: str, incarnation: str) -> None:
        """Forget an agent; see the protocol."""
        with self._change():
            known = self._agents.get(agent)
            holds = any(environment.holder == agent for environment in self._environments.values())
            if known is not None and known.report.incarnation == incarnation and not holds:
                del self._agents[agent]
                self._presence.pop(agent, None)

    def enter(self, agent: str, incarnation: str) -> tuple[int, ...]:
        """Take the agent's presence; see the protocol. No descriptor carries it: `depart` lets it fall."""
        with self._lock:
            holder, held = self._presence.get(agent, ("", False))
            if held and holder != incarnation:
                raise duplicate(agent)
            self._presence[agent] = (incarnation, True)
            return ()

    def presence(self, agent: str) -> tuple[int, ...]:
        """Return nothing: no descriptor carries a presence here."""
        return ()

    def depart(self, agent: str) -> None:
        """Let an agent's presence fall, as when its process and its shims are gone."""
        with self._lock:
            if agent in self._presence:
                self._presence[agent] = (self._presence[agent][0], False)

    # -- the outbox ------------------------------------------------------------------------------------------------

    def deliveries(self, within: float = 0.0, limit: int = 20) -> list[Delivery]:
        """Return what is due; see the protocol."""
        with self._lock:
            now = self._clock()
            first: dict[tuple[str, str], int] = {}
            for deployment, of, target in self._outbox:
                first[deployment, target] = min(of, first.get((deployment, target), of))
            found = [
                Delivery(deployment, of, target, letter.tries, letter.due_at - now)
                for (deployment, of, target), letter in self._outbox.items()
                if letter.due_at <= now + within and first[deployment, target] == of
            ]
            return sorted(found, key=lambda delivery: delivery.due_in)[:limit]

    def take_delivery(self, delivery: Delivery, hold: float) -> bool:
        """Keep others from trying it; see the protocol."""
        with self._lock:
            letter = self._outbox.get((delivery.deployment, delivery.of, delivery.target))
            now = self._clock()
            if letter is None or letter.tries != delivery.tries or letter.due_at > now:
                return False
            letter.tries, letter.due_at = letter.tries + 1, now + hold
            return True

    def postpone_delivery(self, delivery: Delivery, seconds: float) -> None:
        """Have one tried again later; see the protocol."""
        with self._lock:
            letter = self._outbox.get((delivery.deployment, delivery.of, delivery.target))
            if letter is not None and letter.tries == delivery.tries + 1:
                letter.due_at = self._clock() + seconds

    # -- logs and bundles ------------------------------------------------------------------------------------------

    def append_log(self, deployment: str, lines: Sequence[LogLine], grant: Grant | None = None) -> None:
        """Add lines to a deployment's log; see the protocol."""
        with self._lock:
            if grant is not None and self._lease(grant.environment) != grant:
                return
            log = self._logs[deployment]
            for line in lines:
                log.append(replace(line, text=rules.clean(line.text), at=self._clock(), id=len(log) + 1))

    def log(self, deployment: str, after: int = 0, limit: int = 1000) -> list[LogLine]:
        """Return log lines; see the protocol."""
        with self._lock:
            return self._logs[deployment][after : after + limit]

    def log_end(self, deployment: str) -> int:
        """Return the last line's id; see the protocol."""
        with self._lock:
            return len(self._logs[deployment])

    def put_bundle(self, digest: str, chunks: Iterable[bytes]) -> None:
        """Keep a bundle's bytes under its digest; see the protocol."""
        with self._lock:
            if digest not in self._bundles:
                self._bundles[digest] = b"".join(chunks)

    def get_bundle(self, digest: str) -> Iterable[bytes]:
        """Return a bundle's bytes; see the protocol."""
        with self._lock:
            if digest not in self._bundles:
                raise NotFoundError(
                    f"the store has no bundle {digest}", code=Code.BUNDLE, hint="deploy the version again"
                )
            return (self._bundles[digest],)

    # -- changes -------------------------------------------------------------------------------------------------------

    def identity(self) -> str:
        """Return the store's own name; see the protocol."""
        return self._identity

    def weaknesses(self) -> list[Weakness]:
        """Return none: it is not meant to survive its process; see the protocol."""
        return []

    def now(self) -> float:
        """Return the store's clock."""
        return self._clock()

    def mark(self) -> int:
        """Return a mark for `wait`; see the protocol."""
        with self._lock:
            return self._changes

    def wait(self, timeout: float, mark: int | None = None) -> bool:
        """Wait for a change; see the protocol."""
        with self._lock:
            since = self._seen if mark is None else mark
            self._changed.wait_for(lambda: self._changes > since, timeout=timeout)
            heard = self._changes > since
            if heard and mark is None:
                self._seen = self._changes
            return heard

    def wait_as_agent(self, timeout: float) -> News | None:
        """Wait as agents do; see the protocol."""
        return News() if self.wait(timeout) else None

    def close(self) -> None:
        """Do nothing: what is in memory stays for the others who use it."""
