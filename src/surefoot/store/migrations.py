# SPDX-License-Identifier: Apache-2.0
"""The schema, brought up to date by whoever opens the store first.

Guarantees: each migration happens once and whole, however many programs start at the same moment: they stand in line
for one lock (SQLite: the write lock of BEGIN IMMEDIATE; PostgreSQL: an advisory lock of the transaction), and who
comes second finds the work done. A store that a newer program has migrated is refused, not guessed at. Files are
never changed once released: a change is a new file.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from surefoot.core.errors import NewerStoreError

SCHEMA = Path(__file__).parent / "sql" / "schema"
#: What helps a program that is older than the store.
UPGRADE = "upgrade surefoot on this machine: pip install --upgrade surefoot"


@dataclass(frozen=True, slots=True)
class Migration:
    """One step from a schema to the next."""

    version: int
    statements: tuple[str, ...]


@cache
def migrations(database: str) -> tuple[Migration, ...]:
    """Return all steps for one database (`sqlite` or `postgres`), oldest first."""
    shared = sorted(path for path in SCHEMA.glob("*.sql") if re.fullmatch(r"\d{4}\.sql", path.name))
    return tuple(
        Migration(int(path.stem), tuple(_statements(path)) + tuple(_statements(path.with_suffix(f".{database}.sql"))))
        for path in shared
    )


@cache
def newest() -> int:
    """Return the version of the schema that this program knows."""
    return max(int(path.stem) for path in SCHEMA.glob("[0-9][0-9][0-9][0-9].sql"))


def _statements(path: Path) -> Iterator[str]:
    """Split a file at the semicolons that end a line."""
    if not path.exists():
        return
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("--"))
    for statement in re.split(r";\s*(?:\n|$)", "\n".join(lines)):
        if statement.strip():
            yield statement.strip()


def check_version(found: int, where: str) -> None:
    """Refuse a schema that a newer program has made."""
    if found > newest():
        raise NewerStoreError(
            f"the store at {where} has schema {found}; this program knows schemas up to {newest()}",
            hint=UPGRADE,
        )


def migrate(execute: Callable[[str], Any], found: int, database: str) -> None:
    """Bring a schema up to date, in the caller's transaction and under the caller's lock."""
    if found == 0:
        execute("CREATE TABLE schema_version (version BIGINT NOT NULL, store TEXT NOT NULL)")
        execute(f"INSERT INTO schema_version (version, store) VALUES (0, '{uuid.uuid4().hex[:12]}')")  # noqa: S608
    for step in migrations(database):
        if step.version > found:
            for statement in step.statements:
                execute(statement)
            execute(f"UPDATE schema_version SET version = {step.version}")  # noqa: S608 - a number of our own
