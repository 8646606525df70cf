# SPDX-License-Identifier: Apache-2.0
"""Deployments under fire: real agents on a real store are killed, frozen and thawed, deployments cancelled, the store
restarted, at random.

    python tests/chaos/chaos.py --deployments 300 --seed 7          (PostgreSQL; --store sqlite for the other)

Hosts are folders. Each step writes to every host's log with its token before it changes the host, so that the
promises can be judged from what the hosts saw, from the journal, and from every byte that was written anywhere.
Prints its seed, and at the end one line of JSON; exits 1 if a promise was broken, and keeps the folder then.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from surefoot.core.errors import SurefootError  # noqa: E402
from surefoot.store import open_store  # noqa: E402
from tests.support import forked  # noqa: E402
from tests.support.postgres import PostgresServer  # noqa: E402

CANARY = "s3cr3t-c4n4ry-9f8e7d"
TTL = 2.0
#: Seconds in which everything must have ended once the faults are over.
PATIENCE = 240.0

STEP = r"""#!/bin/sh
# usage: step.sh NAME; changes every host of the environment to the version of its direction
set -eu
case $SUREFOOT_DIRECTION in forward) want=$SUREFOOT_VERSION ;; *) want=${SUREFOOT_PREVIOUS_VERSION:-none} ;; esac
echo "working with $CANARY"
for host in HOSTS/$SUREFOOT_ENVIRONMENT/*/; do
  echo "$(date +%s.%N) $SUREFOOT_TOKEN $SUREFOOT_DEPLOYMENT $1 $SUREFOOT_DIRECTION $want" >> "$host/log"
  sleep 0.$(($$ % 3))
  case $SUREFOOT_VERSION in *-bad*) [ "$1/$SUREFOOT_DIRECTION" = two/forward ] && exit 1 ;; esac
  echo "$want" > "$host/version.$$" && mv "$host/version.$$" "$host/version"
done
"""

HEALTH = r"""#!/bin/sh
# the hosts of an environment are healthy if all run one version, and it is not a sick one
set -eu
cat HOSTS/$1/*/version | sort -u | { read -r one && ! read -r more && case $one in *-sick*) exit 1 ;; esac; }
"""


@dataclass
class Tally:
    """What was done."""

    faults: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    takeovers: int = 0
    broken: list[str] = field(default_factory=list)


class Chaos:
    """One run in one folder."""

    def __init__(
        self, folder: Path, seed: int, deployments: int, environments: int, postgres: PostgresServer | None
    ) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.deployments = deployments
        self.environments = [f"env{i}" for i in range(environments)]
        self.postgres = postgres
        self.store = postgres.new_database() if postgres else f"sqlite:///{folder}/surefoot.db"
        self.reader = open_store(self.store)
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self.starts: dict[str, int] = {}
        self.tally = Tally()
        self.asked = 0
        self.ids: list[str] = []

    # -- the stage -----------------------------------------------------------------------------------

    def build(self) -> None:
        project, hosts = self.folder / "project", self.folder / "hosts"
        project.mkdir(parents=True)
        for environment in self.environments:
            for host in ("a", "b"):
                (hosts / environment / host).mkdir(parents=True)
                (hosts / environment / host / "version").write_text("none\n")
        for name, text in (("step.sh", STEP), ("health.sh", HEALTH)):
            (project / name).write_text(text.replace("HOSTS", str(hosts)))
            (project / name).chmod(0o755)
        steps = [
            {"name": n, "run": f"./step.sh {n}", "undo": {"run": f"./step.sh {n}"}} for n in ("one", "two", "three")
        ]
        config = {
            "project": "chaos",
            "agents": {"primary": {"role": "primary"}, "secondary": {"role": "secondary"}},
            "lease": {"ttl": f"{TTL:g}s"},
            "secrets": ["CANARY"],
            "environments": {
                name: {
                    "steps": steps,
                    "retry": {"attempts": 2, "delay": "200ms", "timeout": "20s"},
                    "health": [{"command": {"run": f"./health.sh {name}"}}],
                    "health_policy": {"within": "2s", "interval": "200ms", "successes": 1},
                    "takeover_limit": 20,
                }
                for name in self.environments
            },
        }
        (project / "surefoot.yml").write_text(json.dumps(config, indent=1))

    def surefoot(self, *args: str) -> list[str]:
        config = str(self.folder / "project" / "surefoot.yml")
        return ["--config", config, "--store", self.store, *args]

    def call(self, *args: str) -> Any:
        """Run a command until the store answers, and return its JSON."""
        for _ in range(60):
            done = forked.run(self.surefoot("--output", "json", *args), capture_output=True, text=True, env=self.env())
            if done.returncode == 9:
                time.sleep(0.5)
                continue
            if CANARY in done.stdout + done.stderr:
                self.tally.broken.append(f"promise 6: {args} printed the canary")
            if done.returncode not in (0, 3, 7):
                raise RuntimeError(f"{args}: {done.returncode}: {done.stderr}")
            return json.loads(done.stdout) if done.stdout.strip() and done.returncode == 0 else None
        raise RuntimeError("the store did not come back")

    def env(self) -> dict[str, str]:
        return {**os.environ, "CANARY": CANARY, "NO_COLOR": "1"}

    def start(self, name: str) -> None:
        self.starts[name] = self.said(name) + 1
        log = (self.folder / f"{name}.out").open("ab")
        with log:
            self.agents[name] = forked.Surefoot(
                self.surefoot("agent", "run", name), env=self.env(), stdout=log, stderr=log, start_new_session=True
            )

    def said(self, name: str) -> int:
        """Return how many agents of that name have said that they run."""
        out = self.folder / f"{name}.out"
        return out.read_bytes().count(b"SIGTERM ends it") if out.exists() else 0

    def runs(self, name: str) -> None:
        """Wait until an agent has said that it runs: before that, SIGTERM ends it as it ends any program."""
        end = time.monotonic() + PATIENCE
        while self.agents[name].poll() is None and self.said(name) < self.starts[name]:
            if time.monotonic() > end:
                raise RuntimeError(f"{name} did not start")
            time.sleep(0.05)

    # -- the play ------------------------------------------------------------------------------------

    def play(self) -> None:
        for name in ("primary", "secondary"):
            self.start(name)
        with ThreadPoolExecutor(4) as pool:
            while len(self.ids) < self.deployments:
                # All at once, and while things go wrong: one after the other, each would have ended before the next.
                submitted = [pool.submit(self.call, *self.deploy()) for _ in range(self.random.choice([2, 3, 4]))]
                for _ in range(self.random.choice([1, 2, 3])):
                    self.fault()
                self.ids += [shown["id"] for one in submitted if (shown := one.result()) is not None]
                self.unlock()
        self.settle()

    def deploy(self) -> tuple[str, ...]:
        """Return the words that ask for another deployment."""
        self.asked += 1
        kind = self.random.choices(["", "-bad", "-sick"], [0.8, 0.1, 0.1])[0]
        environment = self.random.choice(self.environments)
        return "deploy", environment, f"v{self.asked}{kind}", "--detach", "--key", f"k{self.asked}"

    def fault(self) -> None:
        kind = self.random.choices(
            ["none", "kill", "freeze", "freeze all", "cancel", "term", "store"],
            [3, 3, 2, 2, 3, 1, 0.5 if self.postgres else 0],
        )[0]
        self.tally.faults[kind] = self.tally.faults.get(kind, 0) + 1
        time.sleep(self.random.uniform(0, 1.5))
        name = self.victim()
        agent = self.agents[name]
        if kind == "kill":
            agent.kill()
            agent.wait()
            time.sleep(self.random.uniform(0, 1.5))
            self.start(name)
        elif kind == "freeze":
            self.freeze([agent.pid])
        elif kind == "freeze all":
            self.freeze([agent.pid, *descendants(agent.pid)])
        elif kind == "cancel" and self.ids:
            chosen = self.at_work().get(name) or self.random.choice(self.ids[-6:])
            self.call("cancel", chosen, "--reason", "chaos")
        elif kind == "term":
            self.runs(name)
            agent.terminate()
            agent.wait()
            if agent.returncode != 0:
                self.tally.broken.append(f"{name} ended with {agent.returncode} on SIGTERM")
            self.start(name)
        elif kind == "store" and self.postgres is not None:
            self.postgres.restart()

    def victim(self) -> str:
        """Choose an agent; one that is at work, mostly: faults that hit idle ones teach little."""
        end = time.monotonic() + (2 * TTL if self.random.random() < 0.8 else 0)
        while time.monotonic() < end:
            if busy := self.at_work():
                return next(iter(busy))
            time.sleep(0.02)
        return self.random.choice(list(self.agents))

    def at_work(self) -> dict[str, str]:
        """Return what each agent says that it is at work on, asked without a program's start: that would take longer
        than most deployments do.
        """
        with contextlib.suppress(SurefootError):
            rows = self.reader.agents(TTL)
            return {row.report.name: row.report.running for row in rows if row.report.running}
        return {}

    def freeze(self, pids: list[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        time.sleep(self.random.uniform(0, 3 * TTL))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def unlock(self) -> None:
        """Repair what is stranded as a person would: one version on all hosts, then say so."""
        for row in self.call("status")["environments"]:
            if row["locked_by"]:
                version = row["current_version"] or "none"
                for host in (self.folder / "hosts" / row["name"]).iterdir():
                    (host / "version").write_text(f"{version}\n")
                self.call("resolve", row["locked_by"], "--reason", "chaos", "--unchecked")

    def settle(self) -> None:
        for name, agent in self.agents.items():
            if agent.poll() is not None:
                self.start(name)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self.unlock()
            rows = self.call("status")["environments"]
            if not any(row["running"] or row["queue"] for row in rows):
                return
            time.sleep(0.5)
        self.tally.broken.append(f"promise 2: not ended after {PATIENCE:g} s: {rows}")

    # -- the verdict ---------------------------------------------------------------------------------

    def judge(self) -> None:
        stranded_ever: set[str] = set()
        for deployment in dict.fromkeys(self.ids):
            shown = self.call("show", deployment)
            status = shown["status"]
            self.tally.statuses[status] = self.tally.statuses.get(status, 0) + 1
            self.tally.takeovers += shown["takeovers"]
            if status not in ("succeeded", "failed", "rolled_back", "cancelled", "stranded"):
                self.tally.broken.append(f"promise 2: {deployment} is {status}")
            if status == "stranded":
                stranded_ever.add(shown["environment"])
            events = self.events(deployment)
            if [e["seq"] for e in events] != list(range(1, len(events) + 1)):
                self.tally.broken.append(f"promise 4: {deployment}'s journal has gaps")
            self.judge_honesty(deployment, status, [e["type"] for e in events])
        for row in self.call("status")["environments"]:
            self.judge_hosts(row)
        self.judge_secret()

    def events(self, deployment: str) -> list[dict[str, Any]]:
        done = forked.run(
            self.surefoot("--output", "json", "events", deployment),
            capture_output=True,
            text=True,
            env=self.env(),
        )
        done.check_returncode()
        return [json.loads(line) for line in done.stdout.splitlines()]

    def judge_honesty(self, deployment: str, status: str, types: list[str]) -> None:
        if status == "succeeded":
            last_change = len(types) - 1 - types[::-1].index("step_succeeded")
            if "health_passed" not in types[last_change:]:
                self.tally.broken.append(f"promise 5: {deployment} succeeded unchecked")
        if status == "failed" and "step_started" in types:
            self.tally.broken.append(f"promise 3: {deployment} failed but had begun")

    def judge_hosts(self, row: dict[str, Any]) -> None:
        hosts = sorted((self.folder / "hosts" / row["name"]).iterdir())
        want = row["current_version"] or "none"
        versions = {(host / "version").read_text().strip() for host in hosts}
        if versions != {want}:
            self.tally.broken.append(f"promise 3: {row['name']} runs {versions}, the store says {want}")
        lines = sorted(
            (float(at), int(token), deployment)
            for host in hosts
            if (host / "log").exists()
            for at, token, deployment, *_ in (line.split() for line in (host / "log").read_text().splitlines())
        )
        for before, after in pairwise(lines):
            if after[1] < before[1]:
                self.tally.broken.append(f"promise 1: {row['name']}: {after} after {before}")

    def judge_secret(self) -> None:
        """No file that was written anywhere but the agents' memory holds the canary; nor does the store."""
        haystacks = [p for p in self.folder.rglob("*") if p.is_file()]
        for path in haystacks:
            if CANARY.encode() in path.read_bytes():
                self.tally.broken.append(f"promise 6: {path.relative_to(self.folder)} holds the canary")
        if self.postgres is not None and CANARY in dump(self.store):
            self.tally.broken.append("promise 6: the database holds the canary")

    def end(self) -> None:
        self.reader.close()
        for agent in self.agents.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(agent.pid, signal.SIGCONT)
            agent.terminate()
        for agent in self.agents.values():
            try:
                agent.wait(20)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()


