# SPDX-License-Identifier: Apache-2.0
"""The demo's hosts as a stranger would examine them: what they answer, link to, and have recorded in their black box.

Nothing here asks Surefoot: the verdict rests on this module, so it reads folders and ports only.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

#: A request that takes longer counts as lost; generous, since the machine is busy with the deploys themselves.
ANSWER_WITHIN = 5.0
#: Seconds between the requests of the probe.
PROBE_EVERY = 0.05


class Record(msgspec.Struct, frozen=True):
    """One command that ran on a host, as its black box has it."""

    at: float
    deployment: str
    token: int
    agent: str
    step: str
    direction: str
    what: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answered; status 0: nothing."""

    status: int
    version: str | None = None


@dataclass(frozen=True, slots=True)
class DemoHost:
    """One host: a folder and a port of this machine."""

    name: str
    root: Path
    port: int

    @property
    def black_box(self) -> Path:
        """The file that every command on the host is recorded in."""
        return self.root / "events.log"

    def records(self) -> list[Record]:
        """Return what ran on the host, oldest first. Raises msgspec.DecodeError if a line is no record."""
        if not self.black_box.exists():
            return []
        whole = self.black_box.read_text(encoding="utf-8").rpartition("\n")[
            0
        ]  # a line may be in the middle of its writing
        return [msgspec.json.decode(line, type=Record) for line in whole.splitlines()]

    def linked_version(self) -> str | None:
        """Return the release that `current` points to."""
        link = self.root / "current"
        return link.readlink().name if link.is_symlink() else None

    def ask(self, path: str) -> Answer:
        """Ask the service."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_WITHIN)
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return Answer(response.status, json.loads(response.read()).get("version"))
            except (OSError, http.client.HTTPException, ValueError):
                return Answer(0)


class Probe:
    """A customer who asks the hosts in turn, some twenty times a second, from `start` to `stop`."""

    def __init__(self, hosts: Sequence[DemoHost]) -> None:
        """Ask these hosts."""
        self.requests = 0
        self.lost = 0
        self._hosts = hosts
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            for host in self._hosts:
                began = time.monotonic()
                self.requests += 1
                self.lost += host.ask("/version").status != 200
                if self._over.wait(max(0.0, PROBE_EVERY - (time.monotonic() - began))):
                    return
