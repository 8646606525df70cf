# SPDX-License-Identifier: Apache-2.0
"""The guard itself, as `sh` on a host runs it: who is let in, who is refused, what is ended, what is left alone."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from surefoot.core.errors import Code
from surefoot.steps.fence import HELD, STALE, UNUSABLE, Fence, for_any_shell, refusal
from tests.ansible.hosts import PLAIN_USER, SUDO_USER, SshHost, until

DEFAULT = "/var/lib/surefoot/fence"


class Guard:
    """Runs commands behind one fence of one host."""

    def __init__(self, host: SshHost, name: str, folder: str = "", user: str | None = None) -> None:
        self.host, self.name, self.folder, self.user = host, name, folder, user
        self.kept = host.disk(f"{folder or DEFAULT}/{name}")
        self._started: list[subprocess.Popen[str]] = []

    def argv(self, token: int, command: str) -> list[str]:
        guarded = Fence(self.name, token, self.folder).guard(command)
        return [*self.host.inside(self.user), "/bin/sh", "-c", f"{guarded}\nexit $?"]

    def run(self, token: int, command: str = "true", stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.argv(token, command), input=stdin, capture_output=True, text=True, timeout=90)

    def start(self, token: int, command: str, waits: bool = True) -> subprocess.Popen[str]:
        """Start a command; returns once it runs, unless it is not to be waited for."""
        argv = self.argv(token, f"echo started; {command}")
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._started.append(process)
        if waits:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
        return process

    def close(self) -> None:
        for process in self._started:
            # nsenter stops with what it started
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(timeout=20)
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()


@pytest.fixture
def guard(host: SshHost, fence_name: str) -> Iterator[Guard]:
    one = Guard(host, fence_name)
    try:
        yield one
    finally:
        one.close()


def failure(done: subprocess.CompletedProcess[str]) -> Code | None:
    refused = refusal(done.stderr, "web1")
    return None if refused is None else refused.code


def test_a_command_keeps_its_input_output_status_and_quoting(guard: Guard) -> None:
    done = guard.run(1, r"""cat; printf '%s\n' 'it'"'"'s $HOME "x" \n *' >&2; exit 7""", stdin="line 1\nline 2\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "line 1\nline 2\n", 'it\'s $HOME "x" \\n *\n')


ANYTHING = r"""it's a\'b \\ "$HOME" `id` !! !x {a,b} ~ # % ^ \0101 \n \c ünï"""


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish", "tcsh"])
def test_whatever_the_login_shell_is_the_guard_and_its_command_arrive_letter_by_letter(
    guard: Guard, shell: str, tmp_path: Path
) -> None:
    command = f"cat; printf %s {shlex.quote(ANYTHING)} 'and\nmore'"
    guarded = Fence("tests/shells", 1, str(tmp_path / "fence")).guard(command)
    inside = shlex.split(guarded)
    assert not any(odd in text for text in (inside[4], inside[-1]) for odd in ("'", "!", "\n", "\\\\", "\\'")), guarded
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-c", guarded], input="in ", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"in {ANYTHING}and\nmore", "")
    argv = [shell, "-c", for_any_shell(f"{command}; printf %s $#")]
    looked = subprocess.run(argv, input="in ", capture_output=True, text=True, timeout=60)
    assert (looked.returncode, looked.stdout, looked.stderr) == (0, f"in {ANYTHING}and\nmore0", "")


def test_a_refusal_that_nobody_hears_any_more_is_one_all_the_same(guard: Guard) -> None:
    assert guard.run(2).returncode == 0
    hears, says = os.pipe()
    os.close(hears)
    try:
        done = subprocess.run(guard.argv(1, "true"), stdin=subprocess.DEVNULL, stderr=says, timeout=90)
    finally:
        os.close(says)
    assert done.returncode == STALE
    assert list((guard.kept / "holders").iterdir()) == []


def test_a_stale_token_is_refused_and_nothing_runs(guard: Guard, host: SshHost) -> None:
    assert guard.run(7).returncode == 0
    done = guard.run(6, "touch /root/stale-ran")
    assert done.returncode == STALE
    assert failure(done) is Code.FENCE_STALE
    assert not host.disk("/root/stale-ran").exists()


def test_a_greater_token_raises_by_its_first_command(guard: Guard) -> None:
    assert guard.run(5).returncode == 0
    assert guard.run(9, "echo in").stdout == "in\n"
    assert (guard.kept / "token").read_text() == "9\n"
    assert guard.run(8).returncode == STALE


