# SPDX-License-Identifier: Apache-2.0
"""A real Alertmanager, a webhook that takes what it sends, and a page to scrape; each ends with its test."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.servers import free_port, program, running

_OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ready(port: int) -> Callable[[], bool]:
    """Return what says whether a server of Prometheus' family is ready on a port of this machine."""

    def try_it() -> bool:
        with contextlib.suppress(OSError), _OPEN.open(f"http://127.0.0.1:{port}/-/ready", timeout=5) as response:
            return bool(response.status == 200)
        return False

    return try_it


@contextlib.contextmanager
def alertmanager(folder: Path, config: Path) -> Iterator[str]:
    """Start one on a port of its own; give its address."""
    port = free_port()
    options = [f"--config.file={config}", f"--storage.path={folder / 'alerts'}", "--cluster.listen-address="]
    argv = [program("prometheus-alertmanager"), *options, f"--web.listen-address=127.0.0.1:{port}"]
    with running(argv, folder, ready(port)):
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
