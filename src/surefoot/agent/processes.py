# SPDX-License-Identifier: Apache-2.0
"""Runs commands under the shim, and reads what they print.

Guarantees: `wait` returns when all that the command printed was delivered and nothing of it runs any more (save what
may stay), within moments of the deadline or of a stop, even if the shim is frozen or was killed; the command inherits
neither the shim's socket nor the descriptors that carry the agent's presence; nothing of its environment shows in the
process list. Output is never held back and never collected here: whoever takes it decides what to keep.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import importlib.util
import marshal
import os
import socket
import subprocess
import sys
import termios
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from surefoot.agent import leftovers, shim

#: Bytes taken from a pipe at once.
CHUNK = 64 * 1024
#: Seconds after which a shim that should have ended its command is taken for frozen. After a grace of 0.3 s, what was
#: cancelled is still gone within a second.
OVERDUE = 0.5

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
    pass_fds: tuple[int, ...] = ()
    stdin: bytes | None = None  #: what it reads instead of nothing
    tidy: tuple[str, ...] = ()  #: folders of its own that go with it, whoever dies


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
        """Return once nothing is left. StuckError if that can't be reached."""


class ProcessRunner(Protocol):
    """Starts commands."""

    async def run(self, spawn: Spawn, *, output: Output, until: float) -> RunningAttempt:
        """Start a command whose lease is good until then; `output(stream, data)` gets what it prints."""


class ShimRunner:
    """Starts each command under a shim of its own."""

    def __init__(
        self, attempts: Path, presence_fds: Callable[[], Sequence[int]] = tuple, *, cgroups: bool = True
    ) -> None:
        """`attempts` is this machine's registry of running attempts; `cgroups` are used where we may make them."""
        self._attempts = attempts
        self._presence_fds = presence_fds
        self._cgroups = cgroups

    async def run(self, spawn: Spawn, *, output: Output, until: float) -> RunningAttempt:
        """See ProcessRunner."""
        assert "\n" not in spawn.scope
        try:
            return _Attempt(spawn, self._attempts, tuple(self._presence_fds()), output, until, cgroup=self._cgroups)
        except (OSError, ValueError) as error:  # out of descriptors, memory or processes; text that is none
            return _Unstarted(f"the shim could not be started: {error}")


class _Unstarted:
    """A command that never began."""

    def __init__(self, error: str) -> None:
        self._error = error

    def extend(self, until: float) -> None:
        pass

    async def stop(self, grace: float) -> None:
        pass

    async def wait(self) -> Ended:
        return Ended(EndReason.FAILED, error=self._error)


