# SPDX-License-Identifier: Apache-2.0
"""`http` in full: comparisons, headers, times, certificates; asked by the agent and by hosts. The rest is in
tests/unit/test_checks.py.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from surefoot.checks.model import CheckResult, CheckStatus
from surefoot.checks.registry import KINDS
from surefoot.core.host import Host
from tests.support.looking import context, look, on_hosts
from tests.support.servers import certificate, free_port, page, raw, saying, silence, tls_of

PASS, FAIL, WARN = CheckStatus.PASS, CheckStatus.FAIL, CheckStatus.WARN
BODY = '{"status": "UP", "pool": {"free": 3, "name": "main"}, "nodes": ["a", "b"], "version": "2.0", "load": "0.5"}'
WEB = Host("web-01", "127.0.0.1")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"pool.free": {"above": 2, "below": 4}}, None),
        ({"pool.free": {"above": 3}}, "pool.free is 3 and must be above 3"),
        ({"pool.free": {"below": 3}}, "pool.free is 3 and must be below 3"),
        ({"pool.free": {"above": 2, "below": 3}}, "must be below 3"),
        ({"load": {"below": 1}}, None),
        ({"status": {"above": 1}}, 'status is "UP" and must be above 1'),
        ({"missing": {"above": 1}}, "missing is nothing and must be above 1"),
        ({"status": {"not": "DOWN"}}, None),
        ({"status": {"not": "UP"}}, 'status is "UP" and must not be "UP"'),
        ({"version": {"equals": "{version}"}}, None),
        ({"nodes": {"contains": "a"}, "pool.name": {"contains": "ai"}}, None),
        ({"nodes": {"contains": "c"}}, 'must contain "c"'),
        ({"pool.free": {"contains": "3"}}, "must contain"),
        ({"missing": {"present": False}, "status": {"present": True}}, None),
        ({"missing": {"present": True}}, "missing is nothing and must be there"),
        ({"status": {"present": False}}, "must not be there"),
        ({"pool": {"free": 3, "name": "main"}}, None),
    ],
)
async def test_body_is_compared(wanted: dict[str, Any], said: str | None) -> None:
    async with saying(page(BODY)) as port:
        result = await look("http", url=f"http://127.0.0.1:{port}/", json=wanted)
    assert result.status is (PASS if said is None else FAIL), result.message
    assert said is None or said in result.message


async def test_headers_of_the_answer_are_compared() -> None:
    async with saying(page("", headers="X-Version: 2.0\r\nContent-Type: text/html; charset=utf-8\r\n")) as port:
        url = f"http://127.0.0.1:{port}/"
        good = {"x-version": "{version}", "Content-Type": {"contains": "text/html"}, "Server": {"present": False}}
        assert (await look("http", url=url, answer_headers=good)).status is PASS
        result = await look("http", url=url, answer_headers={"X-Version": "3.0"})
        assert (result.status, 'the header X-Version is "2.0" instead of "3.0"' in result.message) == (FAIL, True)


async def test_redirect_can_be_what_is_wanted() -> None:
    async with saying(page("", "302 Found", "Location: https://example.com/login\r\n")) as port:
        url = f"http://127.0.0.1:{port}/"
        result = await look("http", url=url, status=302, answer_headers={"Location": {"contains": "/login"}})
        assert result.status is PASS, result.message


async def test_answer_that_takes_too_long_fails() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.2)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(0.1)

    async with saying(slow) as port:
        url = f"http://127.0.0.1:{port}/"
        assert (await look("http", url=url, faster_than="20s", timeout="25s")).status is PASS
        result = await look("http", url=url, faster_than="150ms", timeout="25s")
    assert (result.status, "must take less than 0.15 s" in result.message) == (FAIL, True), result.message


async def test_body_can_be_sent() -> None:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"2.0}"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(0.05)

    async with saying(answer) as port:
        result = await look("http", url=f"http://127.0.0.1:{port}/", method="POST", body="{v: {version}}")
    assert result.status is PASS, result.message
    assert seen[0].startswith(b"POST / ")


@pytest.mark.parametrize(
    ("days", "options", "status", "said"),
    [
        (90, {}, PASS, "answered 200"),
        (3, {}, WARN, "its certificate expires in 2 days"),
        (3, {"warn_before": "1d"}, PASS, "answered 200"),
        (3, {"warn_before": "0s"}, PASS, "answered 200"),
        (90, {"warn_before": "100d"}, WARN, "expires in 89 days"),
        (-2, {}, FAIL, "expired"),
        (-2, {"verify_tls": False}, PASS, "answered 200"),
    ],
)
async def test_certificate_is_judged_by_its_times(
    tmp_path: Path, days: float, options: dict[str, Any], status: CheckStatus, said: str
) -> None:
    pem = certificate(tmp_path, days=days)
    async with saying(page("ok"), tls_of(pem)) as port:
        result = await look("http", url=f"https://127.0.0.1:{port}/", **({"ca": str(pem)} | options))
    assert result.status is status, result.message
    assert said in result.message


async def test_certificate_file_that_is_none_fails(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    for path in ("ca.pem", "missing.pem"):
        result = await look("http", url="https://127.0.0.1:1/", ca=str(tmp_path / path))
        assert (result.status, "no certificates that can be read" in result.message) == (FAIL, True), result.message


# -- asked by hosts ----------------------------------------------------------------------------------------


async def from_host(port: int, where: Any = None, scheme: str = "http", **options: Any) -> CheckResult:
    return await look("http", where or on_hosts(WEB), url=f"{scheme}://localhost:{port}/x", on="hosts", **options)


async def test_host_asks_for_itself() -> None:
    async with saying(page(BODY, headers="X-Version: 2.0\r\n")) as port:
        wanted = {"json": {"pool.free": {"above": 2}}, "contains": "UP", "answer_headers": {"x-version": "2.0"}}
        result = await from_host(port, **wanted)
        assert (result.status, result.host) == (PASS, "web-01"), result.message
        result = await from_host(port, json={"status": "DOWN"})
        assert (result.status, 'status is "UP" instead of "DOWN"' in result.message) == (FAIL, True)
    async with saying(page("broken", "503 Service Unavailable")) as port:
        result = await from_host(port)
        assert (result.status, "answered 503 instead of 200: broken" in result.message) == (FAIL, True), result.message
    async with saying(page("", "302 Found", "Location: /login\r\n")) as port:
        result = await from_host(port)
        assert (result.status, "it points to /login" in result.message) == (FAIL, True), result.message


async def test_host_that_gets_no_answer_or_garbage_fails(tmp_path: Path) -> None:
    result = await from_host(free_port())
    assert (result.status, "refused" in result.message) == (FAIL, True), result.message
    async with saying(silence) as port:
        result = await from_host(port, timeout="3s")
        assert (result.status, "within 3 s" in result.message) == (FAIL, True), result.message
    for garbage in (b"\x00\xff\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"):
        async with saying(raw(garbage)) as port:
            result = await from_host(port, contains="x")
            assert result.status is FAIL, result.message
    result = await from_host(1, on_hosts(WEB, prelude="python3() { echo nonsense; }"))
    assert (result.status, "has Python 3" in result.hint) == (FAIL, True), result.message


async def test_host_judges_certificates_too(tmp_path: Path) -> None:
    pem = certificate(tmp_path, days=3)
    async with saying(page("ok"), tls_of(pem)) as port:
        result = await from_host(port, scheme="https")
        assert (result.status, "certificate" in result.message) == (FAIL, True), result.message
        assert (await from_host(port, scheme="https", verify_tls=False)).status is PASS
        trusting = on_hosts(WEB, prelude=f"export SSL_CERT_FILE={pem}")
        result = await from_host(port, trusting, scheme="https")
        assert (result.status, "expires in 2 days" in result.message) == (WARN, True), result.message


async def test_hosts_that_are_not_there_fail() -> None:
    result = await from_host(1, context())
    assert (result.status, "none are known" in result.message) == (FAIL, True)


@pytest.mark.parametrize(
    "options",
    [
        {"json": {"x": {"above": "many"}}},
        {"json": {"x": {"present": "yes"}}},
        {"answer_headers": {"x": {"below": None}}},
        {"on": "hosts", "headers": {"Authorization": "Bearer ${TOKEN}"}},
        {"on": "hosts", "ca": "ca.pem"},
        {"on": "host"},
        {"faster_than": "0s"},
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KINDS["http"].model_validate({"url": "http://x/", **options})
