# SPDX-License-Identifier: Apache-2.0
"""The program as a whole: help, errors, global options, pipes, and that it starts with next to nothing imported."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from surefoot import __version__  # noqa: E402
from surefoot.checks.registry import KINDS  # noqa: E402
from surefoot.cli.main import COMMANDS, cli  # noqa: E402
from surefoot.cli.reference import reference  # noqa: E402
from surefoot.config.loading import load  # noqa: E402
from surefoot.core.status import Status  # noqa: E402
from surefoot.monitoring.subjects import Hosts  # noqa: E402
from surefoot.steps.ansible import AnsibleRun  # noqa: E402
from surefoot.store import open_store  # noqa: E402
from tests.store import journal as j  # noqa: E402

DEADLINE = 60


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SUREFOOT_STORE", "SUREFOOT_CONFIG", "NO_COLOR", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """A store in which `prod` runs 2.0, was on 1.0, and has 3.0 in the queue; `staging` is stranded."""
    path = str(tmp_path / "store.db")
    opened = open_store(path)
    j.deployed(opened, "1.0")
    j.deployed(opened, "2.0")
    j.submit(opened, "3.0")
    j.deployed(opened, "1.0", "staging", Status.STRANDED)
    opened.close()
    yield path


def call(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


def program(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "surefoot", *args],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
    )


def paths() -> list[list[str]]:
    return [[], *([name] for name in COMMANDS), ["agent", "run"], ["agent", "drain"], ["agent", "undrain"]]


# -- help ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", paths(), ids=" ".join)
def test_every_command_has_help_with_an_example_and_the_global_options(path: list[str]) -> None:
    shown = call(*path, "--help")
    assert shown.exit_code == 0
    assert "Example:\n  surefoot" in shown.stdout or 'Example:\n  eval "$(surefoot' in shown.stdout
    assert "--store URL" in shown.stdout


def test_the_reference_is_current() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == reference(), "python -m surefoot.cli.reference > docs/cli.md"


def test_short_helps_are_whole_sentences() -> None:
    shown = call("--help").stdout
    assert "..." not in shown.partition("Options:")[0].partition("Commands:")[2]


def test_without_a_command_there_is_help() -> None:
    assert call().exit_code == 0 and "Commands:" in call().stdout
    assert call("agent").exit_code == 0 and "drain" in call("agent").stdout


def test_the_version_is_told() -> None:
    assert call("--version").stdout == f"surefoot {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    done = program("completion", shell)
    assert done.returncode == 0
    assert "_SUREFOOT_COMPLETE" in done.stdout


def test_completion_completes() -> None:
    done = program("", _SUREFOOT_COMPLETE="bash_complete", COMP_WORDS="surefoot de", COMP_CWORD="1")
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == ["deploy", "demo"]


# -- what it costs to start ----------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["--version"], ["--help"], ["deploy", "--help"]])
def test_help_and_version_import_nothing_heavy(args: list[str]) -> None:
    code = (
        "import sys\nfrom surefoot.cli.main import cli\n"
        f"try: cli.main({args!r})\nexcept SystemExit: pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=True)
    loaded = set(done.stderr.strip("[]\n").replace("'", "").split(", "))
    heavy = {"pydantic", "rich", "aiohttp", "psycopg", "asyncio", "msgspec", "aiosql", "yaml", "ansible"}
    assert "click" in loaded
    assert not loaded & heavy


def test_reading_validates_no_config_and_draws_nothing(store: str) -> None:
    code = (
        "import sys\nfrom surefoot.cli.main import cli\n"
        f"try: cli.main(['status', '--store', {store!r}])\nexcept SystemExit: pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=True)
    loaded = set(done.stderr.strip("[]\n").replace("'", "").split(", "))
    assert "sqlite3" in loaded
    assert not loaded & {"pydantic", "rich", "aiohttp", "psycopg"}


# -- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "says", "hint"),
    [
        (["depoy"], "there is no command 'depoy'", "did you mean deploy"),
        (["zzzzz"], "there is no command 'zzzzz'", "surefoot --help"),
        (["agent", "rum"], "there is no command 'rum'", "did you mean run?"),
        (["deploy", "--detatch"], "there is no option --detatch", "did you mean --detach"),
        (["show"], "missing argument 'ID'", "surefoot show --help"),
        (["deploy", "a", "1", "--timeout", "5"], "'5' is not a duration", "write 5s"),
        (["history", "a", "--limit", "0"], "0 is not in the range", "surefoot history --help"),
        (["status", "--output", "xml"], "'xml' is not one of", "surefoot status --help"),
        (["show", "\udcff"], "it is not valid UTF-8", "surefoot show --help"),
    ],
)
def test_a_wrong_call_is_told_in_the_one_form_and_ends_with_2(args: list[str], says: str, hint: str) -> None:
    told = call(*args)
    assert told.exit_code == 2
    assert told.stdout == ""
    first, second = told.stderr.splitlines()
    assert first.startswith("error[SF-USAGE]: ") and says in first
    assert second.startswith("hint: ") and hint in second


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize(
    ("args", "exit_code", "code"),
    [
        (["show", "prod-99"], 7, "SF-DEPLOYMENT-UNKNOWN"),
        (["events", "prod-99"], 7, "SF-DEPLOYMENT-UNKNOWN"),
        (["logs", "prod-99"], 7, "SF-DEPLOYMENT-UNKNOWN"),
        (["cancel", "../x"], 7, "SF-DEPLOYMENT-UNKNOWN"),
        (["cancel", "prod-1"], 7, "SF-NOT-ALLOWED"),
        (["resolve", "prod-1", "--reason", "x"], 7, "SF-NOT-ALLOWED"),
        (["history", "prdo"], 7, "SF-ENVIRONMENT-UNKNOWN"),
        (["status", "prdo"], 7, "SF-ENVIRONMENT-UNKNOWN"),
        (["rollback", "prdo"], 7, "SF-ENVIRONMENT-UNKNOWN"),
        (["agent", "drain", "nobody"], 7, "SF-AGENT-UNKNOWN"),
        (["deploy", "prod", "1"], 2, "SF-CONFIG-MISSING"),
    ],
)
def test_errors_have_code_hint_and_exit_code_and_leave_stdout_alone(
    store: str, output: str, args: list[str], exit_code: int, code: str
) -> None:
    told = call(*args, "--store", store, "--output", output)
    assert told.exit_code == exit_code, told.stderr
    assert told.stdout == ""
    assert told.stderr.startswith(f"error[{code}]: ")
    assert "\nhint: " in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("command", ["status", "agents", "events prod-1", "cancel prod-1"])
@pytest.mark.parametrize(
    ("path", "exit_code"),
    # a folder that is closed to this user raises as a name that is too long does it, which stops root too
    [("x" * 300, 9), (f"{'x' * 300}/store.db", 9), ("~nobody-of-that-name/store.db", 2)],
)
def test_a_store_of_which_nobody_can_tell_whether_it_is_there_is_no_empty_one(
    command: str, path: str, exit_code: int
) -> None:
    told = call(*command.split(), "--store", path)
    assert (told.exit_code, told.stdout) == (exit_code, "")
    assert told.stderr.startswith("error[SF-") and "\nhint: " in told.stderr
    assert "SF-INTERNAL" not in told.stderr


@pytest.mark.parametrize("url", ["postgresql://u:hunter2@127.0.0.1:1/x", "nosuch://u:hunter2@x"])
def test_a_store_that_cannot_be_reached_ends_with_9_and_keeps_its_password(url: str) -> None:
    told = call("cancel", "prod-1", "--store", url)
    assert told.exit_code == 9
    assert "error[SF-STORE-UNREACHABLE]: " in told.stderr and "\nhint: " in told.stderr
    assert "hunter2" not in told.stderr


def test_a_defect_has_no_traceback_without_v(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    import surefoot.cli.app

    def broken(*_: object) -> None:
        raise RuntimeError("oh \x1b[2Jdear")

    monkeypatch.setattr(surefoot.cli.app.App, "of", broken)
    told = call("status", "--store", store)
    assert told.exit_code == 1
    assert told.stderr.startswith("error[SF-INTERNAL]: RuntimeError: oh dear\nhint: ")
    assert "Traceback" not in told.stderr


@contextlib.contextmanager
def unread() -> Iterator[int]:
    """Give a descriptor that nobody reads from any more."""
    ours, theirs = os.pipe()
    os.close(ours)
    yield theirs
    os.close(theirs)


def started(store: str, command: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE) -> tuple[int, str]:
    """Return a command's exit code, and what it said on stderr."""
    argv = [sys.executable, "-m", "surefoot", *command.split(), "--store", store]
    done = subprocess.run(argv, stdout=stdout, stderr=stderr, text=True, timeout=DEADLINE, check=False)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize("command", ["events prod-1 --output json", "status", "status --output json", "--help"])
