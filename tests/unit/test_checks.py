# SPDX-License-Identifier: Apache-2.0
"""Checks against real servers on 127.0.0.1, honest ones and others; and when they count as passed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from surefoot.agent.checking import healthy
from surefoot.checks.model import CheckResult, CheckStatus, CommandResult, Context
from surefoot.checks.policy import failed, until_healthy
from surefoot.checks.registry import KINDS, run_all
from surefoot.core.errors import Code
from surefoot.core.host import Host
from surefoot.core.plan import Check, HealthPolicy
from tests.support.looking import GENEROUS, context, look
from tests.support.servers import Answer, certificate, free_port, saying, silence, tls_of

PASS, FAIL = CheckStatus.PASS, CheckStatus.FAIL


def says(body: str | bytes = b"", status: str = "200 OK", headers: str = "", seen: list[str] | None = None) -> Answer:
    """Answer every request so, and note what was asked."""
    data = body.encode() if isinstance(body, str) else body

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(request.decode())
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n{headers}\r\n".encode() + data)
        await writer.drain()
        await asyncio.sleep(0.05)

    return answer


def sends(*pieces: bytes, pause: float = 0.0, then: float = 0.0) -> Answer:
    """Send these bytes, whatever is asked."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        await asyncio.sleep(then)

    return answer


# -- http ----------------------------------------------------------------------------------------------


async def test_service_that_answers_as_expected_passes() -> None:
    async with saying(says('{"status": "UP", "version": "2.0", "db": {"nodes": [{"ok": true}]}}')) as port:
        result = await look(
            "http",
            url=f"http://127.0.0.1:{port}/health",
            json={"status": "UP", "version": "{version}", "db.nodes.0.ok": True, "db": {"nodes": [{"ok": True}]}},
            contains="UP",
        )
    assert result.status is PASS, result.message
    assert "answered 200" in result.message
    assert result.duration_seconds > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"status": 204}, "answered 200 instead of 204"),
        ({"status": [201, 204]}, "instead of 201 or 204"),
        ({"json": {"status": "DOWN"}}, 'status is "UP" instead of "DOWN"'),
        ({"json": {"version": "{version}"}}, 'version is "1.0" instead of "2.0"'),
        ({"json": {"db.nodes": 3}}, "db.nodes is 2 instead of 3"),
        ({"json": {"db.missing": 3}}, "db.missing is nothing instead of 3"),
        ({"json": {"ok": 1}}, "ok is true instead of 1"),
        ({"json": {"one": True}}, "one is 1 instead of true"),
        ({"json": {"none": "None"}}, 'none is null instead of "None"'),
        ({"contains": "GREEN"}, "does not contain 'GREEN'"),
    ],
)
async def test_answer_that_differs_fails_with_what_was_expected_and_what_came(
    options: dict[str, Any], said: str
) -> None:
    body = {"status": "UP", "version": "1.0", "db": {"nodes": 2}, "ok": True, "one": 1, "none": None}
    async with saying(says(json.dumps(body))) as port:
        result = await look("http", url=f"http://127.0.0.1:{port}/", **options)
    assert result.status is FAIL
    assert said in result.message


async def test_key_with_dots_in_it_is_found_as_it_is() -> None:
    async with saying(says('{"app.version": "2.0"}')) as port:
        assert (await look("http", url=f"http://127.0.0.1:{port}/", json={"app.version": "2.0"})).status is PASS


async def test_broken_service_is_quoted_on_one_line_and_not_at_length() -> None:
    page = "<html>\n<body>\tdatabase is down\x1b[31m" + "x" * 5000
    async with saying(says(page, "503 Service Unavailable")) as port:
        result = await look("http", url=f"http://127.0.0.1:{port}/")
    assert result.status is FAIL
    assert "answered 503 instead of 200: <html> <body> database is down" in result.message
    assert result.message.isprintable()
    assert len(result.message) < 300


async def test_redirect_is_not_followed_unless_asked_for() -> None:
    async with saying(says("{}")) as aim:
        moved = says("", "302 Found", f"Location: http://127.0.0.1:{aim}/new\r\n")
        async with saying(moved) as port:
            result = await look("http", url=f"http://127.0.0.1:{port}/")
            assert result.status is FAIL
            assert f"answered 302 instead of 200; it points to http://127.0.0.1:{aim}/new" in result.message
            assert (await look("http", url=f"http://127.0.0.1:{port}/", follow_redirects=True)).status is PASS
            assert (await look("http", url=f"http://127.0.0.1:{port}/", status=302)).status is PASS


