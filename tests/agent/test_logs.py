# SPDX-License-Identifier: Apache-2.0
"""The log's way to the store, where several tasks hurry it along."""

from __future__ import annotations

import asyncio
from typing import Any

from surefoot.agent.logs import LogSink
from surefoot.store.protocol import LogLine


async def test_lines_are_written_once_when_two_flush_at_the_same_time() -> None:
    written: list[str] = []

    async def slow(call: Any, deployment: str, lines: list[LogLine], grant: Any) -> Any:
        await asyncio.sleep(0.02)
        written.extend(line.text for line in lines)

    class Store:
        append_log = None

    sink = LogSink(Store(), slow)
    sink.add("prod-1", LogLine("one"))
    sink.add("prod-1", LogLine("two"))
    await asyncio.gather(sink.flush(), sink.last_words(), sink.flush())
    assert written == ["one", "two"]
