# SPDX-License-Identifier: Apache-2.0
"""Following a deployment: its journal and its log, as they grow, to its end.

Guarantees: no entry and no line comes twice or is left out, whatever the store does meanwhile; a store that goes away
is waited for (and that is told, once) up to `PATIENCE` seconds, or for as long as the caller wants. However long the
log is, a page of it is in memory at a time. It changes nothing, so it can be ended at any moment.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from surefoot.core.deployment import Deployment, evolve, fold
from surefoot.core.errors import NewerStoreError, StoreError
from surefoot.core.events import Entry
from surefoot.store.protocol import LogLine, Store

#: Seconds for which the store may be away while a deployment is followed.
PATIENCE = 60.0
#: Seconds between looks; a change that the store announces comes at once.
LOOK_EVERY = 0.5
#: Lines of the log read at a time.
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Update:
    """What is new, and what the state is now."""

    state: Deployment
    entries: tuple[Entry, ...] = ()
    lines: tuple[LogLine, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreAway:
    """The store does not answer; it is tried again."""

    error: StoreError


@dataclass(frozen=True, slots=True)
class StoreBack:
    """The store answers again, after so many seconds."""

    seconds: float


News = Update | StoreAway | StoreBack


def ended(state: Deployment) -> bool:
    """Whether the deployment has come to its end."""
    return state.status.terminal


def _at(entry: Entry) -> float:
    return entry.at


class Follower:
    """Reads one deployment's journal and log as they grow."""

    def __init__(self, store: Store, deployment: str, *, log: bool = True, after: int = 0) -> None:
        """Follow `deployment`; without `log` only its journal. Entries up to `after` are read, but no news."""
        self._store = store
        self._id = deployment
        self._log = log
        self._after = after
        self._line = 0
        self._untold: tuple[Entry, ...] = ()
        self._state: Deployment | None = None
        self._away_since: float | None = None

    def news(
        self, until: Callable[[Deployment], bool] = ended, stay: Callable[[], bool] = lambda: False
    ) -> Iterator[News]:
        """Yield what is new until `until` holds; every `LOOK_EVERY` seconds there is something, or `stay` is asked
        whether a store that is away is waited for beyond `PATIENCE`. It may raise, which ends the following.
        """
        while True:
            try:
                mark = self._store.mark()
                for update in self._look():
                    if self._away_since is not None:
                        yield StoreBack(time.monotonic() - self._away_since)
                        self._away_since = None
                    yield update
            except NewerStoreError:
                raise
            except StoreError as error:
                if self._away_since is None:
                    self._away_since = time.monotonic()
                    yield StoreAway(error)
                if not stay() and time.monotonic() - self._away_since > PATIENCE:
                    raise
                time.sleep(LOOK_EVERY)
                if self._state is not None:
                    yield Update(self._state)
                continue
            if until(update.state):
                return
            self._wait(mark)

    def rest(self) -> Iterator[Update]:
        """Yield what has come since the last news; the log's last lines come a moment after the end."""
        return self._look()

    def _wait(self, mark: int) -> None:
        try:
            self._store.wait(LOOK_EVERY, mark)
        except StoreError:
            return  # the next look says it

    def _look(self) -> Iterator[Update]:
        """Yield what is new, once at least: a page of the log at a time, with the entries up to its end."""
        entries = self._store.journal(self._id, after=self._state.seq if self._state else 0)
        for entry in entries:
            self._state = fold([entry]) if self._state is None else evolve(self._state, entry)
        assert self._state is not None
        self._untold += tuple(entry for entry in entries if entry.seq > self._after)
        while True:
            page = self._page() if self._log else ()
            more = len(page) == PAGE
            told = bisect_right(self._untold, page[-1].at or 0.0, key=_at) if more else len(self._untold)
            new, self._untold = self._untold[:told], self._untold[told:]
            yield Update(self._state, new, page)
            if not more:
                return

    def _page(self) -> tuple[LogLine, ...]:
        page = self._store.log(self._id, after=self._line, limit=PAGE)
        if page:
            assert page[-1].id is not None
            self._line = page[-1].id
        return tuple(page)
