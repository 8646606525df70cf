# SPDX-License-Identifier: Apache-2.0
"""Sessions of a PostgreSQL server: where a URL leads, and that what is there does as a store.

Guarantees: a session has the settings that the store counts on, whatever role, database, environment and URL say; it
belongs to its client alone; a server that says nothing for `ANSWER_WITHIN` counts as lost, though its machine still
keeps the line. No message has a password in it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import psycopg
from psycopg import conninfo
from psycopg.abc import PQGen

from surefoot.core.errors import Code, StoreError

R = TypeVar("R")

#: Seconds for a connection to be made; shorter than any lease but the shortest.
CONNECT_TIMEOUT = 3
#: How long data may stay unacknowledged, and what keepalives add up to, before a line counts as cut.
LINE_DEAD_MS = 3000
#: How long a session may hold locks without saying anything: a frozen client must not keep the lease's row from who
#: takes over.
IDLE_IN_TRANSACTION = "2s"
#: How long a call waits for another's row lock, and for its own statement.
LOCK_TIMEOUT, STATEMENT_TIMEOUT = "4s", "15s"
#: Seconds of silence, in the middle of a statement, after which a server hangs: it would have given up by itself.
ANSWER_WITHIN = 20.0
#: Where servers listen unless it is said.
PORT = 5432
#: The schema that holds all tables, so that they may share a database with other programs'.
SCHEMA = "surefoot"

_SETTINGS = {
    "search_path": SCHEMA,
    "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION,
    "lock_timeout": LOCK_TIMEOUT,
    "statement_timeout": STATEMENT_TIMEOUT,
    "client_min_messages": "error",
    # Row locks put writers in line; a stricter level refuses whoever had to wait.
    "default_transaction_isolation": "read committed",
    # The clock is a float, and would lose its digits.
    "extra_float_digits": "3",
}
#: What newer servers (since which version) end sessions for: presence and LISTEN are silent for as long as all is well.
_NEVER = {140000: "idle_session_timeout", 170000: "transaction_timeout"}
#: A role may have it off for the sake of speed; which of the other kinds is right depends on the replicas.
_DURABLE = "set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), false)"
#: As a whole number: a time's text depends on the session's time zone, a fraction's on its digits.
_SERVER = "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text"
#: How soon both ends of a session call a silent line cut. (A server has no keepalives to a client on the same machine's
#: socket, and ignores them.)
LINE = {
    "keepalives": "1",
    "keepalives_idle": "1",
    "keepalives_interval": "1",
    "keepalives_count": "3",
    "tcp_user_timeout": str(LINE_DEAD_MS),
}
#: Encodings of databases that hold any text; SQL_ASCII takes bytes as they come.
_ENCODINGS = {"UTF8", "SQL_ASCII"}
#: How often two clients of a proxy compare which sessions they have: by chance they may be different ones a few times.
_COMPARED = 3


class Session(psycopg.Connection[tuple[object, ...]]):
    """A connection whose calls end, also where the server never answers."""

    patience = ANSWER_WITHIN
    server = ""  #: which run of which server this is with, once it is set up: locks do not outlive it

    def wait(self, gen: PQGen[R], *args: Any, **kwargs: Any) -> R:
        """Wait for the server, as long as it is heard of."""
        return super().wait(self._answered(gen), *args, **kwargs)

    def _answered(self, gen: PQGen[R]) -> PQGen[R]:
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard = time.monotonic()
                elif time.monotonic() - heard > self.patience:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server did not answer within {self.patience:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: R = end.value
            return result

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Wait for as long as it takes."""
        self.patience = math.inf
        try:
            yield
        finally:
            del self.patience


def parameters(url: str, *, read_only: bool) -> tuple[dict[str, Any], str]:
    """Return libpq's parameters, and where that is in words without a password."""
    given = _parsed(url)
    known = _from_environment() | given
    result: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "application_name": "surefoot"} | given
    if "," in _hosts(known) and "PGTARGETSESSIONATTRS" not in os.environ:
        result.setdefault("target_session_attrs", "any" if read_only else "read-write")
    return result | {"client_encoding": "UTF8", "autocommit": True}, _where(known)


def shown(url: str) -> str:
    """Return where a URL leads, and as whom, without any password."""
    known = _known(url)
    if known is None:
        return "postgresql://"
    user = known.get("user")
    return f"postgresql://{quote(user, safe='')}@{_where(known)}" if user else f"postgresql://{_where(known)}"


def servers(url: str) -> tuple[tuple[str, int], ...]:
    """Return the names and ports of the servers that are asked over a network."""
    known = _known(url) or {}
    return tuple(
        (name, int(port) if port.isdigit() else PORT)
        for name, port in _at(_hosts(known), known)
        if name and name[0] not in "/@"
    )


