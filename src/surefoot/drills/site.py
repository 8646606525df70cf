# SPDX-License-Identifier: Apache-2.0
"""Production, in the lab: two runners, one more for emergencies, two web hosts, and a database pair that holds the
store; agents are systemd units, deploys are asked for from the machine, as a CI job would.

Guarantees: `ready` leaves everything as it was at first: all hosts on, all lines whole, agents running, nothing broken,
one version that is well on both hosts. Whatever is in the way of that raises LabError.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from surefoot.drills.lab import Host, Lab, LabError, PostgresPair
from surefoot.drills.operator import LONG, Addressed, Operator, filled
from surefoot.drills.project import CONFIG, Project, stage
from surefoot.store import Store, open_store

PRIMARY, SECONDARY, EMERGENCY = "production-runner-01", "production-runner-02", "emergency"
RUNNERS = (PRIMARY, SECONDARY, EMERGENCY)
WEB = ("web-01", "web-02")
DATABASE, STANDBY = "db-01", "db-02"
AGENT = "surefoot-agent"
#: The secret that is the key which hosts accept, for projects that want it in their agents' environment.
KEY = "PRODUCTION_SSH_PRIVATE_KEY"
#: Where the project and its key are on a runner.
FOLDER = "/srv/surefoot"
#: Seconds unheard of after which an agent counts as offline, for the drills' own eyes.
UNHEARD = 5.0

_AGENT_UNIT = """[Unit]
Description=Surefoot agent {name}
StartLimitIntervalSec=0
[Service]
WorkingDirectory={folder}
EnvironmentFile={folder}/agent.env
ExecStart={python} -m surefoot agent run {name} --role {role}
Restart=always
RestartSec=3s
KillMode=mixed
TimeoutStopSec=30
"""
_REDIS_UNIT = """[Service]
ExecStart=/usr/bin/redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --save "" --appendonly no
Restart=always
"""


class Site(Operator, AbstractContextManager["Site"]):
    """See the module's docstring."""

    def __init__(self, project: Project | None = None, folder: Path | None = None) -> None:
        """Set it up; `folder` keeps what processes say, and is removed at the end if none is given."""
        self._own = folder is None
        folder = folder or Path(tempfile.mkdtemp(prefix="surefoot-drill-"))
        self.lab: Lab | None = None
        self._versions = 0
        self._reader: Store | None = None
        super().__init__(folder, "", folder / "project" / CONFIG)
        try:
            self.project = stage(project, folder / "project")
            self.environment = self.project.environment
            self.customer, self.version_url = self.project.customer, self.project.version_url
            self.version_key = self.project.version_key
            self.lab = Lab()
            for name in (*RUNNERS, *WEB, DATABASE, STANDBY):
                self.lab.add(name)
            self._set_up()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self.close()

    def close(self) -> None:
        """End everything that runs, and leave nothing but the folder that was asked for."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        if self._reader is not None:
            self._reader.close()
        if self.lab is not None:
            self.lab.down()
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- setting up ------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Host:
        """Return a host."""
        assert self.lab is not None
        return self.lab[name]

    @property
    def web(self) -> tuple[Host, ...]:
        """The hosts that are deployed to."""
        return tuple(self[name] for name in WEB)

    def _set_up(self) -> None:
        assert self.lab is not None
        if self.project.domain:
            self.lab.domain = self.project.domain
        self.servers = PostgresPair(self[DATABASE], self[STANDBY])
        for name in RUNNERS:
            self._lay_out_runner(self[name])
        self.lab.power_on()
        with ThreadPoolExecutor(2) as pool:
            for work in [pool.submit(self._set_up_database), pool.submit(self._provision)]:
                work.result()
        self.store = self.servers.url("surefoot")
        self._write_agents()
        self.cli("status").wait()  # makes the schema, once
        self.start_agents(PRIMARY, SECONDARY)

    def _lay_out_runner(self, host: Host) -> None:
        assert self.lab is not None
        host.disk.write("root/.ssh/id_ed25519", self.lab.private_key, mode=0o600)
        host.disk.write("root/.ssh/known_hosts", self.lab.known_hosts())
        shutil.copytree(self.project.folder, host.disk.at(FOLDER))

    def _set_up_database(self) -> None:
        self.servers.set_up("surefoot")
        primary = self.servers.primary
        for name in self.project.databases:
            primary.sql(f"CREATE ROLE {name} LOGIN")
            primary.sql(f"CREATE DATABASE {name} OWNER {name}")
        if self.project.redis:
            self[DATABASE].unit("lab-redis", _REDIS_UNIT)
            self[DATABASE].systemctl("start", "lab-redis")

    def _provision(self) -> None:
        """Run the project's playbook that makes hosts ready, as somebody would from a runner."""
        if self.project.provision is not None:
            self._by_hand(self.project.provision, self.project.variables)

    def put_back_by_hand(self, version: str, previous: str) -> None:
        """Run the ways back of all steps, newest first, as a person would who repairs what is stranded."""
        variables = {
            "surefoot_version": version,
            "surefoot_previous_version": previous,
            "surefoot_environment": self.environment,
            "surefoot_direction": "undo",
        }
        for step in reversed(self.config()["environments"][self.environment]["steps"]):
            if playbook := (step.get("undo") or {}).get("playbook"):
                self._by_hand(playbook, variables | {"surefoot_step": step["name"]})

    def _by_hand(self, playbook: str, variables: Mapping[str, str]) -> None:
        """Run a playbook from the emergency runner, without Surefoot."""
        extra = [word for key, value in variables.items() for word in ("-e", json.dumps({key: value}))]
        inventory = self.config()["environments"][self.environment]["inventory"]
        ansible = Path(sys.executable).with_name("ansible-playbook")
        words = [str(ansible), "-i", inventory, *extra, playbook]
        env = [f"{key}={value}" for key, value in self._agent_environment().items() if "\n" not in value]
        script = f'cd {FOLDER} && exec env "$@"'
        self[EMERGENCY].sh(script, *env, "ANSIBLE_PIPELINING=1", "ANSIBLE_FORKS=5", *words, timeout=LONG)

    def config(self) -> dict[str, Any]:
        """Return the project's config, as it stands in the file."""
        import yaml

        found: dict[str, Any] = yaml.safe_load((self.project.folder / CONFIG).read_text(encoding="utf-8"))
        return found

    @property
    def _wants_key(self) -> bool:
        """Whether the project has the hosts' key for a secret."""
        return KEY in (self.config().get("secrets") or ())

    def _agent_environment(self) -> dict[str, str]:
        assert self.lab is not None
        path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        values = {"PATH": path, "HOME": "/root", "LC_ALL": "C.UTF-8", "PYTHONPATH": _source()}
        values |= self.project.agent_variables
        if self._wants_key:
            values[KEY] = self.lab.private_key
        return values

    def _write_agents(self) -> None:
        values = self._agent_environment() | {"SUREFOOT_STORE": self.store}
        text = "".join(f'{key}="{value}"\n' for key, value in values.items())
        roles = {PRIMARY: "primary", SECONDARY: "secondary", EMERGENCY: "emergency"}
        for name in RUNNERS:
            host = self[name]
            host.write(f"{FOLDER}/agent.env", text, mode=0o600)
            unit = _AGENT_UNIT.format(name=name, folder=FOLDER, python=sys.executable, role=roles[name])
            host.unit(AGENT, unit, enabled=name != EMERGENCY)

    def rotate_key(self) -> None:
        """Have hosts accept another key from now on, and runners know it."""
        assert self.lab is not None
        self.lab.change_key()
        for name in RUNNERS:
            self[name].write("/root/.ssh/id_ed25519", self.lab.private_key, mode=0o600)
        for host in self.web:
            host.accept(self.lab.public_key)
        if self._wants_key:
            self._write_agents()
            for name in (SECONDARY, PRIMARY):  # an environment is read once
                self[name].systemctl("restart", AGENT)

    # -- agents ----------------------------------------------------------------------------------------------------

    def start_agents(self, *names: str) -> None:
        """Start agents, and wait until the store knows that they are there."""
        for name in names:
            self[name].systemctl("start", AGENT)
        self.until(lambda: set(names) <= self.online(), f"{', '.join(names)} online")

    def stop_agent(self, name: str) -> None:
        """Stop an agent in good order (SIGTERM); it stays away."""
        self[name].systemctl("stop", AGENT)

    def kill_agent(self, name: str) -> None:
        """Kill an agent's process (SIGKILL); its systemd starts it again after a while."""
        self[name].kill(AGENT)

    def lose(self, fault: str) -> None:
        """Lose the primary, in one of the ways that drills know."""
        primary = self[PRIMARY]
        match fault:
            case "stop":
                self.stop_agent(PRIMARY)
            case "kill":
                self.kill_agent(PRIMARY)
            case "freeze":
                primary.freeze()
            case "power-off":
                primary.power_off()
            case "cut-off":
                primary.cut()
            case "partition":
                for server in (DATABASE, STANDBY):
                    primary.cut(self[server])
            case _:
                raise ValueError(fault)

    def online(self) -> set[str]:
        """Return the agents that could take work."""
        rows = self._read().agents(UNHEARD)
        return {row.report.name for row in rows if row.status.able}

    def _read(self) -> Store:
        """Return the store, to wait by; nothing is judged by what it says."""
        if self._reader is None:
            self._reader = open_store(self.store)
        return self._reader

    # -- the command line ------------------------------------------------------------------------------------------

    def started_by(self, command: list[str]) -> list[str]:
        """Return the command line that starts a command on the machine, which ends with the lab."""
        assert self.lab is not None
        return self.lab.ground.leashed(*command)

    def surroundings(self) -> dict[str, str]:
        """Return the environment of who asks for a deployment: a CI's job, which has no secrets of the agents'."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SUREFOOT_", "ANSIBLE_", "GITHUB_"))}
        # Who asks runs nothing of it, and needs no secret; a config may insist on its variables.
        return {**kept, **self.project.agent_variables, "SUREFOOT_STORE": self.store, "COVERAGE_PROCESS_START": ""}

    def version(self) -> str:
        """Return a version that was never deployed."""
        self._versions += 1
        return f"{self._versions}.0"

    # -- from outside ----------------------------------------------------------------------------------------------

    def break_version(self, version: str, *hosts: Addressed) -> None:
        """Have a version be not well on hosts; on all if none are named."""
        for host in hosts or self.web:
            command = filled(self.project.break_version, version=version, host=host.name, address=host.address)
            self[host.name].sh(command)

    def mend(self) -> None:
        """Have every version be well everywhere."""
        for host in self.web:
            host.sh(self.project.mend)

    # -- order -----------------------------------------------------------------------------------------------------

    def ready(self) -> str:
        """Put everything in order, deploy a version if there is none, and return the version that both hosts run."""
        assert self.lab is not None
        self.lab.network.heal()
        for host in self.lab.hosts.values():
            host.thaw()
            host.disk.free()
            if not host.is_on:
                host.power_on()
        self.mend()
        self.stop_agent(EMERGENCY)
        self.start_agents(PRIMARY, SECONDARY)
        self.settle()
        found = {self.runs(host) for host in self.web}
        if len(found) == 1 and (version := found.pop()) is not None:
            return version
        version = self.version()
        done = self.deploy(version)
        if done.wait() != 0:
            raise LabError(f"{version} can't be deployed to a lab that is whole:\n{done.said()[-3000:]}")
        return version

    def settle(self, patience: float | None = None) -> None:
        """Wait until nothing is deployed any more; what is queued behind something stranded waits for a person."""

        def over() -> bool:
            return not any(row.running or (row.queue and not row.locked_by) for row in self._read().environments())

        self.until(over, "every deployment has ended", patience)


def _source() -> str:
    """Return where Surefoot, and all that it needs, is imported from."""
    import surefoot

    return ":".join(filter(None, (str(Path(surefoot.__file__).parent.parent), os.environ.get("PYTHONPATH"))))
