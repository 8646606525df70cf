# SPDX-License-Identifier: Apache-2.0
"""What the program was started with, put in order before all else: descriptors, streams, signals.

Guarantees: 0, 1 and 2 are never what something else opens later; what is written to stdout or stderr is written whole
or fails for good, also where somebody has made the pipe behind it non-blocking (Node and CI runners do); a character
that a stream's encoding lacks is written escaped; how child processes ended can be known.
"""

from __future__ import annotations

import io
import os
import select
import signal
import sys
from typing import Any, TextIO


def put_in_order() -> None:
    """Make the process what the rest of the program takes it for."""
    # Ignored by whoever started us, children would be gone before they are waited for, and Python takes that for 0.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor in range(3):
        _open(descriptor)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        setattr(sys, name, _whole(descriptor, getattr(sys, name)))


def _open(descriptor: int) -> None:
    """Have a descriptor that was closed (`2>&-`) lead to nowhere; those below it must be open already."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _whole(descriptor: int, stream: TextIO | None) -> TextIO:
    """Return a stream that writes as this module guarantees; Python has None where the descriptor was closed."""
    encoding = stream.encoding if stream is not None else "utf-8"
    file = io.BufferedWriter(_Waiting(descriptor, "w", closefd=False))
    return io.TextIOWrapper(file, encoding, "backslashreplace", line_buffering=True)


class _Waiting(io.FileIO):
    """Waits where a non-blocking pipe is full, as a blocking one does it."""

    def write(self, data: Any) -> int:
        while (written := super().write(data)) is None:
            select.select([], [self], [])
        return written