def test_a_reader_that_goes_away_is_no_error(store: str, command: str) -> None:
    with unread() as stdout:
        assert started(store, command, stdout=stdout) == (141, "")


def test_nobody_who_reads_errors_changes_no_exit_code(store: str) -> None:
    with unread() as stderr:
        assert started(store, "show nope-1", stderr=stderr) == (7, "")
        assert started(store, "status", stderr=stderr) == (0, "")


@pytest.mark.parametrize("command", ["events prod-1 --output json", "status"])
def test_a_result_that_can_not_be_written_is_an_error_that_says_so(store: str, command: str) -> None:
    with Path("/dev/full").open("wb") as full:
        code, said = started(store, command, stdout=full.fileno())
    assert code == 1
    assert said.startswith("error[SF-OUTPUT]: the result can't be written to stdout: No space left on device\n")


def test_a_pipe_that_was_made_non_blocking_gets_all_as_soon_as_somebody_reads(store: str) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(writer, bytes(4096))
    argv = [sys.executable, "-m", "surefoot", "events", "prod-1", "--output", "json", "--store", store]
    process = subprocess.Popen(argv, stdout=writer, stderr=writer)
    os.close(writer)
    with contextlib.suppress(subprocess.TimeoutExpired):  # it has to wait now, as soon as it has something to say
        process.wait(timeout=1)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()[filled:]
    assert process.wait(timeout=DEADLINE) == 0
    events = [json.loads(line) for line in said.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "finished"


def test_ctrl_c_ends_a_command_that_waits_for_its_reader() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    argv = [sys.executable, "-m", "surefoot", "explain", "--list"]
    process = subprocess.Popen(argv, stdout=writer, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + DEADLINE
        while struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))[0] < 3500:  # a page, less a line
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=DEADLINE)[1].strip() == b""
        assert process.returncode == 130
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)


