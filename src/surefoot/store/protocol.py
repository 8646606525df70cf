# SPDX-License-Identifier: Apache-2.0
"""What a store does: the one interface to journal, queue, leases, agents, logs and bundles.

Guarantees every store gives: a call either happened whole or not at all; an append is refused unless its lease still
stands and nobody appended since the caller read; a call that was repeated because its reply was lost happens once.
Calls block: an agent makes them from threads. Times are seconds since 1970 by the store's clock.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import msgspec

from surefoot.core.deployment import Deployment
from surefoot.core.environment import Deed, EnvironmentEntry, Freeze
from surefoot.core.events import Entry, Event, Origin
from surefoot.core.gates import Promoted
from surefoot.core.lease import AgentStatus, Role
from surefoot.core.plan import Plan
from surefoot.core.summary import Summary


@dataclass(frozen=True, slots=True)
class Submission:
    """What is asked for: one version in one environment."""

    environment: str
    version: str
    plan: Plan
    bundle: str | None = None
    requested_by: str = ""
    reason: str = ""
    key: str | None = None
    commit: str | None = None
    rollback: bool = False
    origin: Origin | None = None
    when_open: bool = False  #: waits for a freeze or a window instead of being refused
    not_before: float | None = None
    override: bool = False  #: passes freezes and windows
    promoted: Promoted | None = None


class Grant(msgspec.Struct, frozen=True):
    """A lease that was granted: it stands as long as the store's row says just this."""

    environment: str
    agent: str
    token: int


class LeaseRow(msgspec.Struct, frozen=True):
    """An environment's lease. `token` only grows. `holder` is None while nobody holds it."""

    environment: str
    holder: str | None = None
    token: int = 0
    renewals: int = 0
    ttl: float = 5.0
    age: float = 0.0  #: seconds since the last renewal, by the store's clock; for people, never for decisions


class Work(msgspec.Struct, frozen=True):
    """An environment that wants an agent: its next deployment and its lease."""

    environment: str
    deployment: str
    lease: LeaseRow
    holder_present: bool  #: False: the holder's process is known to be gone (a hint; safety never rests on it)


class EnvironmentRow(msgspec.Struct, frozen=True):
    """An environment as the journal left it."""

    name: str
    current_version: str | None = None
    previous_version: str | None = None
    locked_by: str | None = None  #: the stranded deployment that locks it
    running: str | None = None
    queue: tuple[str, ...] = ()
    lease: LeaseRow | None = None
    freeze: Freeze | None = None  #: the one that is in force, by the store's clock


class AgentReport(msgspec.Struct, frozen=True):
    """What an agent says of itself with each sign of life."""

    name: str
    role: Role
    incarnation: str  #: new with each start of the process
    preference: int = 0
    cpu_percent: float = 0.0
    memory_percent: float = 0.0
    disk_percent: float = 0.0
    degraded: str = ""  #: why it is degraded; empty when it is not
    running: str | None = None
    stopping: bool = False  #: last words: counts as offline from now on
    ends_with: str | None = None  #: works for this deployment alone, and is not to be counted on for others

    def serves(self, deployment: str | None, busy_with: str | None) -> bool:
        """Say whether a deployment may wait for this agent, which holds the lease of `busy_with`: not if it ends with
        another one, nor while it goes on first with one of another environment, that somebody else had begun.
        """
        return self.ends_with is None or (self.ends_with == deployment and not elsewhere(busy_with, deployment))


class Standing(Enum):
    """How an agent that shows a sign of life stands with the store."""

    WELCOME = "welcome"
    DRAINED = "drained"  #: it is to take no more work
    TAKEN = "taken"  #: another live process has its name


def elsewhere(busy_with: str | None, deployment: str | None) -> bool:
    """Say whether an agent is busy in another environment than a deployment's, which need not wait for that."""
    return busy_with is not None and busy_with.rpartition("-")[0] != (deployment or "").rpartition("-")[0]


class AgentRow(msgspec.Struct, frozen=True):
    """An agent as others see it."""

    report: AgentReport
    status: AgentStatus
    last_seen_at: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line (or piece of one) of a deployment's output; already redacted."""

    text: str
    stream: str = "stdout"  #: stdout, stderr, or agent (what Surefoot itself says)
    step: str | None = None
    direction: str | None = None
    attempt: int | None = None
    agent: str | None = None
    token: int | None = None
    at: float | None = None  #: filled in by the store
    id: int | None = None  #: place in the log; filled in by the store, grows