async def test_redirect_to_itself_ends() -> None:
    async with saying(says("", "302 Found", "Location: /\r\n")) as port:
        assert (await look("http", url=f"http://127.0.0.1:{port}/", follow_redirects=True)).status is FAIL


async def test_method_and_headers_are_sent() -> None:
    seen: list[str] = []
    async with saying(says("", seen=seen)) as port:
        options = {"method": "HEAD", "headers": {"X-Version": "{version}", "Authorization": "Bearer ${TOKEN}"}}
        result = await look(
            "http", context(secrets={"TOKEN": "s3cr3t"}), url=f"http://127.0.0.1:{port}/a?b=c", **options
        )
    assert result.status is PASS, result.message
    assert seen[0].startswith("HEAD /a?b=c HTTP/1.1")
    assert "X-Version: 2.0\r\n" in seen[0]
    assert "Authorization: Bearer s3cr3t\r\n" in seen[0]


async def test_secret_is_sent_but_not_told() -> None:
    seen: list[str] = []
    secrets = {"TOKEN": "s3cr3t"}
    async with saying(says("no", "401 Unauthorized", seen=seen)) as port:
        url = f"http://admin:${{TOKEN}}@127.0.0.1:{port}/?key=${{TOKEN}}"
        result = await look("http", context(secrets=secrets), url=url, contains="${TOKEN}", json={"a": "${TOKEN}"})
    assert "key=s3cr3t" in seen[0]
    assert "s3cr3t" not in repr(result)
    assert "admin" not in result.message
    assert "s3cr3t" not in repr(context(secrets=secrets))
    async with saying(says('{"a": 1}')) as port:
        result = await look("http", context(secrets=secrets), url=f"http://127.0.0.1:{port}/", json={"a": "${TOKEN}"})
    assert "s3cr3t" not in repr(result)
    assert result.status is FAIL


async def test_value_of_a_placeholder_can_not_ask_for_a_secret() -> None:
    seen: list[str] = []
    host = Host("web", "127.0.0.1", {"path": "${TOKEN}"})
    async with saying(says("", seen=seen)) as port:
        await look("http", context(host, secrets={"TOKEN": "s3cr3t"}), url=f"http://{{host}}:{port}/x{{path}}")
    assert seen
    assert "s3cr3t" not in seen[0]