class _Attempt:
    """One shim, seen from the agent."""

    def __init__(
        self,
        spawn: Spawn,
        attempts: Path,
        presence: tuple[int, ...],
        output: Output,
        until: float,
        *,
        cgroup: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._output = output
        self._marker = uuid.uuid4().hex
        self._record = attempts / self._marker
        self._in = self._out = b""
        self._ended: asyncio.Future[Ended] = self._loop.create_future()
        self._until = until
        self._stop_by = float("inf")
        self._forced: EndReason | None = None
        self._tasks: set[asyncio.Future[Any]] = set()
        with contextlib.ExitStack() as given, contextlib.ExitStack() as kept:
            stdin = () if spawn.stdin is None else (_in_memory(spawn.stdin, given),)
            environ = {**spawn.env, leftovers.MARKER: self._marker}
            command = {
                "argv": [os.fsencode(argument) for argument in spawn.argv],
                "cwd": os.fsencode(spawn.cwd),
                "env": {os.fsencode(name): os.fsencode(value) for name, value in environ.items()},
            }
            self._control, theirs = socket.socketpair()
            given.callback(theirs.close)
            kept.callback(self._control.close)
            (out, shims_out), (err, shims_err) = (_pipe(given, kept) for _ in range(2))
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "/proc/self/fd/0", str(theirs.fileno()), "surefoot-shim"],
                stdin=_program(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), shims_out, shims_err, *spawn.pass_fds, *stdin, *presence),
                start_new_session=True,
                cwd="/",
            )
            kept.pop_all()
        self._control.setblocking(False)
        self._loop.add_reader(self._control, self._hear)
        self._pipes = {out: "stdout", err: "stderr"}
        for fd in self._pipes:
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._read, fd)
        self._watch: asyncio.TimerHandle | None = None
        self._say(
            command
            | {
                "stdout": shims_out,
                "stderr": shims_err,
                "pass_fds": list(spawn.pass_fds),
                "stdin": list(stdin),
                "tidy": list(spawn.tidy),
                "presence_fds": list(presence),
                "leaves_processes": spawn.leaves_processes,
                "cgroup": cgroup,
                "until": until,
                "scope": spawn.scope,
                "token": spawn.token,
                "marker": self._marker,
                "record": str(self._record),
            }
        )
        self._keep_watch()

    def extend(self, until: float) -> None:
        self._until = max(self._until, until)
        self._say({"until": until})

    async def stop(self, grace: float) -> None:
        self._stop_by = min(self._stop_by, shim.now() + grace)
        self._say({"stop": grace})
        self._keep_watch()

    async def wait(self) -> Ended:
        return await asyncio.shield(self._ended)

    # -- talking -------------------------------------------------------------------------------------

    @property
    def _talks(self) -> bool:
        return self._control.fileno() >= 0

    def _say(self, message: dict[str, Any]) -> None:
        if self._talks:
            self._out += shim.frame(message)
            self._flush()

    def _flush(self) -> None:
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
        messages, self._in = shim.frames(self._in + data)
        if not messages and data:
            return
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()
        if self._watch is not None:
            self._watch.cancel()
        self._do(self._finish(messages[0] if messages else None))

    # -- a shim that does not do its duty ------------------------------------------------------------

    def _keep_watch(self) -> None:
        """See to it that the command ends in time even if its shim is frozen."""
        if self._watch is not None:
            self._watch.cancel()
        if not self._talks:
            return
        left = min(self._until, self._stop_by) + OVERDUE - shim.now()
        if left > 0:
            self._watch = self._loop.call_later(left, self._keep_watch)
        elif self._forced is None:
            self._forced = EndReason.STOPPED if self._stop_by < self._until else EndReason.EXPIRED
            # It kills the shim at last, so `_hear` meets the end of its socket.
            self._do(asyncio.to_thread(leftovers.end_attempt, self._record, self._marker), ends=False)

    # -- ending --------------------------------------------------------------------------------------

    def _do(self, work: Any, *, ends: bool = True) -> None:
        """Do `work` in the background; its result ends the attempt if it `ends`, its error always does."""

        def done(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            if self._ended.done():
                return
            if task.cancelled():
                self._ended.cancel()
            elif (error := task.exception()) is not None:
                self._ended.set_exception(error)
            elif ends:
                self._ended.set_result(task.result())

        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(done)

    async def _finish(self, report: dict[str, Any] | None) -> Ended:
        """Clean up after the shim where it was killed, and read what is left in the pipes."""
        killed: list[int] = []
        try:
            if report is None:
                killed = await asyncio.to_thread(leftovers.end_attempt, self._record, self._marker)
            await self._reap_shim()
            for fd in tuple(self._pipes):
                self._drain(fd)
        finally:
            for fd in tuple(self._pipes):
                self._close(fd)
        if report is None:
            return Ended(self._forced or EndReason.ORPHANED, leftovers=len(killed))
        return Ended(
            EndReason(report["ended"]),
            exit_code=report.get("exit_code"),
            signal=report.get("signal"),
            leftovers=report.get("leftovers", 0),
            error=report.get("error", ""),
        )

    async def _reap_shim(self) -> None:
        """Wait for the end of a shim that has nothing left to do."""
        fd = os.pidfd_open(self._process.pid)
        gone = asyncio.Event()
        self._loop.add_reader(fd, gone.set)
        try:
            async with asyncio.timeout(OVERDUE):
                await gone.wait()
        except TimeoutError:
            self._process.kill()  # frozen between its report and its end
            await gone.wait()
        finally:
            self._loop.remove_reader(fd)
            os.close(fd)
        self._process.wait()

    # -- reading -------------------------------------------------------------------------------------

    def _read(self, fd: int) -> int:
        """Deliver what a pipe holds, up to a chunk; return how much that was."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return 0
        if data:
            self._output(self._pipes[fd], data)
        else:
            self._close(fd)
        return len(data)

    def _drain(self, fd: int) -> None:
        """Deliver what a pipe holds now, and no more: what was left running may write into it for ever."""
        left = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
        while left > 0 and (got := self._read(fd)):
            left -= got

    def _close(self, fd: int) -> None:
        if fd in self._pipes:
            del self._pipes[fd]
            self._loop.remove_reader(fd)
            os.close(fd)


def _pipe(given: contextlib.ExitStack, kept: contextlib.ExitStack) -> tuple[int, int]:
    """Return a pipe whose writing end is given away."""
    ours, theirs = os.pipe()
    kept.callback(os.close, ours)
    given.callback(os.close, theirs)
    return ours, theirs


def _in_memory(data: bytes, given: contextlib.ExitStack) -> int:
    """Return a file in memory that holds data, to be given away."""
    fd = os.memfd_create("surefoot-stdin")
    given.callback(os.close, fd)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


@functools.cache
def _program() -> int:
    """Return a file in memory with the shim, compiled: to compile it anew took a third of each start.

    An agent whose installed files are replaced while it runs thus goes on with the shim that understands it.
    """
    code = compile(Path(shim.__file__).read_bytes(), shim.__file__, "exec", dont_inherit=True)
    fd = os.memfd_create("surefoot-shim")
    with open(fd, "wb", closefd=False) as file:
        # As in PEP 552: a header that says that nothing needs to be checked.
        file.write(importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(code))
    return fd
