# SPDX-License-Identifier: Apache-2.0
"""The story that the demo tells: five deploys, and what happens to each. `Broken` is raised if it ends otherwise.

Every deploy, agent and host is a real process; this module starts them, kills and freezes them, and reads the journal
to tell what goes on. Whatever takes longer than `ACT_WITHIN` is broken too.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable

import psutil

from surefoot.core import events as ev
from surefoot.core.deployment import Deployment, fold
from surefoot.core.errors import Exit, LeaseLostError, NotFoundError, StoreError
from surefoot.core.plan import Direction
from surefoot.core.status import Status
from surefoot.demo import refusal
from surefoot.demo.hosts import DemoHost, Probe
from surefoot.demo.scene import AGENTS, Scene, frozen
from surefoot.demo.teller import Teller
from surefoot.demo.verdict import Finding, judge, nothing_lost
from surefoot.store import Store, open_store
from surefoot.store.protocol import Append, Grant

ENVIRONMENT = "production"
#: Seconds for one act, on a machine that has other things to do.
ACT_WITHIN = 180.0
#: Seconds between looks at the journal and the hosts.
LOOK_EVERY = 0.05
#: Seconds unheard of after which an agent counts as offline, for the demo's own eyes.
OFFLINE_AFTER = 3.0
#: Seconds in which a woken agent may do what it wants to do.
WAKE_FOR = 1.5
#: How each deployment must have ended, oldest first.
ENDINGS = {
    "1.0": Status.SUCCEEDED,
    "2.0": Status.SUCCEEDED,
    "3.0": Status.ROLLED_BACK,
    "4.0": Status.CANCELLED,
    "5.0": Status.SUCCEEDED,
}


class Broken(Exception):  # noqa: N818 - what it says
    """A promise was broken, or something took too long; the text says which."""


class Deploy:
    """One `surefoot deploy`, followed in the journal."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Follow the deployment that will be called `name`."""
        self.name = name
        self.process = process
        self.began = time.time()
        self.state: Deployment | None = None
        self.entries: list[ev.Entry] = []

    def since(self, at: float | None = None) -> float:
        """Return the seconds since the deploy began."""
        return max(0.0, (time.time() if at is None else at) - self.began)

    @property
    def grants(self) -> list[ev.LeaseGranted]:
        """Every grant of its lease, oldest first."""
        return [entry.event for entry in self.entries if isinstance(entry.event, ev.LeaseGranted)]


