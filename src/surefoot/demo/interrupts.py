# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, SIGTERM and SIGHUP as one KeyboardInterrupt, which never comes in the middle of what must be whole.

Guarantees: what runs under `held` is not cut short; of several signals only the first one counts, so that nothing
disturbs the cleaning up. Only the main thread may use it, as with all handlers of signals.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts(contextlib.AbstractContextManager["Interrupts"]):
    """Handles the signals from `with` to its end, then leaves them as they were."""

    def __init__(self) -> None:
        """Handle nothing yet."""
        found = {number: signal.getsignal(number) for number in _NUMBERS}
        self._before = {number: handler for number, handler in found.items() if handler is not signal.SIG_IGN}  # nohup
        self._holds = 0
        self._late = False

    def __enter__(self) -> Interrupts:
        """Begin."""
        for number in self._before:
            signal.signal(number, self._hear)
        if signal.SIGINT not in self._before:
            # A shell's `&` has it ignored. It stays without effect here; but what is started is to hear it.
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, _nothing)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the signals as they were."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let what is inside come to its end; a signal that came meanwhile counts then."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        if self._late and not self._holds:
            self._late = False
            raise KeyboardInterrupt

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        for number in self._before:
            signal.signal(number, _nothing)  # not SIG_IGN, which programs inherit that are started to clean up
        if self._holds:
            self._late = True
        else:
            raise KeyboardInterrupt


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Hear a signal, and go on."""