def test_what_the_encoding_of_a_stream_lacks_is_written_escaped(store: str) -> None:
    opened = open_store(store)
    deployment, _ = opened.submit(replace(j.submission("4.0"), reason="größer 🎉"))
    opened.close()
    argv = [sys.executable, "-m", "surefoot", "events", deployment, "--store", store]
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(argv, capture_output=True, env=env, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"(gr\xf6\xdfer \\U0001f389)" in done.stdout


@pytest.mark.parametrize(
    ("environ", "colored"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_errors_and_results_are_colored_where_the_terminal_takes_it(
    store: str, environ: dict[str, str], colored: bool
) -> None:
    for command in ("show nope-1", "status"):
        screen, terminal = pty.openpty()
        argv = [sys.executable, "-m", "surefoot", *command.split(), "--store", store]
        env = {**os.environ, "TERM": "xterm", **environ}
        subprocess.run(argv, stdin=terminal, stdout=terminal, stderr=terminal, env=env, timeout=DEADLINE, check=False)
        said = os.read(screen, 65536)
        os.close(terminal)
        os.close(screen)
        assert said and (b"\x1b[" in said) is colored, command


# -- global options and reading ------------------------------------------------------------------------


def test_global_options_stand_before_or_after_the_command(store: str) -> None:
    before = call("--store", store, "--output", "json", "status")
    after = call("status", "--store", store, "--output", "json")
    assert before.exit_code == after.exit_code == 0
    assert json.loads(before.stdout) == json.loads(after.stdout)


def test_status_has_the_promised_shape(store: str) -> None:
    assert json.loads(call("status", "--store", store, "--output", "json").stdout) == {
        "environments": [
            {
                "name": "prod",
                "current_version": "2.0",
                "previous_version": "1.0",
                "locked_by": None,
                "frozen": None,
                "running": None,
                "queue": ["prod-3"],
            },
            {
                "name": "staging",
                "current_version": None,
                "previous_version": None,
                "locked_by": "staging-1",
                "frozen": None,
                "running": None,
                "queue": [],
            },
        ]
    }


def test_history_is_newest_first_and_without_steps(store: str) -> None:
    shown = json.loads(call("history", "prod", "--limit", "2", "--store", store, "--output", "json").stdout)
    assert [(d["id"], d["project"], d["queue_position"]) for d in shown["deployments"]] == [
        ("prod-3", "test", 1),
        ("prod-2", "test", None),
    ]
    assert "steps" not in shown["deployments"][0]


def test_people_get_tables_and_human_times(store: str) -> None:
    history = call("history", "prod", "--store", store).stdout
    assert history.splitlines()[0].split() == ["ID", "VERSION", "STATUS", "WHEN", "TOOK", "BY", "AGENT"]
    assert "just now" in history
    shown = call("show", "staging-1", "--store", store).stdout
    assert "stranded" in shown and "hint: repair the hosts by hand, then: surefoot resolve staging-1" in shown
    assert "\x1b" not in history + shown


def test_a_store_that_was_never_written_to_reads_as_empty_and_is_not_made(tmp_path: Path) -> None:
    url = str(tmp_path / "none.db")
    assert json.loads(call("status", "--store", url, "--output", "json").stdout) == {"environments": []}
    assert json.loads(call("agents", "--store", url, "--output", "json").stdout) == {"agents": []}
    assert call("cancel", "prod-1", "--store", url).exit_code == 7
    assert list(tmp_path.iterdir()) == []


def test_reading_does_not_mind_a_config_that_is_wrong_elsewhere(store: str, tmp_path: Path) -> None:
    (tmp_path / "surefoot.yml").write_text("project: ${NOT_SET_ANYWHERE}\nenvironments: {prod: {stepz: 1}, next: {}}\n")
    shown = json.loads(call("status", "--store", store, "--output", "json").stdout)
    assert [row["name"] for row in shown["environments"]] == ["next", "prod", "staging"]


def test_agents_have_the_promised_shape(store: str) -> None:
    from surefoot.core.lease import Role
    from surefoot.store.protocol import AgentReport

    opened = open_store(store)
    opened.report(AgentReport("a", Role.PRIMARY, "a-1", cpu_percent=12.5, degraded="disk 99 %"))
    opened.close()
    (row,) = json.loads(call("agents", "--store", store, "--output", "json").stdout)["agents"]
    assert list(row) == [
        "name",
        "role",
        "status",
        "last_seen_at",
        "cpu_percent",
        "memory_percent",
        "disk_percent",
        "running",
        "reason",
    ]
    assert (row["name"], row["role"], row["cpu_percent"]) == ("a", "primary", 12.5)


def test_text_of_others_never_moves_the_readers_cursor(tmp_path: Path) -> None:
    url = str(tmp_path / "evil.db")
    opened = open_store(url)
    j.submit(opened, "1.0\x1b[2J\x07\u202e", "prod")
    opened.close()
    for args in (["status"], ["history", "prod"], ["show", "prod-1"], ["events", "prod-1"]):
        shown = call(*args, "--store", url)
        assert shown.exit_code == 0
        assert not set("\x1b\x07\u202e") & set(shown.stdout)


# -- the project's files -------------------------------------------------------------------------------


def test_init_writes_what_check_and_plan_accept(tmp_path: Path) -> None:
    assert call("init").exit_code == 0
    before = sorted(tmp_path.rglob("*"))
    assert call("check").exit_code == 0, call("check").stderr
    environment = json.loads(call("check", "--output", "json").stdout)["environments"][0]
    shown = call("plan", environment, "1.0", "--output", "json")
    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout)["current_version"] is None
    assert sorted(tmp_path.rglob("*")) == before, "plan touches nothing"
    assert call("init").exit_code == 2, "what is there is not overwritten"


def test_init_in_a_folder_that_was_removed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    told = call("init")
    assert told.exit_code == 2
    assert told.stderr.startswith("error[SF-CONFIG-MISSING]: this folder has been removed\nhint: ")


def test_plan_names_hosts_and_refuses_an_inventory_without_any(tmp_path: Path) -> None:
    (tmp_path / "surefoot.yml").write_text(
        "project: p\nenvironments: {prod: {inventory: hosts.ini, "
        "preflight: [{command: {run: 'true'}}], steps: [{name: a, run: 'true'}]}}\n"
    )
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("[web]\nweb-1 ansible_host=192.0.2.1\nweb-2 ansible_host=192.0.2.2\n")
    assert json.loads(call("plan", "prod", "1.0", "--output", "json").stdout)["hosts"] == ["web-1", "web-2"]
    told = [line for line in call("plan", "prod", "1.0").stdout.splitlines() if line.startswith("  ")]
    assert {line[2:13].strip() for line in told} >= {"hosts", "agent", "gates", "preflight"}
    assert all(line[12] == " " and line[13] != " " for line in told if line[2] != " "), told
    inventory.write_text("[web]\n")
    refused = call("plan", "prod", "1.0")
    assert refused.exit_code == 2 and refused.stderr.startswith("error[SF-NO-HOSTS]: ")


@pytest.mark.parametrize("home", ["/" + "x" * 300, "", "~nobody-of-that-name"])
def test_a_home_that_is_closed_or_unknown_is_left_to_ansible_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where there is no $HOME, and no account
    run = AnsibleRun(tmp_path, "hosts.ini", fence=None, control_path=tmp_path)
    for name in ("HOME", "ANSIBLE_CONFIG"):
        assert "ANSIBLE_CALLBACK_PLUGINS" in run.environment({name: home}, 3)


def test_one_ansible_reads_inventories_for_all_who_ask_the_first_on_the_path_else_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "surefoot.yml").write_text(
        "project: p\nenvironments: {prod: {inventory: hosts.ini, steps: [{name: a, run: 'true'}]}}\n"
    )
    (tmp_path / "hosts.ini").write_text("[web]\nweb-1\n")
    theirs, asked = tmp_path / "theirs", tmp_path / "asked"
    theirs.mkdir()
    for name in ("ansible-inventory", "ansible-playbook"):
        wrapper, real = theirs / name, Path(sys.executable).with_name(name)
        wrapper.write_text(f'#!/bin/sh\necho "$(basename "$0")" >> {asked}\nexec {real} "$@"\n')
        wrapper.chmod(0o755)

    def ask() -> list[str]:
        asked.write_text("")
        assert json.loads(call("plan", "prod", "1.0", "--output", "json").stdout)["hosts"] == ["web-1"]
        watched = asyncio.run(Hosts(load(tmp_path / "surefoot.yml", kinds=KINDS))())
        assert [target.host for target in watched] == ["web-1"]
        run = AnsibleRun(tmp_path, "hosts.ini", fence=None, control_path=tmp_path).argv()
        subprocess.run([run[0], "--version"], check=True, capture_output=True, timeout=DEADLINE)
        return asked.read_text().split()

    monkeypatch.setenv("PATH", f"{theirs}:{os.environ['PATH']}")
    assert ask() == ["ansible-inventory", "ansible-inventory", "ansible-playbook"]
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert ask() == []


def test_ctrl_c_while_the_program_is_still_read_is_no_traceback() -> None:
    early = (
        "import runpy, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'click': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "runpy.run_module('surefoot', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", early], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, b"")