class Story:
    """Tells it, act by act."""

    def __init__(self, scene: Scene, teller: Teller) -> None:
        """Tell what happens in `scene`."""
        self._scene = scene
        self._tell = teller
        self._agents: dict[str, subprocess.Popen[bytes]] = {}
        self._store: Store | None = None
        self._probe = Probe(scene.hosts)
        self._deploys = 0
        self._findings: list[Finding] = []

    @property
    def store(self) -> Store:
        """The scene's store."""
        if self._store is None:
            self._store = open_store(str(self._scene.store))
        return self._store

    def close(self) -> None:
        """Stop asking the hosts, and close the store."""
        self._probe.stop()
        if self._store is not None:
            self._store.close()

    def tell(self) -> list[Finding]:
        """Play all acts, and return what came of the promises."""
        self._raise_the_curtain()
        self._first_deploy()
        self._killed_agent()
        self._broken_release()
        self._cancel()
        self._frozen_agent()
        self._probe.stop()
        self._tell.act(6, "What the journal says")
        self._tell.command(f"surefoot history {ENVIRONMENT}")
        self._tell.quote(self._scene.ask("history", ENVIRONMENT))
        return [
            *judge(self._scene.hosts, "5.0"),
            self._everything_ended(),
            nothing_lost(self._probe.requests, self._probe.lost),
            *self._findings,
        ]

    # -- the acts ------------------------------------------------------------------------------------

    def _raise_the_curtain(self) -> None:
        tell, scene = self._tell, self._scene
        hosts = " and ".join(f"{host.name} (port {host.port})" for host in scene.hosts)
        tell.line(f"Two hosts, {hosts}, each with a supervisor and no release yet.")
        tell.line(
            "Two agents share the work: runner-01 is the primary, runner-02 the secondary. All are real processes:"
        )
        tell.line("Ansible runs real playbooks, and kills are real kills.")
        scene.start_hosts()
        for name in AGENTS:
            self._start_agent(name)
        self._until(self._all_online, "the agents did not come up")
        tell.good("both agents are online")

    def _first_deploy(self) -> None:
        self._tell.act(1, "A first deploy")
        deploy = self._deploy("1.0")
        self._finish(deploy, Exit.DONE, "1.0")
        self._probe.start()
        self._tell.good("both hosts answer as 1.0; from now on a customer asks them 20 times a second")

    def _killed_agent(self) -> None:
        tell = self._tell
        tell.act(2, "The agent dies in mid-deploy")
        deploy = self._deploy("2.0")
        self._reach_the_middle(deploy, before="1.0")
        holder, old_token = self._holder(deploy)
        self._agents[holder].send_signal(signal.SIGKILL)
        killed = time.time()
        tell.drama(
            f"kill -9 {self._agents[holder].pid}: {holder} is gone, one host on 2.0, the other on 1.0",
            deploy.since(killed),
        )
        self._finish(deploy, Exit.DONE, "2.0")
        successor, token = self._taken_over(deploy, holder, old_token)
        back = min(r.at for host in self._scene.hosts for r in host.records() if r.token == token) - killed
        tell.good(
            f"{successor} finished what {holder} began; {back:.1f} s from the kill to its first command on a host"
        )
        self._findings.append(
            Finding("survives a kill", True, f"SIGKILL to the next command on a host in {back:.1f} s")
        )
        self._start_agent(holder)
        self._until(self._all_online, f"{holder} did not come back")
        tell.good(f"{holder} is started again, and is the primary as before")

    def _broken_release(self) -> None:
        self._tell.act(3, "A broken release")
        deploy = self._deploy("3.0")
        self._finish(deploy, Exit.PUT_BACK, "2.0")
        self._tell.good(
            "3.0 started and answered, but was not well; the service answers as 2.0, and the pipeline gets exit 4"
        )

    def _cancel(self) -> None:
        self._tell.act(4, "Ctrl-C in mid-deploy")
        deploy = self._deploy("4.0")
        self._reach_the_middle(deploy, before="2.0")
        self._tell.drama("Ctrl-C: a person thinks better of it, one host on 4.0, the other on 2.0", deploy.since())
        deploy.process.send_signal(signal.SIGINT)
        self._finish(deploy, Exit.CANCELLED, "2.0")
        self._tell.good("no half of 4.0 is left; exit 6")

    def _frozen_agent(self) -> None:
        tell, hosts = self._tell, self._scene.hosts
        tell.act(5, "The agent freezes, and wakes up after the world has moved on")
        deploy = self._deploy("5.0")
        self._reach_the_middle(deploy, before="2.0")
        holder, old_token = self._holder(deploy)
        with self._frozen(holder) as asleep:
            tell.drama(
                f"{holder} freezes with the {len(asleep) - 1} processes of its step (SIGSTOP: a stalled VM)",
                deploy.since(),
            )
            self._finish(deploy, Exit.DONE, "5.0")
            successor, token = self._taken_over(deploy, holder, old_token)
            tell.good(f"{successor} finished the deploy while {holder} slept")
            before = _footprints(hosts)
            tell.drama(f"{holder} wakes up; it still believes in token {old_token}", deploy.since())
        time.sleep(WAKE_FOR)
        left = [pid for pid in asleep if pid != self._agents[holder].pid and psutil.pid_exists(pid)]
        if left:
            raise Broken(f"{len(left)} processes of the step that {holder} lost still run: {left}")
        tell.good(f"none of the {len(asleep) - 1} processes of its step is left")
        self._refused(deploy, holder, old_token, token)
        if _footprints(hosts) != before:
            raise Broken(f"{holder} changed a host after it woke up")
        tell.good("nothing on the hosts has changed")

    def _refused(self, deploy: Deploy, holder: str, old_token: int, token: int) -> None:
        """Try with the old token what the woken agent would do next, and show who refuses it."""
        assert deploy.state is not None
        late = Append(
            state=deploy.state,
            events=(ev.StepSucceeded("activate", Direction.FORWARD, 1),),
            grant=Grant(ENVIRONMENT, holder, old_token),
        )
        try:
            self.store.append(late)
        except LeaseLostError as error:
            self._tell.good(f"the store refuses its report:  {error.message}")
        else:
            raise Broken(f"the store took a report with token {old_token} after token {token}")
        for host in self._scene.hosts:
            code, said = refusal.try_command(self._scene.fences, host, old_token)
            if code != refusal.STALE:
                raise Broken(
                    f"{host.name} ran a command with token {old_token} after token {token} (exit {code}): {said}"
                )
            self._tell.good(f"{host.name} refuses its command: {said} (exit {code})")
        self._findings.append(
            Finding(
                "old tokens refused", True, f"by the store, by {' and by '.join(h.name for h in self._scene.hosts)}"
            )
        )

    # -- what the acts are made of -------------------------------------------------------------------

    def _start_agent(self, name: str) -> None:
        self._agents[name] = self._scene.start_agent(name)

    def _all_online(self) -> bool:
        for name, process in self._agents.items():
            if process.poll() is not None:
                raise Broken(f"{name} ended by itself with {process.returncode}:\n{self._scene.said(name)}")
        if not self._scene.store.exists():
            return False
        rows = {row.report.name: row for row in self.store.agents(OFFLINE_AFTER)}
        return all(name in rows and rows[name].status.able for name in AGENTS)

    def _deploy(self, version: str) -> Deploy:
        self._deploys += 1
        self._tell.command(f"surefoot deploy {ENVIRONMENT} {version}")
        return Deploy(f"{ENVIRONMENT}-{self._deploys}", self._scene.deploy(version))

    def _read(self, deploy: Deploy) -> None:
        """Read what is new in the journal, and tell it."""
        try:
            fresh = self.store.journal(deploy.name, len(deploy.entries))
        except NotFoundError:
            return
        for entry in fresh:
            deploy.entries.append(entry)
            self._tell.entry(entry, deploy.since(entry.at))
        deploy.state = fold(fresh, deploy.state) if fresh else deploy.state

    def _follow(self, deploy: Deploy, reached: Callable[[], bool], what: str) -> None:
        """Tell the journal until `reached`."""

        def look() -> bool:
            there = reached()
            self._read(deploy)
            return there

        self._until(look, f"{deploy.name} {what} within {ACT_WITHIN:g} s")

    def _reach_the_middle(self, deploy: Deploy, *, before: str) -> None:
        """Wait until the first host runs the new version and the second does not yet."""
        first, second = self._scene.hosts

        def in_the_middle() -> bool:
            if deploy.process.poll() is not None:
                raise Broken(f"{deploy.name} ended before its middle:\n{self._scene.said(self._output_of(deploy))}")
            return any(r.deployment == deploy.name and r.what == "warming-up" for r in first.records())

        self._follow(deploy, in_the_middle, "did not get to its first host")
        if second.linked_version() != before:
            raise Broken(f"{second.name} runs {second.linked_version()} before its turn")

    def _finish(self, deploy: Deploy, code: Exit, version: str) -> None:
        """Follow a deploy to its end; it must end with `code` and leave all hosts on `version`."""
        self._follow(deploy, lambda: deploy.process.poll() is not None, "did not end")
        if deploy.process.returncode != code:
            said = self._scene.said(self._output_of(deploy))
            raise Broken(f"{deploy.name} ended with exit {deploy.process.returncode}, not {int(code)}:\n{said}")
        for host in self._scene.hosts:
            answer = host.ask("/version")
            if answer.version != version:
                raise Broken(
                    f"{host.name} answers as {answer.version or 'nothing'} after {deploy.name}, not as {version}"
                )

    def _output_of(self, deploy: Deploy) -> str:
        return f"deploy-{list(ENDINGS)[self._deploys - 1]}"

    def _holder(self, deploy: Deploy) -> tuple[str, int]:
        self._read(deploy)
        grant = deploy.grants[-1]
        return grant.agent, grant.token

    def _taken_over(self, deploy: Deploy, lost: str, old_token: int) -> tuple[str, int]:
        grant = deploy.grants[-1]
        if grant.agent == lost or grant.token <= old_token:
            raise Broken(f"{deploy.name} ended under {grant.agent} with token {grant.token}, not under another agent")
        late = [e for e in deploy.entries if e.token == old_token and e.at > _granted_at(deploy)]
        if late:
            raise Broken(f"the journal of {deploy.name} has entries with token {old_token} after the takeover")
        return grant.agent, grant.token

    def _frozen(self, agent: str) -> frozen:
        """Freeze an agent, but not within a transaction: SQLite's lock would sleep with it (PostgreSQL's would not)."""
        return frozen(self._agents[agent].pid, unless=self._store_is_locked)

    def _store_is_locked(self) -> bool:
        try:
            self.store.set_drain(AGENTS[0], False)
        except StoreError:
            return True
        return False

    def _until(self, there: Callable[[], bool], otherwise: str) -> None:
        until = time.monotonic() + ACT_WITHIN
        while not there():
            if time.monotonic() > until:
                raise Broken(otherwise)
            time.sleep(LOOK_EVERY)

    def _everything_ended(self) -> Finding:
        found = {row.version: row.status for row in self.store.history(ENVIRONMENT)}
        shown = ", ".join(f"{version} {status}" for version, status in sorted(found.items()))
        return Finding("everything ends", found == ENDINGS, shown.replace("_", " "))


def _granted_at(deploy: Deploy) -> float:
    return max(entry.at for entry in deploy.entries if isinstance(entry.event, ev.LeaseGranted))


def _footprints(hosts: tuple[DemoHost, ...]) -> list[tuple[object, ...]]:
    """Return all that a deploy changes on hosts."""
    return [
        (
            host.linked_version(),
            host.black_box.read_bytes(),
            sorted(release.name for release in (host.root / "releases").iterdir()),
        )
        for host in hosts
    ]
