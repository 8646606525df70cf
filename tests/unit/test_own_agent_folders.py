# SPDX-License-Identifier: Apache-2.0
"""What agents of killed commands leave on the disk does not pile up."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from surefoot.agent import folders
from surefoot.cli import own_agent, who
from surefoot.cli.app import App
from surefoot.core.lease import Role
from surefoot.store import open_store
from surefoot.store.protocol import AgentReport, Store

HERE = who._host()


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_files_of_killed_agents_of_this_machine_are_removed_and_no_others(tmp_path: Path, gone: int) -> None:
    def made(name: str, age: float = 3600.0) -> str:
        folder = tmp_path / "agents" / name / "work"
        folder.mkdir(parents=True)
        (folder / "file").touch()
        os.utime(folder.parent, (time.time() - age,) * 2)
        return name

    def reported(name: str, *, stopping: bool) -> None:
        store.report(AgentReport(name, Role.PRIMARY, "one", stopping=stopping))

    store = open_store(str(tmp_path / "s.db"))
    made(f"{HERE}-{gone}-aaaaaa")
    made(f"{HERE}-{gone}-bbbbbb-background")
    reported(made(f"{HERE}-{gone}-cccccc"), stopping=True)
    kept = {
        made(f"{HERE}-{gone}-dddddd", age=folders.BEGINS_WITHIN / 2),  # begins just now
        made(f"{HERE}-{os.getpid()}-eeeeee"),
        made("runner-01"),
        made(f"elsewhere-{gone}-ffffff"),
    }
    reported(made(f"{HERE}-{gone}-999999"), stopping=False)  # of a container that shares this folder, say
    kept.add(f"{HERE}-{gone}-999999")

    @contextlib.contextmanager
    def writing(*, existing: bool) -> Iterator[Store]:
        assert existing
        yield store

    own_agent._forget_the_dead(cast(App, SimpleNamespace(writing=writing, lease_ttl=5.0, state_folder=tmp_path)))
    assert {folder.name for folder in (tmp_path / "agents").iterdir()} == kept
    assert [row.report.name for row in store.agents(10.0)] == [f"{HERE}-{gone}-999999"]
    store.close()


def test_where_no_agent_ever_was_there_is_nothing_to_remove(tmp_path: Path) -> None:
    folders.forget(tmp_path, lambda _: True)


def test_agents_of_commands_on_machines_that_are_no_more_are_forgotten_after_a_month(gone: int) -> None:
    for name in (f"ci-job-4711-{gone}-aaaaaa", "ci-job-4711-1-aaaaaa-background"):
        assert who.is_own_agent_of_the_past(name, who.MONTH + 1)
        assert not who.is_own_agent_of_the_past(name, who.MONTH - 1)
    assert not who.is_own_agent_of_the_past("runner-01", 10 * who.MONTH)
