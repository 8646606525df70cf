# SPDX-License-Identifier: Apache-2.0
"""`postgres` against a real server, one that is frozen, and what is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from surefoot.checks.model import CheckStatus
from surefoot.checks.registry import KINDS
from tests.support.looking import context, look
from tests.support.postgres import PostgresServer
from tests.support.servers import free_port, page, raw, saying, silence

PASS, FAIL = CheckStatus.PASS, CheckStatus.FAIL
PASSWORD = "p@ss w/rd"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as one:
        one.require_password("app", PASSWORD)
        one.execute("CREATE TABLE migrations (version text, applied boolean, at numeric)")
        one.execute("INSERT INTO migrations VALUES ('2.0', true, 7.5)")
        one.execute("GRANT SELECT ON migrations TO app")
        yield one


async def test_server_that_answers_passes(server: PostgresServer) -> None:
    result = await look("postgres", url=server.url("postgres"))
    assert (result.status, "SELECT 1 is 1" in result.message) == (PASS, True), result.message
    assert "postgres@" not in result.message


@pytest.mark.parametrize(
    ("column", "options", "said"),
    [
        ("version", {"equals": "{version}"}, None),
        ("version", {"equals": "3.0"}, 'is 2.0 instead of "3.0"'),
        ("applied", {"equals": True}, None),
        ("applied", {"equals": "true"}, None),
        ("applied", {"equals": False}, "is true instead of false"),
        ("at", {"equals": 7.5}, None),
        ("at", {"above": 7, "below": 8}, None),
        ("at", {"below": 7.5}, "is 7.5, and must be below 7.5"),
        ("NULL", {"equals": "x"}, "is null instead of"),
        ("NULL", {"above": 1}, "is null, and must be above 1"),
        ("'many'", {"above": 1}, "is many, and must be above 1"),
    ],
)
async def test_value_is_compared(
    server: PostgresServer, column: str, options: dict[str, Any], said: str | None
) -> None:
    result = await look("postgres", url=server.url("postgres"), query=f"SELECT {column} FROM migrations", **options)
    assert result.status is (PASS if said is None else FAIL), result.message
    assert said is None or said in result.message


async def test_query_that_finds_nothing(server: PostgresServer) -> None:
    query = "SELECT 1 FROM migrations WHERE false"
    assert (await look("postgres", url=server.url("postgres"), query=query)).status is PASS
    assert (await look("postgres", url=server.url("postgres"), query=query, equals=1)).status is FAIL


async def test_query_may_only_read(server: PostgresServer) -> None:
    result = await look("postgres", url=server.url("postgres"), query="DELETE FROM migrations RETURNING 1")
    assert (result.status, "read-only" in result.message) == (FAIL, True), result.message
    assert (await look("postgres", url=server.url("postgres"), query="SELEKT")).status is FAIL
    result = await look("postgres", url=server.url("postgres"), query="SET x.y = 1")
    assert (result.status, "no rows" in result.message) == (FAIL, True), result.message


async def test_password_is_given_and_never_shown(server: PostgresServer) -> None:
    where = context(secrets={"DB_PASSWORD": PASSWORD, "WRONG": "wrong"})
    url = server.url("postgres", user="app")
    assert (await look("postgres", where, url=url, password="${DB_PASSWORD}")).status is PASS
    for options, said in (
        ({"password": "${WRONG}"}, "password authentication failed"),
        ({}, "no password supplied"),
        ({"password": "${MISSING}"}, "MISSING is not set"),
    ):
        result = await look("postgres", where, url=url, **options)
        assert (result.status, said in result.message) == (FAIL, True), result.message
        assert "p@ss" not in result.message


async def test_database_that_is_not_there_fails(server: PostgresServer) -> None:
    result = await look("postgres", url=server.url("shop"))
    assert (result.status, 'database "shop" does not exist' in result.message) == (FAIL, True), result.message
    result = await look("postgres", url=f"postgresql://postgres@127.0.0.1:{free_port()}/postgres")
    assert (result.status, "refused" in result.message) == (FAIL, True), result.message


async def test_server_or_query_that_hangs_fails_at_the_time_out(server: PostgresServer) -> None:
    result = await look("postgres", url=server.url("postgres"), query="SELECT pg_sleep(100)", timeout="500ms")
    assert result.status is FAIL
    assert "within 0.5 s" in result.message or "statement timeout" in result.message
    server.freeze()
    try:
        result = await look("postgres", url=server.url("postgres"), timeout="500ms")
    finally:
        server.thaw()
    assert (result.status, "within 0.5 s" in result.message) == (FAIL, True), result.message
    async with saying(silence) as port:
        result = await look("postgres", url=f"postgresql://postgres@127.0.0.1:{port}/x", timeout="500ms")
    assert (result.status, "within 0.5 s" in result.message) == (FAIL, True), result.message


@pytest.mark.parametrize("answer", [page("hello"), raw(b"\x00\xff" * 100), raw(b"N" + b"\xff" * 4000), raw(b"")])
async def test_garbage_fails(answer: Any) -> None:
    async with saying(answer) as port:
        result = await look("postgres", url=f"postgresql://me:s3cret@127.0.0.1:{port}/x", timeout="2s")
    assert (result.status, "s3cret" in result.message, len(result.message) < 500) == (FAIL, False, True)


async def test_address_that_is_none_fails() -> None:
    result = await look("postgres", context(), url="postgresql://x:port/y")
    assert result.status is FAIL


@pytest.mark.parametrize(
    "options",
    [{}, {"url": "mysql://x"}, {"url": "postgresql://x", "above": "many"}, {"url": "postgresql://x", "equals": [1]}],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KINDS["postgres"].model_validate(options)