GARBAGE = {
    "not HTTP": sends(b"220 mail.example.org ESMTP\r\n"),
    "binary": sends(bytes(range(256)) * 50),
    "nothing": sends(),
    "no body": sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
    "half a body": sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
    "half a header": sends(b"HTTP/1.1 200 OK\r\nContent-"),
    "endless header": sends(*[b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 100_000] * 3),
    "bad chunks": sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "false gzip": sends(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope"),
    "bad status": sends(b"HTTP/1.1 abc OK\r\n\r\n"),
}


@pytest.mark.parametrize("answer", GARBAGE)
async def test_garbage_is_a_failure_in_a_sentence(answer: str) -> None:
    async with saying(GARBAGE[answer]) as port:
        result = await look("http", url=f"http://127.0.0.1:{port}/", contains="UP", timeout="5s")
    assert result.status is FAIL
    assert f"127.0.0.1:{port}" in result.message
    assert "Error" not in result.message
    assert result.message.isprintable()
    assert len(result.message) < 300


async def test_body_that_is_no_json_is_quoted() -> None:
    for body in (b"<html>", b"", b"\xff\xfe", b"[" * 100_000, b'{"status": "UP"'):
        async with saying(says(body)) as port:
            result = await look("http", url=f"http://127.0.0.1:{port}/", json={"status": "UP"})
        assert "did not answer with JSON" in result.message
        assert len(result.message) < 300


async def test_endless_body_is_read_no_further_than_it_matters() -> None:
    sent = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 500_000_000:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    async with saying(answer) as port:
        result = await look("http", url=f"http://127.0.0.1:{port}/", contains="needle")
    assert result.status is FAIL
    assert "does not contain" in result.message
    assert sent < 50_000_000


SLOW = {
    "silent": sends(then=GENEROUS),
    "header for ever": sends(*[b"HTTP/1.1 200 OK\r\n"] + [b"X-A: b\r\n"] * 200, pause=0.1),
    "body for ever": sends(*[b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"] + [b"x"] * 200, pause=0.1),
}


@pytest.mark.parametrize("answer", SLOW)
async def test_answer_that_trickles_fails_at_the_time_out(answer: str) -> None:
    async with saying(SLOW[answer]) as port:
        result = await look("http", url=f"http://127.0.0.1:{port}/", contains="UP", timeout="500ms")
    assert result.status is FAIL
    assert "did not answer within 0.5 s" in result.message
    assert result.duration_seconds < GENEROUS / 2


async def test_refused_connection_is_told() -> None:
    result = await look("http", url=f"http://127.0.0.1:{free_port()}/")
    assert result.status is FAIL
    assert "refused" in result.message.lower()


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_name_that_does_not_exist_is_told(kind: str) -> None:
    name = "no-such-host.invalid"
    option = {"url": f"http://{name}:80/"} if kind == "http" else {"address": f"{name}:80"}
    result = await look(kind, **option)
    assert result.status is FAIL
    assert name in result.message


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_name_that_can_not_be_one_is_a_failure(kind: str) -> None:
    for name in ("a" * 300, "a..b", "-", " "):
        option = {"url": f"http://{name}:80/"} if kind == "http" else {"address": f"{name}:80"}
        assert (await look(kind, **option)).status is FAIL


async def test_proxy_of_the_machine_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    async with saying(says("")) as port:
        assert (await look("http", url=f"http://127.0.0.1:{port}/")).status is PASS


@pytest.fixture(scope="module")
def own_certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A certificate for 127.0.0.1 that nobody has signed but itself."""
    return tls_of(certificate(tmp_path_factory.mktemp("tls"), days=1))


async def test_certificate_that_nobody_trusts_fails_unless_that_is_accepted(own_certificate: ssl.SSLContext) -> None:
    async with saying(says(""), tls=own_certificate) as port:
        url = f"https://127.0.0.1:{port}/"
        result = await look("http", url=url)
        assert result.status is FAIL
        assert "certificate is not trusted" in result.message
        assert (await look("http", url=url, verify_tls=False)).status is PASS


async def test_tls_where_there_is_none_is_a_failure_in_a_sentence() -> None:
    async with saying(sends(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        result = await look("http", url=f"https://127.0.0.1:{port}/")
    assert result.status is FAIL
    assert len(result.message) < 300


# -- hosts and placeholders ----------------------------------------------------------------------------


async def test_check_that_speaks_of_hosts_runs_once_for_each() -> None:
    seen: list[str] = []
    async with saying(says("", seen=seen)) as one, saying(says("", "500 No", seen=seen)) as two:
        hosts = (
            Host("web-01", "127.0.0.1", {"http_port": str(one)}),
            Host("web-02", "127.0.0.1", {"http_port": str(two)}),
        )
        options = {"url": "http://{host}:{http_port}/{host_name}/{version}/{environment}/{agent}"}
        results = await run_all([Check("http", options), Check("command", {"run": "true"})], context(*hosts))
    assert [(result.host, result.status) for result in results] == [
        ("web-01", PASS),
        ("web-02", FAIL),
        (None, PASS),
    ]
    assert sorted(line.split()[1] for line in seen) == [
        "/web-01/2.0/production/runner-01",
        "/web-02/2.0/production/runner-01",
    ]


async def test_variable_of_hosts_alone_makes_it_a_check_of_each() -> None:
    hosts = (Host("a", "10.0.0.1", {"role": "web"}), Host("b", "10.0.0.2", {"role": "db"}))
    results = await run_all([Check("command", {"run": "test {role} = web"})], context(*hosts))
    assert [(result.host, result.status) for result in results] == [("a", PASS), ("b", FAIL)]


async def test_variable_of_a_host_does_not_replace_what_surefoot_says() -> None:
    host = Host("a", "10.0.0.1", {"version": "9.9", "host": "elsewhere"})
    result = await look("command", context(host), run="test {version}-{host} = 2.0-10.0.0.1")
    assert result.status is PASS, result.message


async def test_check_of_hosts_where_there_are_none_does_not_pass() -> None:
    result = await look("http", url="http://{host}/")
    assert result.status is FAIL
    assert "hosts" in result.message


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_placeholder_that_nobody_knows_fails_and_names_those_that_are(kind: str) -> None:
    host = Host("web-01", "127.0.0.1", {"http_port": "80"})
    option = {"url": "http://{host}:{htp_port}/"} if kind == "http" else {"address": "{host}:{htp_port}"}
    result = await look(kind, context(host), **option)
    assert result.status is FAIL
    assert "{htp_port}" in result.message
    assert "web-01" in result.message
    assert "http_port" in result.hint


async def test_other_braces_are_left_alone() -> None:
    assert (await look("command", run="echo '{a} {b,c}' | awk '{print}' | grep -F '{a} {b,c}'")).status is PASS
    async with saying(says('{"template": "{unknown}"}')) as port:
        result = await look("http", url=f"http://127.0.0.1:{port}/", json={"template": "{unknown}"})
    assert result.status is PASS, result.message


async def test_ipv6_host_is_put_in_brackets() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    host = Host("web-01", "::1")
    async with saying(says(""), host="::1") as port:
        result = await look("http", context(host), url=f"http://{{host}}:{port}/")
        assert (result.status, result.message) == (PASS, f"http://[::1]:{port}/ answered 200")
        assert (await look("tcp", context(host), address=f"{{host}}:{port}")).status is PASS


# -- tcp and command -----------------------------------------------------------------------------------


async def test_open_port_passes_and_a_closed_one_fails() -> None:
    async with saying(sends(then=GENEROUS)) as port:
        assert (await look("tcp", address=f"127.0.0.1:{port}")).status is PASS
        assert (await look("tcp", address=f"localhost:{port}")).status is PASS
    result = await look("tcp", address=f"127.0.0.1:{free_port()}")
    assert result.status is FAIL
    assert "refused" in result.message.lower()


async def test_port_that_takes_no_more_connections_fails_at_the_time_out() -> None:
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(8):  # what the kernel takes beside the backlog
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        result = await look("tcp", address=f"127.0.0.1:{full.getsockname()[1]}", timeout="500ms")
    assert result.status is FAIL
    assert "within 0.5 s" in result.message


async def test_command_passes_with_status_zero_alone() -> None:
    assert (await look("command", run="exit 0")).status is PASS
    result = await look("command", run="echo no space left >&2; exit 3")
    assert result.status is FAIL
    assert "ended with status 3: no space left" in result.message


async def test_command_that_does_not_end_fails() -> None:
    result = await look("command", run="exec sleep 100", timeout="300ms")
    assert result.status is FAIL
    assert "did not end" in result.message


async def test_secret_does_not_get_into_a_command_s_arguments() -> None:
    result = await look("command", context(secrets={"TOKEN": "s3cr3t"}), run="test -z '${TOKEN}'")
    assert "s3cr3t" not in result.message
    assert result.status is FAIL  # what the shell saw was the reference, as it is


# -- many at once --------------------------------------------------------------------------------------


async def test_checks_run_side_by_side_and_results_come_in_order() -> None:
    waiting = 0
    everybody = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal waiting
        await reader.readuntil(b"\r\n\r\n")
        waiting += 1
        if waiting == 20:
            everybody.set()
        await everybody.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)

    async with saying(answer) as port:
        checks = [Check("http", {"url": f"http://127.0.0.1:{port}/"}, name=f"c{number}") for number in range(20)]
        results = await run_all(checks, context())
    assert [result.name for result in results] == [f"c{number}" for number in range(20)]
    assert {result.status for result in results} == {PASS}


async def test_check_that_breaks_fails_alone() -> None:
    async def broken(command: str, timeout: float) -> CommandResult:
        raise RuntimeError("a bug")

    where = Context(values={}, hosts=(), secrets={}, run=broken)
    async with saying(says("")) as port:
        checks = [Check("command", {"run": "true"}), Check("http", {"url": f"http://127.0.0.1:{port}/"})]
        first, second = await run_all(checks, where)
    assert (first.status, second.status) == (FAIL, PASS)
    assert "a bug" in first.message


async def test_runner_that_hangs_does_not_hang_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(command: str, timeout: float) -> CommandResult:
        await asyncio.sleep(1000)
        raise AssertionError

    monkeypatch.setattr("surefoot.checks.registry.SPARE", 0.1)
    where = Context(values={}, hosts=(), secrets={}, run=hangs)
    result = await look("command", where, run="true", timeout="100ms")
    assert (result.status, result.message.startswith("no result within")) == (FAIL, True)


async def test_kind_that_this_version_does_not_know_fails() -> None:
    """A newer agent may have accepted it."""
    result = await look("quantum", url="x")
    assert result.status is FAIL
    assert "quantum" in result.message


async def test_options_that_are_wrong_fail_with_the_option_s_name() -> None:
    result = await look("http", url="http://127.0.0.1/", timeout="never")
    assert result.status is FAIL
    assert result.message.startswith("timeout: ")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("http", {}),
        ("http", {"url": "ftp://x/"}),
        ("http", {"url": "x/health"}),
        ("http", {"url": "http://x/", "status": 99}),
        ("http", {"url": "http://x/", "status": []}),
        ("http", {"url": "http://x/", "timeout": 5}),
        ("http", {"url": "http://x/", "timeout": "0s"}),
        ("http", {"url": "http://x/", "method": "get"}),
        ("http", {"url": "http://x/", "unknown": 1}),
        ("tcp", {"address": "x"}),
        ("tcp", {"address": ":80"}),
        ("tcp", {"address": "x:99999"}),
        ("tcp", {"address": "x:http"}),
        ("command", {"run": " "}),
        ("command", {"run": "true", "timeout": "5"}),
    ],
)
def test_options_that_can_not_work_are_refused(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KINDS[kind].model_validate(options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("http", {"url": "{base_url}/health", "status": "204", "timeout": "1m", "verify_tls": "false"}),
        ("http", {"url": "${BASE}/health", "status": [200, "204"]}),
        ("tcp", {"address": "{host}:{port}"}),
        ("tcp", {"address": "[::1]:80", "timeout": "500ms"}),
    ],
)
def test_options_that_can_work_are_taken(kind: str, options: dict[str, Any]) -> None:
    KINDS[kind].model_validate(options)


def test_the_registry_is_imported_without_the_http_client() -> None:
    program = "import sys, surefoot.checks.registry; sys.exit('aiohttp' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


# -- when it counts as passed --------------------------------------------------------------------------


def results(*statuses: CheckStatus) -> list[CheckResult]:
    return [CheckResult(f"c{n}", status, f"m{n}", f"h{n}", host=f"web-{n}") for n, status in enumerate(statuses)]


def rounds(*planned: Sequence[CheckResult]) -> tuple[Callable[[float], Awaitable[Sequence[CheckResult]]], list[float]]:
    """Return rounds that come out as planned, the last one again and again; and when each began."""
    began: list[float] = []

    async def once(until: float) -> Sequence[CheckResult]:
        began.append(asyncio.get_running_loop().time())
        return planned[min(len(began), len(planned)) - 1]

    return once, began


async def test_healthy_after_so_many_rounds_in_a_row() -> None:
    good, bad = results(PASS), results(FAIL)
    once, began = rounds(good, bad, good, good, bad)
    assert await until_healthy(once, HealthPolicy(within=30, interval=0.02, successes=2)) is None
    assert len(began) == 4
    assert all(later - earlier >= 0.019 for earlier, later in itertools.pairwise(began))


async def test_one_success_is_enough_if_the_policy_says_so() -> None:
    once, began = rounds(results(PASS, CheckStatus.WARN, CheckStatus.SKIP))
    assert await until_healthy(once, HealthPolicy(within=5, interval=2, successes=1)) is None
    assert len(began) == 1


async def test_what_failed_last_is_told_when_the_time_is_over() -> None:
    once, began = rounds(results(FAIL), results(PASS, FAIL))
    failure = await until_healthy(once, HealthPolicy(within=0.3, interval=0.05, successes=1))
    assert failure is not None
    assert failure.code is Code.HEALTH_FAILED
    assert (failure.message, failure.hint, failure.host) == ("c1 on web-1: m1", "h1", "web-1")
    assert len(began) >= 2


async def test_last_round_that_is_cut_off_does_not_hide_what_failed_before() -> None:
    broken = CheckResult("services", FAIL, "it is inactive", "start it", host="web-2")
    well = CheckResult("frontend", PASS, "fine", host="web-2")
    cut = [replace(one, status=FAIL, message="no result", given_up=True) for one in (well, broken)]
    once, began = rounds([well, broken], cut)
    failure = await until_healthy(once, HealthPolicy(within=0.3, interval=0.2, successes=1))
    assert len(began) == 2 and failure is not None
    assert failure.message == "services on web-2: it is inactive; frontend on web-2: no result"
    assert failure.hint == "start it"


async def test_only_what_has_no_time_left_is_given_up() -> None:
    async with saying(silence) as port:
        slow = [Check("http", {"url": f"http://127.0.0.1:{port}/", "timeout": each}) for each in ("100ms", "100s")]
        own, cut = await run_all(slow, context(), until=asyncio.get_running_loop().time() + 4)
    assert (own.status, own.given_up) == (FAIL, False), own.message
    assert (cut.status, cut.given_up) == (FAIL, True), cut.message


async def test_services_that_flap_do_not_pass() -> None:
    once, _ = rounds(*[results(PASS), results(FAIL)] * 100)
    assert await until_healthy(once, HealthPolicy(within=0.3, interval=0.01, successes=2)) is not None


async def test_rounds_that_passed_too_late_are_told_as_such() -> None:
    once, _ = rounds(results(FAIL), results(PASS))
    failure = await until_healthy(once, HealthPolicy(within=0.3, interval=0.2, successes=3))
    assert failure is not None
    assert "passed 1 of 3 times" in failure.message
    assert "before that: c0 on web-0: m0" in failure.message


async def test_round_that_hangs_is_ended_with_the_time() -> None:
    ended = asyncio.Event()

    async def once(until: float) -> Sequence[CheckResult]:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.set()
        raise AssertionError

    async with asyncio.timeout(GENEROUS):
        failure = await until_healthy(once, HealthPolicy(within=0.2, interval=0.01, successes=1))
    assert failure is not None
    assert "passed 0 of 1 times" in failure.message
    assert ended.is_set()


async def test_being_cancelled_is_not_taken_for_the_time_being_over() -> None:
    once, began = rounds(results(FAIL))
    task = asyncio.create_task(until_healthy(once, HealthPolicy(within=100, interval=50, successes=1)))
    while not began:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_each_round_is_told() -> None:
    heard: list[Sequence[CheckResult]] = []
    once, _ = rounds(results(FAIL), results(PASS))
    await until_healthy(once, HealthPolicy(within=30, interval=0.01, successes=1), heard.append)
    assert heard == [results(FAIL), results(PASS)]


def test_many_failures_are_counted_not_listed() -> None:
    failure = failed(results(*[FAIL] * 10, PASS))
    assert failure is not None
    assert failure.message.endswith("; and 7 more")
    assert failed(results(PASS, CheckStatus.WARN)) is None


# -- what is said --------------------------------------------------------------------------------------


async def test_secret_that_an_excerpt_would_cut_in_two_is_taken_out_whole() -> None:
    secret = "s3cret-" + "x" * 40
    where = replace(context(), redact=lambda text: text.replace(secret, "***"))
    for length in (150, 190, 790, 2000):
        async with saying(says("y " * (length // 2) + secret + " end", "500 Broken")) as port:
            result = await look("http", where, url=f"http://127.0.0.1:{port}/")
        assert "s3c" not in result.message
        printed = f"printf '%s\\n' {secret} {'z' * (length % 195)}; exit 1"
        result = await look("command", where, run=printed.replace("s3cret", "s3''cret"))
        assert "xxx" not in result.message.partition("ended")[2]


async def test_excerpt_is_one_line_and_bounded() -> None:
    async with saying(says("a\nb\tc\x1b[31m\x00 " + "d" * 10_000, "500 Broken")) as port:
        result = await look("http", url=f"http://127.0.0.1:{port}/")
    assert "a b c [31m ddd" in result.message
    assert result.message.isprintable()
    assert len(result.message) < 300


async def test_checks_without_a_result_at_the_end_of_the_time_are_named() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1000)

    async with saying(never) as hangs, saying(says("")) as well:
        checks = [
            Check("http", {"url": f"http://127.0.0.1:{hangs}/", "timeout": "50s"}, name="the one that hangs"),
            Check("http", {"url": f"http://127.0.0.1:{well}/"}),
        ]
        notes: list[str] = []
        policy = HealthPolicy(within=2.0, interval=0.1, successes=1)
        failure, count = await healthy(checks, policy, context(), notes.append)
    assert failure is not None
    assert failure.message.startswith("the one that hangs: no result within ")
    assert (count, len(notes)) == (2, 2)