def test_tokens_are_compared_as_numbers(guard: Guard) -> None:
    assert guard.run(9).returncode == 0
    assert guard.run(10).returncode == 0
    assert guard.run(9).returncode == STALE


def test_two_stores_environments_of_one_name_do_not_refuse_each_other(guard: Guard) -> None:
    assert guard.run(9).returncode == 0
    other = Guard(guard.host, guard.name.replace("/store", "/other"))
    assert other.run(1, "echo in").stdout == "in\n"


def test_a_raise_ends_what_an_older_token_runs(guard: Guard, host: SshHost) -> None:
    old = guard.start(5, "sh -c 'sleep 4711; touch /root/next-line'; touch /root/next-line")
    until(lambda: host.running("sleep 4711"), "the command runs")
    assert guard.run(6).returncode == 0
    assert not host.running("sleep 4711")
    assert old.wait(timeout=20) != 0
    assert not host.disk("/root/next-line").exists(), "a script whose command was ended went on with its next line"


def test_a_raise_removes_what_ansible_had_put_down_for_an_older_token_alone(guard: Guard, host: SshHost) -> None:
    def make(token: int, name: str) -> Path:
        argv = guard.argv(token, f"mkdir -p /root/tmp/{name} && touch /root/tmp/{name}/.source")
        argv[-1] = argv[-1].replace("\n", f" '~/tmp/{name}'\n")  # as Ansible writes it, for a shell
        assert subprocess.run(argv, timeout=90).returncode == 0
        return host.disk(f"/root/tmp/{name}/.source")

    old, others, strange = make(1, "ansible-tmp-1"), host.disk("/root/tmp/ansible-tmp-others"), make(1, "else")
    others.mkdir()
    assert guard.run(1).returncode == 0 and old.exists()
    new = make(2, "ansible-tmp-2")
    assert new.exists() and others.exists() and strange.exists()
    assert not old.parent.exists()


def test_a_raise_ends_a_command_whose_guard_was_killed(guard: Guard, host: SshHost) -> None:
    guard.start(5, "sleep 4712 & wait")
    until(lambda: host.running("sleep 4712"), "the command runs")
    assert host.guards()
    for pid in host.guards():
        os.kill(pid, signal.SIGKILL)
    assert host.running("sleep 4712")
    assert guard.run(6).returncode == 0
    assert not host.running("sleep 4712")


@pytest.mark.parametrize("killed", [False, True])
def test_a_raise_ends_a_command_that_was_sent_twice(guard: Guard, host: SshHost, killed: bool) -> None:
    """As Ansible does after a connection that broke (`retries`): the second must not have the first forgotten."""
    argv = guard.argv(5, f"if mkdir /root/first-{killed}; then sleep 4725; fi 2>/dev/null")
    first = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        until(lambda: host.running("sleep 4725"), "the first runs")
        for pid in host.guards() if killed else ():
            os.kill(pid, signal.SIGKILL)
        assert subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=90).returncode == 0
        done = guard.run(6)
        assert done.returncode == 0, done.stderr
        assert not host.running("sleep 4725")
    finally:
        first.kill()
        first.wait(timeout=20)


def test_a_raise_does_not_end_what_it_came_in_by(guard: Guard, host: SshHost) -> None:
    """A host without systemd: a task was killed after it had started sshd anew."""
    sshd = "mkfifo /root/in; setsid sh -c 'while :; do read -r c < /root/in; sh \"$c\"; done' & sleep 4726"
    guard.start(5, sshd)
    until(lambda: host.running("sleep 4726"), "the command runs")
    for pid in (*host.guards(), *host.running("sleep 4726")):
        os.kill(pid, signal.SIGKILL)
    host.disk("/root/asks").write_text(Fence(guard.name, 6).guard("touch /root/came-in"))
    host.sh("echo /root/asks > /root/in")
    try:
        until(host.disk("/root/came-in").exists, "the raise is done")
    finally:
        for pid in host.running("sh -c while"):
            os.kill(pid, signal.SIGKILL)
    assert (guard.kept / "token").read_text() == "6\n"


def test_a_raise_ends_a_stopped_command_and_a_stopped_guard(guard: Guard, host: SshHost) -> None:
    guard.start(5, "sleep 4713; true")
    until(lambda: host.running("sleep 4713"), "the command runs")
    for pid in (*host.guards(), *host.running("sleep 4713")):
        os.kill(pid, signal.SIGSTOP)
    assert guard.run(6).returncode == 0
    assert not host.running("sleep 4713")


