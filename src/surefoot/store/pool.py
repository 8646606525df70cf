# SPDX-License-Identifier: Apache-2.0
"""A few idle connections, shared by threads.

Guarantees: a connection is used by one thread at a time; one that failed is never given out again. Opens as many as are
needed at once (an agent calls from few threads) and keeps only some of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """Anything that can be closed."""

    def close(self) -> None:
        """Close it."""


C = TypeVar("C", bound=Closable)

#: Connections that are kept while nobody uses them.
KEEP = 4


class Pool(Generic[C]):
    """See the module's docstring."""

    def __init__(self, connect: Callable[[], C], broken: Callable[[C], bool]) -> None:
        """Take how to open a connection, and how to see that one is of no more use."""
        self._connect = connect
        self._broken = broken
        self._idle: list[C] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[C]:
        """Lend a connection."""
        conn = self._take()
        try:
            yield conn
        finally:
            self._give(conn)

    def _take(self) -> C:
        while True:
            with self._lock:
                conn = self._idle.pop() if self._idle else None
            if conn is None:
                return self._connect()
            if not self._broken(conn):
                return conn
            _close(conn)

    def _give(self, conn: C) -> None:
        if self._broken(conn):
            _close(conn)
            # What broke one connection (a restart, a cut line) broke the others too.
            self.clear()
            return
        with self._lock:
            if not self._closed and len(self._idle) < KEEP:
                self._idle.append(conn)
                return
        _close(conn)

    def clear(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for conn in idle:
            _close(conn)

    def close(self) -> None:
        """Close all, now or when they come back."""
        with self._lock:
            self._closed = True
        self.clear()


def _close(conn: Closable) -> None:
    with suppress(Exception):  # closing what is broken already
        conn.close()
