# SPDX-License-Identifier: Apache-2.0
"""Signals of a test's own process, in which something is called that leaves them as befits a process that ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from surefoot.cli.interrupts import SIGNALS


@contextmanager
def put_back() -> Iterator[None]:
    """Handle signals afterwards as before; what is started later would inherit that they are ignored."""
    before = {name: signal.getsignal(name) for name in SIGNALS}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
