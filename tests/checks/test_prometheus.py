# SPDX-License-Identifier: Apache-2.0
"""`prometheus` against a real one, which measures what its rules say, and against what is none."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from surefoot.checks.model import CheckStatus, Context
from surefoot.checks.registry import KINDS, run_all
from surefoot.core.host import Host
from surefoot.core.plan import Check
from tests.support.looking import context, look
from tests.support.prometheus import prometheus
from tests.support.servers import free_port, page, saying, silence

PASS, FAIL, WARN = CheckStatus.PASS, CheckStatus.FAIL, CheckStatus.WARN

#: What is measured.
RULES = """\
groups:
  - name: test
    interval: 200ms
    rules:
      - {record: runner_status, expr: vector(1), labels: {runner: runner-01}}
      - {record: runner_status, expr: vector(0), labels: {runner: runner-02}}
      - {record: error_rate, expr: vector(0.05), labels: {instance: 10.0.0.1, version: "2.0"}}
      - {record: error_rate, expr: vector(0.002), labels: {instance: 10.0.0.2, version: "2.0"}}
      - {record: odd, expr: vector(7), labels: {name: 'a"b\\c'}}
      - {record: broken, expr: vector(NaN)}
"""


@pytest.fixture(scope="module", name="prometheus")
def _prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "rules.yml").write_text(RULES)
    config = {"global": {"evaluation_interval": "200ms"}, "rule_files": ["rules.yml"]}
    with prometheus(folder, config, measured="count(broken)") as server:
        yield server.url


async def ask(url: str, query: str, where: Context | None = None, **options: Any) -> tuple[CheckStatus, str, str]:
    result = await look("prometheus", where, url=url, query=query, **options)
    return result.status, result.message, result.hint


async def test_value_that_is_as_it_should_be_passes(prometheus: str) -> None:
    status, said, _ = await ask(prometheus, 'runner_status{runner="{agent}"}', equals=1)
    assert (status, said) == (PASS, 'runner_status{runner="runner-01"} is 1')
    assert (await ask(prometheus, 'error_rate{version="{version}"}', below=0.06, above=0))[0] is PASS
    assert (await ask(prometheus + "/", "scalar(vector(3))", above=2.5))[0] is PASS
    assert (await ask(prometheus, "vector(3)", equals="3"))[0] is PASS


async def test_value_that_is_not_fails_and_says_what_it_is(prometheus: str) -> None:
    where = context(agent="runner-02")
    status, said, _ = await ask(prometheus, 'runner_status{runner="{agent}"}', where, equals=1)
    assert status is FAIL
    assert 'is 0 for runner_status{runner="runner-02"}, and must be 1' in said
    status, said, _ = await ask(prometheus, "error_rate", below=0.01)
    assert (status, "0.05" in said, "10.0.0.1" in said, "10.0.0.2" in said) == (FAIL, True, True, False), said
    assert (await ask(prometheus, "vector(3)", above=3))[0] is FAIL
    assert (await ask(prometheus, "vector(3)", below=3))[0] is FAIL


async def test_absent_series_and_what_is_no_number_fail(prometheus: str) -> None:
    status, said, hint = await ask(prometheus, 'runner_status{runner="nobody"}', equals=1)
    assert (status, "no such series" in said, bool(hint)) == (FAIL, True, True)
    status, said, _ = await ask(prometheus, "broken", below=1)
    assert (status, "no number" in said) == (FAIL, True), said


async def test_each_host_is_asked_about(prometheus: str) -> None:
    hosts = (Host("web-01", "10.0.0.1"), Host("web-02", "10.0.0.2"))
    check = Check("prometheus", {"url": prometheus, "query": 'error_rate{instance="{host}"}', "below": 0.01})
    first, second = await run_all([check], context(*hosts))
    assert [(one.host, one.status) for one in (first, second)] == [("web-01", FAIL), ("web-02", PASS)]


async def test_placeholder_stays_inside_its_string(prometheus: str) -> None:
    status, said, _ = await ask(prometheus, 'odd{name="{odd}"}', context(odd='a"b\\c'), equals=7)
    assert status is PASS, said


@pytest.mark.parametrize(
    ("query", "said"),
    [("runner_status{", "refuses the query"), ("runner_status[1m]", "gives matrix"), ('"text"', "gives string")],
)
async def test_query_that_can_not_be_judged_fails(prometheus: str, query: str, said: str) -> None:
    status, message, hint = await ask(prometheus, query, equals=1)
    assert (status, said in message, bool(hint)) == (FAIL, True, True), message


async def test_value_is_compared_with_what_it_was_before_the_deployment(prometheus: str) -> None:
    age = f"time() - {int(time.time()) - 1}"
    after = replace(context(), started=time.time() - 0.5)
    status, said, _ = await ask(prometheus, "vector(5)", after, risen_below="10%")
    assert (status, "was 5 before" in said) == (PASS, True), said
    status, said, _ = await ask(prometheus, age, after, risen_below="10%")
    assert (status, "before the deployment, and is" in said) == (FAIL, True), said
    assert (await ask(prometheus, f"-({age})", after, risen_below="1%"))[0] is PASS
    assert (await ask(prometheus, age, risen_below="10%"))[0] is PASS  # preflight: nothing was before
    long_ago = replace(context(), started=time.time() - 86400)
    status, said, _ = await ask(prometheus, "runner_status", long_ago, risen_below="10%")
    assert (status, "not measured" in said) == (PASS, True), said


@pytest.mark.parametrize(("choice", "status"), [({}, FAIL), ({"when_down": "warn"}, WARN)])
async def test_prometheus_that_is_down_is_a_failure_or_a_warning(choice: dict[str, str], status: CheckStatus) -> None:
    found, said, hint = await ask(f"http://127.0.0.1:{free_port()}", "up", equals=1, **choice)
    assert (found, "refused" in said, bool(hint)) == (status, True, True)
    async with saying(page("<html>no backend</html>", "503 Service Unavailable")) as port:
        assert (await ask(f"http://127.0.0.1:{port}", "up", equals=1, **choice))[0] is status
    async with saying(silence) as port:
        found, said, _ = await ask(f"http://127.0.0.1:{port}", "up", equals=1, timeout="300ms", **choice)
        assert (found, "within 0.3 s" in said) == (status, True), said


async def test_prometheus_that_hangs_fails_at_the_time_out(tmp_path: Path) -> None:
    with prometheus(tmp_path, {}) as server:
        os.kill(server.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, server.process.pid, os.WSTOPPED)  # all of its threads are
        status, said, _ = await ask(server.url, "up", equals=1, timeout="300ms")
    assert (status, "within 0.3 s" in said) == (FAIL, True), said


@pytest.mark.parametrize("choice", [{}, {"when_down": "warn"}])
@pytest.mark.parametrize(
    "garbage",
    [
        "not json",
        "[]",
        '{"status": "fine"}',
        '{"status": "success"}',
        '{"status": "success", "data": {"resultType": "vector"}}',
        '{"status": "success", "data": {"resultType": "vector", "result": [7]}}',
        '{"status": "success", "data": {"resultType": "vector", "result": [{"value": [1]}]}}',
        '{"status": "success", "data": {"resultType": "vector", "result": [{"metric": [], "value": [1, {}]}]}}',
        "[" * 100_000,
    ],
)
async def test_garbage_fails_whatever_the_choice(garbage: str, choice: dict[str, str]) -> None:
    async with saying(page(garbage)) as port:
        status, said, _ = await ask(f"http://127.0.0.1:{port}", "up", below=1, **choice)
    assert (status, len(said) < 600) == (FAIL, True), said


async def test_who_asks_is_told_in_the_header() -> None:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        body = b'{"status": "success", "data": {"resultType": "scalar", "result": [0, "1"]}}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await asyncio.sleep(0.05)

    where = context(secrets={"TOKEN": "s3cret"})
    async with saying(answer) as port:
        url = f"http://127.0.0.1:{port}"
        assert (await ask(url, "x", where, equals=1, token="${TOKEN}"))[0] is PASS
        assert (await ask(url, "x", where, equals=1, username="me", password="${TOKEN}"))[0] is PASS
    assert b"Authorization: Bearer s3cret" in seen[0]
    assert b"Authorization: Basic bWU6czNjcmV0" in seen[1]


@pytest.mark.parametrize(
    "options",
    [
        {"query": "up", "equals": 1},
        {"url": "http://x", "equals": 1},
        {"url": "http://x", "query": "up"},
        {"url": "http://x", "query": "up", "equals": "much"},
        {"url": "http://x", "query": "up", "equals": True},
        {"url": "http://x", "query": "up", "equals": 1, "when_down": "skip"},
        {"url": "http://x", "query": "up", "equals": 1, "token": "plain"},
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KINDS["prometheus"].model_validate(options)
