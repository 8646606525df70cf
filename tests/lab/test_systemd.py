# SPDX-License-Identifier: Apache-2.0
"""The check `systemd` on a host with a real systemd."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from surefoot.checks.model import CheckStatus, CommandResult, Context
from surefoot.core.host import Host
from surefoot.drills.lab import Lab
from tests.support.looking import context, look

PASS, FAIL = CheckStatus.PASS, CheckStatus.FAIL
PATIENCE = 60.0
UNIT = "[Service]\nExecStart=/bin/sh -c '{}'\n{}"


@pytest.fixture(scope="module")
def where(lab: Lab) -> Context:
    """A context whose only host has three units: one that runs, one that fails, one that keeps falling over."""
    one = lab.add("one")
    lab.power_on()
    one.unit("steady", UNIT.format("exec sleep infinity", ""))
    one.unit("broken", UNIT.format("echo no such database; exit 3", ""))
    one.unit("falling", UNIT.format("exit 1", "Restart=always\nRestartSec=2s\nStartLimitBurst=1000\n"))
    one.systemctl("start", "steady", "broken", "falling")

    async def reach(host: Host, script: str, timeout: float) -> CommandResult:
        return CommandResult(0, await asyncio.to_thread(one.sh, script, check=False))

    return replace(context(Host("one", one.address)), reach=reach)


async def test_unit_that_runs_passes(where: Context) -> None:
    result = await look("systemd", where, unit="steady")
    assert (result.status, result.message) == (PASS, "one: steady.service is active")
    assert (await look("systemd", where, unit="steady.service", restarts_below=1)).status is PASS


async def eventually(where: Context, unit: str, said: str) -> None:
    """Wait until a unit is said to be so, which must be a failure."""
    end = time.monotonic() + PATIENCE
    while said not in (result := await look("systemd", where, unit=unit)).message:
        assert time.monotonic() < end, result.message
        await asyncio.sleep(0.1)
    assert result.status is FAIL


async def test_unit_that_failed_fails(where: Context) -> None:
    await eventually(where, "broken", "one: broken.service is failed (failed, exit-code)")


async def test_unit_that_keeps_falling_over_fails(where: Context) -> None:
    await eventually(where, "falling", "one: falling.service is activating (auto-restart, exit-code)")


async def test_unit_that_there_is_not_fails(where: Context) -> None:
    result = await look("systemd", where, unit="nothing")
    assert (result.status, "no such unit" in result.message) == (FAIL, True), result.message
