# SPDX-License-Identifier: Apache-2.0
"""An environment that is there already, as drills ask it for deployments, and put it back as it was.

What a drill asked for is told from what others did by the keys that it is submitted with, however its commands ended.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.config.discovery import store_url
from surefoot.core.errors import Exit, SurefootError
from surefoot.core.status import Status
from surefoot.drills.drill import Portable
from surefoot.drills.errors import DrillError
from surefoot.drills.operator import ASK_EVERY, Addressed, Cli, Operator
from surefoot.drills.project import CONFIG
from surefoot.drills.staging import examine
from surefoot.drills.staging.faults import Faults
from surefoot.drills.staging.settings import FAULTS, Settings

#: Variables that would have commands tell others of what is a drill's alone, or run by another config.
_NOT_HANDED_ON = ("SUREFOOT_CONFIG", "SUREFOOT_PUSHGATEWAY", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY")
#: Seconds for hosts to say the version that they were put back to.
HOSTS_WITHIN = 60.0
#: How often in a row nothing of ours is found, before that is believed: a command that was killed may have had its
#: request on the way to the store.
LOOKS = 2
#: What a version that is not well is called among the faults.
SICK = "break"


@dataclass(frozen=True, slots=True)
class Target:
    """A host that is deployed to."""

    name: str
    address: str


class Staging(Operator):
    """See the module's docstring."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        say: Callable[[str], None],
        held: Callable[[], AbstractContextManager[object]],
        store: str | None = None,
    ) -> None:
        """Keep what commands say in `folder`. `store`: what the call names; else the environment or the config says."""
        super().__init__(folder, settings.environment, settings.folder / CONFIG)
        self.settings = settings
        self.patience = settings.patience
        self.held = held
        self.customer = settings.customer
        self.version_url, self.version_key = settings.version_url, settings.version_key
        self.faults = Faults(folder, say, held)
        self.preferred = ""  #: the agent that would take the next deployment
        self.strangers: tuple[str, ...] = ()  #: what others have deployed since the drill began
        self._store = store_url(None, store, os.environ) if store or os.environ.get("SUREFOOT_STORE") else None
        self._web: tuple[Target, ...] = ()
        self._agents: set[str] = set()
        self._keys = ""  #: what the keys of this drill begin with
        self._asked = 0
        self._mine: dict[str, bool] = {}
        self._newest = 0  #: the number of the last deployment before the drill
        self._before: str | None = None
        self._last = ""

    @property
    def web(self) -> tuple[Target, ...]:
        """The hosts that are deployed to."""
        return self._web

    def surroundings(self) -> dict[str, str]:
        """Return what was given to the drill, with the store that it was given."""
        kept = {key: value for key, value in os.environ.items() if key not in _NOT_HANDED_ON}
        return kept | ({"SUREFOOT_STORE": self._store} if self._store is not None else {})

    def marks(self) -> tuple[str, ...]:
        """Return the key of the next deployment."""
        self._asked += 1
        return ("--key", f"{self._keys}{self._asked}")

    # -- before anything is touched ----------------------------------------------------------------------------------

    def examine(self, drills: Iterable[Portable]) -> None:
        """See whether these can be played now. Raises what is in the way; reads only."""
        running = examine.idle(self._row(patience=0))
        for version in self.settings.versions:
            plan = self.ask("plan", self.environment, version, patience=0)
            examine.open_gates(plan)
            examine.known_step(plan, self.settings)
            self._web = tuple(Target(*one) for one in examine.hosts_of(plan, self.settings).items())
        loses_one = any(set(drill.needs) & set(FAULTS) for drill in drills)
        examine.agents_there(self._all_agents(), 2 if loses_one else 1)
        examine.one_version({host.name: self.runs(host) for host in self.web}, running, self.version_url)

    def ready(self) -> str:
        """See that it is idle and in order, and return the version that all hosts run."""
        self._before, self._asked, self.strangers = None, 0, ()
        self.faults.made = False
        self._keys = f"drill-{secrets.token_hex(8)}-"
        running = examine.idle(self._row())
        self._agents = set(examine.agents_there(self._all_agents(), 1))
        examine.one_version({host.name: self.runs(host) for host in self.web}, running, self.version_url)
        self.preferred = self.ask("plan", self.environment, running)["agent"] or ""
        self._newest = max((_number(row) for row in self._rows(1)), default=0)
        self._before = self._last = running
        return running

    def _row(self, patience: float | None = None) -> dict[str, Any]:
        (row,) = self.ask("status", self.environment, patience=patience)["environments"]
        assert isinstance(row, dict)
        return row

    def _rows(self, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("history", self.environment, "--limit", str(count))["deployments"]
        return found

    def _all_agents(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("agents")["agents"]
        return found

    def online(self) -> set[str]:
        """Return the agents that take work."""
        return set(examine.agents_there(self._all_agents(), 0))

    # -- what drills do ----------------------------------------------------------------------------------------------

    def version(self) -> str:
        """Return the next of the versions in turn, other than the one before."""
        versions = self.settings.versions
        place = versions.index(self._last) + 1 if self._last in versions else 0
        self._last = versions[place % len(versions)]
        return self._last

    def settle(self, patience: float | None = None) -> None:
        """Wait until nothing is deployed any more."""

        def over() -> bool:
            row = self._row()
            return not row["running"] and not row["queue"]

        self.until(over, "every deployment has ended", patience, every=ASK_EVERY)

    def break_version(self, version: str, *hosts: Addressed) -> None:
        """Have a version be not well on hosts; on all if none are named."""
        assert self.settings.sick is not None, "a drill that needs it was let in without"
        for host in hosts or self.web:
            self.faults.make(SICK, self.settings.sick, {"version": version, "host": host.name, "address": host.address})

    def mend(self) -> None:
        """Have every version be well everywhere."""
        self.faults.mend(SICK)

    # -- as it was before --------------------------------------------------------------------------------------------

    def restore(self) -> list[str]:
        """Mend faults, end what was asked for, put the version back; return what could not be, a sentence each."""
        self._end_commands()
        left = self.faults.mend_all()
        if not self.touched:
            return left
        steps = {
            "nothing is left running that was asked for": self._end,
            f"{self._before} runs on all hosts": self._put_back,
            "all agents are back": self._agents_back,
        }
        for what, step in steps.items():
            self.faults.say(f"{self.environment} is put back, which is not cut short: {what}")
            try:
                step()
            except (SurefootError, OSError, ValueError, LookupError) as error:
                hint = error.hint if isinstance(error, SurefootError) else ""
                left.append(f"{error}" + (f" ({hint})" if hint else ""))
        return left

    @property
    def touched(self) -> bool:
        """Whether the drill has asked for anything, or made a fault."""
        return self._before is not None and (self.faults.made or self._asked > 0)

    def _end_commands(self) -> None:
        """End the commands that still run; what they asked for is found by its key."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        self._processes.clear()

    def _end(self) -> None:
        """Have nothing left running that was asked for here."""
        asked: set[str] = set()
        clean = 0

        def over() -> bool:
            nonlocal clean
            going = [row["id"] for row in self._since() if not Status(row["status"]).terminal and self._mine[row["id"]]]
            for name in going:
                if name not in asked and self.cli("cancel", name, "--reason", self.reason).wait() in (
                    Exit.DONE,
                    Exit.NOT_FOUND,
                ):
                    asked.add(name)
            clean = 0 if going else clean + 1
            return clean == LOOKS

        what = f"all that was asked for has ended; surefoot status {self.environment} shows what has not"
        self.until(over, what, every=ASK_EVERY)

    def _since(self) -> Sequence[dict[str, Any]]:
        """Return the deployments since the drill began, and note whose they are."""
        count = self._asked + 20
        while True:
            rows = self._rows(count)
            found = [row for row in rows if _number(row) > self._newest]
            if len(found) < count:
                break
            count *= 2
        for row in found:
            if row["id"] not in self._mine:
                key = self.events(row["id"])[0]["data"].get("key") or ""
                self._mine[row["id"]] = key.startswith(self._keys)
        self.strangers = tuple(row["id"] for row in found if not self._mine[row["id"]])
        return found

    def _agents_back(self) -> None:
        """Wait until all agents are there again."""
        try:
            self.until(lambda: self._agents <= self.online(), "the agents are back", every=ASK_EVERY)
        except DrillError as error:
            gone = ", ".join(sorted(self._agents - self.online()))
            raise DrillError(f"{gone} did not come back: start surefoot-agent there; surefoot doctor") from error

    def _put_back(self) -> None:
        """Have all hosts run what they ran before."""
        before = self._before
        assert before is not None
        row = self._row()
        if row["locked_by"]:
            name = row["locked_by"]
            raise DrillError(
                f"{self.environment} is stranded by {name}: surefoot doctor {name}; repair the hosts;"
                f" surefoot resolve {name} --reason TEXT; then surefoot rollback {self.environment} --to {before}"
            )
        self._since()
        if self._found() == {before} and row["current_version"] == before:
            return
        if self.strangers:
            raise DrillError(
                f"somebody else has deployed meanwhile ({', '.join(self.strangers)}), so {before} is not put back;"
                f" if it should be: surefoot rollback {self.environment} --to {before}"
            )
        done = self._goes_back(before, row["current_version"])
        code = done.wait()
        if code == Exit.NOT_FOUND:  # what was declared to run there, and never deployed
            done = self.deploy(before)
            code = done.wait()
        if code != 0:
            raise DrillError(
                f"{before} could not be put back, surefoot ended with {code}: {' '.join(done.said().split())[-500:]};"
                f" hosts run {self._shown()}; by hand: surefoot rollback {self.environment} --to {before}"
            )
        try:
            self.until(lambda: self._found() == {before}, "hosts say so", HOSTS_WITHIN)
        except DrillError as error:
            raise DrillError(f"{before} was put back, but hosts run {self._shown()}") from error

    def _goes_back(self, before: str, current: str | None) -> Cli:
        if current == before:
            return self.deploy(before)
        reason = ("--reason", f"{self.reason}: as it was before")
        return self.cli("rollback", self.environment, "--to", before, *reason, *self.marks())

    def _found(self) -> set[str | None]:
        return {self.runs(host) for host in self.web}

    def _shown(self) -> str:
        return ", ".join(f"{host.name}: {self.runs(host) or 'unknown'}" for host in self.web)


def _number(row: dict[str, Any]) -> int:
    return int(row["id"].rpartition("-")[2])
