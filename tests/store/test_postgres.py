# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL as companies run it: poolers between, roles with settings of their own, servers that hang."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from surefoot.core.errors import Code, Exit, NotAllowedError, StoreError
from surefoot.store import listener, open_store, passwords, servers, shown
from surefoot.store.listener import ended
from surefoot.store.postgres import PostgresStore
from surefoot.store.protocol import LogLine
from surefoot.store.session import Session, parameters
from tests.store import journal as j
from tests.support.pooler import Pooler
from tests.support.postgres import PostgresServer

NUMBERS = itertools.count()
#: Seconds that nothing here needs unless it never comes about.
DEADLINE = 20.0


@pytest.fixture
def role(postgres: PostgresServer) -> str:
    """A role of the test's own that may do anything."""
    name = f"role_{os.getpid()}_{next(NUMBERS)}"
    postgres.execute(f"CREATE ROLE {name} LOGIN SUPERUSER")
    return name


def own(url: str, name: str) -> str:
    return url.replace("postgres@", f"{name}@")


def opened(url: str) -> PostgresStore:
    store = open_store(url)
    assert isinstance(store, PostgresStore)
    return store


def unfit(url: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert caught.value.code is Code.STORE_UNFIT and caught.value.exit_code is Exit.STORE
    assert caught.value.hint
    return caught.value


# -- a pooler between -------------------------------------------------------------------------------------------------


def through(pooler: Pooler, url: str) -> str:
    return f"postgresql://postgres@127.0.0.1:{pooler.port}/{url.rpartition('/')[2]}?sslmode=disable&gssencmode=disable"


def test_a_pooler_of_transactions_is_refused_before_it_gives_one_presence_to_two(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    with Pooler(postgres.port) as pooler:
        error = unfit(through(pooler, url))
        assert "pool_mode = session" in error.hint
        with psycopg.connect(through(pooler, url), prepare_threshold=None) as other:
            found = other.execute("SHOW search_path").fetchone()
            assert found is not None and "surefoot" not in found[0], "its other clients have sessions as they were"


def test_a_pooler_of_sessions_does(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    with Pooler(postgres.port, mode="session") as pooler:
        mine, other = opened(through(pooler, url)), opened(through(pooler, url))
        try:
            assert mine.enter("a", "a-1")
            with pytest.raises(NotAllowedError):
                other.enter("a", "a-2")
            assert j.deployed(mine, "1.0") == "prod-1"
        finally:
            mine.close()
            other.close()


# -- settings of roles, databases and environments --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "theirs", "ours"),
    [
        ("default_transaction_isolation", "serializable", "read committed"),
        ("synchronous_commit", "off", "on"),
        ("synchronous_commit", "remote_apply", "remote_apply"),
        ("idle_session_timeout", "1min", "0"),
        ("extra_float_digits", "-15", "3"),
        ("client_encoding", "latin1", "UTF8"),
        ("search_path", "public", "surefoot"),
        ("idle_in_transaction_session_timeout", "0", "2s"),
        ("statement_timeout", "0", "15s"),
    ],
)
def test_what_a_role_sets_for_others_does_not_count(
    postgres: PostgresServer, role: str, setting: str, theirs: str, ours: str
) -> None:
    url = own(postgres.new_database(), role)
    with psycopg.connect(url) as conn:
        if setting == "idle_session_timeout" and conn.info.server_version < 140000:
            pytest.skip("a server that does not know it")
    postgres.execute(f"ALTER ROLE {role} SET {setting} = '{theirs}'")
    store = opened(url)
    try:
        with store._pool.connection() as conn:
            assert conn.execute(f"SHOW {setting}").fetchone() == (ours,)
    finally:
        store.close()


def test_settings_of_the_server_with_which_it_forgets_are_told_to_whoever_asks() -> None:
    with PostgresServer(fsync=True) as server:
        server.execute("CREATE ROLE plain LOGIN")
        server.execute("CREATE ROLE hasty LOGIN IN ROLE plain")
        server.execute("ALTER ROLE hasty SET synchronous_commit = local")
        server.execute("CREATE DATABASE shop OWNER plain")
        alone = server.url("shop", user="plain")
        pair = alone.replace(f"127.0.0.1:{server.port}", f"127.0.0.1:{server.port},127.0.0.1:{server.port}")
        assert forgets(alone) == []
        assert forgets(pair) == ["failover"]
        change(server, synchronous_standby_names="nobody")
        assert forgets(pair) == []
        assert forgets(pair.replace("plain", "hasty")) == ["failover"]
        change(server, synchronous_standby_names="", fsync="off", full_page_writes="off")
        assert forgets(alone) == ["fsync", "full_page_writes"]


def change(server: PostgresServer, **settings: str) -> None:
    server.settings |= settings
    server.restart()


def forgets(url: str) -> list[str]:
    store = opened(url)
    try:
        return re.findall(r"^fsync|^full_page_writes|failover", "\n".join(w.message for w in store.weaknesses()), re.M)
    finally:
        store.close()


def test_agents_in_different_time_zones_know_of_each_others_presence(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_database()
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    mine = opened(url)
    monkeypatch.setenv("PGTZ", "America/Lima")
    other = opened(url)
    try:
        mine.enter("a", "a-1")
        assert other._presences()["a"].held is True
        mine.close()
        assert other._presences()["a"].held is not None
    finally:
        mine.close()
        other.close()


def test_a_database_that_can_not_hold_all_text_is_refused(postgres: PostgresServer) -> None:
    postgres.execute("CREATE DATABASE latin1 ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    assert "LATIN1" in unfit(postgres.url("latin1")).message


def test_a_database_that_takes_bytes_as_they_come_gives_them_back_as_text(postgres: PostgresServer) -> None:
    postgres.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    store = open_store(postgres.url("ascii"))
    try:
        j.deployed(store, "ü😀")
        assert store.environment("prod").current_version == "ü😀"
    finally:
        store.close()


@pytest.mark.parametrize(
    "table", ["schema_version (installed_rank int, version text)", "events (id int)"], ids=["versions", "events"]
)
def test_tables_of_another_program_are_left_alone(postgres: PostgresServer, table: str) -> None:
    url = postgres.new_database()
    with psycopg.connect(url) as conn:
        conn.execute("CREATE SCHEMA surefoot")
        conn.execute(f"CREATE TABLE surefoot.{table}")
    assert "another program" in unfit(url).message


def test_a_server_that_is_crowded_is_told_from_one_that_is_down(postgres: PostgresServer, role: str) -> None:
    url = own(postgres.new_database(), role)
    postgres.execute(f"ALTER ROLE {role} NOSUPERUSER CONNECTION LIMIT 0")
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert caught.value.code is Code.STORE_UNREACHABLE and "CONNECTION LIMIT" in caught.value.hint


# -- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", ["s3@cret", "s3/cret", "s3%cret", "s3?x@cret", "s3cret@h:1/x@y"])
def test_a_password_that_is_not_written_right_is_not_told_as_a_hosts_name(password: str) -> None:
    with pytest.raises(StoreError) as caught:
        parameters(f"postgresql://me:{password}@db/app", read_only=False)
    assert "cret" not in caught.value.message + caught.value.hint
    assert "%XX" in caught.value.hint


def test_names_with_an_at_sign_may_be_written() -> None:
    given, where = parameters("postgresql://me%40cloud:p@/a%40b?host=@socket", read_only=False)
    assert (given["user"], given["host"], given["dbname"]) == ("me@cloud", "@socket", "a@b")
    assert where == "@socket/a@b"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql://me:p%40ss@h/db", ("p@ss",)),
        ("postgresql://me:p?ss#w@h1:1,h2:2/db", ("p?ss#w",)),
        ("postgresql://me:p[ss@h/db", ("p[ss",)),
        ("postgresql://h/db?user=me&password=s%20cr&sslpassword=key", ("s cr", "key")),
        ("postgresql://me@h/db", ("of the environment",)),
        ("postgresql://me:p/s@h/db", ()),
        ("/srv/surefoot.db", ()),
    ],
)
def test_a_stores_passwords_are_known_however_they_are_given(
    url: str, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "of the environment")
    assert passwords(url) == found


@pytest.mark.parametrize(
    ("url", "where", "found"),
    [
        ("postgresql://me:s3cret@h/db", "postgresql://me@h/db", (("h", 5432),)),
        ("postgresql://me:s3[?#cret@h1:1,[::1]:2/db", "postgresql://me@h1:1,[::1]:2/db", (("h1", 1), ("::1", 2))),
        (
            "postgresql://h1,h2/db?user=me@corp&password=s3cret&port=7",
            "postgresql://me%40corp@h1:7,h2:7/db",
            (("h1", 7), ("h2", 7)),
        ),
        ("postgresql://me:s3cret@/db?host=/run", "postgresql://me@/run/db", ()),
        ("postgresql://me:s3/cret@h/db", "postgresql://", ()),
        ("mysql://me:s3cret@h/db", "mysql://", ()),
        ("/srv/surefoot.db", "/srv/surefoot.db", ()),
        ("sqlite:///srv/surefoot.db", "sqlite:///srv/surefoot.db", ()),
    ],
)
def test_a_store_is_told_by_its_servers(url: str, where: str, found: tuple[tuple[str, int], ...]) -> None:
    assert shown(url) == where
    assert servers(url) == found


def test_several_hosts_in_the_environment_are_tried_for_one_that_takes_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db-1,db-2")
    given, where = parameters("postgresql:///app", read_only=False)
    assert given["target_session_attrs"] == "read-write"
    assert where == "db-1,db-2/app"
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "primary")
    assert "target_session_attrs" not in parameters("postgresql:///app", read_only=False)[0]


# -- a server that hangs ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stopped(server: PostgresServer, where: str) -> Iterator[None]:
    """Have sessions of the store answer nothing for the length of a block, and keep their lines."""
    with psycopg.connect(server.url("postgres")) as conn:
        found = conn.execute(
            f"SELECT pid FROM pg_stat_activity WHERE application_name = 'surefoot' AND {where}"
        ).fetchall()
    assert found
    for (pid,) in found:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for (pid,) in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_a_session_that_never_answers_is_given_up_for_another(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "patience", 0.5)
    store = opened(own_postgres.new_database())
    try:
        first = j.submit(store)
        with stopped(own_postgres, "true"):
            assert j.submit(store) == "prod-2"
            assert store.environment("prod").queue == (first, "prod-2")
    finally:
        store.close()


def test_who_waits_hears_of_changes_though_the_session_that_listened_never_answers(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "patience", 0.5)
    monkeypatch.setattr(listener, "SILENCE", 0.2)
    url = own_postgres.new_database()
    store, other = opened(url), opened(url)
    try:
        store.mark()
        with stopped(own_postgres, "query ~ '^(LISTEN|SELECT$)'"):
            mark = store.mark()
            j.submit(other)
            assert store.wait(DEADLINE, mark)
            assert store.environment("prod").queue == ("prod-1",)
    finally:
        store.close()
        other.close()


def test_a_presence_is_taken_from_the_server_that_is_the_store_now(own_postgres: PostgresServer) -> None:
    url = own_postgres.new_database()
    with Pooler(own_postgres.port, mode="session") as pooler:
        mine = opened(through(pooler, url))
        mine.enter("a", "a-1")
        kept = mine._entered["a"].session
        own_postgres.restart()
        other = opened(url)
        try:
            assert mine.environments() == []  # its line was cut; that of the presence is silent
            assert not ended(kept)
            mine.wait_as_agent(0.01)
            assert other._presences()["a"].held is True
            with pytest.raises(NotAllowedError):
                other.enter("a", "a-2")
        finally:
            other.close()
            mine.close()


def test_old_output_is_deleted_as_the_manual_says_and_nothing_else(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    store = open_store(url)
    old, young = j.deployed(store, "1.0"), j.deployed(store, "2.0")
    open_one = j.submit(store, "3.0")
    for deployment in (old, young, open_one):
        store.append_log(deployment, [LogLine("one"), LogLine("two")])
    manual = (Path(__file__).parents[2] / "docs" / "postgresql.md").read_text()
    (statement,) = re.findall(r"```sql\n(DELETE FROM surefoot\.logs .*?)```", manual, re.DOTALL)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("UPDATE surefoot.deployments SET finished_at = 1.0 WHERE id = %s", [old])
        conn.execute(statement)
    assert [len(store.log(deployment)) for deployment in (old, young, open_one)] == [0, 2, 2]
    store.append_log(old, [LogLine("three")])
    assert [(line.id, line.text) for line in store.log(old)] == [(3, "three")]
    assert len(store.journal(old)) == 3
    store.close()
