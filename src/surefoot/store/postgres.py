# SPDX-License-Identifier: Apache-2.0
"""The store in PostgreSQL, for agents on any number of machines.

Guarantees: a call either reports what the server has committed or raises; a client that froze or lost its line inside
a transaction keeps others waiting for `IDLE_IN_TRANSACTION` at most, because the server then ends its session;
waiters are told by NOTIFY, sent by the same transaction that made the change. Several hosts in the URL are tried in
turn until one takes writes.

Does not guarantee that a commit survives the loss of its server, unless the servers replicate synchronously: the
fence on the hosts covers a lease that a failover has forgotten. Presence and LISTEN each need a session of their own:
a PgBouncer between must pool sessions, not transactions.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors

from surefoot.core.errors import Code, NotAllowedError, StoreError, SurefootError
from surefoot.store import migrations
from surefoot.store.flock_presence import duplicate
from surefoot.store.listener import Listener, ended
from surefoot.store.pool import Pool
from surefoot.store.protocol import News, Standing, Weakness
from surefoot.store.session import LINE, SCHEMA, Session, check_fit, connect, parameters, servers, set_up
from surefoot.store.sqlstore import SqlStore
from surefoot.store.transactions import CommitUnknownError, Presence, load_queries

#: First key of all presence locks ("SFpr"), so that they meet no other program's advisory locks.
PRESENCE_SPACE = 0x53467072
#: Key of the lock that starters migrate under ("SFmigrat").
MIGRATION_LOCK = 0x53466D6967726174
#: How long an upgrade waits for a table that somebody reads (a backup, say): whoever comes after it waits behind it, so
#: that is shorter than any renewal's patience, and done again for so many seconds, this far apart.
UPGRADE_LOCK_TIMEOUT, UPGRADE_PATIENCE, UPGRADE_AGAIN = "500ms", 30.0, 1.0
#: A presence must fall with its process and with nothing else: were a cut line taken for a death, another agent could
#: begin before the lease of the one that is cut off has run out there. Cut lines are the lease's matter. The line is
#: asked often all the same: a machine that has lost its power and has it again answers that it knows no such session,
#: and its agent can't have its name before.
_PRESENCE_LINE = LINE | {
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "60",
    "tcp_user_timeout": "300000",
}
_REFUSED = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|permission denied"
    r"|(role|user|database) \"[^\"]*\" does not exist"
)
_HINTS = {
    Code.STORE_UNFIT: "name another database in the store's URL, or restore this one's schema from a backup",
    Code.STORE_AUTH: "check user, password and database in the store's URL, and the server's pg_hba.conf",
    Code.STORE_READ_ONLY: "name the primary server, or several hosts, in the store's URL",
    Code.STORE_FULL: "free some space on the database server",
    Code.STORE_BUSY: "look for long transactions: SELECT * FROM pg_stat_activity WHERE state <> 'idle'",
    Code.STORE_CORRUPT: "look at the database server's log",
    Code.STORE_UNREACHABLE: "check that the database server runs and can be reached from here",
}
#: What helps where the server's or libpq's own words are known.
_HINTS_BY_WORDS = (
    (
        re.compile(r"too many (clients|connections)|connection slots|no more connections|query_wait_timeout"),
        "allow more connections: max_connections, the role's CONNECTION LIMIT, or the pool's size",
    ),
    (
        re.compile(r"SSL error|SSL was required|certificate"),
        "check sslmode and sslrootcert in the store's URL, and the server's certificate",
    ),
)
_CLASSES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], Code], ...] = (
    ((errors.ReadOnlySqlTransaction,), Code.STORE_READ_ONLY),
    ((errors.DiskFull,), Code.STORE_FULL),
    (
        (errors.LockNotAvailable, errors.QueryCanceled, errors.DeadlockDetected, errors.SerializationFailure),
        Code.STORE_BUSY,
    ),
    (
        (errors.InsufficientPrivilege, errors.InvalidAuthorizationSpecification, errors.InvalidCatalogName),
        Code.STORE_AUTH,
    ),
    (
        (
            errors.UndefinedTable,
            errors.UndefinedColumn,
            errors.UndefinedFunction,
            errors.DuplicateTable,
            errors.DuplicateFunction,
        ),
        Code.STORE_UNFIT,
    ),
    ((errors.DataCorrupted, errors.IndexCorrupted), Code.STORE_CORRUPT),
)


@dataclass(frozen=True, slots=True)
class _Entered:
    """A presence that this process holds."""

    incarnation: str
    session: Session


class PostgresStore(SqlStore):
    """See the module's docstring."""

    driver_error = psycopg.Error
    duplicate_error = errors.UniqueViolation

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        """Open the database, its schema made or migrated if need be."""
        super().__init__(load_queries("psycopg", "only_postgres"))
        self._read_only = read_only
        self._parameters, self._where = parameters(url, read_only=read_only)
        self._fails_over = len(servers(url)) > 1
        self._fit = False
        self._server = ""
        self._pool: Pool[Session] = Pool(self._connect, broken=ended)
        self._listener = Listener(self._connect, "surefoot")
        self._calls = Listener(self._connect, "surefoot_agents")
        self._presence_lock = threading.RLock()
        self._entered: dict[str, _Entered] = {}
        self._seen = 0
        self._called = 0
        try:
            self._insist(self._prepare, repeatable=True)
        except SurefootError:
            self.close()
            raise

    # -- connections -----------------------------------------------------------------------------------------------

    def _connect(self, line: Mapping[str, str] = LINE) -> Session:
        session = connect(self._parameters, line)
        try:
            if not self._fit:
                check_fit(session, self._parameters, self._where)
                self._fit = True
            set_up(session, line, read_only=self._read_only)
            self._server = session.server
        except BaseException:
            _close(session)
            raise
        return session

    def _prepare(self) -> None:
        with self._pool.connection() as conn:
            found = _version(conn)
            if found < migrations.newest():
                if self._read_only:
                    raise StoreError(
                        f"the store at {self._where} has schema {found}, which has to be upgraded first",
                        code=Code.STORE_READ_ONLY,
                        hint="run any command of this version that may write, such as: surefoot agents",
                    )
                found = self._upgrade(conn)
            migrations.check_version(found, self._where)

    def _upgrade(self, conn: Session) -> int:
        """Bring the schema up to date, in line with others that do; return what it was when it was our turn."""
        deadline = time.monotonic() + UPGRADE_PATIENCE
        while True:
            found = 0
            try:
                with conn.patient(), _transaction(conn):
                    conn.execute(
                        "SELECT set_config('lock_timeout', '0', true), set_config('statement_timeout', '0', true)"
                    )
                    conn.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
                    conn.execute("SELECT set_config('lock_timeout', %s, true)", [UPGRADE_LOCK_TIMEOUT])
                    found = _version(conn)
                    if found == 0 and not _has_schema(conn):
                        conn.execute(f"CREATE SCHEMA {SCHEMA}")
                    migrations.migrate(conn.execute, found, "postgres")
            except errors.LockNotAvailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(UPGRADE_AGAIN)
            except errors.InsufficientPrivilege as error:
                if not found:
                    raise
                raise StoreError(
                    f"the store at {self._where} has schema {found}, which has to be upgraded first: {error}",
                    code=Code.STORE_AUTH,
                    hint=f"run any command (surefoot agents) as the user who owns the tables of schema {SCHEMA}",
                ) from error
            else:
                return found

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with self._pool.connection() as conn:
            yield conn

    @contextmanager
    def _writing(self, *, durable: bool) -> Iterator[Session]:
        """Give a transaction. All are durable: a crash must not take back a renewal that an observer has counted on."""
        with self._pool.connection() as conn, _transaction(conn):
            yield conn

    # -- changes ------------------------------------------------------------------------------------------------------

    def _notify_followers(self, conn: Any) -> None:
        self._q.notify_followers(conn)

    def _notify(self, conn: Any, asked: str = "") -> None:
        self._q.notify(conn, asked=asked)

    def mark(self) -> int:
        """Return a mark for `wait`; see the protocol."""
        return self._listener.mark()

    def wait(self, timeout: float, mark: int | None = None) -> bool:
        """Wait for a change; see the protocol. While the server can't be reached nothing is heard; then all at once."""
        heard = self._listener.wait(self._seen if mark is None else mark, timeout)
        if heard is not None and mark is None:
            self._seen = heard
        return heard is not None

    def wait_as_agent(self, timeout: float) -> News | None:
        """Wait as agents do; see the protocol. Agents do so all the time, so a presence that was lost is missed soon:
        before anyone calls an agent gone whose session alone was ended (by an administrator, or a proxy between).
        """
        with suppress(NotAllowedError):  # the next sign of life says so
            self._keep_presences()
        heard = self._calls.wait(self._called, timeout)
        if heard is None:
            return None
        self._called = heard
        return News(self._calls.take())

    # -- presence -----------------------------------------------------------------------------------------------------

    def enter(self, agent: str, incarnation: str) -> tuple[int, ...]:
        """Take the agent's presence; see the protocol. After a lost connection the descriptor is another: ask again."""
        with self._presence_lock:
            return self._enter(agent, incarnation)

    def _enter(self, agent: str, incarnation: str) -> tuple[int, ...]:
        held = self._entered.get(agent)
        if held is not None and held.incarnation != incarnation:
            raise duplicate(agent)
        if held is not None and not self._fell(held):
            return (held.session.fileno(),)
        key = self._number(agent)
        session = self._insist(lambda: self._take(key), repeatable=True)
        if session is None:
            raise duplicate(agent)
        try:
            self._write(
                lambda conn: self._q.take_presence(conn, agent=agent, incarnation=incarnation, server=session.server)
            )
        except SurefootError:
            _close(session)
            raise
        self._entered[agent] = _Entered(incarnation, session)
        if held is not None:
            _close(held.session)
        return (session.fileno(),)

    def presence(self, agent: str) -> tuple[int, ...]:
        """Return the descriptor that carries the agent's presence; see the protocol."""
        held = self._entered.get(agent)  # without the lock: somebody may hold it while a server does not answer
        return () if held is None or held.session.closed else (held.session.fileno(),)

    def _take(self, key: int) -> Session | None:
        """Return a session that holds a presence's lock, None if another session holds it."""
        session = self._connect(_PRESENCE_LINE)
        try:
            if self._q.try_presence(session, space=PRESENCE_SPACE, lock_key=key):
                return session
        except psycopg.Error:
            _close(session)
            raise
        _close(session)
        return None

    def _number(self, agent: str) -> int:
        """Return the number of the agent's lock; new agents take theirs one after another."""

        def work(conn: Any) -> int:
            self._q.lock_numbers(conn)
            self._q.add_presence(conn, agent=agent)
            return int(self._q.lock_key(conn, agent=agent))

        return self._write(work)

    def _fell(self, held: _Entered) -> bool:
        """Whether a presence is gone, or with a server that is not the store any more: one that hangs or has lost its
        power keeps the line for long.
        """
        return ended(held.session) or held.session.server != self._server

    def _keep_presences(self) -> None:
        """Take presences again whose session was lost."""
        with self._presence_lock:
            for agent, held in list(self._entered.items()):
                if self._fell(held):
                    self._enter(agent, held.incarnation)

    def report(self, report: Any) -> Standing:
        """Record an agent's sign of life; see the protocol. A presence that a lost connection let fall is retaken."""
        try:
            self._keep_presences()
        except SurefootError as error:
            if error.code is Code.AGENT_DUPLICATE:
                return Standing.TAKEN
            raise
        return super().report(report)

    def _forget_presence(self, agent: str) -> None:
        """Do nothing: a lock falls with its session."""

    def _presences(self) -> Mapping[str, Presence]:
        def work(conn: Any) -> list[Any]:
            return list(self._q.locked_presences(conn, space=PRESENCE_SPACE, server=conn.server))

        found = self._read(work)
        return {agent: Presence(incarnation, held if known else None) for agent, incarnation, known, held in found}

    # -- errors -------------------------------------------------------------------------------------------------------

    def _transient(self, error: Exception) -> bool:
        if isinstance(
            error, errors.DeadlockDetected | errors.SerializationFailure | errors.IdleInTransactionSessionTimeout
        ):
            return True
        if isinstance(error, errors.LockNotAvailable | errors.QueryCanceled | errors.DiskFull):
            return False
        return isinstance(error, psycopg.OperationalError) and not _REFUSED.search(str(error))

    def _explain(self, error: Exception) -> StoreError:
        code = next((code for kinds, code in _CLASSES if isinstance(error, kinds)), None)
        if code is None:
            code = Code.STORE_UNREACHABLE
            if isinstance(error, psycopg.OperationalError) and _REFUSED.search(str(error)):
                code = Code.STORE_AUTH
            elif "read-only" in str(error) or "read-write" in str(error):
                code = Code.STORE_READ_ONLY
            elif not isinstance(error, psycopg.OperationalError):
                code = Code.STORE_CORRUPT
        detail = " ".join(str(error).split()) or type(error).__name__
        if code is Code.STORE_UNFIT:
            detail = f'its schema "{SCHEMA}" is another program\'s, or not whole: {detail}'
        hint = next((hint for words, hint in _HINTS_BY_WORDS if words.search(detail)), _HINTS[code])
        return StoreError(f"the store at {self._where}: {detail}", code=code, hint=hint)

    def weaknesses(self) -> list[Weakness]:
        """Return which settings of the server let it forget; see the protocol."""
        synced, whole, replicated = self._read(self._q.durability)
        found = [
            Weakness(f"{name} is off on the server: {why}", f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();")
            for name, right, why in (
                ("fsync", synced, "a crash of its machine loses what was acknowledged, or all"),
                ("full_page_writes", whole, "a crash of its machine may leave pages that are half written"),
            )
            if not right
        ]
        if self._fails_over and not replicated:
            why = "the URL names several servers, and the one that takes writes waits for none of the others"
            found.append(
                Weakness(
                    f"{why}: a failover may lose what was acknowledged",
                    "set synchronous_standby_names (with Patroni, synchronous_mode: true)",
                )
            )
        return found

    def close(self) -> None:
        """Release everything; see the protocol."""
        self._listener.close()
        self._calls.close()
        with self._presence_lock:
            for held in self._entered.values():
                _close(held.session)
            self._entered.clear()
        self._pool.close()


def _close(session: Session) -> None:
    with suppress(psycopg.Error):  # closing what may be broken already
        session.close()


def _has_schema(conn: Session) -> bool:
    return conn.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [SCHEMA]).fetchone() is not None


def _version(conn: Session) -> int:
    """Return the schema's version, 0 for an empty database."""
    # Asks the catalog's tables: `to_regclass` answers from a cache that the wait for another starter does not renew.
    table = conn.execute(
        "SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = 'schema_version'",
        [SCHEMA],
    )
    if table.fetchone() is None:
        return 0
    found = conn.execute(f"SELECT version, store FROM {SCHEMA}.schema_version").fetchone()  # noqa: S608 - a name of our own
    assert found is not None
    return int(str(found[0]))


@contextmanager
def _transaction(conn: Session) -> Iterator[None]:
    conn.execute("BEGIN")
    try:
        yield
    except BaseException:
        if not conn.closed:
            with suppress(psycopg.Error):
                conn.execute("ROLLBACK")
        raise
    try:
        conn.execute("COMMIT")
    except psycopg.OperationalError as error:
        if conn.closed or conn.broken:
            raise CommitUnknownError from error
        raise
