# SPDX-License-Identifier: Apache-2.0
"""A deployment's log: lines on their way from a step, redacted, to the store.

Guarantees: what reaches the store has passed the redactor; memory stays bounded whatever a step prints, because an
attempt's output is kept up to `KEPT` bytes and of the rest only the last lines; the log never holds up the step. It
is not a journal: lines on their way when an agent dies are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from surefoot.agent.access import StoreAccess
from surefoot.core.errors import NotFoundError, StoreError
from surefoot.store.protocol import Grant, LogLine, Store

#: Bytes of one attempt's output that are kept whole.
KEPT = 8 * 1024 * 1024
#: Lines kept from the end of an attempt: shown with a failure, and after output that was too long.
TAIL = 50
#: A longer line is cut into pieces of so many characters.
LONGEST_LINE = 8 * 1024
#: Seconds for which lines are gathered before they are written to the store.
FLUSH_EVERY = 0.2
#: Lines in one write, and lines that may wait for the store before new ones are dropped.
BATCH = 500
WAITING = 20_000


class Redacts(Protocol):
    """Takes secrets out of a stream of bytes."""

    def feed(self, data: bytes) -> bytes:
        """Return what can be let through by now."""

    def flush(self) -> bytes:
        """Return what was held back."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    deployment: str
    line: LogLine
    grant: Grant | None


class LogSink:
    """Takes lines from everywhere in the agent and writes them to the store in batches."""

    def __init__(self, store: Store, access: StoreAccess) -> None:
        """Write to `store` by way of `access`."""
        self._store = store
        self._access = access
        self._lines: deque[_Waiting] = deque()
        self._dropped = 0
        self._came = asyncio.Event()
        self._flushing = asyncio.Lock()

    def add(self, deployment: str, line: LogLine, grant: Grant | None = None) -> None:
        """Take a line; dropped (and counted) if the store has not kept up."""
        self._came.set()
        if len(self._lines) >= WAITING:
            self._dropped += 1
            return
        if self._dropped:
            gap = LogLine(f"… {self._dropped} lines were dropped: the store did not keep up", stream="agent")
            self._lines.append(_Waiting(deployment, gap, grant))
            self._dropped = 0
        self._lines.append(_Waiting(deployment, line, grant))

    async def run(self) -> None:
        """Write what comes in until cancelled."""
        while True:
            await self._came.wait()
            await asyncio.sleep(FLUSH_EVERY)
            with contextlib.suppress(StoreError):
                await self.flush()
            if not self._lines:
                self._came.clear()

    async def last_words(self) -> None:
        """Write what still waits, once, if the store can be reached."""
        with contextlib.suppress(StoreError):
            await self.flush()

    async def flush(self) -> None:
        """Write all lines that wait. Lines stay where they are if the store can't be reached."""
        # One at a time: lines are dropped from the queue only when they are written.
        async with self._flushing:
            await self._flush()

    async def _flush(self) -> None:
        while self._lines:
            first = self._lines[0]
            batch: list[LogLine] = []
            for waiting in self._lines:
                if (waiting.deployment, waiting.grant) != (first.deployment, first.grant) or len(batch) >= BATCH:
                    break
                batch.append(waiting.line)
            with contextlib.suppress(NotFoundError):
                await self._access(self._store.append_log, first.deployment, batch, first.grant)
            for _ in batch:
                self._lines.popleft()


class StepOutput:
    """Turns the bytes that one attempt prints into lines."""

    def __init__(self, emit: Callable[[LogLine], None], template: LogLine, redactor: Callable[[], Redacts]) -> None:
        """Emit copies of `template` with text and stream filled in; each stream gets a redactor of its own."""
        self._emit = emit
        self._template = template
        self._streams: dict[str, _Stream] = {}
        self._redactor = redactor
        self._kept = 0
        self._skipped = 0
        self.tail: deque[str] = deque(maxlen=TAIL)

    def feed(self, stream: str, data: bytes) -> None:
        """Take bytes as they come."""
        if stream not in self._streams:
            self._streams[stream] = _Stream(self._redactor())
        for text in self._streams[stream].feed(data):
            self._line(stream, text)

    def close(self) -> None:
        """Let out what is left, and say what was left out."""
        for name, stream in self._streams.items():
            for text in stream.close():
                self._line(name, text)
        if self._skipped:
            self._emit(
                replace(self._template, text=f"… {self._skipped} bytes left out; the last lines:", stream="agent")
            )
            for text in self.tail:
                self._emit(replace(self._template, text=text))

    def _line(self, stream: str, text: str) -> None:
        self.tail.append(text)
        if self._kept < KEPT:
            self._kept += len(text) + 1
            self._emit(replace(self._template, text=text, stream=stream))
        else:
            self._skipped += len(text) + 1


class _Stream:
    """Cuts a redacted stream into lines."""

    def __init__(self, redactor: Redacts) -> None:
        self._redactor = redactor
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        return self._cut(self._redactor.feed(data))

    def close(self) -> list[str]:
        lines = self._cut(self._redactor.flush())
        if self._rest:
            lines.append(_text(self._rest))
            self._rest = b""
        return lines

    def _cut(self, data: bytes) -> list[str]:
        *whole, rest = (self._rest + data).split(b"\n")
        while len(rest) > LONGEST_LINE:
            whole.append(rest[:LONGEST_LINE])
            rest = rest[LONGEST_LINE:]
        self._rest = rest
        pieces = (line[i : i + LONGEST_LINE] for line in whole for i in range(0, max(1, len(line)), LONGEST_LINE))
        return [_text(piece) for piece in pieces]


def _text(data: bytes) -> str:
    return data.rstrip(b"\r").decode("utf-8", "replace").replace("\x00", "\ufffd")
