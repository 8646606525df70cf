# SPDX-License-Identifier: Apache-2.0
"""The runner that agents use, with real processes: what they print, how they end, and that nothing of them stays.

Where an agent has to die or to freeze, a process of its own stands in for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from surefoot.agent import leftovers, processes, shim
from surefoot.agent.folders import attempts_folder
from surefoot.agent.processes import Ended, EndReason, RunningAttempt, ShimRunner, Spawn
from surefoot.core.errors import Code, RefusedError

DEADLINE = 20.0
FAR = 60.0
SCOPE = "store/project/environment"
#: A step that neither SIGTERM nor the end of its session reaches, and a daemon that has left it.
STUBBORN = (
    "trap '' TERM HUP; (setsid sh -c 'touch daemon; sleep 60; : WORD' &); touch started; "
    "while :; do sleep 60; done; : WORD"
)
#: An agent that runs STUBBORN until a deadline and renews nothing.
AGENT = """
import asyncio, sys
from pathlib import Path
from surefoot.agent import shim
from surefoot.agent.processes import ShimRunner, Spawn
async def main(attempts, folder, step, lease):
    spawn = Spawn(("/bin/sh", "-c", step), Path(folder), {"PATH": "/usr/bin:/bin"}, "store/project/environment", 1)
    attempt = await ShimRunner(Path(attempts)).run(spawn, output=lambda *_: None, until=shim.now() + float(lease))
    await attempt.wait()
asyncio.run(main(*sys.argv[1:]))
"""


class Bench:
    """A folder with a registry of attempts; what was started in it is ended at last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.attempts = folder / "attempts"
        self.word = f"word{uuid.uuid4().hex[:12]}"
        self.output: dict[str, bytes] = defaultdict(bytes)
        self.largest = 0
        self.agents: list[subprocess.Popen[bytes]] = []

    def take(self, stream: str, data: bytes) -> None:
        self.output[stream] += data
        self.largest = max(self.largest, len(data))

    def spawn(self, *argv: str, **settings: Any) -> Spawn:
        env = {"PATH": os.environ["PATH"]}
        argv = tuple(argument.replace("WORD", self.word) for argument in argv)
        return Spawn(argv, **{"cwd": self.folder, "env": env, "scope": SCOPE, "token": 1, **settings})

    async def start(self, step: str, *, lease: float = FAR, **settings: Any) -> RunningAttempt:
        runner = ShimRunner(self.attempts)
        spawn = self.spawn("/bin/sh", "-c", step, **settings)
        return await runner.run(spawn, output=self.take, until=shim.now() + lease)

    async def run(self, step: str, **settings: Any) -> Ended:
        return await ended(await self.start(step, **settings))

    def agent(self, step: str, lease: float) -> subprocess.Popen[bytes]:
        arguments = [str(self.attempts), str(self.folder), step.replace("WORD", self.word), str(lease)]
        self.agents.append(subprocess.Popen([sys.executable, "-c", AGENT, *arguments]))
        return self.agents[-1]

    def alive(self) -> list[int]:
        """Return the living processes of the step, by a word in their command lines."""
        agents = {agent.pid for agent in self.agents}
        found = []
        for pid, process in shim.processes():
            try:
                if (
                    process.runs
                    and pid not in agents
                    and self.word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
                ):
                    found.append(pid)
            except OSError:
                continue
        return found

    def shims(self) -> list[int]:
        records = [leftovers.read(path) for path in self.attempts.iterdir()] if self.attempts.exists() else []
        return [record.pid for record in records if record is not None]

    async def started(self, *names: str) -> None:
        await eventually(lambda: all((self.folder / name).exists() for name in names))

    def close(self) -> None:
        for agent in self.agents:
            agent.kill()
            agent.wait()
        leftovers.sweep(self.attempts, SCOPE, below_token=2**60)
        for pid in self.alive():  # what was meant to stay, or stayed for a fault
            shim.attempt(os.kill, pid, signal.SIGKILL)


async def ended(attempt: RunningAttempt) -> Ended:
    async with asyncio.timeout(DEADLINE):
        return await attempt.wait()


