# SPDX-License-Identifier: Apache-2.0
"""The PAWS360 example, from a copy outside of the repository: hosts of the lab, an agent, and a stand-in of GitHub.

As a program (`make health-faults`) it breaks each of production's health checks in turn, in the middle of a deployment,
and prints what came of it: whether the check was named, whether hosts answer with the version before, and what the
incident lacks. What is judged is asked of the hosts and of GitHub's stand-in.

A check is broken by a step that follows the example's own, and mended by that step's way back: so the fault is there
exactly while health is looked at.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surefoot.drills.lab import Host, Lab
from tests.support.github import GitHubStandIn, github_stand_in
from tests.support.paws360 import ANSIBLE, BIN, ENVIRON, EXAMPLE, aim, let_in

PATIENCE = 900.0
HOSTS = {"staging": ("staging-01", "staging-02", "staging-db"), "production": ("web-01", "web-02", "db-01")}
RUN = {"GITHUB_SERVER_URL": "https://github.invalid", "GITHUB_REPOSITORY": "acme/paws360", "GITHUB_RUN_ID": "7001"}
RUN_URL = "https://github.invalid/acme/paws360/actions/runs/7001"
RUNBOOK = "https://github.com/acme/paws360/blob/main/README.md#when-it-goes-wrong"
#: Lets the test do something on the way forward, and something on the way back.
FAULT_STEP = """\
  - name: fault
    run: &ask 'touch ROOT/asked-$SUREFOOT_DIRECTION; until test -e ROOT/done-$SUREFOOT_DIRECTION; do sleep 0.1; done'
    undo: {run: *ask}
"""
ACTIVATE = "    undo: {playbook: infrastructure/ansible/rollback-production.yml}\n"
#: Less waiting than in production: fewer tries, and health that is broken stays so.
FASTER = {
    "attempts: 3, delay: 30s, timeout: 600s": "attempts: 1, delay: 1s, timeout: 600s",
    "{within: 60s, interval: 2s": "{within: 30s, interval: 1s",
    "cpu_below: 90%, ": "",
}


class Platform:
    """The copy, its hosts, and all that was started for it."""

    def __init__(self, root: Path, lab: Lab, github: GitHubStandIn, environments: Sequence[str]) -> None:
        """Copy the example, and make the hosts of these environments ready."""
        self.root, self.lab, self.github = root, lab, github
        self.folder = root / "paws360"
        self.production = [lab.add(name) for name in HOSTS["production"]][:2]
        self.staging = [lab.add(name) for name in HOSTS["staging"] if "staging" in environments][:2]
        self._started: list[subprocess.Popen[bytes]] = []
        self._agent: subprocess.Popen[bytes] | None = None
        shutil.copytree(EXAMPLE, self.folder, ignore=shutil.ignore_patterns(".surefoot", "__pycache__"))
        lab.power_on()
        let_in(lab, root)
        self._sockets = Path(tempfile.mkdtemp(prefix="sf-"))  # whose paths have to be short
        self.env = ENVIRON | {
            "PRODUCTION_SSH_USER": "root", "PRODUCTION_SSH_PRIVATE_KEY": lab.private_key, "HOME": str(root),
            "GITHUB_TOKEN": github.token, "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._sockets), "USER": "dev",
        }  # fmt: skip
        self._write_config()
        self.git("init", "-q", "-b", "main")
        self.commit("The example")
        for name in environments:
            self._set_up(name)

    def _write_config(self) -> None:
        config = self.folder / "surefoot.yml"
        text = config.read_text()
        where = {'token: "${GITHUB_TOKEN}"': f'token: "${{GITHUB_TOKEN}}"\n    api: "{self.github.url}"'}
        for old, new in (FASTER | where).items():
            assert old in text, old
            text = text.replace(old, new)
        config.write_text(text)

    def _set_up(self, environment: str) -> None:
        *web, database = (self.lab[name] for name in HOSTS[environment])
        inventory = aim(self.folder, environment, web, database, self.root)
        self.commit(f"Hosts of {environment}")
        call = [BIN / "ansible-playbook", "-i", inventory, self.folder / ANSIBLE / "provision.yml"]
        env = {**self.env, "ANSIBLE_PIPELINING": "1"}
        made = subprocess.run(call, cwd=self.folder, env=env, capture_output=True, text=True, timeout=PATIENCE)
        assert made.returncode == 0, made.stdout + made.stderr

    def close(self) -> None:
        """End what was started."""
        for process in self._started:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._sockets, ignore_errors=True)

    # -- what people do --------------------------------------------------------------------------------------------

    def git(self, *words: str) -> str:
        env = {**ENVIRON, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        who = ("-c", "user.name=Dora Dev", "-c", "user.email=dora@example.invalid", "-C", str(self.folder))
        return subprocess.run(["git", *who, *words], check=True, capture_output=True, text=True, env=env).stdout.strip()

    def commit(self, subject: str) -> None:
        with (self.folder / "NEWS").open("a") as news:
            news.write(f"{subject}\n")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", subject)

    def start(self, *words: str, by: str = "dev", **env: str) -> subprocess.Popen[bytes]:
        output = self.root / f"out-{len(self._started):03d}"
        with output.open("wb") as out:
            process = subprocess.Popen(
                [BIN / "surefoot", *words], cwd=self.folder, env={**self.env, "USER": by, **env},
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._started.append(process)
        return process

    def run(self, *words: str, by: str = "dev", **env: str) -> tuple[int, str]:
        """Run a command to its end; return its exit code and all that it said."""
        number = len(self._started)
        code = self.start(*words, by=by, **env).wait(PATIENCE)
        return code, (self.root / f"out-{number:03d}").read_text()

    def show(self, deployment: str) -> dict[str, Any]:
        code, said = self.run("show", deployment, "--output", "json")
        assert code == 0, said
        found: dict[str, Any] = json.loads(said)
        return found

    def agent(self) -> None:
        """Have a runner's agent from now on, if there is none yet."""
        if self._agent is None:
            self._agent = self.start("agent", "run", "production-runner-01")

    def edit(self, change: Callable[[str], str]) -> None:
        config = self.folder / "surefoot.yml"
        config.write_text(change(config.read_text()))
        self.commit("Edit the config")

    # -- what hosts say --------------------------------------------------------------------------------------------

    def versions(self, hosts: Sequence[Host]) -> list[str | None]:
        """Return what nginx, the backend and the frontend of each host say that they run; None where nobody answers."""
        doors = (":80/actuator/health", ":8080/actuator/health", ":3000/api/health")
        return [self._version(f"http://{host.address}{door}") for host in hosts for door in doors]

    @staticmethod
    def _version(url: str) -> str | None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=30) as response:
                return str(response.headers["X-Paws360-Version"])
        except OSError:
            return None


