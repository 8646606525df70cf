# SPDX-License-Identifier: Apache-2.0
"""How a SQL database is asked: what differs between databases, and calls that insist.

A call whose transaction certainly did not happen is tried again a few times. One whose commit got no answer is tried
again only where the second time finds the first: appends and claims by `event_id`, submissions by their row, bundles by
their upload. Lines of a log are not: a line may be missing after such a loss, but none is there twice.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import aiosql

from surefoot.core.errors import StoreError
from surefoot.store import migrations

T = TypeVar("T")

SQL = Path(__file__).parent / "sql"
#: Pauses before a call is tried again: long enough for a dead connection to be replaced, short beside any lease.
RETRY_PAUSES = (0.02, 0.1, 0.4)


class CommitUnknownError(Exception):
    """The connection was lost while a commit was under way: it may have happened."""


@dataclass(frozen=True, slots=True)
class Presence:
    """Who took an agent's presence last, and whether it still holds; None where that can't be known."""

    incarnation: str
    held: bool | None


@cache
def load_queries(adapter: str, only: str) -> Any:
    """Return the named queries for one database."""
    names = ("environments", "deployments", "agents", "logs", "bundles", "outbox", only)
    return aiosql.from_str("\n".join((SQL / f"{name}.sql").read_text(encoding="utf-8") for name in names), adapter)


class Transactions(ABC):
    """See the module's docstring. Subclasses say how one database connects, notifies, fails and knows presence."""

    #: What the database's driver raises.
    driver_error: type[Exception]
    #: What it raises when a unique index refuses a row.
    duplicate_error: type[Exception]
    #: What the store is called in messages.
    _where: str

    def __init__(self, queries: Any) -> None:
        """Take the named queries."""
        self._q = queries

    # -- what differs between databases ------------------------------------------------------------------------

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Any]:
        """Give a connection for single statements that only read."""

    @abstractmethod
    def _writing(self, *, durable: bool) -> AbstractContextManager[Any]:
        """Give a connection in a transaction, committed at the end; `durable` ones survive a loss of power."""

    @abstractmethod
    def _notify_followers(self, conn: Any) -> None:
        """Wake who follows, once the transaction is committed."""

    @abstractmethod
    def _notify(self, conn: Any, asked: str = "") -> None:
        """Wake agents too; `asked` is the deployment of which something is asked, if that is what the change is."""

    @abstractmethod
    def _transient(self, error: Exception) -> bool:
        """Whether the same call may succeed when it is tried again at once."""

    @abstractmethod
    def _explain(self, error: Exception) -> StoreError:
        """Return what to tell a user."""

    @abstractmethod
    def _presences(self) -> Mapping[str, Presence]:
        """Return all presences that were ever taken."""

    @abstractmethod
    def _forget_presence(self, agent: str) -> None:
        """Remove what the database does not hold of an agent's presence."""

    # -- transactions -----------------------------------------------------------------------------------------

    def _read(self, work: Callable[[Any], T]) -> T:
        def once() -> T:
            with self._reading() as conn:
                return work(conn)

        return self._insist(once, repeatable=True)

    def _write(self, work: Callable[[Any], T], *, repeatable: bool = True, durable: bool = True) -> T:
        def once() -> T:
            with self._writing(durable=durable) as conn:
                return work(conn)

        return self._insist(once, repeatable=repeatable)

    def _insist(self, once: Callable[[], T], *, repeatable: bool) -> T:
        for pause in RETRY_PAUSES:
            try:
                return once()
            except CommitUnknownError as error:
                if not repeatable:
                    raise _commit_unknown() from error
            except self.duplicate_error:
                raise
            except self.driver_error as error:
                if not self._transient(error):
                    raise self._explain(error) from error
            time.sleep(pause)
        try:
            return once()
        except CommitUnknownError as error:
            raise _commit_unknown() from error
        except self.duplicate_error:
            raise
        except self.driver_error as error:
            raise self._explain(error) from error

    def _check_schema(self, conn: Any) -> None:
        """Refuse to begin anything once a newer program has upgraded the store under this one. What was begun before
        goes on: it ends no sooner on an agent that has to wait for its own upgrade.
        """
        migrations.check_version(int(self._q.schema(conn)), self._where)


def _commit_unknown() -> StoreError:
    return StoreError(
        "the connection to the store was lost while it took something down; it may have happened",
        hint="look with: surefoot status",
    )
