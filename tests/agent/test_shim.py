# SPDX-License-Identifier: Apache-2.0
"""The dead man's switch alone: the shim as a real process, with this test in the agent's place.

An attempt's processes are found by a word of their own in their command line: neither the shim's cgroup nor its marker.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from surefoot.agent import leftovers, shim

DEADLINE = 20.0
FAR = 60.0
SCOPE = "store/project/environment"

#: What a step may start, by name. Each goes on for a minute, says "started" and carries WORD in its command line.
STEPS = {
    "plain": ": >$WORD.started; sleep 60; : $WORD",
    "ignores SIGTERM": "trap '' TERM HUP INT; : >$WORD.started; while :; do sleep 60; done; : $WORD",
    "is stopped": ": >$WORD.started; kill -STOP $$; : $WORD",
    "setsid daemon": "setsid sh -c ': >$WORD.started; sleep 60; : $WORD' & sleep 60; : $WORD",
    "double fork": "(setsid sh -c '(setsid sh -c \": >$WORD.started; sleep 60; : $WORD\" &) ' &); sleep 60; : $WORD",
    "no environment": "setsid env -i sh -c ': >$WORD.started; sleep 60; : $WORD' & sleep 60; : $WORD",
    "closed stdout": "exec >&- 2>&-; : >$WORD.started; sleep 60; : $WORD",
    "deep tree": 'sh -c \'sh -c "sh -c \\": >$WORD.started; sleep 60; : $WORD\\"; : $WORD"; : $WORD\'; : $WORD',
}
#: Forks without end: each generation leaves its parent, in a session of its own. It gives up by itself after a while.
FORKER = """
import os, sys, time
if os.fork():
    os.execv('/bin/sleep', ['sleep', '60'])
end = time.monotonic() + 30
generation = 0
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    os.setsid()
    generation += 1
    if generation == 20:
        open(sys.argv[1] + '.started', 'w').close()
"""


class Shim:
    """One shim and this test's end of its socket."""

    def __init__(self, folder: Path, word: str, command: list[str], *, then: bytes = b"", **settings: Any) -> None:
        self.word = word
        self.folder = folder
        self.record = folder / "attempts" / uuid.uuid4().hex
        self.control, theirs = socket.socketpair()
        self.control.settimeout(DEADLINE)
        out, err = os.pipe(), os.pipe()
        self.stdout, self.stderr = out[0], err[0]
        pass_fds = settings.setdefault("pass_fds", [])
        presence_fds = settings.setdefault("presence_fds", [])
        settings.setdefault("stdin", [])
        settings.setdefault("tidy", [])
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", shim.__file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), out[1], err[1], *pass_fds, *presence_fds),
            start_new_session=True,
        )
        theirs.close()
        os.close(out[1])
        os.close(err[1])
        config = {
            "argv": [os.fsencode(argument) for argument in command],
            "cwd": os.fsencode(folder),
            "env": {os.fsencode(k): os.fsencode(v) for k, v in self.environment().items()},
            "stdout": out[1],
            "stderr": err[1],
            "leaves_processes": False,
            "cgroup": True,
            "until": shim.now() + FAR,
            "scope": SCOPE,
            "token": 1,
            "marker": self.record.name,
            "record": str(self.record),
        }
        self.control.sendall(shim.frame(config | settings) + then)

    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "WORD": self.word, leftovers.MARKER: self.record.name}

    def say(self, message: dict[str, Any]) -> None:
        self.control.sendall(shim.frame(message))

    def started(self) -> None:
        eventually((self.folder / f"{self.word}.started").exists)

    def report(self) -> dict[str, Any]:
        """Return what the shim reports; {} if it ends without a word."""
        data = b""
        while more := self.control.recv(65536):
            data += more
        messages, _ = shim.frames(data)
        return messages[0] if messages else {}

    def alive(self) -> list[int]:
        return with_word(self.word)

    def close(self) -> None:
        self.control.close()
        for pid in [self.process.pid, *self.alive()]:
            kill(pid)
        self.process.wait()
        for pid in self.alive():  # what was forked while we looked
            kill(pid)
        for fd in (self.stdout, self.stderr):
            os.close(fd)
        record = leftovers.read(self.record)
        if record is not None and record.cgroup:
            shim.remove_cgroup(record.cgroup)


def with_word(word: str) -> list[int]:
    """Return the living processes that carry a word in their command line."""
    found = []
    for pid, stat in shim.processes():
        try:
            if stat.runs and word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def kill(pid: int) -> None:
    shim.attempt(os.kill, pid, signal.SIGKILL)


