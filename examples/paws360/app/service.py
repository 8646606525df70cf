# SPDX-License-Identifier: Apache-2.0
"""What the faces of the service share: its release, its faults, and a server that finishes what it has begun.

A release never changes: its version and its settings lie in its folder. It is found through the link that systemd
started it by, once, so that a link that is turned under a running process changes nothing.

A fault is a file in the folder of faults, named after what it breaks. Empty, it breaks every version; else the
versions that it lists. So a drill can break the release that comes, and leave alone the one to go back to.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: Seconds that a slow answer takes: longer than what checks wait for.
SLOW = 6.0
Answer = tuple[int, str, bytes]


class Release:
    """The release that this process was started from."""

    def __init__(self, folder: Path) -> None:
        """Read its version and settings."""
        self.settings: dict[str, Any] = json.loads((folder / "release.json").read_text())
        self.version: str = self.settings["version"]
        self._faults = Path(self.settings["faults"])

    def broken(self, fault: str) -> bool:
        """Whether somebody wants this version broken in that way."""
        try:
            versions = (self._faults / fault).read_text().split()
        except OSError:
            return False
        return not versions or self.version in versions


def answer(body: Any, status: int = 200) -> Answer:
    """Return a JSON answer."""
    return status, "application/json", json.dumps(body).encode()


class Service(ThreadingHTTPServer):
    """Answers GET by a table of paths. After SIGTERM it takes no more requests, and ends when the last is answered."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, name: str, release: Release, paths: dict[str, Callable[[], Answer]]) -> None:
        """Listen as the settings say; `paths` say how each is answered."""
        self.paths, self.release, self.fault = paths, release, name
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._active, self._last = 0, time.monotonic()
        super().__init__((release.settings["listen"], int(release.settings[f"{name}_port"])), _Handler)

    def run(self) -> None:
        """Serve until SIGTERM; tell systemd when it may be asked."""
        if self.release.broken(f"{self.fault}-crash"):
            sys.exit(f"{self.fault} {self.release.version} can't start: somebody wants it to crash")
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=self._stop).start())
        _notify("READY=1")
        self.serve_forever(poll_interval=0.05)
        self.server_close()

    def requests(self) -> Answer:
        """Tell how many requests of the proxies' are being answered, and since when there was none."""
        with self._lock:
            idle = 0.0 if self._active else time.monotonic() - self._last
            return answer({"active": self._active, "idle_seconds": round(idle, 3)})

    def counted(self, step: int) -> None:
        """Count a request that begins (1) or ends (-1)."""
        with self._lock:
            self._active += step
            self._last = time.monotonic()

    def _stop(self) -> None:
        self.stopping.set()
        self.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Service
    server_version = "paws360"
    timeout = 30  # of a client that says nothing

    def do_GET(self) -> None:
        """Answer one request."""
        path = self.path.partition("?")[0]
        if "X-Forwarded-For" not in self.headers:
            return self._answer(path)
        self.server.counted(1)
        try:
            return self._answer(path)
        finally:
            self.server.counted(-1)

    def _answer(self, path: str) -> None:
        status, kind, body = self._found(path)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Paws360-Version", self.server.release.version)
        self.end_headers()
        self.wfile.write(body)

    def _found(self, path: str) -> Answer:
        """Return what is at a path, as broken as somebody wants it; how many requests there are is always told."""
        found = self.server.paths.get(path, lambda: answer({"error": "no such page"}, 404))
        if found == self.server.requests:
            return found()
        broken, own = self.server.release.broken, self.server.fault
        while broken(f"{own}-hangs") and not self.server.stopping.wait(0.1):
            pass
        if broken(f"{own}-slow"):
            self.server.stopping.wait(SLOW)
        status, kind, body = found()
        if broken(f"{own}-garbage"):
            kind, body = "text/plain", b"\x00\xff{not what you expect"
        return status, kind, body

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing: nginx keeps the log."""


def here() -> Path:
    """Return the folder of the program that runs, links resolved."""
    return Path(sys.argv[0]).resolve().parent


def _notify(state: str) -> None:
    """Tell systemd, if it was systemd that started us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
