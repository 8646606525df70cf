# SPDX-License-Identifier: Apache-2.0
"""The dead man's switch: runs one command and ends all of it when its lease runs out, its agent dies, or it is told to.

Run as `python -I -S SHIM FD`; FD is a socket for messages from and to the agent (`frame`). The shim is a child
subreaper, so whatever the command starts, however it detaches, stays below it: while waitpid() knows a child, something
is left, and when it knows none, nothing is. Guarantees: it reports the end only then (save what may stay); it needs
neither agent nor store to end the command in time; no signal that can be caught disarms it. It does not survive its own
SIGKILL, and does nothing while it is stopped: `leftovers` ends what is left then. What this user may not kill (a
command run by sudo) it can't; it goes on trying, and the attempt does not end before that has.

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

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CLONE3 = 435
CLONE_INTO_CGROUP = 0x2_0000_0000
#: Seconds between looks at what is left while all is being killed: at first, and at most. A death wakes us sooner.
KILL_AGAIN, KILL_AGAIN_AT_MOST = 0.002, 0.05
#: The longest sleep: a deadline counts through a suspend, poll() does not.
LONGEST_SLEEP = 1.0
#: Tries to empty a cgroup, and to remove it.
TRIES = 50
#: Signals that mean no end, or are the kernel's word that we can't go on. All others mean: end everything. (SIGTSTP and
#: its like stop nobody who leads a session without a terminal.)
HARMLESS = (
    *(signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGPIPE, signal.SIGXFSZ),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGKILL, signal.SIGSTOP),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT),
)


def now() -> float:
    """Return the clock that deadlines are told in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def frame(message: dict[str, Any]) -> bytes:
    """Return a message as it goes over the socket: its length in four bytes, then marshal's form.

    Both ends are one Python, so its own form will do.
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


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def write(path: str, text: str) -> None:
    """Write a small file."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text.encode(errors="surrogateescape"))
    finally:
        os.close(fd)


def read(path: str) -> str:
    """Read a small file."""
    with open(path, "rb", buffering=0) as file:
        return file.read().decode(errors="surrogateescape")


class Stat:
    """What /proc says of a process."""

    def __init__(self, pid: int) -> None:
        """Look a process up; OSError if there is none."""
        fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        self.state = fields[0]
        self.parent = int(fields[1])
        #: Clock ticks since boot: with the pid it names a process for ever.
        self.started = int(fields[19])

    @property
    def runs(self) -> bool:
        """Whether it is more than a dead process that nobody has asked for."""
        return self.state not in "ZX"