def eventually(holds: Callable[[], object], within: float = DEADLINE) -> None:
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.01)


def cgroups() -> bool:
    group = shim.make_cgroup(uuid.uuid4().hex)
    if group is not None:
        shim.remove_cgroup(group)
    return group is not None


Start = Callable[..., Shim]


@pytest.fixture(params=[True, False], ids=["cgroup", "tree"])
def cgroup(request: pytest.FixtureRequest) -> bool:
    """Return whether a cgroup is to be used: what holds must hold without one."""
    if request.param and not cgroups():
        pytest.skip("no cgroup may be made here")
    return bool(request.param)


@pytest.fixture
def start(tmp_path: Path, cgroup: bool) -> Iterator[Start]:
    shims: list[Shim] = []

    def start(step: str | list[str], **settings: Any) -> Shim:
        word = f"word{uuid.uuid4().hex[:12]}"
        argv = ["/bin/sh", "-c", step.replace("$WORD", word)] if isinstance(step, str) else [*step, word]
        shims.append(Shim(tmp_path, word, argv, **{"cgroup": cgroup, **settings}))
        return shims[-1]

    yield start
    for each in shims:
        each.close()


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_nothing_is_left_when_the_agent_dies(start: Start, step: str) -> None:
    attempt = start(step)
    attempt.started()
    assert attempt.alive()
    attempt.control.close()  # as the end of the agent's process does
    assert attempt.process.wait(DEADLINE) == 0
    assert attempt.alive() == []
    assert not attempt.record.exists()


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_nothing_is_left_when_the_lease_runs_out(start: Start, step: str) -> None:
    attempt = start(step, until=(until := shim.now() + 0.5))
    attempt.started()
    report = attempt.report()
    assert report["ended"] == "expired"
    assert shim.now() >= until
    assert attempt.alive() == []


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_nothing_is_left_after_a_stop(start: Start, step: str) -> None:
    attempt = start(step)
    attempt.started()
    attempt.say({"stop": 0.3})
    assert attempt.report()["ended"] == "stopped"
    assert attempt.alive() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM])
def test_a_signal_to_the_shim_ends_the_command_and_does_not_disarm_the_switch(start: Start, number: int) -> None:
    attempt = start(STEPS["setsid daemon"])
    attempt.started()
    os.kill(attempt.process.pid, number)
    assert attempt.report()["ended"] == "killed"
    assert attempt.alive() == []


def test_a_stop_signal_does_not_freeze_the_switch(start: Start) -> None:
    attempt = start(STEPS["plain"], until=shim.now() + 1.0)
    attempt.started()
    for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        os.kill(attempt.process.pid, number)
    assert attempt.report()["ended"] == "expired"
    assert attempt.alive() == []


def test_the_switch_holds_with_signals_blocked_by_whoever_started_it(start: Start) -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    try:
        attempt = start(STEPS["plain"])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    attempt.started()
    os.kill(attempt.process.pid, signal.SIGTERM)
    assert attempt.report()["ended"] == "killed"
    assert attempt.alive() == []


def test_a_lease_that_is_extended_keeps_the_command_alive_and_one_that_is_not_ends_it(start: Start) -> None:
    attempt = start(STEPS["plain"], until=(first := shim.now() + 1.0))
    attempt.started()
    attempt.say({"until": first + 1.0})
    attempt.say({"until": first - 0.9})  # an older message never shortens it
    eventually(lambda: shim.now() > first + 0.3)
    assert attempt.alive()
    assert attempt.report()["ended"] == "expired"
    assert shim.now() >= first + 1.0
    assert attempt.alive() == []


def test_the_lease_holds_in_a_grace_too(start: Start) -> None:
    attempt = start(STEPS["ignores SIGTERM"], until=shim.now() + 1.0)
    attempt.started()
    attempt.say({"stop": FAR})
    assert attempt.report()["ended"] == "expired"
    assert attempt.alive() == []


def test_a_second_stop_may_shorten_the_grace(start: Start) -> None:
    attempt = start(STEPS["ignores SIGTERM"])
    attempt.started()
    attempt.say({"stop": FAR})
    attempt.say({"stop": 0.0})
    assert attempt.report()["ended"] == "stopped"
    assert attempt.alive() == []


def test_a_command_may_take_its_leave_within_its_grace_even_if_it_was_stopped(start: Start, tmp_path: Path) -> None:
    attempt = start("trap 'touch leave; exit 9' TERM; : >$WORD.started; kill -STOP $$; while :; do sleep 0.01; done")
    attempt.started()
    eventually(lambda: any(shim.Stat(child).state == "T" for child in shim.children(attempt.process.pid)))
    attempt.say({"stop": DEADLINE})
    report = attempt.report()
    assert (report["ended"], report["exit_code"]) == ("stopped", 9)
    assert (tmp_path / "leave").exists()


