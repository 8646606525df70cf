# SPDX-License-Identifier: Apache-2.0
"""A tiny supervisor for one host: owns the socket, runs `current/app.py` on it, and swaps the process on SIGHUP.

Guarantees: no request is refused by a swap (the new process is ready before the old one is told to end, and the socket
is never closed); the service ends with the supervisor. It stands in for systemd, which a machine that runs the demo may
not have.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

#: A new process that is not ready after so many seconds has failed; the old one goes on.
READY_WITHIN = 10.0
#: Seconds that an old process has to finish the requests it took.
DRAIN_WITHIN = 3.0
#: Seconds between looks whether the process still lives.
LOOK_EVERY = 0.5


def start(root: Path, listener: socket.socket) -> subprocess.Popen[bytes] | None:
    """Start the current release and return its process when it is ready to serve; None if it is not to be."""
    app = (root / "current" / "app.py").resolve()
    if not app.exists():
        return None
    ready, told = os.pipe()
    env = {**os.environ, "LISTEN_FD": str(listener.fileno()), "READY_FD": str(told)}
    process = subprocess.Popen([sys.executable, "-S", str(app)], env=env, pass_fds=(listener.fileno(), told))
    os.close(told)
    readable, _, _ = select.select([ready], [], [], READY_WITHIN)
    is_ready = bool(readable) and bool(os.read(ready, 1))  # nothing to read at its end: it died before
    os.close(ready)
    if is_ready:
        return process
    end(process)
    return None


def end(process: subprocess.Popen[bytes] | None) -> None:
    """End a process: it may finish the requests it took."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(DRAIN_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """Supervise the host whose folder and port are on the command line, until SIGTERM."""
    root, port = Path(sys.argv[1]), int(sys.argv[2])
    heard, tell = os.pipe()
    for end_of_pipe in (heard, tell):
        os.set_blocking(end_of_pipe, False)
    signal.set_wakeup_fd(tell)
    for wanted in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, lambda *_: None)
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    process = start(root, listener)
    (root / "supervisor.pid").write_text(f"{os.getpid()}\n")
    while True:
        select.select([heard], [], [], LOOK_EVERY)
        try:
            signals = os.read(heard, 64)
        except BlockingIOError:
            signals = b""
        if signal.SIGTERM in signals or signal.SIGINT in signals:
            end(process)
            return
        if signal.SIGHUP in signals:
            fresh = start(root, listener)
            if fresh is not None or not (root / "current").exists():
                end(process)
                process = fresh
        elif process is not None and process.poll() is not None:
            time.sleep(LOOK_EVERY)
            process = start(root, listener)


if __name__ == "__main__":
    main()
