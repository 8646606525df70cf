# SPDX-License-Identifier: Apache-2.0
"""One run of ansible-playbook in a deployment's folder, followed by what our callback tells while it runs.

Guarantees: what our own play prints is left out of the output, unless the run does not get beyond it; the sockets of
its connections are gone when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from surefoot.agent.attempt import Ran
from surefoot.agent.commands import Output
from surefoot.agent.performer import CannotBeginError, Job
from surefoot.agent.secrets import LONGEST_OUTPUT
from surefoot.core.errors import Code
from surefoot.core.plan import Plan, Playbook
from surefoot.steps.ansible import BEGIN, AnsibleRun, Progress, name_hosts
from surefoot.steps.fence import Fence

if TYPE_CHECKING:
    from surefoot.agent.world import World


async def _nothing(_: Progress) -> None:
    pass


async def run_ansible(
    world: World,
    job: Job,
    fence: Fence | None,
    env: Mapping[str, str],
    output: Output,
    *,
    timeout: float,
    raise_within: float,
    playbook: str | None = None,
    on_hosts: str = "true",
    raises: bool = True,
    begun: Callable[[Progress], Awaitable[None]] = _nothing,
    only: str = "",
) -> tuple[Progress, Ran]:
    """Run ansible-playbook for at most `timeout` seconds; return what its callback told, and how it ended.

    `begun` is called once all hosts are raised and the user's playbook is to begin, which must be so after
    `raise_within` seconds: its first task waits until that is done, and never runs if it can't be. For the rest see
    `AnsibleRun`.
    """
    plan = job.state.plan
    assert plan.inventory is not None
    folder = await world.prepare(job)
    variables = {name.lower(): value for name, value in env.items()}
    beside = playbook or _first(plan)
    progress = Progress(plan.inventory)
    beginning: list[asyncio.Task[None]] = []
    # A host that takes commands but never ends one keeps nobody waiting for as long as a step may take.
    limit = asyncio.timeout(min(timeout, raise_within) if raises else timeout)
    end = asyncio.get_running_loop().time() + timeout

    def line(text: bytes) -> None:
        before = progress.begun
        progress.take(text)
        if progress.begun and not before:
            with contextlib.suppress(RuntimeError):  # the run has ended already
                limit.reschedule(end)
            beginning.append(asyncio.create_task(_let_go(go, begun(progress))))

    async with contextlib.AsyncExitStack() as kept:
        with world.beginning(job):
            # Sockets' paths are short: no folder of ours would do.
            control = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="sf-", ignore_cleanup_errors=True)))
            # Ansible's own are of what it sends: templates, vaults that it has opened.
            temporary = kept.enter_context(
                tempfile.TemporaryDirectory(prefix="ansible-", dir=folder.parent, ignore_cleanup_errors=True)
            )
            hosts = _hosts_named(control, job, raises=raises) if fence is not None else None
            wait, write = os.pipe()
            kept.callback(os.close, wait)
            go = kept.enter_context(os.fdopen(write, "wb", buffering=0))
            kept.push_async_callback(_all_done, beginning)
            told, tell = os.pipe()
        kept.callback(os.close, tell)
        kept.callback(_Lines(told, line).close)
        run = AnsibleRun(
            folder, plan.inventory, fence, control, playbook, variables, on_hosts, raises,
            limit=only, hosts=hosts, beside=beside, temporary=temporary,
        )  # fmt: skip
        ran = await world.process(
            job,
            _argv(run),
            env={**env, **run.environment(world.environ, tell, wait)},
            output=_AfterPrelude(output) if playbook else output,
            timeout=limit,
            pass_fds=(tell, wait),
            tidy=(str(control), temporary),
        )
    return progress, ran


async def _let_go(go: BinaryIO, begun: Awaitable[None]) -> None:
    """Once `begun` is done, let the user's playbook begin: it waits for a byte of this pipe, and ends with the pipe."""
    with go:
        await begun
        with contextlib.suppress(BrokenPipeError):  # it is gone
            go.write(b"1")


async def _all_done(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        await task


def _hosts_named(folder: Path, job: Job, *, raises: bool) -> Path | None:
    """Say which hosts the inventory has to name, if it may not name any."""
    hosts = job.state.hosts_wanted(raises=raises)
    return name_hosts(folder, hosts, or_more=job.state.hosts_may_be_more(raises=raises)) if hosts else None


def _first(plan: Plan) -> str | None:
    works = (work for step in plan.steps for work in (step.work, step.undo))
    return next((work.playbook for work in works if isinstance(work, Playbook)), None)


def _argv(run: AnsibleRun) -> tuple[str, ...]:
    try:
        return run.argv()
    except FileNotFoundError as error:
        hint = "where the agent runs: pip install ansible-core"
        raise CannotBeginError(str(error), code=Code.STEP_NOT_STARTED, hint=hint) from error


class _AfterPrelude:
    """Leaves out what our own play prints before the user's playbook, unless the run does not get beyond it."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._held: bytearray | None = bytearray()

    def feed(self, stream: str, data: bytes) -> None:
        if stream == "stdout" and self._held is not None:
            self._held += data
            before, mark, data = bytes(self._held).partition(BEGIN)
            if not mark:
                if len(before) < LONGEST_OUTPUT:
                    return
                data = before
            self._held = None
        self._output.feed(stream, data)

    def close(self) -> None:
        if self._held:
            self._output.feed("stdout", bytes(self._held))
        self._output.close()


class _Lines:
    """Reads lines from a pipe as they come."""

    def __init__(self, fd: int, take: Callable[[bytes], None]) -> None:
        self._fd = fd
        self._take = take
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._fd)
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        return True

    def close(self) -> None:
        """Take what is left, and let go."""
        while self._read():
            pass
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
