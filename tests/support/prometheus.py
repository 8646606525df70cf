# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus, on a port of its own, that ends with its test."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.servers import free_port, program, running

_OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Prometheus:
    """What is asked of a running Prometheus."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process

    def query(self, expr: str) -> list[dict[str, Any]]:
        found = _ask(self.url, "query", query=expr)["result"]
        assert isinstance(found, list)
        return found

    def targets(self) -> list[str]:
        return [one["health"] for one in _ask(self.url, "targets")["activeTargets"]]


@contextlib.contextmanager
def prometheus(folder: Path, config: Mapping[str, Any], measured: str = "vector(1)") -> Iterator[Prometheus]:
    """Start one, and wait until it has a value for `measured`."""
    address = f"127.0.0.1:{free_port()}"
    (folder / "prometheus.yml").write_text(yaml.safe_dump(dict(config)))
    files = ("--config.file=prometheus.yml", "--storage.tsdb.path=prometheus-data")
    argv = [program("prometheus"), *files, f"--web.listen-address={address}", "--log.level=warn"]

    def begun() -> bool:
        with contextlib.suppress(OSError):
            return bool(_ask(f"http://{address}", "query", query=measured)["result"])
        return False

    with running(argv, folder, begun) as process:
        yield Prometheus(f"http://{address}", process)


def _ask(url: str, what: str, **words: str) -> dict[str, Any]:
    with _OPEN.open(f"{url}/api/v1/{what}?{urllib.parse.urlencode(words)}", timeout=60) as response:
        answer = json.load(response)
    assert answer["status"] == "success", answer
    found = answer["data"]
    assert isinstance(found, dict)
    return found
