# SPDX-License-Identifier: Apache-2.0
"""The store in one SQLite file, for agents on one machine.

Guarantees: what was accepted survives a loss of power (WAL, synchronous=FULL), several processes use one file, and a
waiter notices a change within a tenth of a second. Renewals, reports and logs alone are not synced one by one: a loss
of power takes their authors with it.

Does not: work on network file systems (neither WAL nor `flock` does); or free its lock while a process is frozen
inside a transaction. Those are kept to milliseconds, but where processes freeze often, use PostgreSQL: others then
get SF-STORE-BUSY until that process goes on or ends.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from surefoot.core.errors import Code, StoreError
from surefoot.store import migrations
from surefoot.store.flock_presence import FlockPresence
from surefoot.store.pool import Pool
from surefoot.store.protocol import News
from surefoot.store.sqlstore import SqlStore
from surefoot.store.transactions import Presence, load_queries

#: How long a call waits for another process's transaction.
BUSY_SECONDS = 5.0
#: How many times as long a starter waits that finds no store yet: behind all the others who make it at the same moment.
STARTERS = 6
#: How often a waiter looks whether the file has changed.
LOOK_EVERY = 0.05

_CODES = {
    sqlite3.SQLITE_BUSY: Code.STORE_BUSY,
    sqlite3.SQLITE_LOCKED: Code.STORE_BUSY,
    sqlite3.SQLITE_READONLY: Code.STORE_READ_ONLY,
    sqlite3.SQLITE_FULL: Code.STORE_FULL,
    sqlite3.SQLITE_NOTADB: Code.STORE_CORRUPT,
    sqlite3.SQLITE_CORRUPT: Code.STORE_CORRUPT,
}
_SENTENCES = {
    Code.STORE_BUSY: ("is locked by another process", "find it with: fuser PATH; a frozen process keeps its lock"),
    Code.STORE_READ_ONLY: ("can't be written", "give this user the right to write PATH and its folder"),
    Code.STORE_FULL: ("is on a full disk", "free some space: df -h PATH"),
    Code.STORE_CORRUPT: (
        "is damaged, or no surefoot database",
        "restore it from a backup, or name another with --store",
    ),
    Code.STORE_UNREACHABLE: ("can't be opened", "check the path, or name another with --store"),
}


class SqliteStore(SqlStore):
    """See the module's docstring."""

    driver_error = sqlite3.Error
    duplicate_error = sqlite3.IntegrityError

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the file, made or migrated if need be."""
        super().__init__(load_queries("sqlite3", "only_sqlite"))
        self._path, self._where = path, str(path)
        self._read_only = read_only
        self._presence = FlockPresence(path.with_name(path.name + ".presence"))
        self._pool: Pool[sqlite3.Connection] = Pool(self._connect, broken=lambda _: False)
        try:
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._prepare()
            self._seen = self.mark()
        except OSError as error:
            code = Code.STORE_READ_ONLY if isinstance(error, PermissionError) else Code.STORE_UNREACHABLE
            raise self._error(code, str(error)) from error
        except sqlite3.Error as error:
            raise self._explain(error) from error

    # -- connections -----------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        mode = "ro" if self._read_only else "rwc"
        conn = sqlite3.connect(
            f"file:{quote(bytes(self._path))}?mode={mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        conn.create_function("surefoot_now", 0, time.time)
        return conn

    def _prepare(self) -> None:
        with self._pool.connection() as conn:
            found = _version(conn)
            if not self._read_only:
                self._use_wal(conn)
                if found < migrations.newest():
                    conn.execute(f"PRAGMA busy_timeout={round(1000 * STARTERS * BUSY_SECONDS)}")
                    with _transaction(conn):
                        found = _version(conn)
                        if found < migrations.newest():
                            migrations.migrate(conn.execute, found, "sqlite")
                    conn.execute(f"PRAGMA busy_timeout={round(1000 * BUSY_SECONDS)}")
            elif found < migrations.newest():
                raise self._error(Code.STORE_READ_ONLY, f"schema {found} has to be upgraded first")
            migrations.check_version(found, self._where)

    def _use_wal(self, conn: sqlite3.Connection) -> None:
        """Switch to WAL; many starters at once refuse each other at once, whatever the busy timeout says."""
        deadline = time.monotonic() + STARTERS * BUSY_SECONDS
        while conn.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                conn.execute("PRAGMA journal_mode=WAL").fetchone()
            except sqlite3.OperationalError as error:
                if _code(error) is not Code.STORE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._pool.connection() as conn:
            yield conn

    @contextmanager
    def _writing(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        with self._pool.connection() as conn:
            conn.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            with _transaction(conn):
                yield conn

    # -- changes ------------------------------------------------------------------------------------------------------

    def _notify_followers(self, conn: Any) -> None:
        """Do nothing: the file itself tells that it changed."""

    def _notify(self, conn: Any, asked: str = "") -> None:
        """Do nothing: the file itself tells that it changed."""

    def mark(self) -> int:
        """Return a mark for `wait`; see the protocol."""
        return int(self._read(self._q.last_change))

    def wait(self, timeout: float, mark: int | None = None) -> bool:
        """Wait for a change; see the protocol. Renewals and reports change the file too, but wake nobody."""
        deadline = time.monotonic() + timeout
        since = self._seen if mark is None else mark

        def changed(conn: sqlite3.Connection) -> bool:
            version = None
            while True:
                # `data_version` tells what other connections did; this one does nothing meanwhile.
                if (now := conn.execute("PRAGMA data_version").fetchone()[0]) != version:
                    version = now
                    if (last := int(self._q.last_change(conn))) > since:
                        if mark is None:
                            self._seen = last
                        return True
                if (left := deadline - time.monotonic()) <= 0:
                    return False
                time.sleep(min(left, LOOK_EVERY))

        return self._read(changed)

    def wait_as_agent(self, timeout: float) -> News | None:
        """Wait as agents do; see the protocol. The file tells that it changed, not of what."""
        return News() if self.wait(timeout) else None

    # -- presence -----------------------------------------------------------------------------------------------------

    def enter(self, agent: str, incarnation: str) -> tuple[int, ...]:
        """Take the agent's presence; see the protocol."""
        try:
            fd = self._presence.enter(agent, incarnation)
        except OSError as error:
            raise self._error(Code.STORE_READ_ONLY, str(error)) from error

        def work(conn: Any) -> None:
            self._q.add_presence(conn, agent=agent)
            self._q.take_presence(conn, agent=agent, incarnation=incarnation, server=None)

        self._write(work)
        return (fd,)

    def _forget_presence(self, agent: str) -> None:
        self._presence.forget(agent)

    def presence(self, agent: str) -> tuple[int, ...]:
        """Return the descriptor that carries the agent's presence; see the protocol."""
        return self._presence.descriptors(agent)

    def _presences(self) -> Mapping[str, Presence]:
        taken = self._read(lambda conn: list(self._q.presences(conn)))
        return {agent: Presence(incarnation, self._presence.held(agent)) for agent, incarnation in taken}

    # -- errors -------------------------------------------------------------------------------------------------------

    def _transient(self, error: Exception) -> bool:
        """Nothing is: a locked file was waited for already."""
        return False

    def _explain(self, error: Exception) -> StoreError:
        return self._error(_code(error), str(error))

    def _error(self, code: Code, detail: str) -> StoreError:
        what, hint = _SENTENCES[code]
        return StoreError(
            f"the store at {self._path} {what} ({detail})", code=code, hint=hint.replace("PATH", str(self._path))
        )

    def close(self) -> None:
        """Release everything; see the protocol."""
        self._pool.close()
        self._presence.close()


def _version(conn: sqlite3.Connection) -> int:
    """Return the schema's version, 0 for an empty file."""
    # One look: between two another starter may have made all tables.
    names = {name for (name,) in conn.execute("SELECT name FROM sqlite_master").fetchall()}
    if "schema_version" not in names:
        if names:
            raise sqlite3.DatabaseError("it holds another program's tables")
        return 0
    return int(conn.execute("SELECT version FROM schema_version").fetchone()[0])


@contextmanager
def _transaction(conn: sqlite3.Connection) -> Iterator[None]:
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        conn.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite has rolled back by itself where the disk was full
            conn.execute("ROLLBACK")
        raise


def _code(error: Exception) -> Code:
    primary = getattr(error, "sqlite_errorcode", None)
    if primary is None:
        return Code.STORE_CORRUPT
    return _CODES.get(primary & 0xFF, Code.STORE_UNREACHABLE)
