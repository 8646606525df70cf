# SPDX-License-Identifier: Apache-2.0
"""No query reads the history to answer a question about the present."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec import structs

from surefoot.core.targets import Moment, Webhook
from surefoot.store import open_store
from surefoot.store.sqlstore import SqlStore
from surefoot.store.transactions import load_queries
from tests.store import journal as j
from tests.support.history import add_history
from tests.support.postgres import PostgresServer

#: Tables that grow with every deployment; all others have a row per agent or environment.
GROWING = ("deployments", "events", "logs", "bundle_chunks", "bundles", "log_ends")
#: Enough for a planner to prefer an index.
HISTORY = 20_000

PARAMETERS: dict[str, Any] = {
    "environment": "prod",
    "name": "prod",
    "deployment": "prod-7",
    "id": "prod-7",
    "event_id": "e",
    "submission": "key:k",
    "version": "7.0",
    "before": 15_000,
    "after": 1,
    "up_to": 20,
    "expected_seq": 3,
    "digest": "d",
    "upload": "u",
    "place": 0,
    "seconds": 60.0,
    "data": b"",
    "space": 1,
    "count": 1,
    "agent": "a",
    "incarnation": "i",
    "token": 1,
    "renewals": 1,
    "lock_key": 1,
    "of": 1,
    "tries": 0,
    **dict.fromkeys(
        ("number", "bar", "wants_agent", "seq", "draining", "replace", "preference", "running", "stopping"), 1
    ),
    **dict.fromkeys(("requested_at", "finished_at", "ttl", "at", "ready_at", "frozen_until"), 1.0),
}


def queries(adapter: str, only: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Every named query that reads or changes rows, with parameters of the right types."""
    found = []
    loaded = load_queries(adapter, only)
    for name in loaded.available_queries:
        query = getattr(loaded, name, None)
        if query is None or name.endswith("_cursor"):
            continue
        given = {key: PARAMETERS.get(key, "x") for key in query.parameters or ()}
        if re.match(r"\s*LOCK", query.sql) or (re.match(r"\s*INSERT", query.sql) and "SELECT" not in query.sql):
            continue
        found.append((name, query.sql, given))
    assert len(found) > 25
    return found


def test_sqlite_never_scans_what_grows(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "s.db"))
    j.submit(store)
    add_history(str(tmp_path / "s.db"), 1000)
    conn = sqlite3.connect(tmp_path / "s.db")
    conn.create_function("surefoot_now", 0, lambda: 0.0)
    scans = []
    for name, sql, given in queries("sqlite3", "only_sqlite"):
        if re.match(r"\s*(SELECT surefoot_now)", sql):
            continue
        for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}", given):
            if re.match(r"SCAN ", row[3]) and not re.search(r"INDEX deployments_(wanting|open)", row[3]):
                scans.append(f"{name}: {row[3]}")
    conn.close()
    store.close()
    per_environment = r"environments: SCAN e\b|forget_agent: SCAN environments\b"
    per_environment_or_agent = rf"{per_environment}|(agents|presences|add_presence): SCAN (agents|presence)\b"
    one_row = r"(identity|schema): SCAN schema_version"
    own_result = r"work: SCAN (w$|\(subquery)"
    assert [scan for scan in scans if not re.match(f"{per_environment_or_agent}|{one_row}|{own_result}", scan)] == []


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_postgres_never_scans_what_grows(postgres: PostgresServer, mode: str) -> None:
    url = postgres.new_database()
    store = open_store(url)
    j.submit(store)
    add_history(url, HISTORY)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("SELECT set_config('search_path', 'surefoot', false)")
        conn.execute("ANALYZE")
        conn.execute(f"SET plan_cache_mode = {mode}")
        scans = []
        for name, sql, given in queries("psycopg", "only_postgres"):
            plan = "\n".join(row[0] for row in conn.execute(f"EXPLAIN {sql}", given))
            scans += [
                f"{name}: Seq Scan on {table}" for table in re.findall(r"Seq Scan on (\w+)", plan) if table in GROWING
            ]
    store.close()
    # Tables that are empty here have one page, and no index is cheaper than that.
    small = ("logs", "bundles", "bundle_chunks", "log_ends")
    assert [scan for scan in scans if not scan.endswith(small)] == []


def test_what_is_asked_of_a_long_history_is_answered_right(url: str) -> None:
    store = open_store(url)
    assert isinstance(store, SqlStore)
    j.deployed(store, "1.0")
    j.deployed(store, "2.0")
    add_history(url.removeprefix("sqlite://"), 3000, first=3)
    newest = j.submit(store, "9.9")
    assert newest == "prod-3003"
    assert [work.deployment for work in store.work()] == [newest]
    assert store.queue_position(newest) == 1
    assert store.environment("prod").queue == (newest,)
    assert [summary.number for summary in store.history("prod", limit=2)] == [3003, 3002]
    back = store.find_version("prod", "1.0")
    assert back is not None and back.number == 1
    store.close()


def test_what_waits_behind_a_postponed_delivery_is_not_looked_at(url: str) -> None:
    told = Webhook("hook", "https://example.invalid", on=(Moment.ACCEPTED, Moment.STARTED, Moment.SUCCEEDED))
    plan = structs.replace(j.PLAN, targets=(told,))
    store = open_store(url)
    assert isinstance(store, SqlStore)
    for number in range(5):
        deployment, _ = store.submit(replace(j.submission(f"{number}.0"), plan=plan))
        j.finish(store, deployment, j.claim(store, deployment))
    for delivery in store.deliveries():
        assert store.take_delivery(delivery, 60.0)
        store.postpone_delivery(delivery, 3600.0)
    due = "SELECT COUNT(*) FROM outbox WHERE due_at <= surefoot_now()"
    with store._reading() as conn:
        assert conn.execute(due).fetchone()[0] == 0
        assert conn.execute("SELECT COUNT(*) FROM outbox").fetchone()[0] == 15
    store.close()
