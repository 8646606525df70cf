# SPDX-License-Identifier: Apache-2.0
"""What a drill is, and what comes of one: findings (promises, kept or not, with what shows it) and measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from surefoot.drills import evidence
from surefoot.drills.customer import Customer, Tally
from surefoot.drills.lab import Command, Host
from surefoot.drills.site import Cli, Site


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise, whether it was kept, and what shows it."""

    promise: str
    kept: bool
    evidence: str


@dataclass(frozen=True, slots=True)
class Measure:
    """One number, and the greatest that is good enough, if it is judged."""

    name: str
    value: float
    unit: str
    at_most: float | None = None

    @property
    def good(self) -> bool:
        """Whether it is good enough."""
        return self.at_most is None or self.value <= self.at_most

    def __str__(self) -> str:
        limit = "" if self.at_most is None else f" (at most {self.at_most:g} {self.unit})"
        value = f"{self.value:.0f}" if float(self.value).is_integer() else f"{self.value:.2f}"
        return f"{value} {self.unit}{limit}"


@dataclass
class Result:
    """What came of one drill."""

    drill: Drill
    began: float = field(default_factory=time.time)
    seconds: float = 0.0
    story: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    error: str = ""  #: why it could not be played to its end

    @property
    def passed(self) -> bool:
        """Whether it was played to its end, something was judged, and all of it was good."""
        judged = [finding.kept for finding in self.findings] + [measure.good for measure in self.measures]
        return not self.error and bool(self.findings) and all(judged)


class Stage:
    """What a drill plays on: the site, and where it says what it does and judges what it saw."""

    def __init__(self, site: Site, result: Result, say: Callable[[str], None]) -> None:
        """Begin: the site is in order, and both hosts run one version."""
        self.site = site
        self.result = result
        self._say = say
        self._began = time.monotonic()
        self.began = time.time()
        self.before = site.ready()
        self.began = time.time()
        urls = [site.project.customer.format(address=host.address, host=host.name) for host in site.web]
        self._customer = Customer(urls)
        self._customer.start()

    def end(self) -> Tally:
        """Return what customers saw."""
        return self._customer.stop()

    # -- telling ---------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Say what is being done."""
        line = f"{time.monotonic() - self._began:6.1f} s  {text}"
        self.result.story.append(line)
        self._say(line)

    def check(self, promise: str, kept: bool, shows: str) -> None:
        """Judge a promise."""
        self.result.findings.append(Finding(promise, bool(kept), shows))

    def measure(self, name: str, value: float, unit: str = "s", at_most: float | None = None) -> None:
        """Keep a number, and judge it if a greatest one is given."""
        self.result.measures.append(Measure(name, value, unit, at_most))

    # -- what drills have in common --------------------------------------------------------------------------------

    def commands(self) -> list[Command]:
        """Return what came to the hosts since the drill began."""
        assert self.site.lab is not None
        found = self.site.lab.commands([host.name for host in self.site.web])
        return evidence.since(found, self.began)

    def deploys(self) -> tuple[str, Cli]:
        """Have a new version deployed; return it, and the command that follows."""
        version = self.site.version()
        self.say(f"surefoot deploy {self.site.project.environment} {version}")
        return version, self.site.deploy(version)

    def reach_the_middle(self, deploy: Cli, version: str) -> None:
        """Wait until one host runs the new version and another one not yet."""

        def middle() -> bool:
            if deploy.ended:
                raise AssertionError(f"the deploy ended before its middle:\n{deploy.said()[-2000:]}")
            found = [self.site.runs(host) for host in self.site.web]
            return version in found and any(said not in (version, None) for said in found)

        self.site.until(middle, f"one host on {version}, the other not yet")

    def in_the_middle(self) -> tuple[str, Cli]:
        """Have a new version deployed, and wait for the deployment's middle; return both."""
        version, deploy = self.deploys()
        self.reach_the_middle(deploy, version)
        return version, deploy

    def ends_well(self, deploy: Cli, version: str) -> None:
        """The deployment must succeed, on all hosts, one at a time."""
        self.exits(deploy, 0)
        self.all_run(version)
        self.one_at_a_time()

    def resolves(self, deployment: str, reason: str) -> None:
        """All hosts must run what they ran before; said to be repaired, the environment must take deployments again."""
        self.all_run(self.before)
        done = self.site.cli("resolve", deployment, "--reason", reason)
        self.check("resolved", done.wait() == 0, done.said().strip()[-300:])
        again = self.site.version()
        self.ends_well(self.site.deploy(again), again)

    def exits(self, deploy: Cli, code: int) -> None:
        """The command must end with this code."""
        got = deploy.wait()
        told = [line for line in deploy.said().splitlines() if f"{self.site.project.environment}-" in line]
        last = told[-1].strip() if told else deploy.said()[-200:]
        self.check(f"exit {code}", got == code, f"surefoot ended with {got}: {last[:200]}")

    def all_run(self, version: str) -> None:
        """All hosts must run this version, as they say themselves."""
        found = {host.name: self.site.runs(host) for host in self.site.web}
        shows = ", ".join(f"{name} runs {said or 'nothing'}" for name, said in found.items())
        self.check("all or nothing", set(found.values()) == {version}, f"{shows}; expected {version}")

    def one_at_a_time(self, dead: Sequence[str] = ()) -> list[evidence.Reign]:
        """No command of an older token may have run on a host after a newer one's first task."""
        commands = self.commands()
        found = evidence.reigns(commands)
        late = evidence.late(commands, dead)
        if not found:
            self.check("one at a time", False, "no command came to the hosts")
        elif late:
            self.check("one at a time", False, "; ".join(map(evidence.shown, late[:5])))
        else:
            refused = sum(reign.refused for reign in found)
            tasks = sum(reign.tasks for reign in found)
            self.check(
                "one at a time",
                True,
                f"{tasks} tasks under {len(found)} tokens; none of an older token after a newer one's first"
                f" ({refused} were refused)",
            )
        return found

    def ran_by(self, reign: evidence.Reign, host: Host) -> None:
        """All commands with a token must have come from one runner."""
        self.check(
            f"{host.name} did it",
            reign.sources == {host.address},
            f"commands with token {reign.token} came from {', '.join(sorted(reign.sources))}",
        )


@dataclass(frozen=True, slots=True)
class Drill:
    """One scenario."""

    name: str
    group: str
    title: str  #: what happens, in one sentence
    will: tuple[str, ...]  #: what it will do and expect, a line each
    play: Callable[[Stage], None] = field(repr=False)
    spoils: bool = False  #: whether the site can't be put in order after it