@contextmanager
def platform(*environments: str) -> Iterator[Platform]:
    """A platform, which goes without a trace."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="surefoot-paws360-")))
        github = stack.enter_context(github_stand_in())
        one = Platform(root, stack.enter_context(Lab()), github, environments)
        stack.callback(one.close)
        yield one


# -- faults --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """How a health check is broken on the second host, or on the database's, and mended."""

    check: str
    how: str  #: in a few words
    do: str = ""
    undo: str = ""
    on: str = "web-02"
    says: str = ""  #: part of what the failure must say


def _file(check: str, name: str, says: str) -> Fault:
    folder = "/var/lib/paws360/faults"
    return Fault(check, f"fault `{name}`", f"touch {folder}/{name}", f"rm -f {folder}/{name}", says=says)


_BY_HAND = (
    "systemctl stop paws360-frontend; systemd-run --unit=by-hand --collect -p User=paws360 "
    "/usr/bin/python3 -B /opt/paws360/current/frontend.py"
)
_MEMINFO = (
    "sed 's/^MemAvailable:.*/MemAvailable: 1000 kB/' /proc/meminfo >/root/meminfo; mount --bind /root/meminfo "
    "/proc/meminfo"
)
_FILLER = "/var/tmp/filler"
FAULTS = (
    _file("backend", "backend", "503"),
    _file("database", "database", "503"),
    _file("frontend", "frontend", "500"),
    _file("frontend's API", "frontend-api", "500"),
    _file("nginx to the frontend", "proxy-frontend", "502"),
    _file("nginx to the backend", "proxy-backend", "502"),
    Fault("Redis", "stopped", "systemctl stop app-redis", "systemctl start app-redis", on="db-01", says="refused"),
    _file("identity provider", "idp-expired", "expired"),
    Fault("services", "one runs outside of its unit", _BY_HAND,
          "systemctl stop by-hand; systemctl start paws360-frontend", says="paws360-frontend.service is inactive"),
    Fault("disk", "filled to 96 %", f"fallocate -l $(($(df -k --output=avail / | tail -1) * 96 / 100))k {_FILLER}",
          f"rm -f {_FILLER}", says="/ is 9"),
    Fault("memory", "used up, says the kernel", _MEMINFO, "umount /proc/meminfo", says="memory is"),
)  # fmt: skip


