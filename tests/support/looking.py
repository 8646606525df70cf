# SPDX-License-Identifier: Apache-2.0
"""Runs one check as an agent does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import replace
from typing import Any

from surefoot.checks.model import CheckResult, CommandResult, Context
from surefoot.checks.registry import run_all
from surefoot.core.host import Host
from surefoot.core.plan import Check

#: What any check in a test may take; none takes long unless it hangs.
GENEROUS = 30.0
#: What a host mounts, it mounts for itself.
UNSHARED = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--map-root-user")


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
    """Return what a check may use on the agent."""
    known = {"version": "2.0", "previous_version": "1.0", "environment": "production", "agent": "runner-01", **values}
    return Context(values=known, hosts=hosts, secrets=secrets or {}, run=shell, here=shell)


def on_hosts(*hosts: Host, prelude: str = "", **values: str) -> Context:
    """Return what a check may use on hosts, each of which is this machine after a few words of sh."""

    async def reach(host: Host, script: str, timeout: float) -> CommandResult:
        process = await asyncio.create_subprocess_exec(
            *UNSHARED, "sh", "-c", f"{prelude}\n{script}", stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        try:
            async with asyncio.timeout(timeout):
                output, _ = await process.communicate()
        except TimeoutError:
            return CommandResult(255, "")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        return CommandResult(process.returncode, output.decode(errors="replace"))

    return replace(context(*hosts, **values), reach=reach)


async def look(kind: str, where: Context | None = None, **options: Any) -> CheckResult:
    """Run one check that is about at most one host."""
    async with asyncio.timeout(GENEROUS):
        (result,) = await run_all([Check(kind, options)], where or context())
    return result