class Switch:
    """One command, from its start to the end of its last process."""

    def __init__(self, control: int, config: dict[str, Any]) -> None:
        """Take the control socket and the agent's first message."""
        self.control = control
        self.config = config
        self.until: float = config["until"]
        self.kill_at = float("inf")
        self.buffer = b""
        self.pid = os.getpid()
        self.main = 0
        self.failed = -1  #: where the forked child says why it could not become the command
        self.status: int | None = None
        self.reason = ""
        self.killed: set[int] = set()
        self.cgroup: str | None = None
        self.wake, wake = os.pipe()
        for fd in (self.wake, wake):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for deadly in set(range(1, signal.NSIG)) - set(HARMLESS):
            attempt(signal.signal, deadly, lambda *_: self.end("killed"))

    def run(self) -> dict[str, Any]:
        """Run the command and return what to report."""
        error = ""
        try:
            self.cgroup = make_cgroup(self.config["marker"]) if self.config["cgroup"] else None
            self.register()
            self.listen()
            if not self.over():
                self.spawn()
            while not self.over():
                self.sleep()
            error = self.why_not_begun()
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
        reason = self.reason or "exited"  # a signal from here on changes nothing
        if reason == "exited" and self.status == 0 and not error and self.config["leaves_processes"]:
            self.let_go()
        else:
            self.kill_all()
        self.unregister()
        if error:
            return {"ended": "failed", "error": error}
        code = None if self.status is None else os.waitstatus_to_exitcode(self.status)
        return {
            "ended": reason,
            "exit_code": code if code is not None and code >= 0 else None,
            "signal": -code if code is not None and code < 0 else None,
            "leftovers": len(self.killed - {self.main}),
        }

    # -- beginning -----------------------------------------------------------------------------------

    def spawn(self) -> None:
        """Start the command."""
        self.failed, tell = os.pipe()  # closed by a successful exec
        pid = fork(self.cgroup)
        if pid == 0:
            try:
                self.become_command()
            except BaseException as error:
                os.write(tell, str(error).encode(errors="replace")[:4096])
            finally:
                os._exit(127)
        self.main = pid
        stdin = self.config["stdin"]
        for fd in (tell, self.config["stdout"], self.config["stderr"], *self.config["pass_fds"], *stdin):
            os.close(fd)

    def become_command(self) -> None:
        """Turn the forked child into the command."""
        config = self.config
        os.setsid()
        for number in range(1, signal.NSIG):
            attempt(signal.signal, number, signal.SIG_DFL)
        # A shim that is killed takes at least the command itself with it.
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.pid:
            os._exit(127)
        os.dup2(config["stdin"][0] if config["stdin"] else os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(config["stdout"], 1)
        os.dup2(config["stderr"], 2)
        for fd in config["pass_fds"]:
            os.set_inheritable(fd, True)
        name = config["cwd"]
        try:
            os.chdir(name)
            name = config["argv"][0]
            os.execvpe(name, config["argv"], config["env"])
        except OSError as error:
            raise OSError(f"{error.strerror}: {os.fsdecode(name)}") from error

    def why_not_begun(self) -> str:
        """Return why the command never began, if so. Asked once its process is dead: then this can't block."""
        if self.failed < 0 or self.status is None:
            return ""
        return os.read(self.failed, 4096).decode(errors="replace")

    # -- waiting -------------------------------------------------------------------------------------

    def over(self) -> bool:
        """Take note of what has happened; say whether the command has ended or has to."""
        self.reap()
        if self.status is not None and self.reason == "":
            return True
        time_now = now()
        if time_now >= self.until and time_now < self.kill_at:  # in a grace, too
            self.reason = "expired"
            self.kill_at = time_now
        return time_now >= self.kill_at or (self.status is not None and not children(self.pid))

    def sleep(self) -> None:
        """Sleep until a message, a signal or the deadline."""
        poller = select.poll()
        poller.register(self.wake, select.POLLIN)
        if self.control >= 0:
            poller.register(self.control, select.POLLIN)
        left = min(self.until, self.kill_at) - now()
        ready = dict(poller.poll(max(0.0, min(left, LONGEST_SLEEP)) * 1000))
        if self.wake in ready:
            attempt(os.read, self.wake, 4096)
        if self.control in ready:
            self.listen()

    def listen(self) -> None:
        """Take the agent's messages; no agent is an order too."""
        if self.control < 0:
            return
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
            else:
                self.end("stopped", message["stop"])

    def end(self, reason: str, grace: float = 0.0) -> None:
        """Begin to end the command: at once, or after it has had its grace. A second word may only shorten that."""
        first = self.reason == ""
        if first:
            self.reason = reason
        self.kill_at = min(self.kill_at, now() + (grace if self.main else 0.0))
        if first and grace > 0 and self.main and self.status is None:
            attempt(os.killpg, self.main, signal.SIGTERM)
            attempt(os.killpg, self.main, signal.SIGCONT)  # what is stopped can't take its leave

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
        pause = KILL_AGAIN
        while self.reap():
            found = descendants(self.pid)
            if self.cgroup:
                attempt(write, f"{self.cgroup}/cgroup.kill", "1")
            for pid, parent in found:
                if self.kill(pid, parent):
                    self.killed.add(pid)
            # Each death wakes us: what forks without end is met again at once, what can't die costs little.
            poller = select.poll()
            poller.register(self.wake, select.POLLIN)
            if poller.poll(pause * 1000):
                attempt(os.read, self.wake, 4096)
            pause = min(pause * 2, KILL_AGAIN_AT_MOST)

    def kill(self, pid: int, parent: int) -> bool:
        """Kill a descendant; one that has ended meanwhile, whose pid somebody else may have, is left alone."""
        if parent == self.pid:  # nobody but us can reap it, so its pid is its own
            return attempt(os.kill, pid, signal.SIGKILL)
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return False
        try:
            stat = Stat(pid)
            if not stat.runs or stat.parent not in {parent, self.pid}:
                return False
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def let_go(self) -> None:
        """Leave what the command has left: it belongs where we belong, so that its cgroup can go."""
        if self.cgroup:
            leave_cgroup(self.cgroup)

    # -- the registry --------------------------------------------------------------------------------

    def register(self) -> None:
        """Leave word of this attempt, for whoever has to clean up after a shim that was killed or frozen."""
        config, record = self.config, self.config["record"]
        started = Stat(self.pid).started
        lines = (self.pid, started, config["token"], config["marker"], self.cgroup or "", config["scope"])
        os.makedirs(os.path.dirname(record), mode=0o700, exist_ok=True)
        write(f"{record}.new", "".join(f"{line}\n" for line in lines))
        os.rename(f"{record}.new", record)

    def unregister(self) -> None:
        """Nothing of this attempt is left that should not be."""
        if self.cgroup:
            remove_cgroup(self.cgroup)
        for folder in self.config["tidy"]:
            remove_folder(folder)
        for path in (self.config["record"], f"{self.config['record']}.new"):
            attempt(os.unlink, path)


def remove_folder(path: str) -> None:
    """Remove a folder of sockets and temporary files, as far as it can be."""
    try:
        entries = list(os.scandir(path))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_folder(entry.path)
        else:
            attempt(os.unlink, entry.path)
    attempt(os.rmdir, path)


def children(pid: int) -> list[int]:
    """Return the children of a process, perhaps not all while some end: whoever asks asks again."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        return [int(child) for task in tasks for child in read(f"/proc/{pid}/task/{task}/children").split()]
    except OSError:  # it has ended, or this kernel was built without that file
        return [child for child, stat in processes() if stat.parent == pid] if not lists_children() else []


def lists_children() -> bool:
    """Return whether this kernel tells the children of a process."""
    pid = os.getpid()
    return os.path.exists(f"/proc/{pid}/task/{pid}/children")


def processes() -> list[tuple[int, Stat]]:
    """Return all processes of this machine."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found.append((int(entry), Stat(int(entry))))
            except OSError:
                continue  # it has just ended
    return found


def descendants(pid: int) -> list[tuple[int, int]]:
    """Return all processes below one, each with its parent, nearest first."""
    found, look = [], [(child, pid) for child in children(pid)]
    while look:
        found += look
        look = [(child, parent) for parent, _ in look for child in children(parent)]
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
    attempt(os.rmdir, path)
    return None


def fork(cgroup: str | None) -> int:
    """Fork, with the child in that cgroup from its birth.

    Moving it there later would cost 20 ms, for which every fork on the machine has to wait. Where the kernel's call is
    not allowed, the child stays in our own.
    """
    if cgroup:
        folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        arguments = (ctypes.c_uint64 * 11)(CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, folder)
        python = ctypes.pythonapi
        python.PyOS_BeforeFork()
        pid: int = python.syscall(CLONE3, arguments, ctypes.sizeof(arguments))
        if pid == 0:
            python.PyOS_AfterFork_Child()
        else:
            python.PyOS_AfterFork_Parent()
        os.close(folder)
        if pid >= 0:
            return pid
    return os.fork()


def leave_cgroup(path: str) -> None:
    """Move what runs in a cgroup to the one above."""
    above = os.path.dirname(path)
    for _ in range(TRIES):
        try:
            pids = read(f"{path}/cgroup.procs").split()
        except OSError:
            return
        if not pids:
            return
        for pid in pids:
            attempt(write, f"{above}/cgroup.procs", pid)


def remove_cgroup(path: str) -> None:
    """Remove a cgroup and those that were made below it. One in which something stays, stays."""
    for _ in range(TRIES):
        for folder, _, _ in os.walk(path, topdown=False):
            attempt(os.rmdir, folder)
        if not os.path.exists(path):
            return
        time.sleep(KILL_AGAIN)  # the last process to die may not have left it yet


def read_config(control: int) -> tuple[dict[str, Any], list[dict[str, Any]], bytes]:
    """Return the agent's first message, the ones that came with it, and the rest."""
    data = b""
    while True:
        more = os.read(control, 65536)
        if not more:
            sys.exit(0)  # the agent died before it said what to do
        messages, data = frames(data + more)
        if messages:
            return messages[0], messages[1:], data


def main() -> None:
    """Run the command that the agent describes, and report its end."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    control = int(sys.argv[1])
    config, messages, rest = read_config(control)
    os.set_blocking(control, False)
    for fd in (control, config["stdout"], config["stderr"], *config["stdin"], *config["presence_fds"]):
        os.set_inheritable(fd, False)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    switch = Switch(control, config)
    switch.obey(messages)
    switch.buffer = rest
    report = frame(switch.run())
    if switch.control >= 0:
        os.set_blocking(control, True)
        attempt(os.write, control, report)
    os._exit(0)  # nothing is left to tidy up, and presence should fall at once


if __name__ == "__main__":
    main()
