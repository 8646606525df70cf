# SPDX-License-Identifier: Apache-2.0
"""Stores that an older program has made go on as they were."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import psycopg
import pytest

from surefoot.core import events as ev
from surefoot.core.deployment import summarise
from surefoot.core.plan import Direction
from surefoot.core.status import Status
from surefoot.store import migrations, open_store
from surefoot.store.protocol import Grant, Store
from tests.store import journal as j
from tests.support.postgres import PostgresServer

FIXTURES = Path(__file__).parent / "fixtures"
RELEASED = sorted(path.name[:4] for path in FIXTURES.glob("*.sqlite.sql"))


def version_of(url: str) -> int:
    if url.startswith("postgresql"):
        with psycopg.connect(url) as pg:
            row = pg.execute("SELECT version FROM surefoot.schema_version").fetchone()
    else:
        with sqlite3.connect(url) as conn:
            row = conn.execute("SELECT version FROM schema_version").fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def restore(released: str, database: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    script = (FIXTURES / f"{released}.{database}.sql").read_text()
    if database == "sqlite":
        url = str(tmp_path / "s.db")
        conn = sqlite3.connect(url)
        conn.executescript(script)
        conn.close()
        return url
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.new_database()
    with psycopg.connect(url, autocommit=True) as pg:
        pg.execute(script)  # type: ignore[call-overload]
    return url


def test_every_schema_has_its_fixture() -> None:
    assert RELEASED[-1] == f"{migrations.newest():04d}", "run python -m tests.store.dump_schema before the release"


@pytest.mark.parametrize("released", RELEASED)
def test_a_store_of_an_older_schema_is_upgraded_and_goes_on(
    released: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = restore(released, database, tmp_path, request)
    store = open_store(url)
    assert version_of(url) == migrations.newest()
    goes_on(store)
    store.close()
    again = open_store(url)
    assert again.environment("prod").current_version == "3.0"
    again.close()


def goes_on(store: Store) -> None:
    assert [row.name for row in store.environments()] == ["prod", "stage"]
    assert [summary.status for summary in store.history("prod")] == [
        Status.QUEUED,
        Status.RUNNING,
        Status.SUCCEEDED,
        Status.SUCCEEDED,
    ]
    for environment in ("prod", "stage"):
        for summary in store.history(environment):
            assert summary == summarise(j.state(store, summary.id))
    assert store.environment("stage").locked_by == "stage-1"
    assert store.submit(j.submission("4.0", key="build-4")) == ("prod-4", False)
    assert [line.text for line in store.log("prod-3")] == ["it's running", "still"]
    assert b"".join(store.get_bundle("d1")) == b"a bundle \x00\xff"
    assert store.agents(5.0)[0].report.name == "a"
    (work,) = store.work()
    grant = Grant("prod", "a", work.lease.token)
    store.renew(grant)
    j.append(store, "prod-3", grant, ev.StepSucceeded("only", Direction.FORWARD, 1))
    j.finish(store, "prod-3", grant)
    assert j.submit(store, "5.0") == "prod-5"


def test_a_store_that_is_up_to_date_is_not_written_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    open_store(str(path)).close()
    before = path.read_bytes()
    open_store(str(path)).close()
    assert path.read_bytes() == before


def test_every_table_index_and_query_has_a_sentence() -> None:
    for path in sorted(migrations.SCHEMA.glob("*.sql")):
        for block in re.split(r";\s*\n", path.read_text()):
            assert not block.strip() or "\n-- " in f"\n{block.lstrip()}", f"{path.name}: {block[:60]}"
    for path in sorted(migrations.SCHEMA.parent.glob("*.sql")):
        for query in re.split(r"(?m)^-- name: ", path.read_text())[1:]:
            assert query.splitlines()[1].startswith("-- "), f"{path.name}: {query.splitlines()[0]}"
