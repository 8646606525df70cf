# SPDX-License-Identifier: Apache-2.0
"""The service: a shop front that says its version and whether it is well. Its supervisor hands it the socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VERSION = "@VERSION@"
PRICES = {"rope": 12, "boots": 80}


def health() -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and what to say: well if the price list can be read."""
    try:
        total = sum(PRICES[item] for item in ("rope", "boots"))
    except KeyError as missing:
        return 500, {"status": "DOWN", "version": VERSION, "reason": f"no price for {missing}"}
    return 200, {"status": "UP", "version": VERSION, "total": total}


class Handler(BaseHTTPRequestHandler):
    """Answers /health and /version."""

    def do_GET(self) -> None:
        """Answer one request."""
        status, body = health() if self.path == "/health" else (200, {"version": VERSION})
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Takes requests from a socket that is there already, and finishes those it took before it ends."""

    daemon_threads = False

    def __init__(self, listener: socket.socket) -> None:
        """Serve on `listener`, which two versions share for the moment of a swap."""
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.socket.setblocking(False)  # the other version may be faster to accept
        self.server_name, self.server_port = "shop", listener.getsockname()[1]


def main() -> None:
    """Serve until SIGTERM."""
    server = Server(socket.socket(fileno=int(os.environ["LISTEN_FD"])))
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    os.write(int(os.environ["READY_FD"]), b"ready\n")
    os.close(int(os.environ["READY_FD"]))
    server.serve_forever(poll_interval=0.05)
    server.server_close()


if __name__ == "__main__":
    main()
