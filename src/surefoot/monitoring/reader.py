# SPDX-License-Identifier: Apache-2.0
"""Reads a store for its metrics: each journal once, then only what is new.

Guarantees: after `refresh` the figures are those of all journals as they were at some moment during it, whatever was
read before, so a process that starts anew comes to the same ones. What a refresh reads is what has been accepted
since the last one, what is at work, and a row per environment and agent: it does not grow with the history. The first
one reads it all, in pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from surefoot.monitoring.ledger import Ledger, Progress
from surefoot.store.protocol import AgentRow, EnvironmentRow, Store

#: Journals read at a time: a page is some megabytes at most.
PAGE = 500
#: Seconds without a sign of life after which an agent is called offline.
SILENT = 5.0


@dataclass(slots=True)
class _Followed:
    """How far an environment's journals have been read."""

    newest: int = 0
    open: dict[int, Progress] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Now:
    """The store as it is now."""

    environments: tuple[EnvironmentRow, ...]
    agents: tuple[AgentRow, ...]
    started: dict[str, float]  #: by environment: when what is at work was started
    oldest: dict[str, float]  #: by environment: when what waits longest was asked for


class Reader:
    """See the module's docstring. For one thread."""

    def __init__(self, known: Mapping[str, Iterable[str]] = MappingProxyType({})) -> None:
        """`known`: environments, with their steps, that are known though they may never have taken a deployment."""
        self.ledger = Ledger()
        self._followed: dict[str, _Followed] = {}
        for name, steps in known.items():
            self.ledger.know(name, steps)

    def refresh(self, store: Store, *, stop: Callable[[], bool] = lambda: False) -> Now:
        """Read what is new. `stop` ends it early.

        Raises StoreError; what was counted until then stays counted, once.
        """
        rows = store.environments()
        for row in rows:
            if stop():
                break
            self._read(store, row, stop)
        agents = store.agents(SILENT)
        return Now(tuple(rows), tuple(agents), self._started(rows), self._oldest(rows))

    def _read(self, store: Store, row: EnvironmentRow, stop: Callable[[], bool]) -> None:
        if row.name not in self._followed:
            self._followed[row.name] = _Followed()
            self.ledger.know(row.name)
        followed = self._followed[row.name]
        waiting = set(row.queue)
        for number, progress in list(followed.open.items()):
            # What waits has nothing to count; what is stranded is looked at only once it locks no more.
            if progress.id in waiting or (progress.outcome is not None and row.locked_by == progress.id):
                continue
            self.ledger.apply(progress, store.journal(progress.id, after=progress.seq))
            if progress.closed:
                del followed.open[number]
        full = True
        while full and not stop():
            page = store.journals(row.name, followed.newest, PAGE)
            for journal in page:
                progress = Progress(journal.deployment, row.name, journal.number)
                self.ledger.apply(progress, journal.entries)
                followed.newest = journal.number
                if not progress.closed:
                    followed.open[journal.number] = progress
            full = len(page) == PAGE

    def _open(self, rows: Iterable[EnvironmentRow]) -> dict[str, Progress]:
        return {one.id: one for row in rows for one in self._followed.get(row.name, _Followed()).open.values()}

    def _started(self, rows: Iterable[EnvironmentRow]) -> dict[str, float]:
        known = self._open(rows)
        running = {row.name: known.get(row.running) for row in rows if row.running is not None}
        return {name: one.started_at for name, one in running.items() if one is not None and one.started_at is not None}

    def _oldest(self, rows: Iterable[EnvironmentRow]) -> dict[str, float]:
        known = self._open(rows)
        first = {row.name: known.get(row.queue[0]) for row in rows if row.queue}
        return {
            name: one.requested_at for name, one in first.items() if one is not None and one.requested_at is not None
        }
