# SPDX-License-Identifier: Apache-2.0
"""The real SQL under a virtual clock: the product's SQLite store, but for its clock and for what the kernel notices."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from surefoot.store.flock_presence import duplicate
from surefoot.store.sightings import Sightings
from surefoot.store.sqlite import SqliteStore
from surefoot.store.transactions import Presence

#: A file system in memory: what is tried here is the SQL, not the disk.
SHARED_MEMORY = Path("/dev/shm")


class SimSqliteStore(SqliteStore):
    """See the module's docstring. All agents are in one process, so presences are kept by hand."""

    def __init__(self, path: Path, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._now = clock
        self._here: dict[str, str] = {}
        super().__init__(path)
        self._sightings = Sightings(monotonic)

    def _connect(self) -> sqlite3.Connection:
        conn = super()._connect()
        conn.create_function("surefoot_now", 0, self._now)
        return conn

    def enter(self, agent: str, incarnation: str) -> tuple[int, ...]:
        if self._here.get(agent, incarnation) != incarnation:
            raise duplicate(agent)
        self._here[agent] = incarnation

        def work(conn: Any) -> None:
            self._q.add_presence(conn, agent=agent)
            self._q.take_presence(conn, agent=agent, incarnation=incarnation, server=None)

        self._write(work)
        return ()

    def depart(self, agent: str) -> None:
        """Let an agent's presence fall, as when its process and its shims are gone."""
        self._here.pop(agent, None)

    def _presences(self) -> Mapping[str, Presence]:
        taken = self._read(lambda conn: list(self._q.presences(conn)))
        return {agent: Presence(incarnation, agent in self._here) for agent, incarnation in taken}