def test_a_command_whose_lease_has_run_out_before_it_began_never_begins(start: Start, tmp_path: Path) -> None:
    attempt = start("touch began", until=shim.now() - 1.0)
    report = attempt.report()
    assert (report["ended"], report["exit_code"]) == ("expired", None)
    assert not (tmp_path / "began").exists()


def test_a_stop_that_comes_with_the_command_keeps_it_from_beginning(start: Start, tmp_path: Path) -> None:
    attempt = start("touch began", then=shim.frame({"stop": FAR}))
    report = attempt.report()
    assert (report["ended"], report["exit_code"]) == ("stopped", None)
    assert not (tmp_path / "began").exists()


def test_an_agent_that_dies_right_after_it_has_said_what_to_do_is_noticed_before_it_begins(
    start: Start, tmp_path: Path
) -> None:
    attempt = start("touch began; sleep 60", then=shim.frame({"until": shim.now() + FAR})[:3])
    attempt.control.close()
    assert attempt.process.wait(DEADLINE) == 0
    assert attempt.alive() == []
    assert not (tmp_path / "began").exists()
    assert list((tmp_path / "attempts").iterdir()) == []


def test_what_forks_without_end_is_gone_as_well(start: Start) -> None:
    attempt = start([sys.executable, "-I", "-S", "-c", FORKER])
    attempt.started()
    attempt.say({"stop": 0.0})
    assert attempt.report()["ended"] == "stopped"
    assert attempt.alive() == []


def test_what_a_command_leaves_is_killed_when_it_exits(start: Start) -> None:
    attempt = start(
        "setsid sh -c ': >$WORD.started; sleep 60; : $WORD' & while ! [ -e $WORD.started ]; do sleep 0.01; done"
    )
    report = attempt.report()
    assert (report["ended"], report["exit_code"]) == ("exited", 0)
    assert report["leftovers"] >= 1
    assert attempt.alive() == []


LEAVES = "setsid sh -c ': >$WORD.started; sleep 60; : $WORD' & while ! [ -e $WORD.started ]; do sleep 0.01; done; "


def test_what_may_stay_stays_after_success_and_no_cgroup_or_record_with_it(start: Start) -> None:
    attempt = start(LEAVES + "exit 0", leaves_processes=True)
    report = attempt.report()
    assert (report["ended"], report["exit_code"], report["leftovers"]) == ("exited", 0, 0)
    assert attempt.process.wait(DEADLINE) == 0
    assert attempt.alive()
    assert list((attempt.folder / "attempts").iterdir()) == []
    assert all("surefoot-" not in shim.read(f"/proc/{pid}/cgroup") for pid in attempt.alive())


@pytest.mark.parametrize("end", ["exit 1", "kill -KILL $$"])
def test_what_may_stay_after_success_does_not_stay_after_a_failure(start: Start, end: str) -> None:
    attempt = start(LEAVES + end, leaves_processes=True)
    assert attempt.report()["ended"] == "exited"
    assert attempt.alive() == []


def test_what_may_stay_after_success_does_not_stay_after_the_lease(start: Start) -> None:
    attempt = start(LEAVES + "sleep 60", leaves_processes=True, until=shim.now() + 0.7)
    assert attempt.report()["ended"] == "expired"
    assert attempt.alive() == []


def test_a_cgroup_of_the_commands_own_goes_with_it(start: Start, cgroup: bool) -> None:
    if not cgroup:
        pytest.skip("none is made")
    attempt = start(": >$WORD.started; sleep 60; : $WORD")
    attempt.started()
    record = leftovers.read(attempt.record)
    assert record is not None and record.cgroup
    below = Path(record.cgroup) / "below"
    below.mkdir()
    (below / "cgroup.procs").write_text(str(attempt.alive()[0]))
    attempt.say({"stop": 0.0})
    assert attempt.report()["ended"] == "stopped"
    assert attempt.alive() == []
    assert not Path(record.cgroup).exists()


