# SPDX-License-Identifier: Apache-2.0
"""A real exporter, scraped as Prometheus does: whatever is broken, the rest is served."""

from __future__ import annotations

import datetime
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import bcrypt
import jwt
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from surefoot.cli.main import cli
from surefoot.core.errors import ConfigError
from surefoot.core.status import Status
from surefoot.monitoring import webconfig
from surefoot.monitoring.catalogue import METRICS
from surefoot.monitoring.runner import active
from surefoot.monitoring.subjects import targets
from surefoot.store import open_store
from surefoot.store.protocol import AgentReport
from tests.monitoring.support import exporter, until
from tests.store import journal as j
from tests.support.postgres import PostgresServer
from tests.support.servers import certificate, free_port

CONFIG = """\
project: p
agents:
  r1: {role: primary}
  r2: {role: secondary}
secrets: [TOKEN, CERT, KEY]
environments:
  prod:
    steps: [{name: only, run: "true"}]
    preflight: [{secret: {name: KEY, min_length: 20}}]
  quiet:
    steps: [{name: only, run: "true"}]
"""


#: With what the key begins in a file of both.
KEY = "-----BEGIN PRIVATE KEY"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "surefoot.yml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def store_url(project: Path) -> str:
    return str(project / ".surefoot" / "surefoot.db")


def test_runner_store_and_journal_are_served_and_a_new_exporter_comes_to_the_same_figures(
    project: Path, store_url: str
) -> None:
    store = open_store(store_url)
    j.deployed(store, "1.0")
    j.deployed(store, "2.0", status=Status.ROLLED_BACK)
    store.report(AgentReport("r1", "primary", "i-1"))
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    token = jwt.encode({"exp": datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=10)}, "k" * 32)
    hosts = ("--host", f"up=127.0.0.1:{port}", "--host", f"down=127.0.0.1:{free_port()}")
    secrets = {"TOKEN": token, "CERT": certificate(project, days=3).read_text().partition(KEY)[0], "KEY": "too short"}
    with exporter(project, "--runner", "r1", *hosts, **secrets) as first:
        first.wait_for("surefoot_deployments_total", "prod", "succeeded", value=1)
        first.wait_for("runner_status", "primary", "r1", value=1)
        first.wait_for("surefoot_host_reachable", "", "up", "primary", "r1", value=1)
        first.wait_for("surefoot_secret_valid", "primary", "r1", "TOKEN", value=1)
        found = first.samples()
        assert found["surefoot_host_reachable"]["", "down", "primary", "r1"] == 0
        assert found["surefoot_secret_valid"]["primary", "r1", "KEY"] == 0
        assert 9.9 < found["surefoot_secret_expires_in_days"]["primary", "r1", "TOKEN"] <= 10
        assert 2.9 < found["surefoot_secret_expires_in_days"]["primary", "r1", "CERT"] <= 3
        assert 0 <= found["runner_cpu_usage_percent"]["primary", "r1"] <= 100
        assert abs(found["surefoot_clock_skew_seconds"]["primary", "r1"]) < 30
        (agent,) = store.agents(60)
        assert found["runner_last_heartbeat_timestamp_seconds"]["primary", "r1"] == agent.last_seen_at
        assert found["surefoot_deployments_total"]["quiet", "stranded"] == 0
        assert found["surefoot_queue_depth"] == {("prod",): 0, ("quiet",): 0}
        assert found["surefoot_environment_version_info"]["prod", "1.0"] == 1
        # What comes later is counted once, and what a new exporter counts is the same.
        j.deployed(store, "3.0")
        j.submit(store, "4.0")
        first.wait_for("surefoot_queue_depth", "prod", value=1)
        assert first.value("surefoot_deployments_total", "prod", "succeeded") == 2
        journal = {name: by for name, by in first.samples().items() if "total" in name or "_bucket" in name}
        with exporter(project, "--runner", "r1", **secrets) as second:
            second.wait_for("surefoot_queue_depth", "prod", value=1)
            assert {name: by for name, by in second.samples().items() if name in journal} == journal
            assert second.stop() == 0
        names = set(METRICS) | {m + suffix for m in METRICS for suffix in ("_bucket", "_sum", "_count")}
        assert set(first.samples()) <= names
        status, text = first.get(accept="application/openmetrics-text; version=1.0.0")
        assert status == 200 and text.endswith("# EOF\n")
        exemplars = [s.exemplar for f in text_string_to_metric_families(text) for s in f.samples if s.exemplar]
        assert "prod-3" in {exemplar.labels["deployment"] for exemplar in exemplars}
        for value in secrets.values():
            assert value not in text and value not in first.log
        assert first.stop() == 0
    listening.close()
    store.close()