@dataclass(frozen=True, slots=True)
class Delivery:
    """One thing that somebody is still to be told (`core.outbox`)."""

    deployment: str
    of: int  #: the journal's entry that it is about
    target: str
    tries: int = 0
    due_in: float = 0.0  #: seconds until it may be tried


@dataclass(frozen=True, slots=True)
class Journal:
    """One deployment's whole journal."""

    deployment: str
    number: int
    entries: tuple[Entry, ...]


class Append(msgspec.Struct, frozen=True):
    """Events to be added to one journal.

    The store gives them their time, folds them onto `state`, and writes events, summary (`summarise`) and environment
    (`environment_after`, with the environment's row as it is in that transaction) and outbox (`core.outbox.changes`)
    together; so these always equal the fold.
    """

    state: Deployment  #: the journal as the caller has read it; an append is refused if it has grown since
    events: tuple[Event, ...]
    #: Names this append: repeated after a lost reply, it happens once.
    event_id: str = msgspec.field(default_factory=functools.partial(secrets.token_hex, 16))
    grant: Grant | None = None  #: required for all but requests
    release: bool = False  #: give the lease back in the same transaction


@dataclass(frozen=True, slots=True)
class Claim:
    """A wish for the lease, conditional on what was seen of it."""

    agent: str
    incarnation: str
    ttl: float
    seen: LeaseRow
    append: Append = field(repr=False)  #: holds a LeaseGranted with token `seen.token + 1`; needs no grant of its own


class News(msgspec.Struct, frozen=True):
    """Agents have something to look at: there may be work to claim, or something was asked of what they work on."""

    asked: frozenset[str] | None = None  #: deployments of which something was asked; None if it may be of any


class Weakness(msgspec.Struct, frozen=True):
    """A setting of the store's server with which it may forget what it has acknowledged."""

    message: str
    hint: str


