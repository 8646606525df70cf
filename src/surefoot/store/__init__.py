# SPDX-License-Identifier: Apache-2.0
"""The store: journal, queue, leases, agents, logs and bundles, in SQLite or PostgreSQL.

This package holds the only SQL. `open_store` is its one door; a store in memory, for simulations, is in `store.memory`.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from surefoot.core.errors import Code, StoreError
from surefoot.store.protocol import Store

__all__ = ["Store", "open_store", "passwords", "servers", "shown"]


def open_store(url: str, *, read_only: bool = False) -> Store:
    """Open the store at `sqlite:///path`, a plain path, or `postgresql://…`; make or upgrade its schema if need be.

    `read_only` changes nothing and needs no right to: on PostgreSQL a standby will do.
    """
    scheme, separator, rest = url.partition("://")
    match scheme if separator else "":
        case "":
            return _sqlite(Path(url), read_only)
        case "sqlite":
            return _sqlite(Path(unquote(rest)), read_only)
        case "postgresql" | "postgres":
            from surefoot.store.postgres import PostgresStore

            return PostgresStore(url, read_only=read_only)
        case _:
            raise StoreError(
                f"the store's URL begins with {scheme}://, which is none that this program knows",
                code=Code.STORE_UNREACHABLE,
                hint="use postgresql://user@host/database, sqlite:///path/to/file.db, or a plain path",
            )


def passwords(url: str) -> tuple[str, ...]:
    """Return the passwords that a store is reached with, as far as its URL and the environment have them."""
    if not _is_postgres(url):
        return ()
    from surefoot.store import session

    return session.passwords(url)


def servers(url: str) -> tuple[tuple[str, int], ...]:
    """Return the names and ports of a store's servers."""
    if not _is_postgres(url):
        return ()
    from surefoot.store import session

    return session.servers(url)


def shown(url: str) -> str:
    """Return a store's URL without passwords."""
    scheme, separator, _ = url.partition("://")
    if not _is_postgres(url):
        return f"{scheme}://" if separator and scheme != "sqlite" else url
    from surefoot.store import session

    return session.shown(url)


def _is_postgres(url: str) -> bool:
    return url.partition("://")[0] in ("postgresql", "postgres")


def _sqlite(path: Path, read_only: bool) -> Store:
    from surefoot.store.sqlite import SqliteStore

    absolute = path.expanduser().absolute()
    # POSIX keeps two leading slashes, and to SQLite's URLs they begin a host's name.
    return SqliteStore(Path("/", *absolute.parts[1:]), read_only=read_only)