def test_presence_is_held_by_the_shim_to_the_end_but_never_by_the_command(start: Start, tmp_path: Path) -> None:
    lock = os.open(tmp_path / "presence", os.O_RDWR | os.O_CREAT)
    other = os.open(tmp_path / "presence", os.O_RDWR)
    ours, theirs = os.pipe()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        script = (
            "import json, os, sys, time\n"
            "fds = {fd: os.readlink(f'/proc/self/fd/{fd}') for fd in (0, 1, 2, *range(4, 64))\n"
            "       if os.path.lexists(f'/proc/self/fd/{fd}')}\n"
            f"os.write({theirs}, json.dumps(fds).encode())\n"
            "time.sleep(60)\n"
        )
        attempt = start([sys.executable, "-I", "-S", "-c", script], pass_fds=[theirs], presence_fds=[lock])
        os.close(theirs)
        fds = {int(fd): name for fd, name in json.loads(os.read(ours, 65536)).items()}
        # Standard streams, and the pipe that it was given; neither socket nor presence, nor a second end of its output.
        assert set(fds) == {0, 1, 2, theirs}, fds
        assert fds[0] == "/dev/null"
        assert not any("presence" in name or "socket" in name for name in fds.values())
        os.close(lock)  # the agent has died
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        attempt.say({"stop": 0.0})
        attempt.report()
        assert attempt.process.wait(DEADLINE) == 0
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert os.read(ours, 1) == b"", "the shim has closed the command's pipe"
    finally:
        os.close(ours)
        os.close(other)


def test_the_command_begins_with_signals_as_a_shell_expects_them(start: Start) -> None:
    attempt = start("cat /proc/self/status")
    assert attempt.report()["exit_code"] == 0
    said = dict(line.split(":", 1) for line in os.read(attempt.stdout, 65536).decode().splitlines())
    # Signals 32 and 33 are the C library's own, and nobody else can set them right.
    ordinary = 2**31 - 1
    assert [int(said[mask], 16) & ordinary for mask in ("SigBlk", "SigIgn", "SigCgt")] == [0, 0, 0]


def test_a_command_that_closes_its_output_is_seen_to_have(start: Start) -> None:
    attempt = start(STEPS["closed stdout"])
    attempt.started()
    assert os.read(attempt.stdout, 1) == b""
    assert os.read(attempt.stderr, 1) == b""
    assert attempt.alive()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"argv": [b"no-such-command"]}, "No such file or directory: no-such-command"),
        ({"argv": [b"/dev/null"]}, "Permission denied: /dev/null"),
        ({"argv": [b"/bin/true"], "cwd": b"/no/such/folder"}, "No such file or directory: /no/such/folder"),
        ({"argv": [b"a\0b"]}, "null"),
        ({"argv": []}, ""),
        ({"argv": [b"/bin/true"], "record": "/dev/null/record"}, "/dev/null"),
    ],
)
def test_what_cannot_begin_is_said_and_leaves_nothing(start: Start, settings: dict[str, Any], said: str) -> None:
    attempt = start("true", **settings)
    report = attempt.report()
    assert report["ended"] == "failed"
    assert said in report["error"]
    assert not attempt.record.exists()
    assert attempt.process.wait(DEADLINE) == 0


def test_a_shim_that_is_killed_takes_the_command_itself_with_it(start: Start) -> None:
    attempt = start(": >$WORD.started; exec sleep 60")
    attempt.started()
    [main] = shim.children(attempt.process.pid)
    fd = os.pidfd_open(main)
    try:
        attempt.process.kill()
        assert attempt.report() == {}
        eventually(lambda: not _runs(main))
    finally:
        os.close(fd)


def test_an_agent_that_dies_before_it_has_said_what_to_do_leaves_no_shim() -> None:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", shim.__file__, str(theirs.fileno())], pass_fds=(theirs.fileno(),)
    )
    theirs.close()
    ours.sendall(b"\0\0")
    ours.close()
    assert process.wait(DEADLINE) == 0


def test_children_are_found_where_the_kernel_does_not_tell_them(monkeypatch: pytest.MonkeyPatch) -> None:
    read = shim.read

    def without_children(path: str) -> str:
        if path.endswith("/children"):
            raise FileNotFoundError(path)
        return read(path)

    child = subprocess.Popen(["sleep", "60"])
    try:
        assert child.pid in shim.children(os.getpid())
        monkeypatch.setattr(shim, "read", without_children)
        monkeypatch.setattr(shim, "lists_children", lambda: False)
        assert child.pid in shim.children(os.getpid())
        assert (child.pid, os.getpid()) in shim.descendants(os.getpid())
    finally:
        child.kill()
        child.wait()


# -- what a shim could not end ---------------------------------------------------------------------


def _runs(pid: int) -> bool:
    try:
        return shim.Stat(pid).runs
    except OSError:
        return False


