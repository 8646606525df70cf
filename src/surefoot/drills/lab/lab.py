# SPDX-License-Identifier: Apache-2.0
"""A lab, put together: its ground, its switch, its hosts, and the key that opens them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from surefoot.drills.lab.blackbox import Command
from surefoot.drills.lab.errors import LabError
from surefoot.drills.lab.ground import Ground
from surefoot.drills.lab.host import Host
from surefoot.drills.lab.need import missing
from surefoot.drills.lab.network import Network

MOST_HOSTS = 200


class Lab(AbstractContextManager["Lab"]):
    """See the package's docstring. LabError if there can be none here."""

    def __init__(self) -> None:
        """Lay the ground; there are no hosts yet."""
        if reason := missing():
            raise LabError("there can be no lab here", hint=reason)
        self.ground = Ground()
        try:
            self.network = Network(self.ground)
            self.keys = self.ground.path("keys")
            self._make_keys()
        except BaseException:
            self.down()
            raise
        self.hosts: dict[str, Host] = {}
        self.domain = ""  #: by which hosts find each other too, beside the bare names

    def __exit__(self, *_: object) -> None:
        """Take it down."""
        self.down()

    def __getitem__(self, name: str) -> Host:
        """Return a host."""
        return self.hosts[name]

    def add(self, name: str) -> Host:
        """Add a host, which is off."""
        number = len(self.hosts)
        if name in self.hosts or number >= MOST_HOSTS:
            raise LabError(f"there is a host {name!r} already, or there are too many")
        host = Host(self.ground, self.network, name, number, self.keys)
        self.hosts[name] = host
        return host

    def power_on(self, hosts: Iterable[Host] | None = None) -> None:
        """Power hosts on, all if none are named, once each knows the others' names."""
        chosen = list(self.hosts.values() if hosts is None else hosts)
        names = "127.0.0.1 localhost\n" + "".join(
            f"{h.address} {' '.join(self._names(h))}\n" for h in self.hosts.values()
        )
        for host in chosen:
            host.write("/etc/hosts", names)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(Host.power_on, chosen))

    def down(self) -> None:
        """End all processes, and leave nothing behind."""
        self.ground.clear()

    # -- keys ------------------------------------------------------------------------------------------------------

    def _make_keys(self) -> None:
        self.keys.mkdir(mode=0o700)
        self._make("id", "hostkey")

    def change_key(self) -> None:
        """Make another key that opens hosts: those that are told so by `accept`, and those that are added later."""
        self._make("id")

    def _make(self, *names: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                subprocess.run(
                    ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", f"{folder}/{name}"], check=True
                )
                for made in (name, f"{name}.pub"):
                    shutil.copy(Path(folder, made), self.keys / made)

    @property
    def private_key(self) -> str:
        """The private key that every host accepts for root."""
        return (self.keys / "id").read_text()

    @property
    def public_key(self) -> str:
        """The other half of it."""
        return (self.keys / "id.pub").read_text()

    def known_hosts(self) -> str:
        """Return the lines of a known_hosts file, by names and by addresses."""
        kind, key, *_ = (self.keys / "hostkey.pub").read_text().split()
        return "".join(f"{','.join((*self._names(h), h.address))} {kind} {key}\n" for h in self.hosts.values())

    def _names(self, host: Host) -> list[str]:
        return [host.name, *([f"{host.name}.{self.domain}"] if self.domain else [])]

    # -- what was seen ---------------------------------------------------------------------------------------------

    def commands(self, hosts: Iterable[str] | None = None) -> list[Command]:
        """Return what hosts' black boxes have, all hosts' if none are named, oldest first."""
        chosen = self.hosts if hosts is None else hosts
        return sorted((c for name in chosen for c in self.hosts[name].commands()), key=lambda c: c.begin)
