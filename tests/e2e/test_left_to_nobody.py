# SPDX-License-Identifier: Apache-2.0
"""Without agents in the config, what was accepted has an agent to its end, whatever becomes of the one who asked."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from surefoot.agent import service
from surefoot.api import follow, requests
from surefoot.cli import app as cli_app
from surefoot.cli import following, own_agent
from surefoot.cli.app import App
from surefoot.cli.following import Patience, see_through
from surefoot.cli.interrupts import Interrupts
from surefoot.cli.main import cli
from surefoot.cli.own_agent import leave_nothing, start_in_background
from surefoot.cli.resolving import see_resolved
from surefoot.cli.settings import Settings
from surefoot.core.errors import Code, Exit, NewerStoreError, StoreError, WaitTimeoutError
from surefoot.core.lease import Role
from surefoot.core.status import Status
from surefoot.store import open_store
from surefoot.store.protocol import AgentReport
from surefoot.store.sqlite import SqliteStore
from tests.e2e.test_cli_deploy import DEADLINE, Project, eventually
from tests.support.signals import put_back

AWAY = StoreError("the store is away", code=Code.STORE_UNREACHABLE)


class Away:
    """A store that does not answer one who asks while `away` holds; others have connections of their own."""

    def __init__(self, store: SqliteStore, away: Callable[[str], bool] = lambda _: True) -> None:
        self.store, self.away = store, away

    def __getattr__(self, name: str) -> Any:
        if self.away(name):
            raise AWAY
        return getattr(self.store, name)


@dataclass
class Here:
    """A project whose commands run in this process, so that a test can have anything fail."""

    project: Project
    app: App
    store: SqliteStore

    def accepted(self, version: str = "1.0") -> str:
        files = self.app.files()
        self.store.put_bundle(files.digest, files.chunks())
        submission = self.app.submission("prod", version, reason="", key=None)
        return requests.submit(self.store, replace(submission, bundle=files.digest))[0]

    def status(self, deployment: str = "prod-1") -> Status:
        return requests.load(self.store, deployment).status

    def follow(self, deployment: str, store: Any = None, **patience: Any) -> int:
        with put_back(), Interrupts() as interrupts:
            return see_through(self.app, store or self.store, deployment, Patience(**patience), interrupts)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    yield made
    made.close()


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.chdir(project.folder)
    for name in set(os.environ) - set(project.env):
        monkeypatch.delenv(name)
    monkeypatch.setattr(follow, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(follow, "PATIENCE", 0.0)
    app = App(Settings(config=str(project.config)))
    store = open_store(app.store_url)
    assert isinstance(store, SqliteStore)
    yield Here(project, app, store)
    store.close()


@pytest.fixture
def backgrounds(monkeypatch: pytest.MonkeyPatch) -> list[App]:
    """What is called instead of starting an agent in the background."""
    called: list[App] = []
    monkeypatch.setattr(own_agent, "start_in_background", called.append)
    monkeypatch.setattr(following, "start_in_background", called.append)
    return called


# -- the store goes away ---------------------------------------------------------------------------------


def test_a_store_that_is_away_is_waited_for_as_long_as_the_own_agent_lives(here: Here) -> None:
    deployment = here.accepted()
    away = Away(here.store, lambda _: here.status() is not Status.SUCCEEDED)
    assert here.follow(deployment, away) == Exit.DONE


def test_a_store_that_stays_away_when_the_own_agent_has_done_its_work_is_waited_for_no_longer(here: Here) -> None:
    deployment = here.accepted()
    with pytest.raises(StoreError):
        here.follow(deployment, Away(here.store))
    assert here.status() is Status.SUCCEEDED


def test_nobody_is_said_to_go_on_where_this_program_is_too_old_for_the_store(
    here: Here, backgrounds: list[App]
) -> None:
    deployment = here.accepted()
    with closing(sqlite3.connect(here.app.store_url, isolation_level=None)) as conn:
        conn.execute("UPDATE schema_version SET version = version + 1")
        with pytest.raises(NewerStoreError):
            here.follow(deployment)
        assert (here.status(), backgrounds) == (Status.QUEUED, [])
        conn.execute("UPDATE schema_version SET version = version - 1")


def test_an_own_agent_waits_for_a_store_that_is_away_when_it_starts(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = here.accepted()
    failures = [AWAY, AWAY]

    def open_it(url: str) -> Any:
        if failures:
            raise failures.pop()
        return open_store(url)

    monkeypatch.setattr(service, "OPEN_AGAIN", 0.01)
    monkeypatch.setattr(service, "open_store", open_it)
    assert here.follow(deployment) == Exit.DONE
    assert not failures


def test_a_background_agent_waits_for_a_store_that_is_away_when_it_starts_and_one_that_a_person_starts_does_not(
    here: Here,
) -> None:
    here.accepted()
    mount, gone = here.project.folder / ".surefoot", here.project.folder / ".gone"
    here.store.close()
    mount.rename(gone)
    mount.touch()
    call = ("--store", str(mount / "surefoot.db"), "agent", "run", "--role", "emergency", "--once")
    (here.project.folder / "state").mkdir()
    assert here.project.run(*call, "person").returncode == Exit.STORE
    agent = here.project.start(*call, "host-1-background")
    assert agent.stderr is not None
    assert any("trying again" in line for line in agent.stderr)
    mount.unlink()
    gone.rename(mount)
    agent.communicate(timeout=DEADLINE)
    assert agent.returncode == 0
    assert here.project.status_of("prod-1") == "succeeded"


def test_a_timeout_ends_the_following_of_a_store_that_never_answered_and_the_deployment_goes_on(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = here.accepted("slow")
    here.app.settings.output = "json"
    with pytest.raises(WaitTimeoutError, match="goes on"):
        here.follow(deployment, Away(here.store), timeout=0.3)
    eventually((here.project.live.parent / "slow").exists)
    assert here.status() is Status.RUNNING
    here.project.run("cancel", deployment)
    eventually(lambda: here.status() is Status.CANCELLED)


def test_a_signal_while_the_store_is_away_is_a_cancel_when_it_is_back(here: Here) -> None:
    deployment = here.accepted("slow")
    slow = here.project.live.parent / "slow"
    back = threading.Event()

    def signalled() -> None:
        eventually(slow.exists)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        back.wait(0.5)
        back.set()

    person = threading.Thread(target=signalled)
    person.start()
    code = here.follow(deployment, Away(here.store, lambda _: not back.is_set()))
    person.join()
    assert code == Exit.CANCELLED


def test_a_signal_that_came_before_the_following_is_answered_beside_it() -> None:
    answered_in: list[threading.Thread] = []
    answered = threading.Event()

    def answer(_signal: str) -> None:
        answered_in.append(threading.current_thread())
        answered.set()

    with put_back(), Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.seen.wait(DEADLINE)
        interrupts.answer_with(answer)
        assert answered.wait(DEADLINE)
    assert answered_in != [threading.main_thread()]


def test_an_outcome_is_told_though_the_rest_of_the_log_cannot_be_read(here: Here, backgrounds: list[App]) -> None:
    deployment = here.accepted()
    requests.cancel(here.store, deployment, by="me")
    looks = iter(range(1000))
    away = Away(here.store, lambda name: name == "journal" and next(looks) > 0)
    here.app.settings.output = "json"
    assert here.follow(deployment, away) == Exit.CANCELLED
    assert backgrounds == []


def test_agents_elsewhere_are_not_asked_for_in_vain(here: Here, backgrounds: list[App]) -> None:
    here.project.config.write_text(here.project.config.read_text() + "agents: {one: {role: primary}}\n")
    deployment = here.accepted()
    requests.cancel(here.store, deployment, by="me")
    assert here.follow(deployment, Away(here.store, lambda name: name == "agents")) == Exit.CANCELLED
    assert backgrounds == []


# -- the own agent dies, the following breaks ------------------------------------------------------------


def test_when_the_own_agent_dies_one_in_the_background_goes_on(
    here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(service, "run_agent", dies)
    deployment = here.accepted()
    with pytest.raises(RuntimeError, match="the disk is gone"):
        here.follow(deployment)
    assert "an agent in the background does what is left to do" in capsys.readouterr().err
    eventually(lambda: here.status() is Status.SUCCEEDED)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_whatever_ends_the_following_one_in_the_background_goes_on(
    here: Here, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def breaks(_: object) -> None:
        raise error

    monkeypatch.setattr(following, "view_for", breaks)
    deployment = here.accepted()
    with pytest.raises(type(error)):
        here.follow(deployment)
    eventually(lambda: here.status() is Status.SUCCEEDED)


def test_a_signal_after_the_outcome_changes_no_exit_code(project: Project) -> None:
    process = project.start("deploy", "prod", "1.0")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("prod-1 prod 1.0: succeeded")
    for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT) * 20:  # all that is left of its time
        process.send_signal(name)
        time.sleep(0.002)
    assert process.wait(timeout=DEADLINE) == 0


def test_a_deploy_that_is_killed_soon_after_a_signal_is_put_back_all_the_same(project: Project) -> None:
    folder = project.live.parent
    project.config.write_text(
        f"""\
