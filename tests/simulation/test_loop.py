# SPDX-License-Identifier: Apache-2.0
"""What the simulation rests on: sleeps, and machines that are frozen or paused in the midst of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from tests.simulation.loop import VirtualLoop, in_group


@pytest.fixture
def loop() -> VirtualLoop:
    return VirtualLoop(1)


def start(loop: VirtualLoop, group: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return loop.create_task(work, context=in_group(group))


async def sleeps(loop: VirtualLoop) -> tuple[float, str]:
    """Sleep for five seconds; return after how long that was over, by true time, and how."""
    began = loop.now
    try:
        await loop.sleep(5.0)
    except asyncio.CancelledError:
        return loop.now - began, "cancelled"
    return loop.now - began, "slept"


def played(loop: VirtualLoop, *groups: str, by: Callable[[list[asyncio.Task[Any]]], Awaitable[None]]) -> list[Any]:
    async def play() -> list[Any]:
        tasks = [start(loop, group, sleeps(loop)) for group in groups]
        await by(tasks)
        return list(await asyncio.gather(*tasks))

    try:
        return loop.run_until_complete(play())
    finally:
        loop.close()


def test_a_sleep_ends_in_its_time(loop: VirtualLoop) -> None:
    async def nothing(_: object) -> None:
        pass

    assert played(loop, "a", by=nothing) == [(5.0, "slept")]


def test_who_is_cancelled_wakes_up(loop: VirtualLoop) -> None:
    async def cancel(tasks: list[asyncio.Task[Any]]) -> None:
        await loop.nap(2.0)
        tasks[0].cancel()

    assert played(loop, "a", "b", by=cancel) == [(2.0, "cancelled"), (5.0, "slept")]


def test_who_cancels_itself_does_not_sleep(loop: VirtualLoop) -> None:
    async def at_once() -> tuple[float, str]:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        return await sleeps(loop)

    try:
        assert loop.run_until_complete(at_once()) == (0.0, "cancelled")
    finally:
        loop.close()


def test_who_is_frozen_has_slept_when_it_thaws(loop: VirtualLoop) -> None:
    async def freeze(_: object) -> None:
        await loop.nap(1.0)
        loop.freeze("a")
        await loop.nap(10.0)
        loop.thaw("a")

    assert played(loop, "a", "b", by=freeze) == [(11.0, "slept"), (5.0, "slept")]


def test_all_that_is_paused_sleeps_on_when_it_wakes_up(loop: VirtualLoop) -> None:
    async def pause(_: object) -> None:
        await loop.nap(1.0)
        for group in ("a", "b", "c"):
            loop.pause(group)
        await loop.nap(10.0)
        for group in ("a", "b", "c"):  # in one instant
            loop.thaw(group)

    assert played(loop, "a", "b", "c", by=pause) == [(15.0, "slept")] * 3


@pytest.mark.parametrize("after", [2.0, 9.0])
def test_who_is_cancelled_while_it_is_paused_hears_of_it_when_it_wakes_up(loop: VirtualLoop, after: float) -> None:
    async def cancel(tasks: list[asyncio.Task[Any]]) -> None:
        await loop.nap(1.0)
        loop.pause("a")
        await loop.nap(after)
        tasks[0].cancel()
        await loop.nap(10.0 - after)
        loop.thaw("a")

    assert played(loop, "a", by=cancel) == [(11.0, "cancelled")]
