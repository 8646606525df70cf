# SPDX-License-Identifier: Apache-2.0
"""Processes of the command line that need not import it first: forked off one that has.

What a test starts so is a process of its own, with arguments, folder, environment and streams of its own; it runs the
same code as any other, and ends as any other does. Only Python's start and the imports, which are most of what a short
command costs, happen once for all of them, and at their end what was imported is not taken apart. What a test changes
of Python itself (PYTHONPATH, LD_PRELOAD, the locale) has a process started in the plain way; so are those that tests of
the start itself are about.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Variables that Python, the loader or libraries read when they start.
AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "FAKETIME", "OPENSSL", "SSL_", "MALLOC_")
#: What commands import of ours, at last.
PACKAGES = ("agent", "api", "checks", "cli", "config", "core", "integrations", "monitoring", "reports")
PACKAGES += ("steps", "store")
#: The command line, after something was done to it.
PLAIN = """
import runpy, sys
exec(sys.argv.pop(1))
runpy.run_module("surefoot", run_name="__main__")
"""


class Surefoot(subprocess.Popen[Any]):
    """A process of the command line; see the module's docstring. `first` is Python that it runs before."""

    def __init__(self, args: Sequence[str], *, first: str = "", **options: Any) -> None:
        """Start `surefoot ARGS`; `options` are Popen's."""
        self._request: dict[str, Any] = {"args": list(args), "first": first}
        self._status = -1
        super().__init__([sys.executable, "-c", PLAIN, first, *args], **options)

    def _execute_child(self, *given: Any) -> None:
        # As CPython calls it since 3.11: what becomes of a process, its streams (ours and its), and whose it is.
        (_, _, preexec_fn, _, pass_fds, cwd, env, _, _, _, *streams) = given
        stdin, theirs_in, out, stdout, err, stderr, _, gid, gids, uid, umask, session, group = streams
        mine = dict(os.environ if env is None else env)
        special = preexec_fn or pass_fds or gid is not None or gids is not None or uid is not None or umask != -1
        if special or group != -1 or _at_start(mine) != _at_start(os.environ):
            super()._execute_child(*given)  # type: ignore[misc]
            return
        self._request |= {"cwd": os.fspath(cwd or Path.cwd()), "env": mine, "session": session}
        status, tell = os.pipe()
        fds = [mine if given == -1 else given for given, mine in ((stdin, 0), (stdout, 1), (stderr, 2))]
        try:
            self.pid = _parent().fork(self._request, [*fds, tell])
        except BaseException:
            os.close(status)
            raise
        finally:
            os.close(tell)
        self._status = status
        self._child_created = True
        self._close_pipe_fds(stdin, theirs_in, out, stdout, err, stderr)  # type: ignore[attr-defined]

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if self._status < 0:
            return super()._try_wait(flags)  # type: ignore[misc]
        if flags & os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        told = os.read(self._status, 100)
        os.close(self._status)
        self._status = -2
        assert told, "the parent of all commands is gone"
        return self.pid, int(told)

    def _internal_poll(self, *given: Any, **more: Any) -> int | None:
        if self._status == -1:
            return super()._internal_poll(*given, **more)  # type: ignore[misc]
        if self.returncode is None and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid == self.pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


def run(args: Sequence[str], *, timeout: float | None = None, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run `surefoot ARGS` to its end, as subprocess.run does."""
    if options.pop("capture_output", False):
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Surefoot(args, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(["surefoot", *args], process.returncode, out, err)


def _at_start(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(AT_START)}


class _Parent:
    """The process that has imported everything, seen from a test's."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._one = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        atexit.register(self.close)

    def fork(self, request: Mapping[str, Any], fds: Sequence[int]) -> int:
        """Have a process made; return its id."""
        with self._one:
            socket.send_fds(self._line, [json.dumps(request).encode()], fds)
            return int(self._line.recv(100))

    def close(self) -> None:
        self._line.close()
        self._process.wait()


@functools.cache
def _parent() -> _Parent:
    return _Parent()


def _import_all() -> None:
    for package in PACKAGES:
        module = importlib.import_module(f"surefoot.{package}")
        for found in pkgutil.walk_packages(module.__path__, f"{module.__name__}."):
            importlib.import_module(found.name)


def _serve(line: socket.socket) -> None:
    """Fork for each request; tell each process's status when it has ended. Returns in the processes made, ready to go
    on, and raises SystemExit when nobody asks any more.
    """
    children: dict[int, int] = {}
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    asks: list[Any] = [line, woken]
    while True:
        ready = select.select(asks, [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            while children and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                tell = children.pop(ended[0])
                with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                    os.write(tell, str(ended[1]).encode())
                os.close(tell)
        if line in ready:
            data, fds, _, _ = socket.recv_fds(line, 1 << 20, 4)
            if not data:
                sys.exit()
            if not (pid := os.fork()):
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                line.detach()
                _become(json.loads(data), fds)
                return
            children[pid] = fds[3]
            for fd in fds[:3]:
                os.close(fd)
            line.send(str(pid).encode())


def _become(request: Mapping[str, Any], fds: Sequence[int]) -> None:
    """Be a process that was just started."""
    for fd, given in enumerate(fds[:3]):
        os.dup2(given, fd)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["surefoot", *request["args"]]
    # As Python does it: streams that do not close what they are about when others take their place.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    exec(request["first"], {})


def _end(code: object) -> None:
    """End as Python does, but for taking all that was imported apart, which would take ten times as long as a command:
    the kernel would have to copy it first. Returns where Python has something to say about the end.
    """
    if not isinstance(code, int):
        return
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)


if __name__ == "__main__":
    _import_all()
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from surefoot.cli.main import main

    try:
        main()
    except SystemExit as ended:
        _end(ended.code)
        raise
