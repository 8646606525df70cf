# SPDX-License-Identifier: Apache-2.0
"""The demo, run for real; and that its verdict would notice a broken promise."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from surefoot import demo
from surefoot.core.errors import UsageError
from surefoot.demo import refusal
from surefoot.demo.hosts import DemoHost, Probe
from surefoot.demo.interrupts import Interrupts
from surefoot.demo.scene import Scene
from surefoot.demo.verdict import judge, nothing_lost

#: Far more than a demo takes, on a machine that does much else.
DEMO_WITHIN = 400
DEMO = "import sys, pathlib; from surefoot import demo; sys.exit(demo.run({keep}, pathlib.Path({folder!r})))"
#: The story without its middle: one deploy, of the version that all of them end with.
ONE_ACT = """
import time
from surefoot.demo import story
def only(self):
    self._finish(self._deploy("5.0"), 0, "5.0")
    self._probe.start()
    time.sleep(0.5)
story.ENDINGS = {"5.0": story.ENDINGS["5.0"]}
story.Story._first_deploy = only
for act in ("killed_agent", "broken_release", "cancel", "frozen_agent"):
    setattr(story.Story, f"_{act}", lambda self: None)
"""


def started(folder: Path, *, keep: bool = False, but: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", but + DEMO.format(keep=keep, folder=str(folder))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def processes_in(folder: Path) -> list[str]:
    """Processes that have to do with the folder: those that name it, and those that work in it."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        if process.pid == os.getpid():
            continue
        if str(folder) in " ".join(process.info["cmdline"] or []) or (process.info["cwd"] or "").startswith(
            str(folder)
        ):
            found.append(f"{process.pid} {process.info['cmdline']}")
    return found


