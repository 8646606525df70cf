# SPDX-License-Identifier: Apache-2.0
"""Makes a process die at a point of its life: put into the real program by tests, and by nothing else.

A point is a place where dying matters: before and after each append to a journal and each claim, in each transaction
of these before it is committed, before and after each process that is started; on hosts, before and after the fence's
files are put in place. Points have names and are counted by name, so that what runs side by side does not move them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from surefoot.agent.processes import ShimRunner
from surefoot.core.events import type_of
from surefoot.store import postgres, sqlite
from surefoot.store.protocol import Append, Claim
from surefoot.store.sqlstore import SqlStore

#: `mv` as hosts find it: the guard puts its files in place with it. Told by the environment whom to kill, and when.
MV = r"""#!/bin/sh
case $2 in */raising | */token) what=${2##*/} ;; *) exec /bin/mv "$@" ;; esac
exec 7>>"$CRASH_POINTS"
point() {
  flock 7
  name="fence $what $1"
  name=$name#$(($(grep -c "^$name#" "$CRASH_POINTS") + 1))
  echo "$name" >&7
  flock -u 7
  [ "$name" = "$CRASH_AT" ] || return 0
  kill -9 "$(cat "$CRASH_PID")"
  sleep 1
}
point before
/bin/mv "$@"
point after
"""


class Points:
    """Counts the points that this process passes, and ends it at one."""

    def __init__(self, passed: Path, at: str) -> None:
        self._passed = passed
        self._at = at
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def point(self, name: str) -> None:
        """Pass a point, or die at it."""
        with self._lock:
            self._counts[name] += 1
            this = f"{name}#{self._counts[name]}"
            with self._passed.open("a", encoding="utf-8") as file:
                file.write(f"{this}\n")
            if this == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)


def install(points: Points) -> None:
    """Put the points into this process."""
    within = threading.local()

    def around(right: Callable[..., Any], name_of: Callable[[Any], str]) -> Callable[..., Any]:
        def call(self: Any, what: Any) -> Any:
            name = name_of(what)
            points.point(f"{name} before")
            within.name = name
            try:
                done = right(self, what)
            finally:
                within.name = None
            points.point(f"{name} after")
            return done

        call.__name__ = right.__name__
        return call

    def appended(append: Append) -> str:
        return "append " + "+".join(map(type_of, append.events))

    def claimed(_: Claim) -> str:
        return "claim"

    SqlStore.append = around(SqlStore.append, appended)
    SqlStore.claim = around(SqlStore.claim, claimed)

    def uncommitted(right: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def transaction(conn: Any) -> Iterator[None]:
            with right(conn):
                yield
                if getattr(within, "name", None) is not None:
                    points.point(f"{within.name} uncommitted")

        return transaction

    sqlite._transaction = uncommitted(sqlite._transaction)
    postgres._transaction = uncommitted(postgres._transaction)

    run = ShimRunner.run

    async def spawned(self: Any, spawn: Any, **kwargs: Any) -> Any:
        step, direction = spawn.env.get("SUREFOOT_STEP", "check"), spawn.env.get("SUREFOOT_DIRECTION", "")
        name = f"spawn {step} {direction}".strip()
        points.point(f"{name} before")
        attempt = await run(self, spawn, **kwargs)
        points.point(f"{name} after")
        return attempt

    ShimRunner.run = spawned
