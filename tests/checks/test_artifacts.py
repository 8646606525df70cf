# SPDX-License-Identifier: Apache-2.0
"""`file` and `url`: artifacts that are there, others than they should be, damaged, or endless."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from surefoot.checks.model import CheckStatus
from surefoot.checks.registry import KINDS
from surefoot.core.host import Host
from tests.support.looking import context, look, on_hosts
from tests.support.servers import free_port, page, raw, saying, silence

PASS, FAIL = CheckStatus.PASS, CheckStatus.FAIL
CONTENT = b"the artifact\n" * 1000
SHA256, SHA512 = hashlib.sha256(CONTENT).hexdigest(), hashlib.sha512(CONTENT).hexdigest()
WEB = Host("web-01", "127.0.0.1")


# -- file --------------------------------------------------------------------------------------------------


@pytest.fixture
def artifact(tmp_path: Path) -> str:
    (tmp_path / "app-2.0.tar").write_bytes(CONTENT)
    return str(tmp_path / "app-{version}.tar")


@pytest.mark.parametrize("where", ["agent", "hosts"])
@pytest.mark.parametrize("checksum", ["", f"sha256:{SHA256}", SHA256.upper(), f"sha512:{SHA512}", "{checksum}"])
async def test_file_that_is_the_right_one_passes(artifact: str, where: str, checksum: str) -> None:
    values = {"checksum": f"sha256:{SHA256}"}
    place = on_hosts(WEB, **values) if where == "hosts" else context(WEB, **values)
    result = await look("file", place, path=artifact, checksum=checksum, min_size="13kB", on=where)
    assert (result.status, result.host) == (PASS, "web-01" if where == "hosts" else None), result.message
    assert result.message.startswith("web-01: " if where == "hosts" else "runner-01: ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"checksum": f"sha256:{'0' * 64}"}, "instead of 000000000000…"),
        ({"min_size": "1MB"}, "is 13.0 kB large, and must be at least 1.0 MB"),
        ({"checksum": "{version}"}, "is no checksum"),
    ],
)
async def test_file_that_is_another_fails(artifact: str, options: dict[str, str], said: str) -> None:
    result = await look("file", path=artifact, **options)
    assert (result.status, said in result.message) == (FAIL, True), result.message


async def test_file_that_is_not_there_or_none_fails(tmp_path: Path) -> None:
    result = await look("file", path=str(tmp_path / "it's not.tar"))
    assert (result.status, "is not there" in result.message) == (FAIL, True), result.message
    result = await look("file", path=str(tmp_path), checksum=SHA256)
    assert (result.status, "is no file" in result.message) == (FAIL, True), result.message


async def test_file_that_can_not_be_read_or_hangs_fails(artifact: str) -> None:
    prelude = "wc() { echo nonsense; }"
    result = await look("file", on_hosts(WEB, prelude=prelude), path=artifact, on="hosts")
    assert (result.status, "can't be read: nonsense" in result.message) == (FAIL, True), result.message
    prelude = "wc() { sleep 100; }"
    result = await look("file", on_hosts(WEB, prelude=prelude), path=artifact, on="hosts", timeout="300ms")
    assert result.status is FAIL


@pytest.mark.parametrize(
    "options", [{}, {"path": "x", "checksum": "md5:1"}, {"path": "x", "on": "hosts"}, {"path": "x", "checksum": "abc"}]
)
def test_impossible_options_of_file_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KINDS["file"].model_validate(options)


# -- url ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", ["", f"sha256:{SHA256}", f"sha512:{SHA512}"])
async def test_artifact_that_is_the_right_one_passes(checksum: str) -> None:
    async with saying(page(CONTENT)) as port:
        url = f"http://127.0.0.1:{port}/app-{{version}}.tar"
        result = await look("url", url=url, checksum=checksum, min_size="13kB")
    assert (result.status, "app-2.0.tar is there, 13.0 kB" in result.message) == (PASS, True), result.message


async def test_server_that_can_only_be_fetched_from_is_fetched_from() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        status = b"405 Method Not Allowed" if asked.startswith(b"HEAD") else b"200 OK"
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: 2\r\nConnection: close\r\n\r\n" % status)
        writer.write(b"" if asked.startswith(b"HEAD") else b"ok")
        await asyncio.sleep(0.05)

    async with saying(answer) as port:
        assert (await look("url", url=f"http://127.0.0.1:{port}/x")).status is PASS


async def test_token_is_sent_and_never_shown() -> None:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await asyncio.sleep(0.05)

    async with saying(answer) as port:
        where = context(secrets={"T": "s3cret"})
        result = await look("url", where, url=f"http://127.0.0.1:{port}/x", token="${T}")
    assert b"Authorization: Bearer s3cret" in seen[0]
    assert (result.status, "answered 401" in result.message, "s3cret" in result.message) == (FAIL, True, False)


@pytest.mark.parametrize(
    ("answer", "options", "said"),
    [
        (page(b"another"), {"checksum": SHA256}, "has sha256"),
        (page(CONTENT), {"min_size": "1MB"}, "is 13.0 kB large"),
        (page("no such thing", "404 Not Found"), {}, "answered 404 instead of 200"),
        (page("no such thing", "404 Not Found"), {"checksum": SHA256}, "instead of 200: no such thing"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 13000\r\n\r\nthe art"), {"checksum": SHA256}, "broke off"),
        (raw(b"\x00\xff\xfe\r\n"), {}, "not answer in HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\n\r\n"), {"min_size": "1kB"}, "does not tell how large"),
        (silence, {"timeout": "300ms"}, "within 0.3 s"),
    ],
)
async def test_artifact_that_is_another_fails(answer: Any, options: dict[str, str], said: str) -> None:
    async with saying(answer) as port:
        result = await look("url", url=f"http://127.0.0.1:{port}/app.tar", **options)
    assert (result.status, said in result.message) == (FAIL, True), result.message


async def test_endless_artifact_fails_at_the_time_out() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(os.urandom(1000))
            await writer.drain()
            await asyncio.sleep(0.01)

    async with saying(answer) as port:
        result = await look("url", url=f"http://127.0.0.1:{port}/", checksum=SHA256, timeout="3s")
    assert (result.status, "within 3 s" in result.message) == (FAIL, True), result.message


async def test_server_that_is_not_there_fails() -> None:
    result = await look("url", url=f"http://127.0.0.1:{free_port()}/")
    assert (result.status, "refused" in result.message) == (FAIL, True), result.message
