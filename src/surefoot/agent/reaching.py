# SPDX-License-Identifier: Apache-2.0
"""How the courier reaches secrets: without a lease, and without the folder of a deployment that is under way.

Guarantees: a command that is asked for a secret ends within its time, and with the agent; the project's files, where
they are needed at all, are in a folder of their own for as long as that takes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from surefoot.agent.access import StoreAccess
from surefoot.agent.bundle import unpack
from surefoot.agent.processes import ProcessRunner, Spawn
from surefoot.agent.secrets import Captured, Printed, Reach
from surefoot.core.deployment import Deployment
from surefoot.store.protocol import Store


@asynccontextmanager
async def reaching(
    state: Deployment,
    *,
    agent: str,
    store: Store,
    access: StoreAccess,
    runner: ProcessRunner,
    clock: Callable[[], float],
    identity: str,
    parent: Path,
) -> AsyncIterator[Reach]:
    """Give the way to a deployment's secrets; `parent` is the agent's own folder."""
    made: list[Path] = []
    making = asyncio.Lock()

    async def folder() -> Path:
        async with making:
            if not made:
                made.append(Path(tempfile.mkdtemp(prefix="secrets-", dir=parent)))
                if state.bundle is not None:
                    chunks = await access(lambda digest: list(store.get_bundle(digest)), state.bundle)
                    await asyncio.to_thread(unpack, chunks, made[0] / "files", state.bundle)
            return made[0] / "files" if state.bundle is not None else made[0]

    async def run(argv: Sequence[str], stdin: bytes, environ: Mapping[str, str], timeout: float) -> Printed:
        captured = Captured()
        spawn = Spawn(
            tuple(argv), cwd=await folder(), env={**os.environ, **environ}, scope=f"{identity}/secrets", token=0,
            stdin=stdin,
        )  # fmt: skip
        attempt = await runner.run(spawn, output=captured.feed, until=clock() + timeout)
        try:
            ended = await attempt.wait()
        except asyncio.CancelledError:
            await attempt.stop(0.0)
            raise
        return Printed(ended.exit_code, captured.bytes("stdout"), captured.text("stderr") or ended.error)

    try:
        yield Reach(agent, run, folder)
    finally:
        for path in made:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
