# SPDX-License-Identifier: Apache-2.0
"""Stores of each kind, each empty, each with a way to open a second handle as another process would."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from surefoot.store import open_store  # noqa: E402
from surefoot.store.memory import MemoryStore  # noqa: E402
from surefoot.store.protocol import Store  # noqa: E402
from tests.support.postgres import PostgresServer  # noqa: E402


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that the test may stop, kill or freeze."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path / 'deep' / 'surefoot.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Open handles on one empty store, each as if in a process of its own."""
    handles: list[Store] = []
    memory = MemoryStore()

    def another() -> Store:
        if request.param == "memory":
            return memory
        handle = open_store(str(tmp_path / "surefoot.db") if request.param == "sqlite" else database)
        handles.append(handle)
        return handle

    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        database = server.new_database()
    yield another
    for handle in handles:
        handle.close()


@pytest.fixture
def store(opened: Callable[[], Store]) -> Store:
    """One handle on an empty store."""
    return opened()
