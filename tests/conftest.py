# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import signal
import warnings
from collections.abc import Iterator

import pytest

from surefoot.drills.lab import missing
from tests.support import compiled
from tests.support.postgres import PostgresServer

# Under `nohup`, or in a shell's background, these are ignored by all that the tests start: here they are to count.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Streams are to be as they are for users: a closed one shows late, and what is not flushed does not come.
os.environ.pop("PYTHONUNBUFFERED", None)

#: Parts of the tests whose files take the longest.
LONG = {"lab", "chaos", "e2e", "crash", "simulation", "ansible"}


def pytest_configure(config: pytest.Config) -> None:
    """Have hosts run Ansible's modules without compiling them anew; workers inherit what was made before them."""
    if not hasattr(config, "workerinput"):
        compiled.make()
        config.add_cleanup(compiled.remove)
    compiled.use_in_labs()


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of each later search for garbage: it stays to the end."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: a long file at the end would have one worker run while the others wait."""
    items.sort(key=lambda item: LONG.isdisjoint(item.path.parts))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests that leave it as it is; each takes a database of its own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def laboratory() -> None:
    """What a test asks for that makes its own lab; where there can be none, one loud line says what was not tested, and
    how to.
    """
    if reason := missing():
        warnings.warn(f"the lab and all drills are NOT tested: {reason}", stacklevel=1)
        pytest.skip(reason)
