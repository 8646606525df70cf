# SPDX-License-Identifier: Apache-2.0
"""What a drill plays on, wherever it is played: where it says what it does, and judges what it saw.

What can be seen depends on the place: in the lab hosts have black boxes (`lab_stage`), elsewhere there are only their
services and Surefoot's journal (`staging.stage`). What a place can't show is told as not judged, never as kept.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from surefoot.drills.customer import Customer, Tally
from surefoot.drills.drill import Finding, Measure, Result
from surefoot.drills.operator import Cli, Operator

#: The runner must be replaced within this, in seconds, whatever became of it.
REQUIRED = 30.0


class Stage(ABC):
    """See the module's docstring."""

    def __init__(self, site: Operator, result: Result, say: Callable[[str], None]) -> None:
        """Begin: the site is in order, and all hosts run one version."""
        self.site = site
        self.result = result
        self.fault = 0.0  #: when the runner was lost
        self._say = say
        self._began = time.monotonic()
        self.before = site.ready()
        self.began = time.time()
        urls = site.customers_urls()
        self._customer = Customer(urls) if urls else None
        if self._customer is not None:
            self._customer.start()

    def end(self) -> Tally | None:
        """Return what customers saw; None if there are none."""
        return self._customer.stop() if self._customer is not None else None

    # -- telling ---------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Say what is being done."""
        line = f"{time.monotonic() - self._began:6.1f} s  {text}"
        self.result.story.append(line)
        self._say(line)

    def check(self, promise: str, kept: bool, shows: str) -> None:
        """Judge a promise."""
        self.result.findings.append(Finding(promise, bool(kept), shows))

    def not_judged(self, promise: str, why: str) -> None:
        """Say that a promise can't be judged here."""
        self.result.findings.append(Finding(promise, None, why))

    def measure(self, name: str, value: float, unit: str = "s", at_most: float | None = None) -> None:
        """Keep a number, and judge it if a greatest one is given."""
        self.result.measures.append(Measure(name, value, unit, at_most))

    # -- what drills have in common --------------------------------------------------------------------------------

    def deploys(self) -> tuple[str, Cli]:
        """Have a new version deployed; return it, and the command that follows."""
        version = self.site.version()
        self.say(f"surefoot deploy {self.site.environment} {version}")
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

    def exits(self, deploy: Cli, code: int) -> None:
        """The command must end with this code."""
        got = deploy.wait()
        told = [line for line in deploy.said().splitlines() if f"{self.site.environment}-" in line]
        last = told[-1].strip() if told else deploy.said()[-200:]
        self.check(f"exit {code}", got == code, f"surefoot ended with {got}: {last[:200]}")

    def all_run(self, version: str) -> None:
        """All hosts must run this version, as they say themselves."""
        found = {host.name: self.site.runs(host) for host in self.site.web}
        shows = ", ".join(f"{name} runs {said or 'nothing'}" for name, said in found.items())
        self.check("all or nothing", set(found.values()) == {version}, f"{shows}; expected {version}")

    # -- what each place shows in its own way ------------------------------------------------------------------------

    @abstractmethod
    def lose(self, fault: str, deploy: Cli | None = None) -> None:
        """Lose the runner that a deployment runs on; without one, the runner that would take the next."""

    @abstractmethod
    def one_at_a_time(self) -> object:
        """No command of an older token may have run on a host after a newer one's first task."""

    @abstractmethod
    def done_by_the_primary(self, deploy: Cli) -> None:
        """All must have been done by the runner that comes first."""

    @abstractmethod
    def no_takeover(self, deploy: Cli) -> None:
        """One runner alone must have done it, with one token."""

    @abstractmethod
    def taken_over(self, deploy: Cli) -> None:
        """Another runner must have gone on, soon, and the lost one must have stayed away."""

    @abstractmethod
    def done_by_another(self, deploy: Cli) -> None:
        """A runner other than the lost one must have done it, and begun soon."""

    @abstractmethod
    def wakes_up(self) -> None:
        """Wake the frozen runner up: hosts must not obey it."""

    @abstractmethod
    def stale_is_refused(self) -> None:
        """Hosts must refuse the lost runner, should it try."""

    @abstractmethod
    def one_by_one(self, rows: Sequence[dict[str, Any]]) -> None:
        """Deployments, in the order in which they were accepted, must have come one after the other."""
