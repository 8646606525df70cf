# SPDX-License-Identifier: Apache-2.0
"""LISTEN on a session of its own: who waits is woken by the server, not by a poll.

Guarantees: a change that is committed after `mark` wakes every `wait` for that mark, also when the session was lost
between: a new session counts as a change, since nobody knows what it missed. Wakes without a change are possible.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress

import psycopg

from surefoot.store.session import Session

#: Seconds between tries to reach a server that does not answer.
AGAIN = 0.25
#: Seconds of silence after which a listener asks whether its server is still there.
SILENCE = 30.0
#: What a session may have to read before its end is seen: a server that ends it says why first.
LAST_WORDS = 3
#: Names that are kept for who does not ask for them.
MANY = 1000


def ended(session: Session) -> bool:
    """Whether a session's connection is gone, without asking the server."""
    if session.closed or session.broken:
        return True
    # An idle session has nothing to read but the news of its end: the server's last words first, then the end itself.
    poll = select.poll()
    poll.register(session.fileno(), select.POLLIN)
    try:
        for _ in range(LAST_WORDS):
            if not poll.poll(0):
                return False
            session.pgconn.consume_input()
    except psycopg.Error:
        return True
    return bool(session.pgconn.status != psycopg.pq.ConnStatus.OK)


class Listener:
    """One thread that hears of changes, and any number that wait for them. Starts when it is first needed."""

    def __init__(self, connect: Callable[[], Session], channel: str) -> None:
        """Take how to open a session, and what to listen to."""
        self._connect = connect
        self._channel = channel
        self._named: set[str] | None = None
        self._changes = 0
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stop_read, self._stop_write = -1, -1

    def mark(self) -> int:
        """Return how many changes were heard of, once it listens."""
        with self._news:
            self._start()
            # Before the first session stands, nothing can be heard: wait for it, but not for a server that is down.
            self._news.wait_for(lambda: self._changes > 0, timeout=2.0)
            return self._changes

    def wait(self, mark: int, timeout: float) -> int | None:
        """Return the present mark once it is greater than `mark`; None after `timeout` seconds."""
        with self._news:
            self._start()
            self._news.wait_for(lambda: self._changes > mark, timeout=timeout)
            return self._changes if self._changes > mark else None

    def take(self) -> frozenset[str] | None:
        """Return the names that changes came with since this was asked; None if some may have been missed."""
        with self._news:
            named, self._named = self._named, set()
            return None if named is None else frozenset(named)

    def _start(self) -> None:
        if self._thread is None:
            self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC)
            self._thread = threading.Thread(target=self._run, name="surefoot-listen", daemon=True)
            self._thread.start()

    def _heard(self, names: set[str] | None = None) -> None:
        """Count a change, with what it names; None where a session begins, as nobody knows what was missed."""
        with self._news:
            self._changes += 1
            if names is None or self._named is None or len(self._named) > MANY:
                self._named = None
            else:
                self._named |= names
            self._news.notify_all()

    def _stopped(self, seconds: float) -> bool:
        return bool(select.select([self._stop_read], [], [], seconds)[0])

    def _run(self) -> None:
        while True:
            with suppress(psycopg.Error):
                self._listen()
            if self._stopped(AGAIN):
                return

    def _listen(self) -> None:
        """Listen until the session or this listener ends."""
        session = self._connect()
        try:
            session.execute(f"LISTEN {self._channel}")
            self._heard()
            poll = select.poll()
            poll.register(session.fileno(), select.POLLIN)
            poll.register(self._stop_read, select.POLLIN)
            while self._stop_read not in (ready := {fd for fd, _ in poll.poll(SILENCE * 1000)}):
                if not ready:
                    session.execute("SELECT")
                    self._heard()  # what came just then was lost to the answer
                    continue
                session.pgconn.consume_input()
                heard = False
                names = set()
                while (notify := session.pgconn.notifies()) is not None:
                    heard = True
                    if notify.extra:
                        names.add(notify.extra.decode())
                if heard:
                    self._heard(names)
        finally:
            session.close()

    def close(self) -> None:
        """End the thread and its session."""
        if self._thread is not None:
            os.write(self._stop_write, b"x")
            self._thread.join(timeout=5.0)
            os.close(self._stop_read)
            os.close(self._stop_write)
            self._thread = None