project: shop
lease: {{ttl: 1s}}
environments:
  prod:
    steps:
      - name: activate
        run: touch {folder}/begun; sleep 60
        undo: {{run: 'touch {folder}/undoing; while ! test -e {folder}/go; do sleep 0.1; done'}}
"""
    )
    deploy = project.start("deploy", "prod", "1.0")
    eventually((folder / "begun").exists)
    deploy.send_signal(signal.SIGTERM)
    eventually((folder / "undoing").exists)
    eventually(lambda: sum(a["status"] == "online" for a in project.json("agents")["agents"]) == 2)
    deploy.kill()
    (folder / "go").touch()
    eventually(lambda: project.status_of("prod-1") == "cancelled")


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_streams_that_are_closed_or_full_change_nothing_of_a_deployment(project: Project, closed: str) -> None:
    call = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "surefoot", "deploy", "prod", "1.0"]
    done = subprocess.run(call, cwd=project.folder, env=project.env, timeout=DEADLINE, capture_output=True)
    assert (done.returncode, done.stderr if "2>" in closed else b"") == (0, b"")
    assert project.status_of("prod-1") == "succeeded"


def test_a_deployment_is_worked_where_whoever_started_it_ignores_the_ends_of_children(project: Project) -> None:
    call = ["env", "--ignore-signal=CHLD", sys.executable, "-m", "surefoot", "deploy", "prod"]
    for version, code in (("1.0", 0), ("bad-2", 4)):
        done = subprocess.run([*call, version], cwd=project.folder, env=project.env, timeout=DEADLINE, check=False)
        assert done.returncode == code
    assert project.json("show", "prod-2")["reason"]["code"] == "SF-STEP-FAILED"


@pytest.mark.parametrize(
    "command", [["deploy", "prod", "2.0"], ["deploy", "prod", "2.0", "--detach"], ["rollback", "prod"]]
)
def test_where_no_agent_could_work_nothing_is_accepted(project: Project, command: list[str]) -> None:
    for version in ("1.0", "1.1"):
        project.run("deploy", "prod", version)
    agents = project.folder / ".surefoot" / "agents"
    shutil.rmtree(agents)
    agents.touch()  # nothing can be made in it, not even by root
    done = project.run(*command)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error[SF-AGENT-FOLDER]: ") and "\nhint: " in done.stderr
    assert len(project.json("history", "prod")["deployments"]) == 2


# -- an agent in the background --------------------------------------------------------------------------


def test_an_agent_in_the_background_works_though_it_has_no_file_to_write_to(project: Project) -> None:
    (project.folder / ".surefoot" / "background.log").mkdir(parents=True)
    done = project.run("deploy", "prod", "1.0", "--detach")
    assert (done.returncode, done.stdout) == (0, "prod-1\n"), done.stderr
    eventually(lambda: project.status_of("prod-1") == "succeeded")


def test_an_agent_in_the_background_is_no_process_of_the_job_that_started_it(project: Project) -> None:
    text = project.config.read_text()
    project.config.write_text(text.replace("sleep 0.4", f"env > {project.live.parent}/env"))
    marks = {"RUNNER_TRACKING_ID": "github_1", "JENKINS_NODE_COOKIE": "1", "JENKINS_SERVER_COOKIE": "2"}
    assert project.run("deploy", "prod", "1.0", "--detach", OTHER="kept", **marks).returncode == Exit.DONE
    eventually(lambda: project.status_of("prod-1") == "succeeded")
    seen = dict(line.partition("=")[::2] for line in (project.live.parent / "env").read_text().splitlines())
    assert seen["OTHER"] == "kept" and not set(marks) & set(seen)


def test_that_no_agent_can_be_started_in_the_background_is_said_with_the_way_out(
    here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuses)
    start_in_background(here.app)
    told = capsys.readouterr().err
    assert "nobody does what is left to do" in told and "no more processes" in told
    assert "hint: surefoot agent run " in told and " --role emergency --once" in told


# -- requests that leave work behind ---------------------------------------------------------------------


def test_who_cannot_see_whether_somebody_works_has_somebody_work(here: Here, backgrounds: list[App]) -> None:
    away: Any = Away(here.store, lambda name: name in ("agents", "work"))
    leave_nothing(here.app, away)
    assert backgrounds == [here.app]


@pytest.mark.parametrize("lives", [True, False])
def test_an_agent_is_there_if_it_gives_a_sign_of_life_from_now_on(
    here: Here, backgrounds: list[App], monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
    """One that was killed just now looks no different, as long as its steps are not ended."""
    monkeypatch.setattr(cli_app, "SILENT", 2.0)
    here.accepted()
    report = AgentReport("one", Role.PRIMARY, "its first life")
    here.store.report(report)
    ended = threading.Event()

    def goes_on() -> None:
        with closing(open_store(here.app.store_url)) as store:
            while not ended.wait(0.1):
                store.report(report)

    other = threading.Thread(target=goes_on)
    if lives:
        other.start()
    try:
        leave_nothing(here.app, here.store)
    finally:
        ended.set()
        if lives:
            other.join()
    assert backgrounds == ([] if lives else [here.app])


def test_nobody_is_waited_for_without_end_where_the_clock_was_set_back(
    here: Here, backgrounds: list[App], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_app, "SILENT", 1.0)
    here.accepted()
    here.store.report(AgentReport("one", Role.PRIMARY, "its first life"))
    with closing(sqlite3.connect(here.app.store_url, isolation_level=None)) as conn:
        conn.execute("UPDATE agents SET last_seen_at = last_seen_at + 3600")
    leave_nothing(here.app, here.store)
    assert backgrounds == [here.app]


@pytest.mark.parametrize("agents", ["", "agents: {runner-1: {role: primary}}\n"])
def test_whoever_follows_what_nobody_works_is_told_so(here: Here, agents: str) -> None:
    here.project.config.write_text(here.project.config.read_text() + agents)
    deployment = here.accepted()
    following = here.project.start("events", deployment, "--follow")
    assert following.stderr is not None
    warning, hint = following.stderr.readline(), following.stderr.readline()
    assert "no agent is online" in warning
    agent = hint.partition("surefoot ")[2].replace("NAME", "me").split()
    worker = here.project.start(*agent)
    assert following.wait(timeout=DEADLINE) == 0
    worker.send_signal(signal.SIGTERM)
    assert here.status() is Status.SUCCEEDED
    assert "no agent" not in here.project.run("events", deployment, "--follow").stderr


def test_an_approval_has_somebody_work_whatever_cannot_be_told_of_it(
    here: Here, monkeypatch: pytest.MonkeyPatch, backgrounds: list[App]
) -> None:
    text = here.project.config.read_text()
    here.project.config.write_text(text + "    approvals: {from: [anyone]}\n")
    deployment = here.accepted()

    def away(*_: object, **__: object) -> None:
        raise AWAY

    monkeypatch.setattr(SqliteStore, "history", away)
    monkeypatch.setenv("USER", "somebody-else")
    with pytest.raises(SystemExit) as ended:
        cli.main(["--config", str(here.project.config), "approve", deployment])
    assert ended.value.code == Exit.STORE
    assert len(backgrounds) == 1


# -- resolve ---------------------------------------------------------------------------------------------


@pytest.fixture
def stranded(here: Here) -> Here:
    """prod-1 is stranded; the health checks are never done while `hold` is there."""
    folder = here.project.live.parent
    check = f"touch {folder}/looked; while test -e {folder}/hold; do sleep 0.1; done"
    here.project.config.write_text(
        here.project.config.read_text()
        + f"    health: [{{command: {{run: '{check}', timeout: 50s}}}}]\n"
        + "    health_policy: {within: 50s, interval: 100ms, successes: 1}\n"
    )
    (folder / "stuck").touch()
    assert here.project.run("deploy", "prod", "bad").returncode == Exit.STRANDED
    return here


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_resolve_is_answered_though_whoever_asked_waits_no_longer(
    stranded: Here, ending: signal.Signals
) -> None:
    folder = stranded.project.live.parent
    (folder / "hold").touch()
    asked = stranded.project.start("resolve", "prod-1", "--reason", "by hand", "--version", "1.0")
    eventually((folder / "looked").exists)
    asked.send_signal(ending)
    asked.communicate(timeout=DEADLINE)
    assert asked.returncode == 130
    (folder / "hold").unlink()
    eventually(lambda: requests.load(stranded.store, "prod-1").resolved is not None)


def test_an_answer_to_resolve_is_waited_for_as_long_as_the_own_agent_lives(stranded: Here) -> None:
    state = requests.resolve(stranded.store, "prod-1", by="me", reason="by hand", version="1.0")
    away: Any = Away(stranded.store, lambda _: requests.load(stranded.store, "prod-1").resolve is not None)
    with put_back():
        assert see_resolved(stranded.app, away, state) == Exit.DONE
