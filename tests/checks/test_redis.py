# SPDX-License-Identifier: Apache-2.0
"""`redis` against real servers, with and without a password and TLS, and against what is none."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from surefoot.checks.model import CheckStatus
from surefoot.checks.registry import KINDS
from tests.support.looking import context, look
from tests.support.servers import accepts, certificate, free_port, program, raw, running, saying, silence

PASS, FAIL = CheckStatus.PASS, CheckStatus.FAIL
PASSWORD = "pass word/@:#%"


@dataclass(frozen=True)
class Servers:
    """Three servers: open, behind a password, behind TLS."""

    plain: str
    locked: str
    tls: str
    pem: Path


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("redis")
    binary = program("redis-server")
    pem = certificate(folder)
    plain, locked, tls = free_port(), free_port(), free_port()
    common = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
    acl = ["--user", "default", "on", f">{PASSWORD}", "~*", "+@all", "--user", "deploy", "on", ">second", "+ping"]
    secure = ["--port", "0", "--tls-port", str(tls), "--tls-auth-clients", "no"]
    secure += ["--tls-cert-file", str(pem), "--tls-key-file", str(pem)]
    with (
        running([binary, "--port", str(plain), *common], folder, accepts(plain)),
        running([binary, "--port", str(locked), *common, *acl], folder, accepts(locked)),
        running([binary, *secure, *common], folder, accepts(tls)),
    ):
        yield Servers(f"127.0.0.1:{plain}", f"127.0.0.1:{locked}", f"127.0.0.1:{tls}", pem)


async def test_server_that_answers_passes(redis: Servers) -> None:
    for url in (f"redis://{redis.plain}", f"redis://{redis.plain}/3", f"redis://{redis.plain}/"):
        result = await look("redis", url=url)
        assert (result.status, "PONG" in result.message) == (PASS, True), result.message


async def test_password_is_given_and_never_shown(redis: Servers) -> None:
    where = context(secrets={"CACHE_PASSWORD": PASSWORD, "SECOND": "second\n"})
    right = {"url": f"redis://{redis.locked}", "password": "${CACHE_PASSWORD}"}
    assert (await look("redis", where, **right)).status is PASS
    other = {"url": f"redis://{redis.locked}", "username": "deploy", "password": "${SECOND}"}
    assert (await look("redis", where, **other)).status is PASS
    url = f"redis://deploy:second@{redis.locked}"
    result = await look("redis", url=url)
    assert (result.status, "second" in result.message) == (PASS, False)


@pytest.mark.parametrize(
    ("secrets", "options", "said"),
    [
        ({}, {}, "NOAUTH"),
        ({"P": "wrong"}, {"password": "${P}"}, "WRONGPASS"),
        ({}, {"password": "${P}"}, "P is not set in the environment of runner-01"),
        ({"P": PASSWORD}, {"username": "nobody", "password": "${P}"}, "WRONGPASS"),
    ],
)
async def test_wrong_password_fails_and_says_so(
    redis: Servers, secrets: dict[str, str], options: dict[str, str], said: str
) -> None:
    result = await look("redis", context(secrets=secrets), url=f"redis://{redis.locked}", **options)
    assert (result.status, said in result.message) == (FAIL, True), result.message
    assert result.hint
    assert PASSWORD not in result.message


async def test_tls_is_spoken_and_its_certificate_must_be_trusted(redis: Servers) -> None:
    assert (await look("redis", url=f"rediss://{redis.tls}", ca=str(redis.pem))).status is PASS
    assert (await look("redis", url=f"rediss://{redis.tls}", verify_tls=False)).status is PASS
    result = await look("redis", url=f"rediss://{redis.tls}")
    assert (result.status, "not trusted" in result.message) == (FAIL, True), result.message
    assert (await look("redis", url=f"redis://{redis.tls}", timeout="2s")).status is FAIL
    assert (await look("redis", url=f"rediss://{redis.plain}", timeout="2s")).status is FAIL


async def test_server_that_is_not_there_fails() -> None:
    result = await look("redis", url=f"redis://127.0.0.1:{free_port()}")
    assert (result.status, "refused" in result.message) == (FAIL, True), result.message


async def test_server_that_hangs_fails_at_the_time_out(tmp_path: Path) -> None:
    port = free_port()
    with running([program("redis-server"), "--port", str(port), "--save", ""], tmp_path, accepts(port)) as process:
        os.kill(process.pid, signal.SIGSTOP)
        result = await look("redis", url=f"redis://127.0.0.1:{port}", timeout="300ms")
    assert (result.status, "within 0.3 s" in result.message) == (FAIL, True), result.message
    async with saying(silence) as port:
        assert (await look("redis", url=f"redis://127.0.0.1:{port}", timeout="300ms")).status is FAIL


@pytest.mark.parametrize(
    ("garbage", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1 400"),
        (b"+PONG PONG\r\n", "instead of PONG"),
        (b"+PONG", "instead of PONG"),
        (b"$4\r\nPONG\r\n", "instead of PONG"),
        (b"", "closed without an answer"),
        (b"\x00\xff\xfe\r\n", "instead of PONG"),
        (b"x" * 200_000, "limit"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "MASTERDOWN"),
    ],
)
async def test_garbage_is_no_pong(garbage: bytes, said: str) -> None:
    async with saying(raw(garbage)) as port:
        result = await look("redis", url=f"redis://127.0.0.1:{port}")
    assert (result.status, said in result.message) == (FAIL, True), result.message
    assert len(result.message) < 400


@pytest.mark.parametrize("url", ["redis://", "redis://x:port", "{url}/x", "redis://x/db"])
async def test_address_that_is_none_fails(url: str) -> None:
    result = await look("redis", context(url="http://x"), url=url)
    assert (result.status, "not the address" in result.message) == (FAIL, True), result.message


@pytest.mark.parametrize("options", [{}, {"url": "http://x"}, {"url": "redis://x", "password": "plain"}])
def test_impossible_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        KINDS["redis"].model_validate(options)