def test_a_store_that_goes_down_costs_nothing_but_its_news(project: Path, postgres: PostgresServer) -> None:
    """The last figures stay: a stranded environment must not look repaired because the store is away."""
    url = postgres.new_database()
    port = free_port()
    store = open_store(url)
    j.deployed(store, "1.0", status=Status.STRANDED)
    store.close()
    forward = _Forward(port, postgres.port)
    away = url.replace(f":{postgres.port}/", f":{port}/")
    with exporter(project, "--runner", "r1", "--store", away) as found:
        found.wait_for("surefoot_store_up", value=1)
        found.wait_for("surefoot_environment_stranded", "prod", value=1)
        forward.stop()
        found.wait_for("surefoot_store_up", value=0)
        assert found.value("runner_status", "primary", "r1") == 1
        assert found.value("surefoot_environment_stranded", "prod") == 1
        assert found.value("surefoot_clock_skew_seconds", "primary", "r1") is None
        assert "the store can't be read" in found.log
        again = _Forward(port, postgres.port)
        found.wait_for("surefoot_store_up", value=1)
        assert found.value("surefoot_deployments_total", "prod", "stranded") == 1
        again.stop()
        assert found.stop() == 0


def test_a_store_that_has_no_tables_yet_is_made_ready(project: Path, postgres: PostgresServer) -> None:
    with exporter(project, "--runner", "r1", "--store", postgres.new_database()) as found:
        found.wait_for("surefoot_store_up", value=1)
        found.wait_for("surefoot_deployments_total", "prod", "succeeded", value=0)


class _Forward:
    """The way to a server, which can be closed."""

    def __init__(self, port: int, to: int) -> None:
        program = (
            "import asyncio, sys\n"
            "async def pipe(r, w):\n"
            "    while data := await r.read(65536):\n"
            "        w.write(data); await w.drain()\n"
            "    w.close()\n"
            "async def one(r, w):\n"
            "    r2, w2 = await asyncio.open_connection('127.0.0.1', int(sys.argv[2]))\n"
            "    await asyncio.gather(pipe(r, w2), pipe(r2, w), return_exceptions=True)\n"
            "async def main():\n"
            "    server = await asyncio.start_server(one, '127.0.0.1', int(sys.argv[1]))\n"
            "    print('ready', flush=True)\n"
            "    await server.serve_forever()\n"
            "asyncio.run(main())\n"
        )
        command = [sys.executable, "-c", program, str(port), str(to)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def test_a_runner_whose_service_is_gone_is_down_though_its_machine_is_up(project: Path) -> None:
    marker = f"listener-{free_port()}-of-a-test"
    service = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", marker])
    try:
        with exporter(project, "--runner", "r2", "--process", f"{marker}$") as found:
            found.wait_for("runner_status", "secondary", "r2", value=1)
            service.kill()
            service.wait()
            found.wait_for("runner_status", "secondary", "r2", value=0)
            assert found.value("runner_memory_usage_percent", "secondary", "r2") is not None
    finally:
        service.kill()
        service.wait()


@pytest.mark.parametrize(
    ("said", "up"),
    [
        ("LoadState=loaded\nActiveState=active\n", True),
        ("LoadState=loaded\nActiveState=failed\n", False),
        ("LoadState=loaded\nActiveState=active\n\nLoadState=loaded\nActiveState=inactive\n", False),
        ("LoadState=not-found\nActiveState=inactive\n", False),
        ("LoadState=loaded\nActiveState=activating\n", False),
        ("", False),
    ],
)
def test_what_systemd_says_of_a_service(said: str, up: bool) -> None:
    assert active(said) is up


def test_hosts_are_found_where_ansible_finds_them() -> None:
    inventory = {
        "_meta": {
            "hostvars": {
                "web-1": {"ansible_host": "10.0.0.1", "ansible_port": 2222},
                "here": {"ansible_connection": "local"},
                "made": {"ansible_host": "{{ somewhere }}"},
            }
        },
        "all": {"children": ["web"]},
        "web": {"hosts": ["web-1", "web-2", "here", "made"]},
    }
    found = targets("prod", inventory)
    assert [(one.host, one.address, one.port) for one in found] == [("web-1", "10.0.0.1", 2222), ("web-2", "web-2", 22)]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a call says that is refused."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["exporter", *arguments])
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert "hint: " in said and "Traceback" not in said
    return said


def test_a_port_that_is_taken_is_said_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused(["--listen", f"127.0.0.1:{taken.getsockname()[1]}"], capsys)
    assert "error[SF-LISTEN]" in said and "address already in use" in said and "node_exporter" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "nowhere"], "no address to listen on"),
        (["--listen", "127.0.0.1:99999"], "no address to listen on"),
        (["--process", "("], "no regular expression"),
        (["--host", "web"], "is no host"),
        (["--web-config", "missing.yml"], "missing.yml can't be read"),
    ],
)
def test_bad_options_are_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(project)
    assert said in refused(arguments, capsys)


