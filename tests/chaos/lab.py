# SPDX-License-Identifier: Apache-2.0
"""Chaos in the lab: deployments of good and of sick versions, while runners, hosts, lines, disks and the store fail at
random, each for a while.

    python -m tests.chaos.lab --rounds 20 --seed 7
    python -m tests.chaos.lab --rounds 500 --jobs 3

In each round a few deployments are asked for, and a few faults are made while they run; then everything is mended, all
must end, and the promises are judged by what the hosts saw. Prints its seed, a line for each thing that it does, and
at the end one line of JSON; exits 1 if a promise was broken, and keeps journals and logs of such a round. Several jobs
play in labs of their own, with the seeds that follow. Ended by Ctrl-C or SIGTERM it says what the rounds before showed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from surefoot.drills import evidence
from surefoot.drills.errors import DrillError
from surefoot.drills.lab import Direction, Host, missing
from surefoot.drills.operator import Cli
from surefoot.drills.runner import keep
from surefoot.drills.site import AGENT, DATABASE, PRIMARY, SECONDARY, STANDBY, Site
from tests.support import compiled

#: Seconds that a fault lasts, at most: a lease and a half.
LASTS = 8.0
RUNNERS = (PRIMARY, SECONDARY)


@dataclass
class Tally:
    """What was done, and what was broken."""

    seed: int
    rounds: int = 0
    deployments: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    takeovers: int = 0
    tasks: int = 0
    refused: int = 0
    broken: list[str] = field(default_factory=list)


def together(tallies: Iterable[Tally]) -> dict[str, Any]:
    """Return several runs' tallies as one, as JSON has it."""
    first, *others = map(asdict, tallies)
    seeds = [first["seed"], *(one["seed"] for one in others)]
    for other in others:
        for key, value in other.items():
            if isinstance(value, dict):
                first[key] = {kind: first[key].get(kind, 0) + value.get(kind, 0) for kind in {**first[key], **value}}
            elif key != "seed":
                first[key] += value
    return first | ({"seed": seeds} if others else {})


