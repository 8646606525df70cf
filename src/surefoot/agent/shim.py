# SPDX-License-Identifier: Apache-2.0
"""The dead man's switch: runs one command and ends all of it when its lease runs out, its agent dies, or it is told to.

Run as `python -I -S shim.py FD`; FD is a socket for messages from and to the agent (`frame`). The shim is a child
subreaper, so whatever the command starts, however it detaches, stays below it. Guarantees: it reports the end only
when nothing is left below it (save what may stay); neither agent nor store is needed to end it in time. It does not
survive its own SIGKILL: `leftovers` finds what is left then.

Imports as little as can be, since it is started for each attempt: json, enum-laden signal, socket, contextlib and
pathlib together cost more than Python's own start.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any
else:
    import _signal as signal

PR_SET_CHILD_SUBREAPER = 36
#: Seconds between looks at what is left while everything is being killed.
KILL_AGAIN = 0.005
#: The longest sleep: a deadline counts through a suspend, poll() does not.
LONGEST_SLEEP = 1.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def now() -> float:
    """Return the clock that deadlines are told in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def frame(message: dict[str, Any]) -> bytes:
    """Return a message as it goes over the socket: its length in four bytes, then marshal's form (both ends are
    one Python).
    """
    data = marshal.dumps(message)
    return len(data).to_bytes(4, "big") + data


def frames(buffer: bytes) -> tuple[list[dict[str, Any]], bytes]:
    """Return the messages that are whole, and the rest."""
    messages = []
    while len(buffer) >= 4 and len(buffer) >= (end := 4 + int.from_bytes(buffer[:4], "big")):
        messages.append(marshal.loads(buffer[4:end]))  # noqa: S302 - from our own agent
        buffer = buffer[end:]
    return messages, buffer


def attempt(action: Callable[..., object], *args: object) -> bool:
    """Do what may fail because somebody was faster; return whether it was done."""
    try:
        action(*args)
    except OSError:
        return False
    return True


def write(path: str, text: str) -> None:
    """Write a small file."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def read(path: str) -> str:
    """Read a small file."""
    with open(path, errors="surrogateescape") as file:
        return file.read()


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot: with the pid it names a process for ever. OSError
    if there is none.
    """
    return int(read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19])