async def eventually(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


# -- how a command ends ----------------------------------------------------------------------------


async def test_a_command_runs_where_and_with_what_it_is_told(bench: Bench) -> None:
    said = await bench.run("pwd; echo $NAME; env | grep -c SECRET; cat; echo bad >&2; exit 7", env={"NAME": "☃ \udcff"})
    assert said == Ended(EndReason.EXITED, exit_code=7)
    assert bench.output["stdout"] == os.fsencode(f"{bench.folder}\n☃ \udcff\n0\n"), (
        "stdin is empty, the environment its own"
    )
    assert bench.output["stderr"] == b"bad\n"


async def test_a_command_that_is_killed_says_by_which_signal(bench: Bench) -> None:
    assert await bench.run("kill -SEGV $$") == Ended(EndReason.EXITED, signal=signal.SIGSEGV)


@pytest.mark.parametrize(
    ("argv", "settings", "said"),
    [
        (("no-such-command",), {}, "No such file or directory: no-such-command"),
        (("/dev/null",), {}, "Permission denied: /dev/null"),
        (("true",), {"cwd": Path("/no/such/folder")}, "No such file or directory: /no/such/folder"),
        (("true", "a\0b"), {}, "null"),
        (("true", "x" * 4_000_000), {}, "Argument list too long: true"),
        (("true", "\ud800"), {}, "surrogates not allowed"),
        (("true",), {"env": {"A=B": "C"}}, "illegal environment variable name"),
    ],
)
async def test_a_command_that_cannot_begin_says_why(bench: Bench, argv: Any, settings: Any, said: str) -> None:
    runner = ShimRunner(bench.attempts)
    end = await ended(await runner.run(bench.spawn(*argv, **settings), output=bench.take, until=shim.now() + FAR))
    assert end.reason is EndReason.FAILED
    assert said in end.error
    assert bench.shims() == []


async def test_a_shim_that_cannot_be_started_is_a_failure_and_keeps_no_descriptor(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    ours, theirs = os.pipe()
    before = open_fds()
    attempt = await bench.start("true", pass_fds=(theirs,), stdin=b"secret")
    attempt.extend(shim.now())
    await attempt.stop(0.0)
    end = await ended(attempt)
    assert end.reason is EndReason.FAILED
    assert "/no/such/python" in end.error
    assert open_fds() == before
    os.close(ours)
    os.close(theirs)


async def test_a_stop_gives_a_grace_and_then_leaves_nothing(bench: Bench) -> None:
    attempt = await bench.start(STUBBORN)
    await bench.started("started", "daemon")
    asked = time.monotonic()
    await attempt.stop(0.3)
    end = await ended(attempt)
    assert end.reason is EndReason.STOPPED
    assert time.monotonic() - asked >= 0.3
    assert end.leftovers >= 1
    assert bench.alive() == []


async def test_a_stop_of_what_has_ended_is_nothing(bench: Bench) -> None:
    attempt = await bench.start("exit 3")
    end = await ended(attempt)
    await attempt.stop(0.0)
    attempt.extend(shim.now() + FAR)
    assert await ended(attempt) == end == Ended(EndReason.EXITED, exit_code=3)


async def test_a_lease_that_is_extended_keeps_a_command_alive(bench: Bench) -> None:
    attempt = await bench.start("touch started; sleep 1.2; echo done", lease=0.6)
    await bench.started("started")
    attempt.extend(shim.now() + DEADLINE)
    attempt.extend(shim.now())  # late news never shortens it
    assert await ended(attempt) == Ended(EndReason.EXITED, exit_code=0)
    assert bench.output["stdout"] == b"done\n"


async def test_a_lease_that_is_not_extended_ends_a_command(bench: Bench) -> None:
    attempt = await bench.start(STUBBORN, lease=0.6)
    assert (await ended(attempt)).reason is EndReason.EXPIRED
    assert bench.alive() == []


async def test_waiting_may_be_given_up_and_taken_up_again(bench: Bench) -> None:
    attempt = await bench.start("while ! [ -e go ]; do sleep 0.01; done; exit 4")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await attempt.wait()
    (bench.folder / "go").touch()
    assert (await ended(attempt)).exit_code == 4


async def test_many_commands_at_once_do_not_keep_each_other(bench: Bench) -> None:
    attempts = [await bench.start(f"sleep 0.0{number}; exit {number}") for number in range(8)]
    assert [(await ended(attempt)).exit_code for attempt in attempts] == list(range(8))


# -- what a command prints -------------------------------------------------------------------------


async def test_what_is_printed_arrives_whole_and_in_small_pieces(bench: Bench) -> None:
    count = 0

    def take(stream: str, data: bytes) -> None:
        nonlocal count
        assert stream == "stdout"
        assert 0 < len(data) <= processes.CHUNK
        count += len(data)

    spawn = bench.spawn("/bin/sh", "-c", "head -c 100000000 /dev/zero")
    attempt = await ShimRunner(bench.attempts).run(spawn, output=take, until=shim.now() + FAR)
    assert await ended(attempt) == Ended(EndReason.EXITED, exit_code=0)
    assert count == 100_000_000


async def test_bytes_arrive_as_they_were_printed(bench: Bench) -> None:
    binary = bytes(range(256)) * 100
    (bench.folder / "binary").write_bytes(binary)
    await bench.run("cat binary; cat binary >&2; printf 'no newline'")
    assert bench.output == {"stdout": binary + b"no newline", "stderr": binary}


async def test_a_line_arrives_while_the_command_goes_on(bench: Bench) -> None:
    attempt = await bench.start("echo first; while ! [ -e go ]; do sleep 0.01; done")
    await eventually(lambda: bench.output["stdout"] == b"first\n")
    (bench.folder / "go").touch()
    await ended(attempt)


async def test_a_command_that_closes_its_output_goes_on(bench: Bench) -> None:
    end = await bench.run("exec >&- 2>&-; touch closed; while ! [ -e closed ]; do sleep 0.01; done; exit 5")
    assert (end.exit_code, bench.output) == (5, {})


async def test_what_a_killed_command_had_printed_is_delivered(bench: Bench) -> None:
    attempt = await bench.start("printf 'last words'; touch started; sleep 60")
    await bench.started("started")
    await attempt.stop(0.0)
    await ended(attempt)
    assert bench.output["stdout"] == b"last words"


@pytest.mark.parametrize("says", ["sleep 60", "yes"])
async def test_what_may_stay_and_keeps_the_output_open_holds_nobody_up(bench: Bench, says: str) -> None:
    daemon = f"setsid sh -c 'trap \"\" PIPE; touch daemon; {says}; sleep 60; : WORD' & "
    end = await bench.run(daemon + "while ! [ -e daemon ]; do sleep 0.01; done; echo done", leaves_processes=True)
    assert end == Ended(EndReason.EXITED, exit_code=0)
    assert b"done\n" in bench.output["stdout"]
    assert bench.alive()
    assert list(bench.attempts.iterdir()) == []


async def test_a_pipe_of_the_commands_own_ends_with_it(bench: Bench) -> None:
    ours, theirs = os.pipe()
    try:
        await bench.run(f"echo progress >/proc/self/fd/{theirs}", pass_fds=(theirs,))
        os.close(theirs)
        assert os.read(ours, 100) == b"progress\n"
        assert os.read(ours, 100) == b""
    finally:
        os.close(ours)


# -- what it costs ---------------------------------------------------------------------------------


def open_fds() -> set[int]:
    with os.scandir("/proc/self/fd") as entries:
        return {int(entry.name) for entry in entries if "/fd" not in str(Path(entry.path).readlink())}


async def test_fifty_runs_leave_no_descriptor_no_process_and_no_file(bench: Bench) -> None:
    await bench.run("true")
    await bench.run("true")
    # Others of this process's children may be servers of other tests; the dead whom nobody buried count too.
    before, children = open_fds(), {child.pid for child in psutil.Process().children()}
    for _ in range(50):
        assert (await bench.run("echo; echo >&2")).exit_code == 0
    assert open_fds() == before
    assert list(bench.attempts.iterdir()) == []
    assert {child.pid for child in psutil.Process().children()} <= children


async def test_no_secret_shows_in_the_process_list(bench: Bench) -> None:
    attempt = await bench.start("touch started; sleep 60; : WORD", env={"PATH": os.environ["PATH"], "TOKEN": "s3cr3t"})
    await bench.started("started")
    for pid, _ in shim.processes():
        try:
            assert b"s3cr3t" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
    await attempt.stop(0.0)
    await ended(attempt)


# -- who dies or freezes ---------------------------------------------------------------------------


async def test_nothing_is_left_of_an_agent_that_is_killed(bench: Bench) -> None:
    agent = bench.agent(STUBBORN, FAR)
    await bench.started("started", "daemon")
    [watcher] = bench.shims()
    assert bench.alive()
    agent.kill()
    agent.wait()
    await eventually(lambda: not shim.attempt(os.kill, watcher, 0))
    assert bench.alive() == []
    assert bench.shims() == []


async def test_nothing_is_left_of_a_frozen_agent_once_its_lease_has_run_out(bench: Bench) -> None:
    agent = bench.agent(STUBBORN, 3.0)
    await bench.started("started", "daemon")
    agent.send_signal(signal.SIGSTOP)
    assert bench.alive()
    await eventually(lambda: not bench.alive() and not bench.shims())
    agent.send_signal(signal.SIGCONT)
    assert agent.wait(DEADLINE) == 0, "it hears of the end when it wakes"


async def test_a_shim_that_is_killed_is_told_once_nothing_is_left(bench: Bench) -> None:
    attempt = await bench.start(STUBBORN)
    await bench.started("started", "daemon")
    [watcher] = bench.shims()
    os.kill(watcher, signal.SIGKILL)
    end = await ended(attempt)
    assert end.reason is EndReason.ORPHANED
    assert bench.alive() == []
    assert bench.shims() == []


async def test_a_stop_works_though_the_shim_is_frozen(bench: Bench) -> None:
    attempt = await bench.start(STUBBORN)
    await bench.started("started", "daemon")
    [watcher] = bench.shims()
    os.kill(watcher, signal.SIGSTOP)
    await attempt.stop(0.1)
    assert (await ended(attempt)).reason is EndReason.STOPPED
    assert bench.alive() == []
    assert bench.shims() == []


async def test_the_lease_holds_though_the_shim_is_frozen(bench: Bench) -> None:
    attempt = await bench.start(STUBBORN, lease=2.0)
    await bench.started("started", "daemon")
    os.kill(bench.shims()[0], signal.SIGSTOP)
    assert (await ended(attempt)).reason is EndReason.EXPIRED
    assert bench.alive() == []
    assert bench.shims() == []


async def test_a_shim_that_freezes_after_its_report_holds_nobody_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = Path(shim.__file__).read_text()
    assert "    os._exit(0)  #" in source
    (tmp_path / "shim").write_text(source.replace("    os._exit(0)  #", "    os.kill(os.getpid(), signal.SIGSTOP)  #"))
    with (tmp_path / "shim").open() as frozen:
        monkeypatch.setattr(processes, "_program", frozen.fileno)
        assert await bench.run("exit 6") == Ended(EndReason.EXITED, exit_code=6)


async def test_an_agent_goes_on_though_its_installed_files_are_replaced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.run("true")
    monkeypatch.setattr(shim, "__file__", "/no/such/file")
    assert (await bench.run("exit 6")).exit_code == 6


async def test_what_cannot_be_ended_is_never_said_to_have_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = await bench.start(STUBBORN)
    await bench.started("started", "daemon")
    with monkeypatch.context() as patched:
        patched.setattr(leftovers, "PATIENCE", 0.1)
        patched.setattr(leftovers, "_send", lambda *_: False)
        patched.setattr(shim, "remove_cgroup", lambda _: None)
        patched.setattr(shim, "write", lambda *_: None)
        os.kill(bench.shims()[0], signal.SIGKILL)
        with pytest.raises(leftovers.StuckError):
            await ended(attempt)


async def test_the_next_agent_of_a_machine_ends_what_a_frozen_shim_of_a_killed_one_left(bench: Bench) -> None:
    agent = bench.agent(STUBBORN, FAR)
    await bench.started("started", "daemon")
    [watcher] = bench.shims()
    for pid in (watcher, *bench.alive()):
        os.kill(pid, signal.SIGSTOP)
    agent.kill()
    agent.wait()
    assert bench.alive(), "nobody is awake to end them"
    killed = await asyncio.to_thread(leftovers.sweep, bench.attempts, SCOPE, 2)
    assert watcher in killed
    assert bench.alive() == []
    assert bench.shims() == []


# -- where attempts are registered ------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["", "relative", "/nonexistent/run/user/1", None])
def test_a_runtime_folder_of_somebody_else_or_of_a_session_that_is_over_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str | None
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    theirs = tmp_path / "theirs"  # what `su` leaves in $XDG_RUNTIME_DIR
    theirs.mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).exists() and path != theirs)
    monkeypatch.setattr(Path, "lstat", lambda path: os.stat_result((0o40700, *[0] * 3, 12345, *[0] * 5)))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(theirs) if runtime is None else runtime)
    assert attempts_folder() == tmp_path / "surefoot-12345" / "attempts"
    monkeypatch.undo()
    assert (tmp_path / "surefoot-12345" / "attempts").is_dir()


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's registry is if there is no runtime folder."""
    writable = os.access
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: path != Path("/run") and writable(path, mode))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"surefoot-{os.geteuid()}"


def test_a_registry_that_was_open_to_others_is_closed(in_tmp: Path) -> None:
    (in_tmp / "attempts").mkdir(parents=True)
    for folder in (in_tmp, in_tmp / "attempts"):
        folder.chmod(0o777)
    assert attempts_folder() == in_tmp / "attempts"
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (in_tmp, in_tmp / "attempts")} == {0o700}


def test_a_registry_is_this_users_alone_whatever_the_umask(in_tmp: Path) -> None:
    before = os.umask(0)
    try:
        attempts_folder()
    finally:
        os.umask(before)
    assert stat.S_IMODE(in_tmp.stat().st_mode) == 0o700


def test_a_registry_that_is_a_link_is_refused(in_tmp: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    in_tmp.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="it is a link") as refused:
        attempts_folder()
    assert refused.value.code is Code.AGENT_FOLDER and refused.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
@pytest.mark.parametrize("which", [".", "attempts"])
def test_a_registry_that_another_user_has_made_is_refused(in_tmp: Path, which: str) -> None:
    (in_tmp / "attempts").mkdir(parents=True)
    os.chown(in_tmp / which, 1234, -1)
    with pytest.raises(RefusedError, match="it belongs to another user"):
        attempts_folder()