def descendants(pid: int) -> list[int]:
    """Return all processes below one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, look = [], [pid]
    while look:
        below = children.get(look.pop(), [])
        found += below
        look += below
    return found


def dump(url: str) -> str:
    """Return all rows of a database."""
    import psycopg

    with psycopg.connect(url) as conn:
        tables = conn.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'surefoot'"
        )
        return "\n".join(
            str(row)
            for (table,) in tables.fetchall()
            for row in conn.execute(f"SELECT t::text FROM {table} AS t").fetchall()
        )


def run(seed: int, deployments: int, environments: int, store: str) -> Tally:
    """Run once; the folder is kept if a promise was broken."""
    folder = Path(tempfile.mkdtemp(prefix="surefoot-chaos-"))
    with contextlib.ExitStack() as stack:
        postgres = None
        if store == "postgres":
            postgres = PostgresServer(fsync=True)
            stack.callback(postgres.close)
            postgres.start()
        chaos = Chaos(folder, seed, deployments, environments, postgres)
        stack.callback(chaos.end)
        chaos.build()
        chaos.play()
        chaos.judge()
    if chaos.tally.broken:
        print(f"seed {seed}: kept in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return chaos.tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployments", type=int, default=300)
    parser.add_argument("--environments", type=int, default=4)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--store", choices=["postgres", "sqlite"], default="postgres")
    args = parser.parse_args()
    print(f"seed {args.seed}", file=sys.stderr)
    tally = run(args.seed, args.deployments, args.environments, args.store)
    print(json.dumps({"seed": args.seed, **vars(tally)}))
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