class Switch:
    """One command, from its start to the end of its last process."""

    def __init__(self, control: int, config: dict[str, Any]) -> None:
        """Take the control socket and the agent's first message."""
        self.control = control
        self.config = config
        self.until: float = config["until"]
        self.buffer = b""
        self.main = 0
        self.status: int | None = None
        self.reason = ""
        self.kill_at: float | None = None
        self.killed = 0
        self.cgroup = None if config["leaves_processes"] else make_cgroup(config["marker"])
        self.wake, wake = os.pipe()
        for fd in (self.wake, wake):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in SIGNALS:
            signal.signal(number, lambda *_: self.end("killed"))

    def run(self) -> dict[str, Any]:
        """Run the command and return what to report."""
        self.register()
        try:
            error = self.spawn()
            if error:
                return {"ended": "failed", "error": error}
            while not self.over():
                self.sleep()
            left = self.reason == "" and self.status == 0 and self.config["leaves_processes"]
            if not left:
                self.kill_all()
        finally:
            self.unregister()
        code = os.waitstatus_to_exitcode(self.status) if self.status is not None else None
        return {
            "ended": self.reason or "exited",
            "exit_code": code if code is not None and code >= 0 else None,
            "signal": -code if code is not None and code < 0 else None,
            "leftovers": self.killed,
        }

    # -- beginning -----------------------------------------------------------------------------------

    def spawn(self) -> str:
        """Start the command; return what was wrong, if anything."""
        told, tell = os.pipe()  # closed by a successful exec
        pid = os.fork()
        if pid == 0:
            try:
                self.become_command()
            except OSError as error:
                os.write(tell, f"{error.strerror}: {error.filename or self.config['argv'][0]}".encode())
            os._exit(127)
        self.main = pid
        os.close(tell)
        for fd in (self.config["stdout"], self.config["stderr"], *self.config["pass_fds"]):
            os.close(fd)
        message = os.read(told, 4096).decode(errors="replace")
        os.close(told)
        if message:
            os.waitpid(pid, 0)
        return message

    def become_command(self) -> None:
        """Turn the forked child into the command."""
        os.setsid()
        for number in (*SIGNALS, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if self.cgroup:
            attempt(write, f"{self.cgroup}/cgroup.procs", "0")
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(self.config["stdout"], 1)
        os.dup2(self.config["stderr"], 2)
        for fd in self.config["pass_fds"]:
            os.set_inheritable(fd, True)
        os.chdir(self.config["cwd"])
        env = self.config["env"]
        os.execvpe(self.config["argv"][0], self.config["argv"], env)

    # -- waiting -------------------------------------------------------------------------------------

    def over(self) -> bool:
        """Take note of what has happened; say whether the command has ended or has to."""
        self.reap()
        if self.status is not None and (self.reason == "" or not children()):
            return True
        if self.reason == "" and now() >= self.until:
            self.end("expired")
        return self.kill_at is not None and now() >= self.kill_at

    def sleep(self) -> None:
        """Sleep until a message, a signal or the deadline."""
        wake_at = self.until if self.kill_at is None else self.kill_at
        poller = select.poll()
        poller.register(self.wake, select.POLLIN)
        if self.control >= 0:
            poller.register(self.control, select.POLLIN)
        ready = dict(poller.poll(max(0.0, min(wake_at - now(), LONGEST_SLEEP)) * 1000))
        if self.wake in ready:
            attempt(os.read, self.wake, 4096)
        if self.control in ready:
            self.listen()

    def listen(self) -> None:
        """Take the agent's messages; no agent is an order too."""
        try:
            data = os.read(self.control, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end("orphaned")
            os.close(self.control)
            self.control = -1
            return
        messages, self.buffer = frames(self.buffer + data)
        self.obey(messages)

    def obey(self, messages: list[dict[str, Any]]) -> None:
        """Do what the agent says."""
        for message in messages:
            if "until" in message:
                self.until = max(self.until, message["until"])
            elif self.reason == "":
                self.end("stopped", message["stop"])

    def end(self, reason: str, grace: float = 0.0) -> None:
        """Begin to end the command: at once, or after it has had its grace."""
        if self.reason == "":
            self.reason = reason
            self.kill_at = now() + grace
        if grace > 0:
            attempt(os.killpg, self.main, signal.SIGTERM)
        else:
            self.kill_at = now()

    # -- ending --------------------------------------------------------------------------------------

    def reap(self) -> bool:
        """Reap what has ended; return whether any child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.main:
                self.status = status

    def kill_all(self) -> None:
        """Kill whatever is left below the shim, until nothing is."""
        seen: set[int] = set()
        while self.reap():
            if self.cgroup:
                attempt(write, f"{self.cgroup}/cgroup.kill", "1")
            for pid in descendants():
                seen.add(pid)
                attempt(os.kill, pid, signal.SIGKILL)
            time.sleep(KILL_AGAIN)
        self.killed = len(seen - {self.main})

    # -- the registry --------------------------------------------------------------------------------

    def register(self) -> None:
        """Leave word of this attempt, for whoever has to clean up after a shim that was killed or frozen."""
        config = self.config
        lines = (
            os.getpid(),
            start_time(os.getpid()),
            config["token"],
            config["marker"],
            self.cgroup or "",
            config["scope"],
        )
        write(f"{config['record']}.new", "".join(f"{line}\n" for line in lines))
        os.rename(f"{config['record']}.new", config["record"])

    def unregister(self) -> None:
        """Nothing of this attempt is left that should not be."""
        attempt(os.unlink, self.config["record"])
        if self.cgroup:
            attempt(os.rmdir, self.cgroup)


def children(pid: int | None = None) -> list[int]:
    """Return the children of a process, of this one if none is named."""
    pid = pid or os.getpid()
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        return [int(child) for task in tasks for child in read(f"/proc/{pid}/task/{task}/children").split()]
    except OSError:  # it ended while we looked
        return []


def descendants(pid: int | None = None) -> list[int]:
    """Return all processes below one, nearest first."""
    found, look = [], children(pid)
    while look:
        found += look
        look = [child for parent in look for child in children(parent)]
    return found


def make_cgroup(name: str) -> str | None:
    """Make a cgroup below our own, whose processes can be killed in one stroke; None where we may not."""
    try:
        mounts = (line.split() for line in read("/proc/self/mounts").splitlines())
        root = next(mount[1] for mount in mounts if mount[2] == "cgroup2")
        groups = read("/proc/self/cgroup").splitlines()
        own = next(line.partition("::")[2] for line in groups if line.startswith("0::"))
        path = f"{root}{own.rstrip('/')}/surefoot-{name}"
        os.mkdir(path)
    except (OSError, StopIteration, IndexError):
        return None
    if os.path.exists(f"{path}/cgroup.kill"):
        return path
    os.rmdir(path)
    return None


def read_config(control: int) -> tuple[dict[str, Any], list[dict[str, Any]], bytes]:
    """Return the agent's first message, the ones that came with it, and the rest."""
    data = b""
    while True:
        more = os.read(control, 65536)
        if not more:
            sys.exit(0)  # the agent died before it said what to do
        messages, rest = frames(data + more)
        if messages:
            return messages[0], messages[1:], rest
        data = rest


def main() -> None:
    """Run the command that the agent describes, and report its end."""
    control = int(sys.argv[1])
    config, messages, rest = read_config(control)
    os.set_blocking(control, False)
    for fd in (control, *config["presence_fds"]):
        os.set_inheritable(fd, False)
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no child subreaper")
    switch = Switch(control, config)
    switch.obey(messages)
    switch.buffer = rest
    report = frame(switch.run())
    if switch.control >= 0:
        os.set_blocking(control, True)
        attempt(os.write, control, report)


if __name__ == "__main__":
    main()
