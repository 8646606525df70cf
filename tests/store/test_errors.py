# SPDX-License-Identifier: Apache-2.0
"""A store that can't be used says why, with a code and a hint, and never with a password."""

from __future__ import annotations

import os
import pwd
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from surefoot.core.errors import Code, Exit, StoreError
from surefoot.store import open_store, sqlite
from tests.store import journal as j
from tests.support.postgres import PostgresServer


def refused(url: str, *, read_only: bool = False) -> StoreError:
    with pytest.raises(StoreError) as caught:
        open_store(url, read_only=read_only)
    assert caught.value.exit_code is Exit.STORE
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def test_nobody_listens_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        error = refused(f"postgresql://me:s3cret@127.0.0.1:{probe.getsockname()[1]}/db")
    assert error.code is Code.STORE_UNREACHABLE
    assert "s3cret" not in error.message + error.hint and "127.0.0.1" in error.message


def test_wrong_password_role_or_database(postgres: PostgresServer) -> None:
    postgres.require_password("guarded", "right")
    database = postgres.new_database().rpartition("/")[2]
    for url in (
        postgres.url(database, user="guarded", password="wr0ng"),
        postgres.url(database, user="guarded"),
        postgres.url(database, user="nobody_knows"),
        postgres.url("no_such_database"),
    ):
        error = refused(url)
        assert error.code is Code.STORE_AUTH
        assert "wr0ng" not in error.message
    error = refused(postgres.url(database, user="guarded", password="right"))
    assert error.code is Code.STORE_AUTH, "a user who may not create the schema"


def test_urls_that_are_none() -> None:
    assert refused("mysql://host/db").code is Code.STORE_UNREACHABLE
    error = refused("postgresql://me:s3cret@host:not-a-port:1/db?nonsense=%zz")
    assert error.code is Code.STORE_UNREACHABLE and "s3cret" not in error.message