class LabChaos:
    """One run on one site."""

    def __init__(self, site: Site, seed: int, say: Callable[[str], None] = print) -> None:
        self.site = site
        self.random = random.Random(seed)
        self.tally = Tally(seed)
        self.say = say
        self.faults: dict[str, tuple[int, Callable[[], None]]] = {
            "kill an agent": (4, self.kill_agent),
            "stop an agent": (2, self.stop_agent),
            "freeze a runner": (4, self.freeze_runner),
            "power off a runner": (3, self.power_off_runner),
            "cut a runner off": (2, self.cut_runner),
            "cut a runner from the store": (3, self.cut_from_store),
            "cut a runner from a host": (2, self.cut_from_host),
            "reboot a host": (2, self.reboot_host),
            "lose packets": (2, self.lose_packets),
            "fill a host's disk": (1, self.fill_disk),
            "stop a host's sshd": (1, self.stop_sshd),
            "crash the store": (2, self.crash_store),
            "cancel": (3, self.cancel),
            "kill the command": (1, self.kill_command),
        }
        self.following: list[Cli] = []
        self.rebooted: set[str] = set()

    # -- a round -----------------------------------------------------------------------------------------------------

    def round(self) -> list[str]:
        """Play one round, and return what was broken."""
        before = len(self.tally.broken)
        self.site.ready()
        began = time.time()
        self.following, self.rebooted = [], set()
        versions = [self.deploy() for _ in range(self.random.choice([1, 1, 2, 3]))]
        for _ in range(self.random.choice([1, 1, 2, 3])):
            time.sleep(self.random.uniform(0, 6))
            names = list(self.faults)
            name = self.random.choices(names, [self.faults[one][0] for one in names])[0]
            self.tally.faults[name] = self.tally.faults.get(name, 0) + 1
            self.say(f"  {name}")
            self.faults[name][1]()
        self.mend()
        self.judge(versions, began)
        self.tally.rounds += 1
        return self.tally.broken[before:]

    def deploy(self) -> str:
        version = self.site.version()
        kind = self.random.choices(["well", "sick", "sick on one host"], [7, 2, 1])[0]
        if kind != "well":
            hosts = self.site.web if kind == "sick" else (self.random.choice(self.site.web),)
            self.site.break_version(version, *hosts)
        self.say(f"  deploy {version}, which is {kind}")
        deploy = self.site.deploy(version)
        self.site.named(deploy)  # accepted: from now on it must end
        self.following.append(deploy)
        self.tally.deployments += 1
        return version

    def mend(self) -> None:
        lab = self.site.lab
        assert lab is not None
        lab.network.heal()
        for host in lab.hosts.values():
            host.thaw()
            host.disk.free()
            if not host.is_on:
                host.power_on()
        if not self.site.servers.primary.host.active("lab-postgres"):
            self.site.servers.primary.start()
        for host in self.site.web:
            host.start_sshd()
        self.site.start_agents(*RUNNERS)

    # -- faults ------------------------------------------------------------------------------------------------------

    def runner(self) -> Host:
        return self.site[self.random.choice(RUNNERS)]

    def last(self, undo: Callable[[], None]) -> None:
        """Let a fault last for a while, mostly; else it stays until everything is mended."""
        time.sleep(self.random.uniform(0, LASTS))
        if self.random.random() < 0.7:
            undo()

    def kill_agent(self) -> None:
        host = self.runner()
        if host.is_on and host.active(AGENT):
            host.kill(AGENT)

    def stop_agent(self) -> None:
        host = self.runner()
        if host.is_on:
            host.systemctl("stop", AGENT)
            self.last(lambda: self.start_agent(host))

    def start_agent(self, host: Host) -> None:
        if host.is_on:
            host.systemctl("start", AGENT)

    def freeze_runner(self) -> None:
        host = self.runner()
        if host.is_on:
            host.freeze()
            time.sleep(self.random.uniform(0, LASTS))
            host.thaw()

    def power_off_runner(self) -> None:
        host = self.runner()
        host.power_off()
        self.last(host.power_on)

    def cut_runner(self) -> None:
        host = self.runner()
        host.cut(direction=self.random.choice(list(Direction)))
        self.last(host.heal)

    def cut_from_store(self) -> None:
        host = self.runner()
        for name in (DATABASE, STANDBY):
            host.cut(self.site[name])
        self.last(host.heal)

    def cut_from_host(self) -> None:
        host = self.runner()
        host.cut(self.random.choice(self.site.web))
        self.last(host.heal)

    def reboot_host(self) -> None:
        host = self.random.choice(self.site.web)
        self.rebooted.add(host.name)
        host.power_off()
        time.sleep(self.random.uniform(0, 3))
        host.power_on()

    def lose_packets(self) -> None:
        host = self.random.choice([*self.site.web, self.runner()])
        assert self.site.lab is not None
        self.site.lab.network.lossy(host.plug, self.random.choice([5, 20]))
        self.last(host.heal)

    def fill_disk(self) -> None:
        host = self.random.choice(self.site.web)
        host.disk.fill()
        self.last(host.disk.free)

    def stop_sshd(self) -> None:
        host = self.random.choice(self.site.web)
        host.stop_sshd()
        self.last(host.start_sshd)

    def crash_store(self) -> None:
        self.site.servers.primary.crash()
        time.sleep(self.random.uniform(0, 3))
        self.site.servers.primary.start()

    def cancel(self) -> None:
        name = self.site.named(self.random.choice(self.following))
        self.site.cli("cancel", name, "--reason", "chaos").wait()

    def kill_command(self) -> None:
        self.random.choice(self.following).process.kill()

    # -- the verdict -------------------------------------------------------------------------------------------------

    def judge(self, versions: list[str], began: float) -> None:
        site, broken, repaired = self.site, self.tally.broken, False
        try:
            site.settle()
            while locked_by := self.environment()["locked_by"]:
                repaired = True
                self.resolve(locked_by)
                site.settle()
        except DrillError as error:
            broken.append(f"promise 2: {error}")
            return
        assert site.lab is not None
        commands = evidence.since(site.lab.commands([host.name for host in site.web]), began)
        broken += [f"promise 1: {evidence.shown(one)}" for one in evidence.late(commands, self.rebooted)]
        reigns = evidence.reigns(commands)
        for reign in reigns:
            self.tally.tasks += reign.tasks
            self.tally.refused += reign.refused
        changing = {reign.token for reign in reigns if reign.tasks}
        for deploy in self.following:
            self.judge_journal(site.ask("show", site.named(deploy)), changing, broken)
        site.mend()
        version = self.renew(broken) if repaired else self.environment()["current_version"]
        self.judge_hosts(version, broken)

    def environment(self) -> dict[str, Any]:
        """Return what the store says of it."""
        (row,) = (r for r in self.site.ask("status")["environments"] if r["name"] == self.site.environment)
        return row

    def judge_journal(self, shown: dict[str, Any], changing: set[int], broken: list[str]) -> None:
        """Judge what a journal says. `changing` are the tokens of which hosts have seen more than a raise."""
        status, name = shown["status"], shown["id"]
        self.tally.statuses[status] = self.tally.statuses.get(status, 0) + 1
        self.tally.takeovers += shown["takeovers"]
        events = self.site.events(name)
        types = [event["type"] for event in events]
        if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
            broken.append(f"promise 4: {name}'s journal has gaps")
        if status == "succeeded":
            changed = len(types) - 1 - types[::-1].index("step_succeeded")
            if "health_passed" not in types[changed:]:
                broken.append(f"promise 5: {name} succeeded unchecked")
        if status == "failed" and not changing.isdisjoint(event["token"] for event in events):
            broken.append(f"promise 3: {name} failed, but had changed hosts")

    def judge_hosts(self, version: str | None, broken: list[str]) -> None:
        deadline = time.monotonic() + 30
        while True:
            found = {host.name: self.site.runs(host) for host in self.site.web}
            if set(found.values()) == {version}:
                return
            if time.monotonic() > deadline:  # a rebooted host's service needs a moment
                broken.append(f"promise 3: hosts run {found}, the store says {version}")
                return
            time.sleep(0.5)

    def resolve(self, locked_by: str) -> None:
        """Do as a person would with what is stranded: say that it is seen to. What was queued behind it goes on."""
        self.say(f"  {locked_by} is stranded; resolved by hand")
        done = self.site.cli("resolve", locked_by, "--reason", "chaos", "--unchecked")
        if done.wait() != 0:
            raise DrillError(f"{locked_by} can't be resolved: {done.said()[-300:]}")

    def renew(self, broken: list[str]) -> str:
        """Deploy what is known to be well to what was repaired by word alone."""
        version = self.site.version()
        again = self.site.deploy(version)
        if again.wait() != 0:
            broken.append(f"after a repair {version} can't be deployed: {again.said()[-1000:]}")
        return version


