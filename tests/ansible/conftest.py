# SPDX-License-Identifier: Apache-2.0
"""Hosts for the tests in this folder; they skip, loudly, where there can be none."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ansible.hosts import SshHost, missing
from tests.ansible.play import Project

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def rooms() -> Iterator[Path]:
    """A folder for hosts and keys, readable by every user of a host."""
    if reason := missing():
        warnings.warn(f"the host fence is NOT tested: {reason}", stacklevel=1)
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="surefoot-hosts-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def key(rooms: Path) -> Path:
    """The private key that all hosts accept."""
    path = rooms / "key"
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def hosts(rooms: Path, key: Path) -> Iterator[list[SshHost]]:
    """Two hosts for all tests of the session; each test has a fence of its own."""
    started = [SshHost(name, rooms / name, key) for name in ("alpha", "beta")]
    try:
        for host in started:
            host.start()
        yield started
    finally:
        for host in started:
            host.stop()


@pytest.fixture
def host(hosts: list[SshHost]) -> SshHost:
    """One of them."""
    return hosts[0]


@pytest.fixture
def own_host(rooms: Path, key: Path) -> Iterator[SshHost]:
    """A host that a test may ruin; its first process reaps nothing, as in many containers."""
    one = SshHost("own", rooms / f"own-{next(_numbers)}", key, reaps=False)
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture
def fence_name() -> str:
    """A fence that no other test uses."""
    return f"tests/env-{next(_numbers)}/store"


@pytest.fixture
def local(tmp_path: Path, fence_name: str) -> Iterator[Project]:
    """A project that deploys to this machine, by the local connection."""
    one = Project(tmp_path / "project", fence_name)
    one.here()
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def project(tmp_path: Path, hosts: list[SshHost], key: Path, fence_name: str) -> Iterator[Project]:
    """A project that deploys to both hosts as root."""
    one = Project(tmp_path / "project", fence_name)
    one.reach(hosts, key)
    try:
        yield one
    finally:
        one.close()
