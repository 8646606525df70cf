# SPDX-License-Identifier: Apache-2.0
"""A store that is brought back from a backup knows smaller tokens than hosts do."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from surefoot.core import events as ev
from surefoot.core.errors import Code
from surefoot.core.status import Status
from surefoot.store import open_store
from tests.crash.stage import HOSTS

ROOT = Path(__file__).parents[2]
RUN = """
import sys
from pathlib import Path
from tests.crash.stage import Stage
stage = Stage.again(Path(sys.argv[1]), sys.argv[2], playbooks=True)
for version in sys.argv[3:]:
    stage.deploy(version)
    assert stage.agent("primary") == 0, stage.output()
"""


def run(folder: Path, store: str, *versions: str) -> None:
    """Deploy versions, in a process that forks no threads of ours."""
    subprocess.run([sys.executable, "-c", RUN, str(folder), store, *versions], cwd=ROOT, check=True, timeout=300)


def versions_on(folder: Path) -> set[str]:
    return {(folder / "hosts" / host / "version").read_text().strip() for host in HOSTS}


def last_end(store: str) -> ev.Finished:
    handle = open_store(store)
    try:
        newest = handle.history("production", 1)[0].id
        end = [entry.event for entry in handle.journal(newest) if isinstance(entry.event, ev.Finished)][-1]
    finally:
        handle.close()
    return end


def test_hosts_refuse_a_store_that_has_forgotten_and_the_hint_is_the_way_out(tmp_path: Path) -> None:
    database, store = tmp_path / "surefoot.db", f"sqlite://{tmp_path / 'surefoot.db'}"
    run(tmp_path, store, "1.0")
    with sqlite3.connect(database) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    shutil.copy(database, tmp_path / "backup.db")
    run(tmp_path, store, "2.0", "3.0")
    for left in tmp_path.glob("surefoot.db*"):
        if left.is_file():
            left.unlink()
    shutil.copy(tmp_path / "backup.db", database)

    run(tmp_path, store, "4.0")
    refused = last_end(store)
    assert refused.status is Status.FAILED and versions_on(tmp_path) == {"3.0"}
    assert refused.reason is not None and refused.reason.code is Code.FENCE_STALE
    assert "older copy" in refused.reason.hint

    found = re.search(r"on the host: rm -r (\S+)$", refused.reason.hint)
    assert found is not None and Path(found[1]).is_relative_to(tmp_path)
    for folder in Path(found[1]).parent.iterdir():  # each host has one of its own; here they are on one machine
        shutil.rmtree(folder)
    run(tmp_path, store, "4.0")
    assert last_end(store).status is Status.SUCCEEDED and versions_on(tmp_path) == {"4.0"}
