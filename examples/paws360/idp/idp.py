# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the university's identity provider: it serves its SAML metadata, and nothing else.

It belongs to no release: a deployment leaves it alone. Its certificate has no key any more; nobody can sign in by it.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class Handler(BaseHTTPRequestHandler):
    """Answers /idp/metadata. A file in the folder of faults, named after what it breaks, breaks it."""

    faults: Path

    def do_GET(self) -> None:
        """Answer one request."""
        path = self.path.partition("?")[0]
        status, body = self._metadata() if path == "/idp/metadata" else (404, b"not here\n")
        self.send_response(status)
        self.send_header("Content-Type", "application/samlmetadata+xml" if status == 200 else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _metadata(self) -> tuple[int, bytes]:
        if self._broken("idp"):
            return 503, b"out of order\n"
        if self._broken("idp-expired"):
            return 200, (HERE / "metadata-expired.xml").read_bytes()
        body = (HERE / "metadata.xml").read_bytes()
        if self._broken("idp-garbage"):
            return 200, body[: len(body) // 2]
        if self._broken("idp-other"):
            return 200, body.replace(b"idp.paws360.example", b"idp.somebody-else.example")
        return 200, body

    def _broken(self, fault: str) -> bool:
        return (self.faults / fault).exists()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing."""


def main(address: str, port: str, faults: str) -> None:
    """Serve until the end."""
    Handler.faults = Path(faults)
    ThreadingHTTPServer((address, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