def test_a_postgres_that_takes_no_writes(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    store = open_store(url)
    name = url.rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    readers = open_store(url)
    with pytest.raises(StoreError) as caught:
        j.submit(readers)
    assert caught.value.code is Code.STORE_READ_ONLY
    assert readers.environments() == []
    store.close()
    readers.close()


def test_a_reader_changes_nothing_and_needs_a_store(url: str) -> None:
    assert refused(url, read_only=True).code in (Code.STORE_READ_ONLY, Code.STORE_UNREACHABLE)
    store = open_store(url)
    j.submit(store)
    reader = open_store(url, read_only=True)
    assert reader.environment("prod").queue == ("prod-1",)
    with pytest.raises(StoreError) as caught:
        j.submit(reader)
    assert caught.value.code is Code.STORE_READ_ONLY
    reader.close()
    store.close()


def test_a_schema_of_a_newer_program(url: str) -> None:
    store = open_store(url)
    store.close()
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite://")) as conn:
            conn.execute("UPDATE schema_version SET version = 9999")
    else:
        with psycopg.connect(url) as pg:
            pg.execute("UPDATE surefoot.schema_version SET version = 9999")
    for read_only in (False, True):
        error = refused(url, read_only=read_only)
        assert error.code is Code.STORE_NEWER and "9999" in error.message


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is not a database, but it is long enough to look at\n" * 100)
    assert refused(str(tmp_path / "text")).code is Code.STORE_CORRUPT
    with sqlite3.connect(tmp_path / "other") as conn:
        conn.execute("CREATE TABLE somebody_elses (x)")
    assert refused(str(tmp_path / "other")).code is Code.STORE_CORRUPT


def test_a_path_that_can_be_no_file(tmp_path: Path) -> None:
    assert refused(str(tmp_path)).code is Code.STORE_UNREACHABLE
    (tmp_path / "file").write_text("")
    assert refused(str(tmp_path / "file" / "below.db")).code is Code.STORE_UNREACHABLE


@pytest.mark.parametrize("name", [b"latin-\xfc", b"new\nline", b"a b?mode=ro#c%20d"])
def test_a_folder_of_any_name_holds_a_store(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name) / "surefoot.db"
    store = open_store(str(path))
    deployment = j.submit(store)
    store.close()
    again = open_store(str(path), read_only=True)
    assert j.state(again, deployment).version == "1.0"
    again.close()


def test_a_locked_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    store = open_store(str(tmp_path / "s.db"))
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    # The handle's first connection was made with the short patience too.
    with pytest.raises(StoreError) as caught:
        j.submit(store)
    assert caught.value.code is Code.STORE_BUSY
    other.execute("ROLLBACK")
    other.close()
    assert j.submit(store) == "prod-1"
    store.close()


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "s.db"))
    assert isinstance(store, sqlite.SqliteStore)
    first = j.submit(store)
    with store._pool.connection() as conn:
        pages = conn.execute("PRAGMA page_count").fetchone()[0]
        conn.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreError) as caught:
        store.put_bundle("d", [b"x" * 3_000_000])
    assert caught.value.code is Code.STORE_FULL
    assert store.summary(first).id == first
    store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_that_this_user_may_not_write(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"sf-read-only-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        open_store(str(folder / "s.db")).close()
        # Becomes another user only after its imports: that user may not be able to read this Python.
        program = """
import os, sys
from surefoot.core.errors import StoreError
from surefoot.store import open_store, sqlite
os.setuid(int(sys.argv[2]))
try:
    open_store(sys.argv[1])
except StoreError as error:
    print(error.code)
"""
        other = str(pwd.getpwnam("nobody").pw_uid)
        done = subprocess.run(
            [sys.executable, "-c", program, str(folder / "s.db"), other], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "SF-STORE-READ-ONLY"
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


@pytest.mark.parametrize(("used", "spared"), [("sqlite", "psycopg"), ("postgres", "sqlite3")])
def test_one_databases_driver_is_not_imported_for_the_other(used: str, spared: str) -> None:
    program = f"import sys, surefoot.store.{used}; print({spared!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class Cutter:
    """A TCP proxy that cuts a line at some bytes: before the server has them, or before the client is answered."""

    def __init__(self, port: int) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._target = port
        self.port = self._server.getsockname()[1]
        self.cut_on: bytes | None = None
        self.deliver = True
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            flag = threading.Event()
            threading.Thread(target=self._pump, args=(client, server, flag, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, flag, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, cut: threading.Event, upward: bool) -> None:
        try:
            while data := source.recv(65536):
                if upward and self.cut_on is not None and self.cut_on in data:
                    self.cut_on = None
                    self.cuts += 1
                    cut.set()
                    if self.deliver:
                        sink.sendall(data)
                        continue
                    break
                if not upward and cut.is_set():
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def close(self) -> None:
        self._server.close()


@pytest.mark.parametrize("statement", [b"BEGIN", b"INSERT INTO events", b"COMMIT"])
@pytest.mark.parametrize("deliver", [False, True], ids=["request lost", "reply lost"])
def test_a_line_that_is_cut_in_mid_call_neither_loses_nor_doubles(
    postgres: PostgresServer, statement: bytes, deliver: bool
) -> None:
    from surefoot.core import events as ev
    from surefoot.core.plan import Direction

    database = postgres.new_database().rpartition("/")[2]
    cutter = Cutter(postgres.port)
    store = open_store(f"postgresql://postgres@127.0.0.1:{cutter.port}/{database}?sslmode=disable&gssencmode=disable")

    def cut() -> None:
        cutter.cut_on, cutter.deliver = statement, deliver

    def unwarned() -> None:
        # Prepared statements travel without their text: each call here comes early enough to be sent whole.
        store._pool.clear()  # type: ignore[attr-defined]

    cut()
    deployment = j.submit(store)
    unwarned()
    claim = j.a_claim(store, deployment)
    unwarned()
    cut()
    grant = store.claim(claim)
    assert grant is not None
    unwarned()
    cut()
    j.append(store, deployment, grant, ev.StepStarted("only", Direction.FORWARD, 1))
    unwarned()
    cutter.cut_on = None
    assert [entry.seq for entry in store.journal(deployment)] == [1, 2, 3]
    assert [summary.id for summary in store.history("prod")] == [deployment]
    assert cutter.cuts == 3
    store.close()
    cutter.close()
