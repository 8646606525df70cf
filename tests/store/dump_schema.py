# SPDX-License-Identifier: Apache-2.0
"""Writes the fixtures of the upgrade test: a small store of this program's schema, as SQL, for both databases, and
what a program of this schema can read.

Run it once for each new schema, before its release, from the repository's root: `python -m tests.store.dump_schema`.
Fixtures of released schemas are never written again.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import msgspec
from msgspec import structs

from surefoot.core import events as ev
from surefoot.core.environment import Deed
from surefoot.core.lease import Role
from surefoot.core.plan import Direction
from surefoot.core.status import Status
from surefoot.core.summary import Summary
from surefoot.core.targets import Moment, Webhook
from surefoot.store import migrations, open_store
from surefoot.store.protocol import AgentReport, LogLine, Store
from tests.store import journal as j
from tests.support.postgres import PostgresServer

FIXTURES = Path(__file__).parent / "fixtures"


def fill(store: Store) -> None:
    """Make something of everything: ended, stranded, running, queued; agents, a log, a bundle."""
    j.deployed(store, "1.0")
    j.deployed(store, "2.0")
    hook = Webhook("hook", "https://example.invalid", on=(Moment.STRANDED,))
    told = j.submission("1.0", "stage")
    staged, _ = store.submit(replace(told, plan=structs.replace(told.plan, targets=(hook,))))
    j.finish(store, staged, j.claim(store, staged), Status.STRANDED)
    running = j.submit(store, "3.0")
    store.submit(j.submission("4.0", key="build-4"))
    store.report(AgentReport("a", Role.PRIMARY, "a-1", running=running))
    grant = j.claim(store, running)
    j.append(store, running, grant, ev.StepStarted("only", Direction.FORWARD, 1))
    store.append_log(running, [LogLine("it's running", step="only"), LogLine("still", step="only")], grant)
    store.put_bundle("d1", [b"a bundle \x00\xff"])


def forms() -> str:
    """Return what a program of this schema can read: each event, and each part of one, with its fields or values."""
    _, parts = msgspec.json.schema_components([ev.Event, Deed, Summary])
    known = {name: sorted(map(str, part.get("properties") or part.get("enum") or ())) for name, part in parts.items()}
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known)) + "\n}\n"


def main() -> None:
    """Write the fixtures of the newest schema."""
    name = f"{migrations.newest():04d}"
    FIXTURES.mkdir(exist_ok=True)
    (FIXTURES / f"{name}.forms.json").write_text(forms())
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"{folder}/s.db")
        fill(store)
        store.close()
        conn = sqlite3.connect(f"{folder}/s.db")
        (FIXTURES / f"{name}.sqlite.sql").write_text("\n".join(conn.iterdump()) + "\n")
        conn.close()
    server = PostgresServer()
    try:
        server.start()
        url = server.new_database()
        store = open_store(url)
        fill(store)
        store.close()
        program = server.programs / "pg_dump"
        command = [str(program), "--inserts", "--no-owner", "--no-privileges", url]
        text = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ}).stdout
        # What only psql understands, and settings of one version of the server.
        text = re.sub(r"(?m)^(\\|SET |--).*\n", "", text)
        (FIXTURES / f"{name}.postgres.sql").write_text(re.sub(r"\n{2,}", "\n", text).lstrip())
    finally:
        server.close()


if __name__ == "__main__":
    main()
