# SPDX-License-Identifier: Apache-2.0
"""What an exporter sees of its machine, and that it ends when it is told to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from surefoot.monitoring.runner import Watch


@pytest.mark.parametrize("turns", range(6))
def test_a_watch_ends_in_whatever_moment_it_is_told_to(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # A disk answers in the very moment: on Python 3.11 `asyncio.wait_for` returned the answer, and dropped the rest.
    async def watched() -> bool:
        asked, disk = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def in_thread(*_: Any) -> Any:
            asked.set()
            return await disk

        monkeypatch.setattr(asyncio, "to_thread", in_thread)
        watch = Watch(every=1000.0)
        watch.found.machine.looked_at = 1.0  # so that it does not wait for the first figure of the processor
        task = asyncio.create_task(watch.run())
        await asked.wait()
        disk.set_result(12.5)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task}, timeout=5.0)
        return task.done()

    assert asyncio.run(watched())
