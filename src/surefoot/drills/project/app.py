# SPDX-License-Identifier: Apache-2.0
"""The shop: says its version and whether it is well. systemd holds its socket, so that a restart loses no request."""

import json
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RELEASE = Path(__file__).resolve().parent
VERSION = (RELEASE / "VERSION").read_text().strip()
#: Versions that are not well on this host, by a drill's wish.
BROKEN = RELEASE.parent.parent / "broken"
FIRST_PASSED_FD = 3


class Shop(BaseHTTPRequestHandler):
    """Answers /health and /version."""

    timeout = 5

    def do_GET(self) -> None:
        """Answer one request."""
        well = not (BROKEN.exists() and VERSION in BROKEN.read_text().split())
        status = 200 if well or self.path != "/health" else 500
        data = json.dumps({"version": VERSION, "status": "UP" if well else "DOWN"}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Takes requests from systemd's socket, and finishes those that it took before it ends."""

    daemon_threads = False


server = Server(("127.0.0.1", 0), Shop, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=FIRST_PASSED_FD)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(poll_interval=0.05)
server.server_close()
