# SPDX-License-Identifier: Apache-2.0
"""Runs one check as an agent does."""

from __future__ import annotations

import asyncio
from typing import Any

from surefoot.checks.model import CheckResult, CommandResult, Context
from surefoot.checks.registry import run_all
from surefoot.core.host import Host
from surefoot.core.plan import Check

#: What any check in a test may take; none takes long unless it hangs.
GENEROUS = 30.0


async def shell(command: str, timeout: float) -> CommandResult:
    """Run a command as an agent would."""
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(timeout):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return CommandResult(None, "")
    return CommandResult(process.returncode, output.decode())


def context(*hosts: Host, secrets: dict[str, str] | None = None, **values: str) -> Context:
    """Return what a check may use."""
    known = {"version": "2.0", "previous_version": "1.0", "environment": "production", "agent": "runner-01", **values}
    return Context(values=known, hosts=hosts, secrets=secrets or {}, run=shell)


async def look(kind: str, where: Context | None = None, **options: Any) -> CheckResult:
    """Run one check that is about at most one host."""
    async with asyncio.timeout(GENEROUS):
        (result,) = await run_all([Check(kind, options)], where or context())
    return result