class Store(Protocol):
    """See the module's docstring. All methods raise StoreError when the store can't be used."""

    # -- deployments ---------------------------------------------------------------------------------
    def submit(self, submission: Submission) -> tuple[str, bool]:
        """Accept a deployment: number it, append `Accepted` (and what it waits for), queue it. Return its id, and False
        if the key was known.

        Raises RefusedError if the environment is locked by a stranded deployment (SF-LOCKED), or if a freeze or a
        window is closed that it does not want to wait for (SF-FROZEN, SF-WINDOW-CLOSED).
        """

    def append(self, append: Append) -> tuple[Entry, ...]:
        """Append to a journal in one transaction with summary, environment and (where asked) the lease's release.

        Raises LeaseLostError if the grant no longer stands, ConflictError if the journal is not at `state.seq`,
        NotFoundError if there is no such deployment. A repeated `event_id` returns what the first call returned.
        """

    def journal(self, deployment: str, after: int = 0, limit: int | None = None) -> list[Entry]:
        """Return the journal's entries with seq > after, in order. NotFoundError if there is no such deployment."""

    def journals(self, environment: str, after: int, limit: int) -> list[Journal]:
        """Return whole journals of an environment, of numbers above `after`, in their order.

        Numbers are given out in the order of commits: once one is seen, no smaller one will come. So whoever has read
        up to a number misses nothing by going on from it.
        """

    def openings(self, environment: str, after: int, limit: int) -> list[Journal]:
        """Return the same, but of each journal the first entry alone."""

    def summary(self, deployment: str) -> Summary:
        """Return the deployment's summary. NotFoundError if there is none."""

    def history(self, environment: str, limit: int = 20, before: int | None = None) -> list[Summary]:
        """Return summaries, newest first, with numbers below `before`."""

    def find_version(self, environment: str, version: str | None) -> Summary | None:
        """Return the newest succeeded deployment of that version; if None, of the one that the environment ran before,
        or else of any but the current one.
        """

    def queue_position(self, deployment: str) -> int | None:
        """Return 1 for the next one in the queue, None if it is not queued."""

    def environments(self) -> list[EnvironmentRow]:
        """Return all environments that ever took a deployment or were frozen, by name."""

    def environment(self, name: str) -> EnvironmentRow:
        """Return one environment; an empty row if it never took a deployment."""

    def note(self, environment: str, event: Deed, event_id: str) -> EnvironmentEntry:
        """Append to an environment's own journal, and have its freeze be what that folds to. A repeated `event_id`
        returns what the first call returned.
        """

    def chronicle(self, environment: str) -> list[EnvironmentEntry]:
        """Return an environment's own journal, in order."""

    # -- leases and agents ---------------------------------------------------------------------------
    def work(self) -> list[Work]:
        """Return the environments that want an agent now, oldest request first; cheap however long the history is.

        Nothing that has not begun is in it while its environment is locked, or frozen (unless it overrides that), nor
        before its `ready_at`.
        """

    def next_ready(self) -> float | None:
        """Return in how many seconds the first of those is ready that are queued or wait for a time; None if there is
        none. Those that wait for people do not count.
        """

    def claim(self, claim: Claim) -> Grant | None:
        """Take the lease if its row is still what was seen, and append the grant to the journal; None if somebody
        was faster, or if it has not begun and a gate is closed (`core.opening`) at that instant.
        """

    def renew(self, grant: Grant) -> None:
        """Show a sign of life for a lease. Raises LeaseLostError if it is held no more."""

    def report(self, report: AgentReport) -> Standing:
        """Record an agent's sign of life, unless its name is taken."""

    def agents(self, offline_after: float) -> list[AgentRow]:
        """Return all agents; one unheard of for `offline_after` seconds, or whose process is gone, is offline."""

    def set_drain(self, agent: str, draining: bool) -> None:
        """Ask an agent to take no more work, or allow it again. NotFoundError if it never reported."""

    def enter(self, agent: str, incarnation: str) -> tuple[int, ...]:
        """Take the agent's presence, which falls when its process (and its shims) are gone; return the fds that carry
        it.

        Raises NotAllowedError (SF-AGENT-DUPLICATE) if a live process holds that name. Taken again after a lost
        connection.
        """

    def leave(self, agent: str, incarnation: str) -> None:
        """Forget an agent that came for a while and has nothing more to do; one that holds a lease stays known."""

    def presence(self, agent: str) -> tuple[int, ...]:
        """Return the descriptors that carry the agent's presence just now; asks nobody, waits for nobody.

        They are others once a connection that was lost has been replaced.
        """

    # -- the outbox ----------------------------------------------------------------------------------
    def deliveries(self, within: float = 0.0, limit: int = 20) -> list[Delivery]:
        """Return what is due now or within so many seconds, the most overdue first; of one deployment and target only
        the first that is left, since a story is told in its order.
        """

    def take_delivery(self, delivery: Delivery, hold: float) -> bool:
        """Keep others from trying it for `hold` seconds, and count the try; False if somebody was faster."""

    def postpone_delivery(self, delivery: Delivery, seconds: float) -> None:
        """Have one that was taken (as it was before) tried again after so many seconds."""

    # -- logs and bundles ----------------------------------------------------------------------------
    def append_log(self, deployment: str, lines: Sequence[LogLine], grant: Grant | None = None) -> None:
        """Add lines to a deployment's log; silently none if the grant no longer stands."""

    def log(self, deployment: str, after: int = 0, limit: int = 1000) -> list[LogLine]:
        """Return log lines with id > after, in order."""

    def log_end(self, deployment: str) -> int:
        """Return the last line's id; ids count up by one, so the last 50 lines are those after it minus 50."""

    def put_bundle(self, digest: str, chunks: Iterable[bytes]) -> None:
        """Keep a bundle's bytes under its digest; at once done if they are there."""

    def get_bundle(self, digest: str) -> Iterable[bytes]:
        """Return a bundle's bytes. NotFoundError if there is none."""

    def identity(self) -> str:
        """Return the store's own name, given to it when it was made: what two stores call alike is told apart by it."""

    def weaknesses(self) -> list[Weakness]:
        """Return what of its server's settings lets a crash, or a failover, take back what it has acknowledged."""

    # -- changes -------------------------------------------------------------------------------------
    def now(self) -> float:
        """Return the store's clock."""

    def mark(self) -> int:
        """Return a mark for `wait`; one that is taken before reading misses no change after it."""

    def wait(self, timeout: float, mark: int | None = None) -> bool:
        """Return True soon after anything was appended, requested or released by anyone, False after `timeout` seconds.

        Counts changes since `mark`. Without one, since the last such wait on this store returned, so that a single
        loop of read and wait misses nothing; several loops on one store need marks. May return True without a change.
        """

    def wait_as_agent(self, timeout: float) -> News | None:
        """Return soon after a submission, a request, a drain or a lease's release by anyone; None after `timeout`
        seconds.

        What a holder tells its own journal wakes followers alone, not every agent. For one loop on each store, which
        misses nothing since it last returned. May return without news.
        """

    def close(self) -> None:
        """Release everything, the agent's presence too."""