#: Where no cgroup may be made, what clears its environment is found below a frozen shim only.
SWEPT = {name: step for name, step in STEPS.items() if name != "no environment"}


@pytest.mark.parametrize("step", SWEPT.values(), ids=SWEPT.keys())
def test_what_a_killed_shim_left_is_swept(start: Start, step: str) -> None:
    attempt = start(step)
    attempt.started()
    attempt.process.kill()
    attempt.process.wait()
    leftovers.sweep(attempt.record.parent, SCOPE)
    assert attempt.alive() == []
    assert list(attempt.record.parent.iterdir()) == []


def test_what_a_killed_shim_left_without_its_environment_is_found_in_its_cgroup(start: Start, cgroup: bool) -> None:
    if not cgroup:
        pytest.skip("not promised")
    attempt = start(STEPS["no environment"])
    attempt.started()
    record = leftovers.read(attempt.record)
    assert record is not None
    attempt.process.kill()
    attempt.process.wait()
    assert leftovers.sweep(attempt.record.parent, SCOPE)
    assert attempt.alive() == []
    assert not Path(record.cgroup).exists()


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_a_frozen_shim_and_all_below_it_are_swept_by_a_greater_token(start: Start, step: str) -> None:
    attempt = start(step, token=4)
    attempt.started()
    for pid in (attempt.process.pid, *attempt.alive()):
        shim.attempt(os.kill, pid, signal.SIGSTOP)
    assert leftovers.sweep(attempt.record.parent, SCOPE) == [], "it may wake up and do its duty"
    assert leftovers.sweep(attempt.record.parent, SCOPE, 4) == [], "its token is still good"
    killed = leftovers.sweep(attempt.record.parent, SCOPE, 5)
    assert attempt.process.pid in killed
    assert attempt.alive() == []
    assert attempt.process.wait(DEADLINE) == -signal.SIGKILL
    assert list(attempt.record.parent.iterdir()) == []


def test_a_shim_that_does_its_duty_is_swept_by_a_greater_token_too(start: Start) -> None:
    attempt = start(STEPS["setsid daemon"], token=4)
    attempt.started()
    assert attempt.process.pid in leftovers.sweep(attempt.record.parent, SCOPE, 5)
    assert attempt.alive() == []
    assert attempt.report() == {}, "what it would have reported is not true any more"


def test_the_sweep_leaves_other_scopes_alone(start: Start) -> None:
    attempt = start(STEPS["plain"], token=4, scope="store/project/other")
    attempt.started()
    assert leftovers.sweep(attempt.record.parent, SCOPE, 99) == []
    assert attempt.alive()


def test_the_sweep_leaves_alone_who_has_a_dead_shims_pid_by_now(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        attempts = tmp_path / "attempts"
        attempts.mkdir()
        marker = uuid.uuid4().hex
        started = shim.Stat(bystander.pid).started - 1
        (attempts / marker).write_text(f"{bystander.pid}\n{started}\n1\n{marker}\n\n{SCOPE}\n")
        assert leftovers.sweep(attempts, SCOPE, 2) == []
        assert bystander.poll() is None
        assert list(attempts.iterdir()) == []
    finally:
        bystander.kill()
        bystander.wait()


def test_the_sweep_believes_no_half_written_record_and_no_other_users(tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"
    assert leftovers.sweep(attempts, SCOPE, 2) == []
    attempts.mkdir()
    (attempts / "half").write_text(f"{os.getpid()}\n12")
    (attempts / "binary").write_bytes(b"\xff\n\n\n\n\n\n")
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        foreign = attempts / "foreign"
        started = shim.Stat(bystander.pid).started
        foreign.write_text(f"{bystander.pid}\n{started}\n1\nforeign\n\n{SCOPE}\n")
        if os.geteuid() == 0:
            os.chown(foreign, 65534, 65534)
            assert leftovers.sweep(attempts, SCOPE, 2) == []
            assert bystander.poll() is None
        else:
            assert leftovers.sweep(attempts, "another", 2) == []
    finally:
        bystander.kill()
        bystander.wait()


def test_what_cannot_be_ended_is_an_error_and_keeps_its_record(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = start(STEPS["plain"], token=1)
    attempt.started()
    monkeypatch.setattr(leftovers, "PATIENCE", 0.1)
    monkeypatch.setattr(leftovers, "_send", lambda *_: False)
    monkeypatch.setattr(shim, "write", lambda *_: None)
    with pytest.raises(leftovers.StuckError):
        leftovers.sweep(attempt.record.parent, SCOPE, 2)
    assert attempt.record.exists()
