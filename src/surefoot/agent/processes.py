# SPDX-License-Identifier: Apache-2.0
"""Runs commands under the shim, and reads what they print.

Guarantees: `wait` returns when all that the command printed was delivered and nothing of it runs any more (save what
may stay); the command inherits neither the shim's socket nor the descriptors that carry the agent's presence; nothing
of its environment shows in the process list but the command itself.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from surefoot.agent import leftovers, shim

#: Bytes taken from a pipe at once.
CHUNK = 64 * 1024

Output = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True)
class Spawn:
    """A command to be run. `scope` and `token` say whose it is, for whoever has to clean up after us."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    scope: str
    token: int
    leaves_processes: bool = False
    pass_fds: tuple[int, ...] = ()  #: closed here once the command has them


class EndReason(StrEnum):
    """Why a command ended."""

    EXITED = "exited"
    STOPPED = "stopped"  #: on our request
    EXPIRED = "expired"  #: the lease ran out
    KILLED = "killed"  #: somebody sent the shim a signal
    ORPHANED = "orphaned"  #: the shim was killed, and we have cleaned up after it
    FAILED = "failed"  #: it never began; `error` says why


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    reason: EndReason
    exit_code: int | None = None
    signal: int | None = None
    leftovers: int = 0  #: processes that had to be killed besides
    error: str = ""


class RunningAttempt(Protocol):
    """A command under its shim."""

    def extend(self, until: float) -> None:
        """Move the deadline on (CLOCK_BOOTTIME, seconds)."""

    async def stop(self, grace: float) -> None:
        """Ask the command to end (SIGTERM), and kill all that is left after `grace` seconds."""

    async def wait(self) -> Ended:
        """Return once nothing is left."""


class ProcessRunner(Protocol):
    """Starts commands."""

    async def run(self, spawn: Spawn, *, output: Output, until: float) -> RunningAttempt:
        """Start a command whose lease is good until then; `output(stream, data)` gets what it prints."""


class ShimRunner:
    """Starts each command under a shim of its own."""

    def __init__(self, attempts: Path, presence_fds: Callable[[], Sequence[int]] = tuple) -> None:
        """`attempts` is this machine's registry of running attempts."""
        self._attempts = attempts
        self._presence_fds = presence_fds

    async def run(self, spawn: Spawn, *, output: Output, until: float) -> RunningAttempt:
        """See ProcessRunner."""
        return _Attempt(spawn, self._attempts, tuple(self._presence_fds()), output, until)


class _Attempt:
    """One shim, seen from the agent."""

    def __init__(self, spawn: Spawn, attempts: Path, presence: tuple[int, ...], output: Output, until: float) -> None:
        loop = asyncio.get_running_loop()
        self._output = output
        self._marker = uuid.uuid4().hex
        self._record = attempts / self._marker
        self._loop = loop
        self._buffer = b""
        self._out: bytes = b""
        self._ended: asyncio.Future[Ended] = loop.create_future()
        ours, theirs = socket.socketpair()
        stdout, stderr = os.pipe(), os.pipe()
        inherited = (theirs.fileno(), stdout[1], stderr[1], *spawn.pass_fds, *presence)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", shim.__file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=inherited,
                start_new_session=True,
                cwd="/",
            )
        finally:
            theirs.close()
            for fd in (stdout[1], stderr[1], *spawn.pass_fds):
                os.close(fd)
        self._control = ours
        ours.setblocking(False)
        self._pipes = {stdout[0]: "stdout", stderr[0]: "stderr"}
        for fd in self._pipes:
            os.set_blocking(fd, False)
            loop.add_reader(fd, self._read, fd)
        loop.add_reader(ours, self._hear)
        self._say(
            {
                "argv": list(spawn.argv),
                "cwd": str(spawn.cwd),
                "env": {**spawn.env, "SUREFOOT_ATTEMPT_MARKER": self._marker},
                "stdout": stdout[1],
                "stderr": stderr[1],
                "pass_fds": list(spawn.pass_fds),
                "presence_fds": list(presence),
                "leaves_processes": spawn.leaves_processes,
                "until": until,
                "scope": spawn.scope,
                "token": spawn.token,
                "marker": self._marker,
                "record": str(self._record),
            }
        )

    def extend(self, until: float) -> None:
        self._say({"until": until})

    async def stop(self, grace: float) -> None:
        self._say({"stop": grace})

    async def wait(self) -> Ended:
        return await asyncio.shield(self._ended)

    # -- talking -------------------------------------------------------------------------------------

    def _say(self, message: dict[str, Any]) -> None:
        self._out += shim.frame(message)
        self._flush()

    def _flush(self) -> None:
        if self._control.fileno() < 0:
            return
        try:
            while self._out:
                self._out = self._out[self._control.send(self._out) :]
        except BlockingIOError:
            self._loop.add_writer(self._control, self._flush)
            return
        except OSError:
            self._out = b""  # the shim is gone; `_hear` takes note
        self._loop.remove_writer(self._control)

    def _hear(self) -> None:
        try:
            data = self._control.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        messages, self._buffer = shim.frames(self._buffer + data)
        if not messages and data:
            return
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()
        task = self._loop.create_task(self._finish(messages[0] if messages else None))
        task.add_done_callback(self._finished)

    async def _finish(self, report: dict[str, Any] | None) -> Ended:
        """Wait for the shim itself, clean up after it where it was killed, and read what is left in the pipes."""
        await asyncio.to_thread(self._process.wait)
        killed = 0
        if report is None:
            killed = len(await asyncio.to_thread(leftovers.end_attempt, self._record, self._marker))
        for fd in tuple(self._pipes):
            while fd in self._pipes and self._read(fd):
                pass
            self._close(fd)
        if report is None:
            return Ended(EndReason.ORPHANED, leftovers=killed)
        return Ended(
            EndReason(report["ended"]),
            exit_code=report.get("exit_code"),
            signal=report.get("signal"),
            leftovers=report.get("leftovers", 0),
            error=report.get("error", ""),
        )

    def _finished(self, task: asyncio.Task[Ended]) -> None:
        if task.cancelled():
            self._ended.cancel()
        elif (error := task.exception()) is not None:
            self._ended.set_exception(error)
        elif not self._ended.done():
            self._ended.set_result(task.result())

    # -- reading -------------------------------------------------------------------------------------

    def _read(self, fd: int) -> bool:
        """Deliver what a pipe holds; return whether there may be more at once."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._close(fd)
            return False
        self._output(self._pipes[fd], data)
        return True

    def _close(self, fd: int) -> None:
        if fd in self._pipes:
            del self._pipes[fd]
            self._loop.remove_reader(fd)
            os.close(fd)
