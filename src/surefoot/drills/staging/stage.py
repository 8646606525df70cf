# SPDX-License-Identifier: Apache-2.0
"""An environment that is there already, as a drill's stage: judged by the versions that hosts say, and for who did it
and when, by Surefoot's journal, which is Surefoot's own word.

Times are of one clock each: from a fault, by this machine's, from when its command was begun to when an entry of the
journal was seen here; within a deployment, by the store's. What only a black box on hosts would show is not judged.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from surefoot.drills.drill import Result
from surefoot.drills.operator import ASK_EVERY, LOOK_EVERY, Cli
from surefoot.drills.stage import Stage
from surefoot.drills.staging.environment import Staging

NO_BLACK_BOX = "not judged here: hosts have no black box"


class Watch:
    """A deployment's journal as it grows, each entry with when it was seen here."""

    def __init__(self, staging: Staging, deployment: str) -> None:
        """Begin to follow it."""
        self.seen: list[tuple[float, dict[str, Any]]] = []
        self._cli = staging.cli("events", deployment, "--follow", "--output", "json", apart=True)
        self._thread = threading.Thread(target=self._read, name="watch", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        over = False
        while not over:
            time.sleep(LOOK_EVERY)
            over = self._cli.ended
            *lines, _ = self._cli.answer().split("\n")
            now = time.time()
            self.seen += [(now, json.loads(line)) for line in lines[len(self.seen) :]]

    def wait(self) -> None:
        """Wait until the journal has ended."""
        self._cli.wait()
        self._thread.join()

    def last(self, kind: str) -> dict[str, Any] | None:
        """Return the last entry of a kind that was seen."""
        return next((entry for _, entry in reversed(self.seen) if entry["type"] == kind), None)


class StagingStage(Stage):
    """See the module's docstring."""

    site: Staging

    def __init__(self, site: Staging, result: Result, say: Callable[[str], None]) -> None:
        """Begin: the environment is idle, and all hosts run one version."""
        super().__init__(site, result, say)
        site.faults.say = self.say
        self._watch: Watch | None = None
        self._fault = ""
        self._lost = ""
        self._token = 0  #: that the lost agent held
        if not site.customers_urls():
            self.not_judged("customers", "not asked here: drill.yml names no customer")

    def reach_the_middle(self, deploy: Cli, version: str) -> None:
        """Wait for the step that drill.yml calls the middle; else until one host runs the new version."""
        step = self.site.settings.middle
        if step is None and len(self.site.web) > 1:
            try:
                super().reach_the_middle(deploy, version)
            except AssertionError as error:
                raise AssertionError(f"{error}\na step to do it in may be named: staging: {{middle: STEP}}") from error
            return
        name = self.site.named(deploy)

        def begun() -> bool:
            shown = self.site.ask("show", name)
            if shown["finished_at"] is not None:
                raise AssertionError(f"the deploy ended before its middle:\n{deploy.said()[-2000:]}")
            return any(
                run["direction"] == "forward" and run["started_at"] is not None and step in (None, run["name"])
                for run in shown["steps"]
            )

        self.site.until(begun, f"the step {step or 'that comes first'} has begun", every=LOOK_EVERY)

    def lose(self, fault: str, deploy: Cli | None = None) -> None:
        """Lose the agent that a deployment runs on; without one, the agent that would take the next."""
        self._fault, self._lost = fault, self.site.preferred
        if deploy is not None:
            watch = self._watch = Watch(self.site, self.site.named(deploy))
            self.site.until(lambda: watch.last("lease_granted"), "the journal says who runs it")
            grant = watch.last("lease_granted")
            assert grant is not None
            if watch.last("finished"):
                raise AssertionError("the deployment ended before the fault")
            self._lost, self._token = grant["data"]["agent"], grant["token"] or grant["data"]["token"]
        self.say(f"{self._lost} is lost")
        self.fault = time.time()
        self.site.faults.make(fault, self.site.settings.faults[fault], {"agent": self._lost})

    # -- not to be seen from here ------------------------------------------------------------------------------------

    def one_at_a_time(self) -> None:
        """Say that it is not judged."""
        if not any(finding.promise == "one at a time" for finding in self.result.findings):
            self.not_judged("one at a time", NO_BLACK_BOX)

    def stale_is_refused(self) -> None:
        """Say that it is not judged."""
        self.not_judged("a stale runner is refused", NO_BLACK_BOX)

    # -- by the journal ----------------------------------------------------------------------------------------------

    def done_by_the_primary(self, deploy: Cli) -> None:
        """All must have been done by the agent that came first when it was asked for."""
        shown = self.site.ask("show", self.site.named(deploy))
        self.check(
            f"{self.site.preferred} did it",
            shown["agent"] == self.site.preferred,
            f"by its journal {shown['id']} ran on {shown['agent']}",
        )
        first = self._first_step(shown["id"])
        if first is not None:
            self.measure("from the request to the first step, by the store's clock", first)

    def no_takeover(self, deploy: Cli) -> None:
        """One agent alone must have done it, with one token."""
        shown = self.site.ask("show", self.site.named(deploy))
        self.check("no takeover", shown["takeovers"] == 0, f"by its journal {shown['takeovers']} of {shown['id']}")

    def taken_over(self, deploy: Cli) -> None:
        """A newer token must have gone on, soon."""
        self.one_at_a_time()
        assert self._watch is not None
        self._watch.wait()
        newer = [(at, entry) for at, entry in self._watch.seen if (entry["token"] or 0) > self._token]
        grants = [(at, entry["data"]["agent"]) for at, entry in newer if entry["type"] == "lease_granted"]
        names = ", then ".join([self._lost, *(agent for _, agent in grants)])
        self.check("a takeover", bool(grants), f"by its journal it ran on {names}")
        if not grants:
            return
        self._check_other(grants[-1][1])
        self.measure("from the fault until a takeover was seen", grants[0][0] - self.fault)
        if begun := [at for at, entry in newer if entry["type"] == "step_started"]:
            within = self.site.settings.takeover_within
            self.measure("from the fault until the next step was seen to begin", begun[0] - self.fault, at_most=within)

    def done_by_another(self, deploy: Cli) -> None:
        """An agent other than the lost one must have done it, and begun soon."""
        self.one_at_a_time()
        name = self.site.named(deploy)
        self._check_other(self.site.ask("show", name)["agent"])
        first = self._first_step(name)
        if first is not None:
            within = self.site.settings.takeover_within
            self.measure("from the request to the first step, by the store's clock", first, at_most=within)

    def _check_other(self, agent: str) -> None:
        """Judge who went on. A killed agent is started again by its service, and may be first."""
        if self._fault != "kill":
            self.check("another runner", agent != self._lost, f"{self._lost} was lost, and {agent} went on")

    def _first_step(self, deployment: str) -> float | None:
        """Return the seconds from a deployment's request to its first step."""
        events = self.site.events(deployment)
        begun = [event["at"] for event in events if event["type"] == "step_started"]
        return _seconds(events[0]["at"], begun[0]) if begun else None

    def wakes_up(self) -> None:
        """Wake the frozen runner up: hosts must stay as they are."""
        before = {host.name: self.site.runs(host) for host in self.site.web}
        self.site.faults.mend(self._fault)
        self.say(f"{self._lost} wakes up")
        self.site.until(lambda: self._lost in self.site.online(), f"{self._lost} is online again", every=ASK_EVERY)
        after = {host.name: self.site.runs(host) for host in self.site.web}
        self.check("hosts stay as they are", before == after, ", ".join(f"{k} runs {v}" for k, v in after.items()))
        self.stale_is_refused()

    def one_by_one(self, rows: Sequence[dict[str, Any]]) -> None:
        """By the journal each must have begun after the one before had ended."""
        self.one_at_a_time()
        overlaps = [f"{b['id']} began before {a['id']} had ended" for a, b in pairwise(rows) if _overlap(a, b)]
        self.check(
            "one after the other, by the journal", not overlaps, "; ".join(overlaps) or f"{len(rows)} came one by one"
        )


def _overlap(one: dict[str, Any], next_one: dict[str, Any]) -> bool:
    if one["finished_at"] is None or next_one["started_at"] is None:
        return True
    return _seconds(one["finished_at"], next_one["started_at"]) < 0


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
