# SPDX-License-Identifier: Apache-2.0
"""Stores that an older program has made go on as they were."""

from __future__ import annotations

import gc
import re
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from surefoot.api import gates, requests
from surefoot.core import events as ev
from surefoot.core.errors import Code, Exit, NewerStoreError, StoreError
from surefoot.core.plan import Direction
from surefoot.core.status import Status
from surefoot.core.summary import summarise
from surefoot.store import migrations, open_store, postgres
from surefoot.store.protocol import Append, Claim, Grant, Store
from tests.store import dump_schema
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
        pg.execute(script)
    return url


def test_every_schema_has_its_fixture() -> None:
    assert RELEASED[-1] == f"{migrations.newest():04d}", "run python -m tests.store.dump_schema before the release"


def test_what_journals_can_say_changes_with_the_schema_alone() -> None:
    """An agent that works while the store is upgraded by a program whose journals say more would overlook that."""
    written = (FIXTURES / f"{migrations.newest():04d}.forms.json").read_text()
    assert dump_schema.forms() == written, (
        "once this schema is released, make a next one, be it empty (sql/schema/NNNN.sql); then, from the root: "
        "python -m tests.store.dump_schema"
    )


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


def made_newer(url: str) -> None:
    """Have the store be one that a newer program has upgraded."""
    statement = f"UPDATE schema_version SET version = {migrations.newest() + 1}"
    if url.startswith("postgresql"):
        with psycopg.connect(url, options="-c search_path=surefoot") as pg:
            pg.execute(statement.encode())
    else:
        with closing(sqlite3.connect(url)) as conn, conn:
            conn.execute(statement)


def empty(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if database == "sqlite":
        return str(tmp_path / "s.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


def test_once_a_newer_program_has_upgraded_the_store_an_older_one_ends_what_it_has_begun_and_begins_nothing(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = empty(database, tmp_path, request)
    with closing(open_store(url)) as store:
        running, queued = j.submit(store, "1.0"), j.submit(store, "2.0")
        grant = j.claim(store, running)
        lease = j.seen(store)
        made_newer(url)
        store.renew(grant)
        requests.cancel(store, queued, by="ada", reason="stop")
        for begins in (
            store.work,
            partial(store.submit, j.submission("3.0")),
            partial(gates.freeze, store, "prod", by="ada", reason="audit"),
            partial(store.claim, Claim("b", "b-1", 5.0, lease, Append(j.state(store, running), (), "e"))),
        ):
            with pytest.raises(NewerStoreError, match=f"has schema {migrations.newest() + 1}; this program knows"):
                begins()
        j.finish(store, running, grant)
        assert store.environment("prod").current_version == "1.0"
        with pytest.raises(NewerStoreError) as refused:
            open_store(url)
        assert refused.value.exit_code is Exit.STORE


def test_what_a_newer_program_has_written_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "s.db")
    noise: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", noise.append)
    with closing(open_store(url)) as store:
        deployment = j.submit(store, "1.0")
        with closing(sqlite3.connect(url)) as conn, conn:
            conn.execute("UPDATE events SET type = 'rehearsed', data = json_set(data, '$.type', 'rehearsed')")
            conn.execute("UPDATE deployments SET summary = json_set(summary, '$.status', 'rehearsing')")
        for read in (partial(store.summary, deployment), partial(store.journal, deployment)):
            with pytest.raises(NewerStoreError, match=r"what this program does not know: .*'rehears") as told:
                read()
    del told, read
    gc.collect()
    assert not noise


def test_an_upgrade_that_is_cut_off_has_changed_nothing(
    database: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = restore("0001", database, tmp_path, request)
    whole = migrations.migrate

    def cut_off(execute: Callable[[str], Any], found: int, database: str) -> None:
        whole(execute, found, database)
        raise KeyboardInterrupt

    monkeypatch.setattr(migrations, "migrate", cut_off)
    with pytest.raises(KeyboardInterrupt):
        open_store(url)
    assert version_of(url) == 1
    monkeypatch.undo()
    with closing(open_store(url)) as store:
        goes_on(store)


def test_an_upgrade_lets_agents_go_on_beside_a_backup_that_reads_all_tables(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = restore("0002", "postgres", tmp_path, request)
    upgrading = threading.Thread(target=lambda: open_store(url).close())
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    monkeypatch.setattr(postgres, "UPGRADE_AGAIN", 0.01)
    with psycopg.connect(url, autocommit=True) as agent, psycopg.connect(url) as backup:
        backup.execute("LOCK TABLE surefoot.environments, surefoot.agents IN ACCESS SHARE MODE")
        upgrading.start()
        while agent.execute(waits).fetchone() is None:
            assert upgrading.is_alive()
        agent.execute("SET lock_timeout = '10s'")
        agent.execute("UPDATE surefoot.environments SET renewals = renewals + 1")
        assert upgrading.is_alive()
        backup.rollback()
        upgrading.join(30.0)
    assert version_of(url) == migrations.newest()


def test_an_upgrade_that_a_backup_keeps_out_for_too_long_says_so(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = restore("0003", "postgres", tmp_path, request)
    monkeypatch.setattr(postgres, "UPGRADE_PATIENCE", 0.0)
    with psycopg.connect(url) as backup:
        backup.execute("LOCK TABLE surefoot.agents IN ACCESS SHARE MODE")
        with pytest.raises(StoreError, match="lock timeout") as refused:
            open_store(url)
    assert refused.value.code is Code.STORE_BUSY
    assert version_of(url) == 3


def test_who_may_not_upgrade_a_store_is_told_who_may(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = restore("0003", "postgres", tmp_path, request)
    server: PostgresServer = request.getfixturevalue("postgres")
    database = url.rpartition("/")[2].partition("?")[0]
    server.execute(f'CREATE ROLE "{database}-reader" LOGIN')
    server.execute(
        f'GRANT USAGE ON SCHEMA surefoot TO "{database}-reader"; '
        f'GRANT ALL ON ALL TABLES IN SCHEMA surefoot TO "{database}-reader"',
        database,
    )
    with pytest.raises(StoreError, match="has schema 3, which has to be upgraded first: must be owner") as refused:
        open_store(server.url(database, user=f"{database}-reader"))
    assert refused.value.code is Code.STORE_AUTH
    assert refused.value.hint is not None
    assert "as the user who owns the tables of schema surefoot" in refused.value.hint


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
