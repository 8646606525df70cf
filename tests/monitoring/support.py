# SPDX-License-Identifier: Apache-2.0
"""Real exporters as processes of their own, on ports that the system chooses."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from prometheus_client.parser import text_string_to_metric_families

from tests.support import forked

T = TypeVar("T")

PATIENCE = 60.0
Samples = dict[str, dict[tuple[str, ...], float]]


def until(look: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """Return what `look` gives once it gives anything true."""
    deadline = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)
    return found


class Exporter:
    """A running `surefoot exporter`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log
        self.url = until(self._address, "the exporter listens")

    def _address(self) -> str | None:
        assert self.process.poll() is None, self.log
        found = re.search(r"metrics at (https?://)(\S*):(\d+)/metrics", self.log)
        return f"{found[1]}{found[2] or '127.0.0.1'}:{found[3]}/metrics" if found else None

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(
        self, *, accept: str = "", user: tuple[str, str] | None = None, context: ssl.SSLContext | None = None
    ) -> tuple[int, str]:
        request = urllib.request.Request(self.url, headers={"Accept": accept} if accept else {})
        if user is not None:
            request.add_header("Authorization", "Basic " + base64.b64encode(":".join(user).encode()).decode())
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(request, timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def samples(self) -> Samples:
        """All samples by name and values of labels, in the order of the labels' names."""
        found: Samples = {}
        for family in text_string_to_metric_families(self.get()[1]):
            for sample in family.samples:
                key = tuple(value for _, value in sorted(sample.labels.items()))
                found.setdefault(sample.name, {})[key] = sample.value
        return found

    def value(self, name: str, *labels: str) -> float | None:
        return self.samples().get(name, {}).get(labels)

    def wait_for(self, name: str, *labels: str, value: float) -> None:
        until(lambda: self.value(name, *labels) == value, f"{name}{labels} is {value}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def exporter(folder: Path, *arguments: str, **environ: str) -> Iterator[Exporter]:
    """Give an exporter that runs in a folder, on a port of its own."""
    log = folder / f"exporter-{time.monotonic_ns()}.log"
    command = ["exporter", "--listen", "127.0.0.1:0", *arguments]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SUREFOOT_")}
    with log.open("w") as output:
        process = forked.Surefoot(command, cwd=folder, stderr=output, stdout=output, text=True, env={**kept, **environ})
    try:
        yield Exporter(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