def test_a_raise_ends_what_hides_in_a_session_of_its_own(guard: Guard, host: SshHost) -> None:
    guard.start(5, "setsid sleep 4714 & sleep 4715")
    until(lambda: host.running("sleep 4714"), "both run")
    assert guard.run(6).returncode == 0
    assert not host.running("sleep 4714")
    assert not host.running("sleep 4715")


def test_a_daemon_that_a_finished_command_left_survives_a_raise(guard: Guard, host: SshHost) -> None:
    assert guard.run(5, "setsid sleep 4716 >/dev/null 2>&1 </dev/null &").returncode == 0
    until(lambda: host.running("sleep 4716"), "the daemon runs")
    (daemon,) = host.running("sleep 4716")
    try:
        assert guard.run(6).returncode == 0
        assert host.running("sleep 4716") == [daemon]
    finally:
        os.kill(daemon, signal.SIGKILL)


def test_a_daemon_does_not_hold_the_fence(guard: Guard, host: SshHost) -> None:
    assert guard.run(5, "setsid sleep 4717 >/dev/null 2>&1 </dev/null &").returncode == 0
    began = time.monotonic()
    assert guard.run(6).returncode == 0
    assert time.monotonic() - began < 8
    for pid in host.running("sleep 4717"):
        os.kill(pid, signal.SIGKILL)


def test_the_same_name_with_a_dot_is_another_fence(host: SshHost, fence_name: str) -> None:
    """A name is a name, not a pattern: raising `a.b` must not end what `a-b` runs."""
    dashed, dotted = Guard(host, f"{fence_name}/a-b"), Guard(host, f"{fence_name}/a.b")
    try:
        # What only its mark names: a background job of Ansible's, known by its program's name.
        dashed.start(1, "cp /bin/sleep /root/async_wrapper; /root/async_wrapper 4718")
        until(lambda: host.running("/root/async_wrapper 4718"), "the command runs")
        assert dotted.run(1).returncode == 0
        assert dotted.run(2).returncode == 0
        assert host.running("/root/async_wrapper 4718")
    finally:
        dashed.run(2)
        dashed.close()


def test_a_background_job_of_ansibles_is_ended_by_a_raise(guard: Guard, host: SshHost) -> None:
    assert (
        guard.run(
            5, "cp /bin/sleep /root/async_wrapper; setsid /root/async_wrapper 4719 >/dev/null 2>&1 </dev/null &"
        ).returncode
        == 0
    )
    until(lambda: host.running("/root/async_wrapper 4719"), "the job runs")
    assert guard.run(5).returncode == 0
    assert host.running("/root/async_wrapper 4719"), "its own token must not end it"
    assert guard.run(6).returncode == 0
    assert not host.running("/root/async_wrapper 4719")


# -- crashes and races ---------------------------------------------------------------------------------


def test_a_raise_that_crashed_half_way_is_finished_by_its_own_or_a_greater_token(guard: Guard) -> None:
    assert guard.run(5).returncode == 0
    (guard.kept / "raising").write_text("7\n")
    assert guard.run(5).returncode == STALE
    assert guard.run(6).returncode == STALE
    assert guard.run(7, "echo in").stdout == "in\n"
    assert not (guard.kept / "raising").exists()
    (guard.kept / "raising").write_text("8\n")
    assert guard.run(9, "echo in").stdout == "in\n"
    assert guard.run(8).returncode == STALE


def test_a_refusal_names_the_token_it_is_behind_also_in_mid_raise(guard: Guard) -> None:
    assert guard.run(5).returncode == 0
    (guard.kept / "raising").write_text("7\n")
    assert "token 5 is behind 7" in guard.run(5).stderr


def test_a_stopped_raise_does_not_keep_a_greater_one_out(guard: Guard, host: SshHost) -> None:
    """A raise that was stopped in the middle has the lock of raises, and will not give it back."""
    assert guard.run(5).returncode == 0
    lock = shlex.quote(f"{DEFAULT}/{guard.name}/lock")
    outside = subprocess.Popen([*host.inside(), "flock", "-s", lock, "sleep", "4724"])
    try:
        until(lambda: host.running("sleep 4724"), "token 5's lock is held, so that a raise has to wait")
        guard.start(6, "true", waits=False)
        until((guard.kept / "raising").exists, "6 is in the middle of its raise")
        for pid in host.guards():
            os.kill(pid, signal.SIGSTOP)
    finally:
        for pid in host.running("sleep 4724"):
            os.kill(pid, signal.SIGKILL)
        outside.wait(timeout=20)
    assert guard.run(7, "echo in").stdout == "in\n"


