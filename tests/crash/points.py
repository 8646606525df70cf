# SPDX-License-Identifier: Apache-2.0
"""Kills the real agent at each point of a deployment, one after the other: `python -m tests.crash.points`.

For each scenario and store: a run in which nothing dies names the points; then, for each of them, the first agent is
killed there (SIGKILL), another one finishes, and hosts, journal and processes are judged. `takeover-…` kills the
second agent in the same way, in the midst of what the first one has left. Exits 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.stage import Stage
from tests.support.postgres import PostgresServer


@dataclass(frozen=True)
class Scenario:
    """What is deployed, how it is to end, and who dies."""

    name: str
    playbooks: bool
    version: str
    status: str
    ends_on: str
    #: Where the first agent dies, if it is the second one whose points are tried.
    first_dies: str | None = None


SCENARIOS = (
    Scenario("forward", playbooks=False, version="2.0", status="succeeded", ends_on="2.0"),
    Scenario("undo", playbooks=False, version="2.0-bad", status="rolled_back", ends_on="1.0"),
    Scenario("takeover-forward", False, "2.0", "succeeded", "2.0", first_dies="spawn two forward after#1"),
    Scenario("takeover-undo", False, "2.0-bad", "rolled_back", "1.0", first_dies="spawn two undo after#1"),
    Scenario("playbook-forward", playbooks=True, version="2.0", status="succeeded", ends_on="2.0"),
    Scenario("playbook-undo", playbooks=True, version="2.0-bad", status="rolled_back", ends_on="1.0"),
)
STORES = ("sqlite", "postgres")


@dataclass(frozen=True)
class Case:
    """One point of one scenario on one store; no point: the run that names them."""

    scenario: Scenario
    store: str
    at: str = ""


@dataclass(frozen=True)
class Verdict:
    """What came of a case."""

    case: Case
    died: bool
    broken: tuple[str, ...]
    points: tuple[str, ...]
    seconds: float
    folder: str = ""


@contextlib.contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """Give an empty store."""
    if kind == "sqlite":
        yield f"sqlite://{folder / 'surefoot.db'}"
        return
    url = _server().new_database()
    yield url
    _server().execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")


_SERVERS: list[PostgresServer] = []


def _server() -> PostgresServer:
    """Return this process's server, which ends with it."""
    if not _SERVERS:
        server = PostgresServer()
        server.start()
        _SERVERS.append(server)
        from multiprocessing.util import Finalize

        Finalize(None, server.close, exitpriority=10)
    return _SERVERS[0]


def attempt(case: Case) -> Verdict:
    """Play one case."""
    began, scenario = time.monotonic(), case.scenario
    folder = Path(tempfile.mkdtemp(prefix="surefoot-crash-"))
    with database(case.store, folder) as url:
        stage = Stage(folder, url, playbooks=scenario.playbooks)
        stage.deploy("1.0")
        stage.hold("the first deployment did not work", stage.agent("secondary") == 0)
        stage.deploy(scenario.version)
        victim, other = "primary", "secondary"
        if scenario.first_dies is not None:
            ended = stage.agent(victim, at=scenario.first_dies)
            stage.hold(f"nobody died at {scenario.first_dies}", ended == -signal.SIGKILL)
            stage.points.unlink()
            victim, other = other, victim
        ended = stage.agent(victim, at=case.at or "nowhere")
        died = ended == -signal.SIGKILL
        stage.hold(f"{victim} ended with {ended}", died or ended == 0)
        stage.hold(f"{other} did not end well", stage.agent(other) == 0)
        stage.judge("production-2", scenario.status, scenario.ends_on)
        stage.clean()
    points = tuple(stage.points.read_text(encoding="utf-8").splitlines()) if stage.points.exists() else ()
    if not stage.broken:
        shutil.rmtree(folder, ignore_errors=True)
    return Verdict(case, died, tuple(stage.broken), points, time.monotonic() - began, str(folder))


def sample(cases: list[Case], count: int) -> list[Case]:
    """Return so many of the cases, spread evenly."""
    return [cases[place * len(cases) // count] for place in range(min(count, len(cases)))]


def main() -> int:
    """Try all points, or a sample; 1 if a promise was broken, or a point was not reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", action="append", choices=[s.name for s in SCENARIOS], help="all if none is named")
    parser.add_argument("--store", action="append", choices=STORES, help="both if none is named")
    parser.add_argument("--sample", type=int, help="so many points of each scenario and store")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    chosen = parser.parse_args()
    scenarios = [s for s in SCENARIOS if chosen.scenario is None or s.name in chosen.scenario]
    plain = [Case(scenario, store) for scenario in scenarios for store in chosen.store or STORES]
    failed = tried = died = 0
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(chosen.jobs) as pool:
        cases: list[Case] = []
        for named in pool.imap(attempt, plain):
            failed += _tell(named)
            points = [Case(named.case.scenario, named.case.store, point) for point in named.points]
            cases += sample(points, chosen.sample) if chosen.sample else points
            print(f"{named.case.scenario.name} on {named.case.store}: {len(points)} points", flush=True)
        for verdict in pool.imap_unordered(attempt, cases):
            tried += 1
            died += verdict.died
            failed += _tell(verdict)
        pool.close()
        pool.join()
    print(f"{tried} points tried, {died} deaths, {failed} broken, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def _tell(verdict: Verdict) -> int:
    case = verdict.case
    where = f"{case.scenario.name} on {case.store}: {case.at or 'nobody dies'}"
    if verdict.broken:
        print(f"BROKEN {where}: {'; '.join(verdict.broken)} (kept in {verdict.folder})", flush=True)
        return 1
    if case.at and not verdict.died:
        print(f"NOT REACHED {where}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
