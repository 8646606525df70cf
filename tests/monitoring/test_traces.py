# SPDX-License-Identifier: Apache-2.0
"""Traces come to a receiver that reads OTLP as it is sent; one that is away changes nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.e2e.test_cli_deploy import DEADLINE, Project, eventually
from tests.support.servers import free_port

CONFIG = """\
project: shop
agents: {one: {role: primary}, two: {role: secondary}}
lease: {ttl: 2s}
environments:
  prod:
    steps:
      - {name: first, run: "true"}
      - {name: second, run: 'touch ../begun; test "$SUREFOOT_VERSION" != long -o -e ../go || sleep 60'}
    retry: {attempts: 1, delay: 0s, timeout: 50s}
"""
ALONE = CONFIG.replace("agents: {one: {role: primary}, two: {role: secondary}}\n", "")


@dataclass
class Receiver:
    """Takes traces by OTLP over HTTP; keeps what it was sent."""

    port: int
    status: int = 200
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def take(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        if self.status == 200:
            self.requests.append(ExportTraceServiceRequest.FromString(await request.read()))
        body = ExportTraceServiceResponse().SerializeToString()
        return web.Response(status=self.status, body=body, content_type="application/x-protobuf")

    def spans(self, number: int = -1) -> dict[str, list[tuple[Span, str]]]:
        """The spans of a request by their names, each with the agent that its resource names."""
        found: dict[str, list[tuple[Span, str]]] = {}
        for one in self.requests[number].resource_spans:
            resource = attributes(one.resource.attributes)
            assert resource["service.name"] == "surefoot"
            for scope in one.scope_spans:
                for span in scope.spans:
                    found.setdefault(span.name, []).append((span, resource.get("service.instance.id", "")))
        return found


def attributes(found: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in found}


@contextmanager
def receiver() -> Iterator[Receiver]:
    taken = Receiver(free_port())
    loop = asyncio.new_event_loop()
    runner: web.AppRunner

    async def begin() -> None:
        nonlocal runner
        application = web.Application()
        application.router.add_post("/v1/traces", taken.take)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", taken.port).start()

    loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield taken
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(DEADLINE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    made.config.write_text(CONFIG.replace("../", f"{tmp_path}/"))
    made.env = {k: v for k, v in made.env.items() if not k.startswith("OTEL_")} | {"NO_PROXY": "*", "no_proxy": "*"}
    yield made
    made.close()


def test_what_two_agents_did_is_one_trace_and_what_is_sent_twice_is_there_once(project: Project) -> None:
    with receiver() as taken:
        project.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = taken.url
        project.env["OTEL_EXPORTER_OTLP_HEADERS"] = "authorization=Bearer%20let-me-in"
        lost = project.start("agent", "run", "one")
        assert project.run("deploy", "prod", "long", "--detach").returncode == 0
        eventually(project.live.with_name("begun").exists)
        lost.send_signal(signal.SIGKILL)
        project.live.with_name("go").touch()
        project.start("agent", "run", "two")
        eventually(lambda: bool(taken.requests))
        assert project.status_of("prod-1") == "succeeded"
        found = taken.spans()
        ((root, _),) = found["deploy prod"]
        assert not root.parent_span_id and root.status.code == Status.STATUS_CODE_UNSET
        assert attributes(root.attributes)["cicd.pipeline.result"] == "success"
        assert attributes(root.attributes)["surefoot.takeovers"] == 1
        assert sorted(agent for _, agent in found["agent"]) == ["one", "two"]
        assert {span.parent_span_id for span, _ in found["agent"]} == {root.span_id}
        (first, by_one) = found["step first"][0]
        assert by_one == "one" and attributes(first.attributes)["surefoot.attempt"] == 1
        attempts = {agent: span for span, agent in found["step second"]}
        assert attempts["one"].status.code == Status.STATUS_CODE_ERROR
        assert attempts["two"].status.code == Status.STATUS_CODE_UNSET
        assert root.start_time_unix_nano <= attempts["one"].start_time_unix_nano < attempts["two"].start_time_unix_nano
        assert attempts["two"].end_time_unix_nano <= root.end_time_unix_nano
        assert len({span.trace_id for spans in found.values() for span, _ in spans}) == 1
        assert taken.headers[0]["Authorization"] == "Bearer let-me-in"

        again = project.run("report", "trace", "prod-1", "--send")
        assert again.returncode == 0 and "step second" in again.stdout
        assert root.trace_id.hex() in again.stderr
        ids = [{span.span_id for spans in taken.spans(n).values() for span, _ in spans} for n in (0, 1)]
        assert ids[0] == ids[1] and len(taken.requests) == 2
        shown = project.json("report", "trace", "prod-1")
        assert shown["trace_id"] == root.trace_id.hex() and not shown["sent"]
        assert {span["span_id"] for span in shown["spans"]} == {one.hex() for one in ids[0]}


def test_a_receiver_that_refuses_or_is_away_changes_nothing_and_is_told_of(project: Project) -> None:
    with receiver() as taken:
        taken.status = 400
        agent = project.start("agent", "run", "one", SUREFOOT_LOG_FORMAT="json", OTEL_EXPORTER_OTLP_ENDPOINT=taken.url)
        assert project.run("deploy", "prod", "1.0").returncode == 0
        eventually(lambda: bool(taken.headers))
        agent.send_signal(signal.SIGTERM)
        _, err = agent.communicate(timeout=DEADLINE)
        (told,) = [line for line in map(json.loads, err.splitlines()) if line["type"] == "trace"]
        assert (told["level"], told["deployment"], told["code"]) == ("warning", "prod-1", "SF-PUSH-FAILED")
        assert "the trace was not taken" in told["message"]
        assert not [line for line in map(json.loads, err.splitlines()) if line["type"] == "library"]
    project.config.write_text(ALONE.replace("../", f"{project.live.parent}/"))
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": taken.url, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    done = project.run("deploy", "prod", "2.0", **away)
    assert done.returncode == 0 and "warning: the trace was not taken" in done.stderr and "Traceback" not in done.stderr
    failed = project.run("report", "trace", "prod-2", "--send", **away)
    assert failed.returncode == 1 and "error[SF-PUSH-FAILED]" in failed.stderr
    assert project.run("report", "trace", "prod-2", "--send").returncode == 2, "no receiver is named"


def test_without_the_extra_it_is_said_what_to_install(project: Project, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry'] = None\n")
    project.config.write_text(ALONE.replace("../", f"{tmp_path}/"))
    named = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "PYTHONPATH": str(tmp_path / "without")}
    done = project.run("deploy", "prod", "1.0", **named)
    assert done.returncode == 0 and "pip install 'surefoot[otel]'" in done.stderr