def test_two_raises_at_once_leave_the_greater(guard: Guard) -> None:
    results: dict[int, int] = {}
    threads = [
        threading.Thread(target=lambda t=t: results.__setitem__(t, guard.run(t).returncode)) for t in (8, 9, 8, 9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[9] == 0
    assert (guard.kept / "token").read_text() == "9\n"
    assert guard.run(8).returncode == STALE


def test_racing_commands_never_run_behind_a_greater_one(guard: Guard, host: SshHost) -> None:
    log = host.disk("/root") / f"log-{time.monotonic_ns()}"
    inside = f"/root/{log.name}"
    rng = random.Random(5)
    tokens = [rng.choice((5, 6, 7)) for _ in range(40)] + [5, 6, 7]
    begun = f'echo "$(date +%s%N) begin TOKEN $$" >> {inside}'
    work = f'i=0; while [ $i -lt 4 ]; do sleep 0.05; echo "$(date +%s%N) work TOKEN $$" >> {inside}; i=$((i+1)); done'
    codes: list[tuple[int, int, str]] = []

    def one(token: int) -> None:
        done = guard.run(token, f"{begun}; {work}".replace("TOKEN", str(token)))
        codes.append((token, done.returncode, done.stderr))

    pending = list(tokens)

    def worker() -> None:
        while pending:
            try:
                token = pending.pop()
            except IndexError:
                return
            one(token)

    threads = [threading.Thread(target=worker) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = sorted((int(at), int(token)) for at, _, token, _ in map(str.split, log.read_text().splitlines()))
    seen = 0
    for _, token in lines:
        assert token >= seen, "a smaller token's command ran after a greater one had begun"
        seen = token
    assert seen == 7
    assert all(code == 0 for token, code, _ in codes if token == 7), codes
    assert {code for token, code, _ in codes if token < 7} <= {0, STALE, 137, 143}, codes


# -- hosts that can't keep a fence ---------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_refused_by_name(host: SshHost, fence_name: str) -> None:
    host.sh("mkdir -p /root/locked; chmod 700 /root/locked")
    done = Guard(host, fence_name, "/root/locked/fence", PLAIN_USER).run(1, "touch /home/worker/ran")
    assert (done.returncode, failure(done)) == (UNUSABLE, Code.FENCE_FOLDER)
    assert "/root/locked/fence" in done.stderr
    assert PLAIN_USER in done.stderr
    assert not host.disk("/home/worker/ran").exists()


def test_a_fence_that_root_set_up_is_not_bypassed_by_another_user(guard: Guard) -> None:
    assert guard.run(7).returncode == 0
    done = Guard(guard.host, guard.name, user=PLAIN_USER).run(8, "touch /home/worker/bypassed")
    assert (done.returncode, failure(done)) == (UNUSABLE, Code.FENCE_FOLDER)
    assert not guard.host.disk("/home/worker/bypassed").exists()


def test_a_user_without_rights_has_the_fence_in_its_home(host: SshHost, fence_name: str) -> None:
    plain = Guard(host, fence_name, user=PLAIN_USER)
    assert plain.run(5, "echo in").stdout == "in\n"
    assert (host.disk("/home/worker/.surefoot/fence") / fence_name / "token").read_text() == "5\n"
    assert plain.run(4).returncode == STALE


def test_a_fence_stays_where_it_is_when_the_default_folder_may_be_written_later(host: SshHost, fence_name: str) -> None:
    plain = Guard(host, fence_name, user=PLAIN_USER)
    assert plain.run(5).returncode == 0
    host.sh(f"mkdir -p {DEFAULT}/tests && chmod 777 {DEFAULT}/tests")
    try:
        assert plain.run(4).returncode == STALE
        assert plain.run(5, "echo in").stdout == "in\n"
    finally:
        host.sh(f"chmod 755 {DEFAULT}/tests")
    assert not plain.kept.exists()


def test_a_user_without_a_writable_home_is_told(host: SshHost, fence_name: str) -> None:
    guarded = Fence(fence_name, 1).guard("touch /tmp/no-home-ran")
    argv = [*host.inside(PLAIN_USER), "env", "HOME=/nonexistent", "/bin/sh", "-c", guarded]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert (done.returncode, failure(done)) == (UNUSABLE, Code.FENCE_FOLDER)
    assert "/nonexistent/.surefoot/fence" in done.stderr


def test_a_missing_flock_is_told(host: SshHost, fence_name: str) -> None:
    without = Path(host.folder) / "bin"
    without.mkdir(exist_ok=True)
    for program in ("sh", "id", "mkdir", "cat", "touch", "uname", "awk", "grep", "sed", "tr", "rm"):
        link = without / program
        if not link.exists():
            link.symlink_to(shutil.which(program) or f"/bin/{program}")
    guarded = Fence(fence_name, 1).guard("touch /root/no-flock")
    done = subprocess.run(
        [*host.inside(), "env", f"PATH={without}", "sh", "-c", guarded], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, failure(done)) == (UNUSABLE, Code.FENCE_FOLDER)
    assert "flock" in done.stderr
    refused = refusal(done.stderr, "web1")
    assert refused is not None
    assert "util-linux" in refused.message + refused.hint
    assert not host.disk("/root/no-flock").exists()


def test_a_full_disk_is_told_as_such(own_host: SshHost, fence_name: str) -> None:
    own_host.sh("mkdir -p /var/lib/surefoot; mount -t tmpfs -o size=64k tmpfs /var/lib/surefoot")
    guard = Guard(own_host, fence_name)
    assert guard.run(1).returncode == 0
    own_host.sh("dd if=/dev/zero of=/var/lib/surefoot/filler bs=4k count=100")
    for token in (1, 2):
        done = guard.run(token, "touch /root/ran")
        assert (done.returncode, failure(done)) == (UNUSABLE, Code.HOST_DISK_FULL), done.stderr
    assert not own_host.disk("/root/ran").exists()
    own_host.sh("rm /var/lib/surefoot/filler")
    assert guard.run(2, "echo in").stdout == "in\n"
    assert guard.run(1).returncode == STALE


def test_a_damaged_token_is_told_and_lets_nobody_in(guard: Guard) -> None:
    assert guard.run(3).returncode == 0
    (guard.kept / "token").write_text("")
    done = guard.run(4, "touch /root/damaged")
    assert (done.returncode, failure(done)) == (UNUSABLE, Code.FENCE_FOLDER)
    assert "damaged" in done.stderr
    assert not guard.host.disk("/root/damaged").exists()


def test_where_nothing_reaps_the_dead_they_do_not_keep_a_raise_waiting(own_host: SshHost, fence_name: str) -> None:
    guard = Guard(own_host, fence_name)
    old = guard.start(5, "sleep 4720 & sleep 4721 & wait")
    until(lambda: len(own_host.running("sleep 472")) == 2, "the command runs")
    try:
        for pid in own_host.guards():
            os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        assert guard.run(6).returncode == 0
        assert time.monotonic() - began < 8
        assert not own_host.running("sleep 472")
    finally:
        old.kill()
        guard.close()


# -- become --------------------------------------------------------------------------------------------


def test_a_user_who_may_sudo_ends_what_runs_as_root(host: SshHost, fence_name: str) -> None:
    helper = Guard(host, fence_name, f"/home/{SUDO_USER}/fence", SUDO_USER)
    try:
        helper.start(5, "sudo -n sleep 4722")
        until(lambda: host.running("sleep 4722"), "it runs as root")
        assert helper.run(6).returncode == 0
        assert not host.running("sleep 4722")
    finally:
        helper.close()


def test_what_cannot_be_ended_keeps_the_greater_token_out(host: SshHost, fence_name: str) -> None:
    """A process of root's below a user's guard, and no sudo: the raise fails and says so; nobody gets in."""
    host.sh(f"mkdir -p /home/worker/held/{fence_name}/holders; chown -R 4101:4101 /home/worker/held")
    plain = Guard(host, fence_name, "/home/worker/held", PLAIN_USER)
    assert plain.run(5).returncode == 0
    # root holds token 5's lock, as a setuid program that a guard started would
    holder = subprocess.Popen(
        [
            *host.inside(),
            "/bin/sh",
            "-c",
            f"exec 9>>{shlex.quote('/home/worker/held/' + fence_name)}/lock; flock -s 9; exec sleep 4723",
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: host.running("sleep 4723"), "it is held")
        done = plain.run(6, "touch /home/worker/got-in")
        assert (done.returncode, failure(done)) == (HELD, Code.FENCE_FAILED)
        assert plain.run(5).returncode == STALE
        assert not host.disk("/home/worker/got-in").exists()
    finally:
        for pid in host.running("sleep 4723"):
            os.kill(pid, signal.SIGKILL)
        holder.wait(timeout=20)
    assert plain.run(6, "echo in").stdout == "in\n"