def passwords(url: str) -> tuple[str, ...]:
    """Return the passwords that a URL has, and the environment has for it."""
    known = _known(url) or {}
    return tuple(known[name] for name in ("password", "sslpassword") if known.get(name))


def _known(url: str) -> dict[str, str] | None:
    """Return what a URL and the environment say; None of what is no URL."""
    try:
        return _from_environment() | _parsed(url)
    except StoreError:
        return None


def _hosts(known: Mapping[str, str]) -> str:
    return known.get("host") or known.get("hostaddr") or ""


def _where(known: Mapping[str, str]) -> str:
    where = _hosts(known) or (f"service {known['service']}" if "service" in known else "the local socket")
    where = ",".join(
        (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "") for host, port in _at(where, known)
    )
    return f"{where}/{known.get('dbname') or known.get('user') or ''}"


def _at(hosts: str, known: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return each host with its port: its own, or the one that is for all (libpq refuses any other number of them)."""
    names, ports = hosts.split(","), known.get("port", "").split(",")
    return list(zip(names, ports * len(names) if len(ports) == 1 else ports, strict=False))


def _parsed(url: str) -> dict[str, str]:
    given: dict[str, str] = {}
    readable = True
    try:
        given = {name: str(value) for name, value in conninfo.conninfo_to_dict(url).items()}
    except psycopg.Error:
        readable = False
    # To libpq the first @ ends a password and the first / ends it all: the rest of it would be told as a host's name.
    # (A name that begins with @ is a socket's.)
    split = any("@" in given.get(name, "")[1:] and given[name] in url for name in ("host", "port", "dbname"))
    if split or not readable:
        # libpq's own message may quote the URL, password included.
        raise StoreError(
            "the store's URL is no PostgreSQL URL",
            code=Code.STORE_UNREACHABLE,
            hint="use postgresql://user:password@host:5432/database?parameter=value with libpq's parameters; "
            "write special characters in a password as %XX",
        )
    return given


def _from_environment() -> dict[str, str]:
    """Return what PG* variables say."""
    return {
        option.keyword.decode(): value
        for option in psycopg.pq.Conninfo.get_defaults()
        if option.envvar is not None and (value := os.environ.get(option.envvar.decode()))
    }


def connect(parameters: Mapping[str, Any], line: Mapping[str, str] = LINE) -> Session:
    """Open a session; `set_up` makes it one of the store's."""
    return Session.connect(**{**line, **parameters})


def set_up(session: Session, line: Mapping[str, str] = LINE, *, read_only: bool) -> None:
    """Give a session the store's settings."""
    settings = (
        _SETTINGS
        | {name: "0" for since, name in _NEVER.items() if session.info.server_version >= since}
        | {
            name if name.startswith("tcp_") else f"tcp_{name}": value
            for name, value in line.items()
            if name != "keepalives"
        }
        | ({"default_transaction_read_only": "on"} if read_only else {})
    )
    row = session.execute(
        "SELECT " + ", ".join([_SERVER, _DURABLE, *["set_config(%s, %s, false)"] * len(settings)]),
        [part for pair in settings.items() for part in pair],
    ).fetchone()
    assert row is not None
    session.server = str(row[0])


def check_fit(session: Session, parameters: Mapping[str, Any], where: str) -> None:
    """Refuse a database that can't hold all text, and a proxy that lends its sessions to one client after another."""
    encoding = session.info.parameter_status("server_encoding")
    if encoding not in _ENCODINGS:
        raise StoreError(
            f"the database at {where} can't hold all text: its encoding is {encoding}",
            code=Code.STORE_UNFIT,
            hint="name one of encoding UTF8: CREATE DATABASE surefoot ENCODING 'UTF8' TEMPLATE template0",
        )
    if _shared(session, parameters):
        raise StoreError(
            f"the proxy at {where} does not give each client a session of its own, which presence and news need",
            code=Code.STORE_UNFIT,
            hint="have it pool sessions (PgBouncer: pool_mode = session), or name the server itself in the store's URL",
        )


def _shared(session: Session, parameters: Mapping[str, Any]) -> bool:
    if _backend(session) == session.info.backend_pid:
        return False  # a proxy that hands out sessions of its own makes up a number
    other = connect(parameters)
    try:
        for _ in range(_COMPARED):
            mine = _backend(session)
            other.execute("BEGIN")
            if _backend(other) == mine or _backend(session) != mine:
                return True
            other.execute("COMMIT")
    except psycopg.errors.ProtocolViolation:
        return True  # a PgBouncer that gives each statement another session has no transactions
    finally:
        other.close()
    return False


def _backend(session: Session) -> int:
    row = session.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(str(row[0]))
