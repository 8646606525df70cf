# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL for tests in which the store goes away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests; each takes a database of its own."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()
