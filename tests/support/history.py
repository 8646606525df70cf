# SPDX-License-Identifier: Apache-2.0
"""A long history, made in bulk: deployments that all succeeded, with journals of three entries."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

import psycopg

_SUMMARY = (
    """{"id":"prod-%s","environment":"prod","number":%s,"version":"%s.0.0","status":"succeeded","previous_version":null,"""
    """"requested_by":"history","requested_at":1.0,"started_at":1.0,"finished_at":2.0,"agent":"a","token":1,"""
    """"takeovers":0,"seq":3,"wants_agent":false}"""
)
_SERIES = {
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last})",
    "postgres": "WITH s AS (SELECT n FROM generate_series({first}::bigint, {last}) AS n)",
}


_PLAIN = ('{"type":"handed_over","cause":"history"}',) * 3
#: What a deployment of one step leaves of itself, but its plan.
_MEASURED = (
    '{"type":"handed_over","cause":"history"}',
    '{"type":"lease_granted","agent":"a","token":1,"reasons":["a chosen: primary online"]}',
    '{"type":"preflight_passed"}',
    '{"type":"fence_raised","hosts":["web-1","web-2"]}',
    '{"type":"step_started","step":"only","direction":"forward","attempt":1}',
    '{"type":"step_succeeded","step":"only","direction":"forward","attempt":1}',
    '{"type":"health_passed","direction":"forward","checks":3}',
    '{"type":"versions_recorded","direction":"forward","version":"1.0","hosts":["web-1","web-2"]}',
    '{"type":"finished","status":"succeeded"}',
)


def add_measured_history(url: str, count: int) -> None:
    """Add `count` deployments like `add_history`, with journals that there is something to measure in."""
    add_history(url, count, entries=_MEASURED)


def add_history(url: str, count: int, first: int = 2, entries: Sequence[str] = _PLAIN) -> None:
    """Add `count` ended deployments to environment `prod`, which must have fewer than `first` deployments."""
    database = "postgres" if url.startswith("postgresql") else "sqlite"
    series = _SERIES[database].format(first=first, last=first + count - 1)
    head, rest = _SUMMARY.split("%s", 1)
    middle, rest = rest.split("%s", 1)
    third, tail = rest.split("%s", 1)
    summary = f"'{head}' || n || '{middle}' || n || '{third}' || n || '{tail}'"
    statements = [
        f"""{series} INSERT INTO deployments
            (id, environment, number, submission, version, status, wants_agent, token, seq, requested_at,
            finished_at, summary)
        SELECT 'prod-' || n, 'prod', n, 'once:' || n, n || '.0.0', 'succeeded', 0, 1, 3, 1.0, 2.0, {summary} FROM s""",
        f"UPDATE environments SET next_number = {first + count} WHERE name = 'prod'",
    ]
    for seq, entry in enumerate(entries, start=1):
        kind = json.loads(entry)["type"]
        statements.append(
            f"""{series} INSERT INTO events (deployment, seq, at, type, data, event_id, place)
            SELECT 'prod-' || n, {seq}, 1.0, '{kind}', '{entry}',
                'h' || n || '-{seq}', 0
            FROM s"""
        )
    if database == "sqlite":
        with sqlite3.connect(url) as conn:
            for statement in statements:
                conn.execute(statement)
        conn.close()
    else:
        with psycopg.connect(url, autocommit=True) as pg:
            pg.execute("SELECT set_config('search_path', 'surefoot', false)")
            for statement in statements:
                pg.execute(statement)
