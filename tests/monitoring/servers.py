# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus, a real Alertmanager, and a webhook that takes what it sends; each ends with its test."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.monitoring.support import until
from tests.support.servers import free_port

_OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str) -> Any:
    """JSON from a URL."""
    with _OPEN.open(url, timeout=60) as response:
        return json.load(response)


def answers(url: str) -> bool:
    try:
        with _OPEN.open(url, timeout=5) as response:
            return response.status == 200
    except (OSError, urllib.error.URLError):
        return False


@contextlib.contextmanager
def program(folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for as long as the test needs it."""
    with (folder / f"{Path(command[0]).name}.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Prometheus:
    """What is asked of a running Prometheus."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def query(self, expr: str) -> list[dict[str, Any]]:
        answer = fetch(f"{self.url}/api/v1/query?" + urllib.parse.urlencode({"query": expr}))
        assert answer["status"] == "success", answer
        found = answer["data"]["result"]
        assert isinstance(found, list)
        return found

    def targets(self) -> list[str]:
        return [one["health"] for one in fetch(f"{self.url}/api/v1/targets")["data"]["activeTargets"]]


@contextlib.contextmanager
def prometheus(folder: Path, config: dict[str, Any]) -> Iterator[Prometheus]:
    """Start one on a port of its own."""
    port = free_port()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    data = folder / "prometheus-data"
    options = ["--config.file=prometheus.yml", f"--storage.tsdb.path={data}", f"--web.listen-address=127.0.0.1:{port}"]
    with program(folder, "prometheus", *options, "--log.level=warn"):
        found = Prometheus(port)
        until(lambda: answers(f"{found.url}/-/ready"), "Prometheus is ready")
        yield found


@contextlib.contextmanager
def alertmanager(folder: Path, config: Path) -> Iterator[str]:
    """Start one on a port of its own; give its address."""
    port = free_port()
    options = [f"--config.file={config}", f"--storage.path={folder / 'alerts'}", "--cluster.listen-address="]
    with program(folder, "prometheus-alertmanager", *options, f"--web.listen-address=127.0.0.1:{port}"):
        until(lambda: answers(f"http://127.0.0.1:{port}/-/ready"), "Alertmanager is ready")
        yield f"127.0.0.1:{port}"


class Webhook:
    """Keeps what is posted, by path."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, Any]]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.got += [(self.path, alert) for alert in said["alerts"]]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def alerts(self, path: str, name: str, status: str = "firing") -> list[dict[str, Any]]:
        return [
            alert
            for where, alert in self.got
            if where == path and alert["labels"]["alertname"] == name and alert["status"] == status
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Page:
    """A scrape target that says what it is told: stands for a runner whose machine can't be made to be in need."""

    def __init__(self, text: str) -> None:
        page = self
        self.text = text

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(page.text.encode())

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