@dataclass
class Finding:
    """What came of one fault."""

    fault: Fault
    status: str
    said: str
    named: bool
    put_back: bool
    lacks: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether all of it is as it must be."""
        return self.status == "rolled_back" and self.named and self.put_back and not self.lacks

    def row(self) -> str:
        """Return its row of the table."""
        found = f"{'named' if self.named else 'NOT NAMED'}: {self.said[:110]}".replace("|", "/")
        back = "yes" if self.put_back else "NO"
        lacks = ", ".join(self.lacks) or "nothing"
        row = (self.fault.check, self.fault.how, self.status, found, back, lacks, f"{self.seconds:.0f}")
        return f"| {' | '.join(row)} |"


def with_faults(text: str) -> str:
    """Return the config without gates, and with the step that breaks."""
    assert ACTIVATE in text
    text = re.sub(r"^    (promote_from|approvals):.*\n", "", text, flags=re.MULTILINE)
    return text.replace(ACTIVATE, ACTIVATE + FAULT_STEP.replace("ROOT", "@ROOT@"))


def play(one: Platform, fault: Fault, version: str, before: str) -> Finding:
    """Deploy a version, break one check when it is active, and judge what comes of it."""
    host = one.lab[fault.on]
    marks = [one.root / f"{what}-{way}" for what in ("asked", "done") for way in ("forward", "undo")]
    for mark in marks:
        mark.unlink(missing_ok=True)
    one.commit(f"Change what {fault.check} looks at")
    began = time.monotonic()
    deploy = one.start("deploy", "production", version, "--reason", "drill", **RUN)

    for way, script in (("forward", fault.do), ("undo", fault.undo)):
        while not (one.root / f"asked-{way}").exists() and deploy.poll() is None:
            time.sleep(0.05)
        host.sh(script, check=False)
        (one.root / f"done-{way}").touch()
    deploy.wait(PATIENCE)
    took = time.monotonic() - began
    code, said = one.run("history", "production", "--limit", "1", "--output", "json")
    assert code == 0, said
    shown = one.show(json.loads(said)["deployments"][0]["id"])
    reason = shown["reason"] or {}
    message = reason.get("message", "")
    where = fault.on if fault.on != "db-01" else "web-01"  # each host's own address of the one Redis
    named = fault.check in message and fault.says in message and (fault.on == "db-01" or reason.get("host") == where)
    put_back = set(one.versions(one.production)) == {before}
    lacks = incident_lacks(one, shown, fault)
    return Finding(fault, shown["status"], f"{reason.get('host')}: {message}", named, put_back, lacks, took)


def incident_lacks(one: Platform, shown: dict[str, Any], fault: Fault) -> list[str]:
    """Return what the incident of a deployment lacks of what it has to tell."""
    end = time.monotonic() + 120
    while not (found := [i for i in one.github.issues if f"`{shown['id']}`" in i["body"]]):
        if time.monotonic() > end:
            return ["the incident"]
        time.sleep(0.2)
    (issue,) = found
    body = issue["body"]
    log = body.partition("## Log, the last ")[2]
    lines = log.splitlines()[3:-1]  # what is between the fences
    secret = one.lab.private_key.splitlines()[1]
    has = {
        "labels": {x["name"] for x in issue["labels"]} == {"production-incident", "production-rollback"},
        "assignee": [x["login"] for x in issue["assignees"]] == ["oncall-sre"],
        "marker": body.startswith("<!-- surefoot:"),
        "run's address": RUN_URL in body,
        "version": f"`{shown['version']}`, before: `{shown['previous_version']}`" in body,
        "commit range": f"`{shown['commit']}` (before: `" in body,
        "commits and authors": f"Change what {fault.check} looks at" in body.replace("\\", "")
        and "## Commits, by Dora Dev" in body,
        "check that failed": fault.check in body.replace("\\", ""),
        "host": fault.on == "db-01" or f"**Host** | `{fault.on}`" in body,
        "last 50 lines of the log": len(lines) == 50 and log.startswith("50 lines\n\n```"),
        "no secret": secret not in body and one.github.token not in body,
        "timeline": "## Timeline (UTC)" in body and body.count("\n| ") > 10,
        "what was done": "## What Surefoot did\n\n- " in body,
        "runbook": RUNBOOK in body,
        "next command": re.search(r"## What to do next\n\n1\. .*`surefoot \w+", body) is not None,
        "only one": len(found) == 1,
    }
    return [what for what, there in has.items() if not there]


def main() -> int:
    """Break all checks, or those that are named; 1 if one was not found, named and put back, with its incident."""
    parser = argparse.ArgumentParser(description="Break each health check of PAWS360 in turn, in the lab.")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(f.check for f in FAULTS)}")
    chosen = parser.parse_args().checks
    print(
        "| check | broken by | status | found | hosts as before | incident lacks | s |\n|---|---|---|---|---|---|---|"
    )
    findings = []
    with platform("production") as one:
        for finding in broken_in_turn(one, [f for f in FAULTS if not chosen or f.check in chosen]):
            findings.append(finding)
            print(finding.row(), flush=True)
        wrong = one.github.wrong
    good = sum(finding.good for finding in findings)
    print(
        f"\n{good} of {len(findings)} found, named, put back, and told; GitHub refused {len(wrong)} requests: {wrong}"
    )
    return 0 if findings and good == len(findings) and not wrong else 1


def broken_in_turn(one: Platform, faults: Sequence[Fault]) -> Iterator[Finding]:
    """Deploy a version that is well, if it is not there, and then one for each fault."""
    one.agent()
    one.edit(lambda text: with_faults(text).replace("@ROOT@", str(one.root)))
    for way in ("forward", "undo"):
        (one.root / f"done-{way}").touch()
    before = "1.0"
    if set(one.versions(one.production)) != {before}:
        code, said = one.run("deploy", "production", before)
        assert code == 0, said
    assert set(one.versions(one.production)) == {before}
    for number, fault in enumerate(faults, 2):
        yield play(one, fault, f"{number}.0", before)


if __name__ == "__main__":
    sys.exit(main())