def run(seed: int, rounds: int, folder: Path, say: Callable[[str], None] = print) -> Tally:
    """Play rounds on one site; it is set up anew after one that broke something."""
    tally = Tally(seed)
    with suppress(KeyboardInterrupt):
        _play(tally, rounds, folder, say)
    return tally


def _play(tally: Tally, rounds: int, folder: Path, say: Callable[[str], None]) -> None:
    seed, number = tally.seed, 0
    while number < rounds:
        with Site(folder=folder / f"lab-{number}") as site:
            chaos = LabChaos(site, seed * 100_003 + number, say)
            chaos.tally = tally
            while number < rounds:
                number += 1
                say(f"round {number}")
                try:
                    broken = chaos.round()
                except (DrillError, OSError) as error:
                    broken = [f"round {number} could not be played: {error}"]
                    tally.broken += broken
                if broken:
                    where = keep(site, folder / f"round-{number}")
                    say(f"round {number} of seed {seed}: {'; '.join(broken)}\n  kept in {where}")
                    break


def _job(given: tuple[int, int, Path]) -> Tally:
    """Play one job's rounds in a process of its own, in which a signal ends them and no more."""
    seed, rounds, folder = given
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    compiled.use_in_labs()
    tally = run(seed, rounds, folder, lambda line: print(f"[{seed}] {line}", file=sys.stderr, flush=True))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one that comes again would take the tally away
    return tally


def _side_by_side(seed: int, rounds: int, jobs: int, folder: Path) -> list[Tally]:
    shares = [rounds // jobs + (number < rounds % jobs) for number in range(jobs)]
    work = [(seed + number, share, folder / f"job-{number}") for number, share in enumerate(shares) if share]
    with multiprocessing.get_context("spawn").Pool(len(work)) as pool:
        found = pool.map_async(_job, work, chunksize=1)
        while not found.ready():
            try:
                found.wait(1)
            except KeyboardInterrupt:  # each job ends its own lab, and says what it has
                for process in multiprocessing.active_children():
                    if process.pid is not None:
                        os.kill(process.pid, signal.SIGTERM)
        tallies = found.get()
        pool.close()
        pool.join()  # they no longer hear the SIGTERM that a pool ends with
        return tallies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--jobs", type=int, default=1, help="so many labs side by side")
    args = parser.parse_args()
    if min(args.rounds, args.jobs) < 1:
        parser.error("--rounds and --jobs must be at least 1")
    if reason := missing():
        print(f"NOTHING was tested: {reason}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="surefoot-chaos-"))
    print(f"seed {args.seed}; logs in {folder}", file=sys.stderr)
    compiled.make()
    try:
        tally = together(_side_by_side(args.seed, args.rounds, args.jobs, folder))
    finally:
        compiled.remove()
    print(json.dumps(tally))
    return 1 if tally["broken"] or tally["rounds"] < args.rounds else 0


if __name__ == "__main__":
    sys.exit(main())