def gone_within(folder: Path, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while processes_in(folder):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder for a demo; whatever still runs in it at the end is killed, by pid."""
    folder = tmp_path / "a demo"
    yield folder
    for line in processes_in(folder):
        psutil.Process(int(line.split()[0])).kill()


@pytest.fixture
def scene(place: Path) -> Iterator[Scene]:
    """Two hosts that run 1.0, without any agent."""
    place.mkdir()
    scene = Scene(place)
    try:
        for host in scene.hosts:
            release = host.root / "releases" / "1.0"
            release.mkdir(parents=True)
            (release / "app.py").write_bytes((scene.project / "releases" / "1.0" / "app.py").read_bytes())
            (host.root / "current").symlink_to("releases/1.0")
        scene.start_hosts()
        for token in (1, 2):
            for host in scene.hosts:
                record(host, token=token)
        yield scene
    finally:
        scene.end()


def record(host: DemoHost, *, token: int) -> None:
    command = [
        host.root / "bin" / "record",
        f"production-{token}",
        str(token),
        "runner-01",
        "activate",
        "forward",
        "switching",
    ]
    subprocess.run(command, check=True)


def broken(scene: Scene, expected: str = "1.0") -> list[str]:
    return [finding.promise for finding in judge(scene.hosts, expected) if not finding.kept]


# -- the whole story -------------------------------------------------------------------------------------


def test_kept_demo_keeps_every_promise_and_can_be_played_with_until_it_is_stopped(place: Path) -> None:
    process = started(place, keep=True)
    out, _ = process.communicate(timeout=DEMO_WITHIN)
    assert process.returncode == 0, out
    assert "✗" not in out
    for told in (
        r"runner-02 takes over from runner-01, \d+\.\d s after",
        r"kill -9 \d+: runner-01 is gone",
        r"health check fails",
        r"the store refuses its report:",
        r"web-01 refuses its command: .*stale.* \(exit 97\)",
        r"web-02 refuses its command: .*stale.* \(exit 97\)",
        r"✓ one at a time",
        r"✓ all or nothing +web-01 and web-02 link to, run and serve 5\.0",
        r"✓ Every promise kept",
    ):
        assert re.search(told, out), f"{told} is not in:\n{out}"
    project = re.search(r"^   cd (.+)$", out, re.MULTILINE)
    stop = re.search(r"remove the folder:  sh (.+)$", out, re.MULTILINE)
    assert project and stop, out
    [folder], [script] = shlex.split(project[1]), shlex.split(stop[1])

    asked = subprocess.run(
        [sys.executable, "-m", "surefoot", "--output", "json", "status"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    [environment] = json.loads(asked.stdout)["environments"]
    assert environment["current_version"] == "5.0"

    subprocess.run(["sh", script], timeout=60, check=True)
    assert gone_within(place, 15), processes_in(place)
    assert not place.exists()


def test_demo_that_is_not_kept_leaves_nothing_behind(place: Path) -> None:
    process = started(place, but=ONE_ACT)
    out, _ = process.communicate(timeout=DEMO_WITHIN)
    assert process.returncode == 0, out
    assert "✓ Every promise kept" in out
    assert not place.exists()
    assert gone_within(place, 10), processes_in(place)


@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGINT, "activate begins"), (signal.SIGTERM, "$ surefoot deploy"), (signal.SIGHUP, "Ansible runs")],
)
def test_interrupted_demo_leaves_nothing_behind(place: Path, number: signal.Signals, moment: str) -> None:
    process = started(place)
    assert process.stdout is not None
    for line in process.stdout:
        if moment in line:
            break
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == demo.INTERRUPTED, out
    assert gone_within(place, 10), processes_in(place)
    assert not place.exists()


# -- the verdict can fail --------------------------------------------------------------------------------


def test_verdict_finds_nothing_wrong_with_hosts_that_are_right(scene: Scene) -> None:
    assert broken(scene) == []


def test_verdict_notices_a_command_of_an_older_token(scene: Scene) -> None:
    record(scene.hosts[0], token=1)
    [finding] = [f for f in judge(scene.hosts, "1.0") if not f.kept]
    assert finding.promise == "one at a time"
    assert "web-01 ran 'switching' of production-1 with token 1" in finding.evidence


def test_verdict_notices_an_older_token_on_the_other_host(scene: Scene) -> None:
    record(scene.hosts[0], token=3)
    record(scene.hosts[1], token=2)
    assert broken(scene) == ["one at a time"]


def test_verdict_notices_a_black_box_that_was_emptied_or_garbled(scene: Scene) -> None:
    box = scene.hosts[1].black_box
    box.write_text("")
    assert broken(scene) == ["one at a time"]
    box.write_text("rm -rf\n")
    assert broken(scene) == ["one at a time"]


def test_verdict_notices_a_host_that_is_linked_to_another_version(scene: Scene) -> None:
    link = scene.hosts[1].root / "current"
    link.unlink()
    link.symlink_to("releases/2.0")
    assert broken(scene) == ["all or nothing"]


def test_verdict_notices_hosts_that_run_the_wrong_version(scene: Scene) -> None:
    assert broken(scene, expected="2.0") == ["all or nothing"]


def test_verdict_notices_a_service_that_does_not_answer(scene: Scene) -> None:
    scene.end()
    assert broken(scene) == ["all or nothing"]


def test_probe_counts_requests_that_a_dead_service_loses(scene: Scene) -> None:
    scene.end()
    probe = Probe(scene.hosts)
    probe.start()
    time.sleep(0.5)
    probe.stop()
    assert probe.lost == probe.requests > 0
    assert not nothing_lost(probe.requests, probe.lost).kept
    assert not nothing_lost(0, 0).kept


def test_host_refuses_an_older_token_and_runs_the_present_one(scene: Scene) -> None:
    fence = scene.fences / "demo" / "production" / "store"
    fence.mkdir(parents=True)
    (fence / "token").write_text("2\n")
    for host in scene.hosts:
        before = host.black_box.read_bytes()
        code, said = refusal.try_command(scene.fences, host, 1)
        assert code == refusal.STALE
        assert "stale" in said
        assert host.black_box.read_bytes() == before
        assert refusal.try_command(scene.fences, host, 2) == (0, "")
        assert host.records()[-1].token == 2


# -- the stage -------------------------------------------------------------------------------------------


def test_swap_of_a_service_loses_no_request(scene: Scene) -> None:
    probe = Probe(scene.hosts)
    probe.start()
    for host in scene.hosts:
        release = host.root / "releases" / "2.0"
        release.mkdir()
        (release / "app.py").write_bytes((scene.project / "releases" / "2.0" / "app.py").read_bytes())
        (host.root / ".next").symlink_to("releases/2.0")
        (host.root / ".next").replace(host.root / "current")
        os.kill(int((host.root / "supervisor.pid").read_text()), signal.SIGHUP)
        until = time.monotonic() + 20
        while host.ask("/version").version != "2.0":
            assert time.monotonic() < until
            time.sleep(0.05)
    time.sleep(0.3)
    probe.stop()
    assert probe.requests > 5
    assert probe.lost == 0


def test_supervisor_starts_a_service_again_that_died(scene: Scene) -> None:
    host = scene.hosts[0]
    supervisor = int((host.root / "supervisor.pid").read_text())
    [service] = psutil.Process(supervisor).children()
    service.kill()
    service.wait(5)
    until = time.monotonic() + 20
    while [child.pid for child in psutil.Process(supervisor).children()] in ([], [service.pid]):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert host.ask("/health").status == 200


def test_release_3_starts_and_answers_but_is_not_well(scene: Scene) -> None:
    host = scene.hosts[0]
    app = host.root / "releases" / "1.0" / "app.py"
    app.write_bytes((scene.project / "releases" / "3.0" / "app.py").read_bytes())
    os.kill(int((host.root / "supervisor.pid").read_text()), signal.SIGHUP)
    until = time.monotonic() + 20
    while host.ask("/version").version != "3.0":
        assert time.monotonic() < until
        time.sleep(0.05)
    assert host.ask("/health").status == 500


def test_interrupt_waits_for_what_must_be_whole_and_comes_once() -> None:
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("the first")
        with interrupts.held():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("the second is ignored")
    assert done == ["the first", "the second is ignored"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_nohup_has_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt), interrupts.held():
                os.kill(os.getpid(), signal.SIGTERM)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, "what cleans up inherits it"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_is_started_hears_ctrl_c_though_a_shell_has_it_ignored_in_the_background() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts, interrupts.held():
            os.kill(os.getpid(), signal.SIGINT)
            sleeper = subprocess.Popen(["sleep", "60"])
            sleeper.send_signal(signal.SIGINT)
            assert sleeper.wait() == -signal.SIGINT
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_demo_refuses_a_folder_that_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="not empty"):
        demo.run(False, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_demo_refuses_a_folder_in_a_git_work_tree(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    with pytest.raises(UsageError, match="git work tree"):
        demo.run(False, tmp_path / "demo")