def test_tls_and_basic_auth_by_the_exporters_web_config(project: Path) -> None:
    cert, begin, key = certificate(project, days=30).read_text().partition(KEY)
    (project / "cert.pem").write_text(cert)
    (project / "key.pem").write_text(begin + key)
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$", 1)
    web = project / "web.yml"
    text = (
        "tls_server_config: {cert_file: cert.pem, key_file: key.pem, min_version: TLS12}\n"
        "http_server_config: {headers: {X-Frame-Options: deny}}\n"
        f"basic_auth_users: {{prometheus: '{hashed}'}}\n"
    )
    web.write_text(text)
    trust = ssl.create_default_context(cadata=cert)
    with exporter(project, "--runner", "r1", "--web-config", str(web)) as found:
        assert found.url.startswith("https://")
        assert found.get(context=trust)[0] == 401
        assert found.get(context=trust, user=("prometheus", "wrong"))[0] == 401
        assert found.get(context=trust, user=("nobody", "right"))[0] == 401
        for _ in range(2):
            status, body = found.get(context=trust, user=("prometheus", "right"))
            assert status == 200 and "runner_info" in body
        with pytest.raises(OSError):  # not trusted
            found.get(context=ssl.create_default_context())
        # A changed password counts without a restart; a broken file changes nothing.
        web.write_text("basic_auth_users: [")
        until(lambda: "left as it was" in found.log, "the broken file is told")
        assert found.get(context=trust, user=("prometheus", "right"))[0] == 200
        web.write_text(text.replace(hashed, bcrypt.hashpw(b"new", bcrypt.gensalt(4)).decode()))
        until(lambda: "read anew" in found.log, "the new file is read")
        assert found.get(context=trust, user=("prometheus", "right"))[0] == 401
        assert found.get(context=trust, user=("prometheus", "new"))[0] == 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tls_server_config: {cert_file: c.pem}", "key_file is missing"),
        ("tls_server_config: {cert_file: c, key_file: k, cipher_suites: [X]}", "cipher_suites"),
        ("tls_server_config: {cert_file: c, key_file: k, client_auth_type: Sometimes}", "none of NoClientCert"),
        (
            "tls_server_config: {cert_file: c, key_file: k, client_auth_type: RequireAndVerifyClientCert}",
            "client_ca_file",
        ),
        ("tls_server_config: {cert_file: c, key_file: k, min_version: SSL3}", "none of TLS12"),
        ("basic_auth_users: {ann: plain}", "password of ann is no bcrypt hash"),
        ("basic_auth_users: [ann]", "must map names to texts"),
        ("http_server_config: {headers: {X-Any: thing}}", "X-Any"),
        ("surprise: 1", "surprise"),
        ("[]", "must be a mapping"),
        ("{", "can't be read"),
    ],
)
def test_a_web_config_that_asks_for_what_is_not_done_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "web.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        webconfig.load(path)
    assert said in refused.value.message and refused.value.hint


def test_a_full_collection_has_little_to_look_through_and_threads_give_way_soon() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import gc, sys; from surefoot.monitoring.exporter import prepare_process as p; p();"
            " print(len(gc.get_objects()) < gc.get_freeze_count() / 10, sys.getswitchinterval() < 0.001)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "True"]
