# SPDX-License-Identifier: Apache-2.0
"""SIGINT, SIGTERM and SIGHUP while a deployment is followed: told to a thread, never the end of the process.

Guarantees: from the moment the context is entered these signals do not end the process and interrupt no call; each is
handled by a thread at once, even while the main thread waits for the store; when the context has come to its end, they
are ignored until the process has. A signal that was ignored from the start (nohup) stays ignored.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_END = b"\0"


class Interrupts:
    """A context in which each signal calls the answer in a thread; each one after the first is a repeated request."""

    def __init__(self) -> None:
        """Nothing is listened to before the context is entered."""
        self.first: str | None = None  #: the first signal's name
        self.seen = threading.Event()
        self._answer: Callable[[str], None] | None = None
        self._answered = threading.Lock()
        self._reader, self._writer = os.pipe()
        self._before: dict[signal.Signals, object] = {}
        self._thread = threading.Thread(target=self._listen, name="interrupts", daemon=True)

    def __enter__(self) -> Interrupts:
        """Listen from now on."""
        os.set_blocking(self._writer, False)
        for name in SIGNALS:
            if signal.getsignal(name) is not signal.SIG_IGN:
                self._before[name] = signal.signal(name, self._caught)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more."""
        for name, handler in self._before.items():
            # The exit code has to say what became of the deployment: no signal may come between that and the end.
            signal.signal(name, signal.SIG_IGN if self.first or kind is None else handler)  # type: ignore[arg-type]
        with suppress(BlockingIOError):
            os.write(self._writer, _END)
        self._thread.join(timeout=5.0)
        if not self._thread.is_alive():
            os.close(self._reader)
            os.close(self._writer)

    def answer_with(self, answer: Callable[[str], None]) -> None:
        """Answer signals from now on, and the ones that have come already."""
        with self._answered:
            self._answer = answer
            missed = self.first
        if missed is not None:
            self._caught(signal.Signals[missed], None)  # in the thread, too: an answer waits for a store that is away

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        # Nothing but a write: a lock that the interrupted code holds would never come free.
        with suppress(BlockingIOError):
            os.write(self._writer, bytes([number]))

    def _listen(self) -> None:
        while (byte := os.read(self._reader, 1)) != _END:
            name = signal.Signals(byte[0]).name
            with self._answered:
                self.first = self.first or name
                answer = self._answer
            self.seen.set()
            if answer is not None:
                answer(name)
