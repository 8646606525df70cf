# SPDX-License-Identifier: Apache-2.0
"""Follows a store in a thread of its own, so that no scrape ever waits for it.

Guarantees: what is served is whole: figures appear once all of the history has been read, and stay as they were while
the store can't be read, with `surefoot_store_up` 0 beside them. A store that hangs holds up nothing but this thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

from prometheus_client.core import Metric

from surefoot.core.errors import StoreError
from surefoot.core.notes import Level, Note, Tell
from surefoot.monitoring import families
from surefoot.monitoring.exposition import Text, render
from surefoot.monitoring.ledger import Ledger
from surefoot.monitoring.reader import Now, Reader
from surefoot.store.protocol import Store

#: Seconds between two looks.
EVERY = 2.0
#: A store that has not answered for so long counts as down, though its call has not failed yet.
HANGS = 10.0


@dataclass(frozen=True, slots=True)
class Skew:
    """How far this machine's clock is ahead of the store's, and how long the question took."""

    seconds: float
    round_trip: float


class Following:
    """See the module's docstring."""

    def __init__(
        self,
        open_store: Callable[[], Store | None],
        *,
        known: Mapping[str, Iterable[str]] = MappingProxyType({}),
        note: Tell = lambda _: None,
        every: float = EVERY,
    ) -> None:
        """`open_store` returns None for a store that was never written to: there is nothing in it yet. `known`: the
        config's environments, with their steps.
        """
        self._open_store = open_store
        self._known = dict(known)
        self._note = note
        self._every = every
        self._reader = Reader(self._known)
        self._identity: str | None = None
        self._counted: tuple[Ledger, int] | None = None
        self._ledger_text = Text()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics-store", daemon=True)
        self._answered = 0.0
        self._failed = True
        self._trouble = ""
        self.text = Text()  #: what was read, as it is served
        self.now: Now | None = None
        self.read_at: float | None = None
        self.skew: Skew | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a store that hangs is not waited for."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    @property
    def up(self) -> bool:
        """Whether the store answers."""
        return not self._failed and time.monotonic() - self._answered < HANGS

    def collect(self) -> Iterator[Metric]:
        """Return what is known of the store itself, as it is at this moment."""
        return families.of_store(None, up=self.up, read_at=self.read_at)

    def _run(self) -> None:
        store: Store | None = None
        while not self._stop.is_set():
            try:
                store = store or self._opened()
                self._look(store)
            except Exception as error:
                # Whatever it was, the rest of the metrics must be served; the next look begins with a new connection.
                self._failed = True
                self._tell(error)
                if store is not None:
                    with suppress(Exception):
                        store.close()
                store = None
            self._stop.wait(self._every)
        if store is not None:
            with suppress(Exception):
                store.close()

    def _opened(self) -> Store | None:
        store = self._open_store()
        if store is not None and (identity := store.identity()) != self._identity:
            # Another store than before: what was counted of the old one is not its own.
            self._reader, self._identity = Reader(self._known), identity
        return store

    def _look(self, store: Store | None) -> None:
        if store is None:
            now = Now((), (), {}, {})
        else:
            self.skew = _skew(store)
            self._alive()
            now = self._reader.refresh(store, stop=self._alive)
            if self._stop.is_set():
                return
        self._alive()
        ledger = self._reader.ledger
        if self._counted != (ledger, ledger.entries):
            self._ledger_text = render(families.of_ledger(ledger))
            self._counted = (ledger, ledger.entries)
        self.text = self._ledger_text + render(families.of_now(now, self._known))
        self.now, self.read_at = now, time.time()
        if self._trouble:
            self._note(Note("the store can be read again", "store_back"))
        self._trouble = ""

    def _alive(self) -> bool:
        """Note that the store has answered; return whether to stop."""
        self._answered, self._failed = time.monotonic(), False
        return self._stop.is_set()

    def _tell(self, error: Exception) -> None:
        trouble = error.message if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
        if trouble != self._trouble:
            self._note(Note(f"the store can't be read: {trouble}", "store_failed", Level.WARNING))
        self._trouble = trouble


def _skew(store: Store) -> Skew:
    begun = time.time()
    clock = time.monotonic()
    theirs = store.now()
    took = time.monotonic() - clock
    return Skew(begun + took / 2 - theirs, took)
