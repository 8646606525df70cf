# SPDX-License-Identifier: Apache-2.0
"""The lab, as a drill's stage: judged by hosts' black boxes, which know each command, its token and whence it came."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from shlex import quote
from typing import Any

from surefoot.drills import evidence
from surefoot.drills.drill import Result
from surefoot.drills.lab import Command, Host
from surefoot.drills.operator import Cli
from surefoot.drills.site import PRIMARY, SECONDARY, Site
from surefoot.drills.stage import REQUIRED, Stage
from surefoot.steps.fence import STALE, Fence

#: Where hosts keep the tokens that they know.
FENCES = "/var/lib/surefoot/fence"


class LabStage(Stage):
    """See the module's docstring."""

    site: Site

    def __init__(self, site: Site, result: Result, say: Callable[[str], None]) -> None:
        """Begin: the site is in order, and both hosts run one version."""
        super().__init__(site, result, say)

    def commands(self) -> list[Command]:
        """Return what came to the hosts since the drill began."""
        assert self.site.lab is not None
        found = self.site.lab.commands([host.name for host in self.site.web])
        return evidence.since(found, self.began)

    def lose(self, fault: str, deploy: Cli | None = None) -> None:
        """Lose the primary."""
        self.fault = time.time()
        self.site.lose(fault)

    def resolves(self, deployment: str, reason: str) -> None:
        """All hosts must run what they ran before; said to be repaired, the environment must take deployments again."""
        self.all_run(self.before)
        done = self.site.cli("resolve", deployment, "--reason", reason)
        self.check("resolved", done.wait() == 0, done.said().strip()[-300:])
        again = self.site.version()
        self.ends_well(self.site.deploy(again), again)

    # -- judged by black boxes ---------------------------------------------------------------------------------------

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

    def done_by_the_primary(self, deploy: Cli) -> None:
        """All commands must have come from the primary."""
        reigns = evidence.reigns(self.commands())
        for reign in reigns:
            self.ran_by(reign, self.site[PRIMARY])
        if reigns:
            self.measure("from the command to the first task on a host", (reigns[0].first_task or 0) - deploy.began)
            self.measure("the whole deployment on the hosts", reigns[-1].last - reigns[0].first)

    def no_takeover(self, deploy: Cli) -> None:
        """Hosts must have seen one token."""
        found = evidence.reigns(self.commands())
        self.check("no takeover", len(found) == 1, f"{len(found)} token(s) were seen on the hosts")

    def taken_over(self, deploy: Cli) -> None:
        """The secondary must have taken over, soon, and the primary must have stayed away."""
        reigns = self.one_at_a_time()
        last = reigns[-1]
        self.check("a takeover", len(reigns) > 1, f"{len(reigns)} tokens were seen on the hosts")
        self.ran_by(last, self.site[SECONDARY])
        after = [reign for reign in reigns if reign.first_task is not None and reign.first_task > self.fault]
        if after and after[0].first_task is not None:
            self.measure("from the fault to the fence raised on a host", after[0].first - self.fault)
            self.measure(
                "from the fault to the next task on a host", after[0].first_task - self.fault, at_most=REQUIRED
            )

    def done_by_another(self, deploy: Cli) -> None:
        """The secondary must have done it, and begun soon."""
        reigns = self.one_at_a_time()
        self.ran_by(reigns[-1], self.site[SECONDARY])
        tasks = [reign.first_task for reign in reigns if reign.first_task is not None]
        if tasks:
            self.measure("from the command to the first task on a host", tasks[0] - deploy.began, at_most=REQUIRED)

    def wakes_up(self) -> None:
        """Wake the frozen primary up: hosts must not obey it."""
        seen = len(self.commands())
        self.site[PRIMARY].thaw()
        self.say("the primary wakes up")
        self.site.until(lambda: PRIMARY in self.site.online(), f"{PRIMARY} is online again")
        new = self.commands()[seen:]
        ran = [command for command in new if command.code != evidence.REFUSED]
        self.check(
            "a stale runner is refused",
            not ran,
            f"{len(new)} commands came after it woke up, {len(new) - len(ran)} of them refused",
        )
        self.one_at_a_time()

    def stale_is_refused(self) -> None:
        """From the stale runner, run a command on each host with its old token: it must be refused."""
        site = self.site
        old = min(command.token for command in self.commands() if command.token is not None)
        for host in site.web:
            token = next(iter(sorted(host.disk.at(FENCES).rglob("token"))))
            name = str(token.parent.relative_to(host.disk.at(FENCES)))
            command = Fence(name, old, "").guard("echo obeyed")
            said = site[PRIMARY].sh(f"ssh -o ControlPath=none root@{host.name} {quote(command)} 2>&1; echo exit $?")
            self.check(
                f"{host.name} refuses the stale runner",
                f"exit {STALE}" in said and "obeyed" not in said,
                " ".join(said.split())[-200:],
            )
        self.say(f"{PRIMARY} tries the hosts with its old token, and is refused")

    def one_by_one(self, rows: Sequence[dict[str, Any]]) -> None:
        """Hosts must have seen one deployment after the other, without overlap."""
        reigns = self.one_at_a_time()
        overlaps = [
            f"token {a.token} until {a.last:.3f}, token {b.token} from {b.first:.3f}"
            for a, b in pairwise(reigns)
            if b.first_task is not None and a.last > b.first_task
        ]
        pauses = [b.first - a.last for a, b in pairwise(reigns)]
        self.check("none overlaps on a host", not overlaps, "; ".join(overlaps) or f"{len(reigns)} came one by one")
        self.check("each had its turn", len(reigns) == len(rows), f"{len(reigns)} tokens were seen on the hosts")
        if pauses:
            self.measure("greatest pause between two", max(pauses))
