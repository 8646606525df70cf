# SPDX-License-Identifier: Apache-2.0
"""The frontend: the faces of a Next.js service that renders a page from what its backend says."""

from __future__ import annotations

import json
import urllib.request
from html import escape

from service import Answer, Release, Service, answer, here

PAGE = """<!doctype html>
<html lang="en">
<title>PAWS360</title>
<h1>PAWS360</h1>
<p>Version {version}, visit {visits}</p>
</html>
"""
#: Seconds for the backend; a page without a number is better than none.
PATIENCE = 2


class Frontend:
    """Answers for one release."""

    def __init__(self, release: Release) -> None:
        """Take the backend that is asked: the one on this host."""
        self._release = release
        self._backend_port = int(release.settings["backend_port"])

    def page(self) -> Answer:
        """Render the page."""
        if self._release.broken("frontend"):
            return 500, "text/html; charset=utf-8", b"<h1>Internal Server Error</h1>"
        try:
            address = f"http://127.0.0.1:{self._backend_port}/api/v1/visits"
            with urllib.request.urlopen(address, timeout=PATIENCE) as response:
                visits = str(json.load(response)["visits"])
        except (OSError, ValueError, KeyError):
            visits = "unknown"
        page = PAGE.format(version=escape(self._release.version), visits=escape(visits))
        return 200, "text/html; charset=utf-8", page.encode()

    def health(self) -> Answer:
        """Tell whether it is well, and which version runs."""
        if self._release.broken("frontend-api"):
            return answer({"status": "error", "version": self._release.version}, 500)
        return answer({"status": "ok", "version": self._release.version})


def main() -> None:
    """Serve."""
    release = Release(here())
    frontend = Frontend(release)
    service = Service("frontend", release, {"/": frontend.page, "/api/health": frontend.health})
    service.paths["/api/requests"] = service.requests
    service.run()


if __name__ == "__main__":
    main()
