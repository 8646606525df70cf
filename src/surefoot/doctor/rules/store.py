# SPDX-License-Identifier: Apache-2.0
"""The store, the config, and this machine's clock and disk."""

from __future__ import annotations

from collections.abc import Iterator

from surefoot.core.errors import Code
from surefoot.doctor.facts import Facts
from surefoot.doctor.findings import Depth, Finding, Severity

#: Seconds: beyond them times in logs mislead people, and tokens and certificates are misjudged.
SKEW = 5.0
DISK = 95.0


def store_trouble(facts: Facts) -> Iterator[Finding]:
    """Without the store nothing goes on; why it can't be used is in its error's code."""
    trouble = facts.store.trouble
    if trouble is None:
        return
    network = (facts.store.network,) if facts.store.network else ()
    yield Finding(
        "store",
        Severity.BROKEN,
        Depth.STORE,
        "the store can't be used: no deployment can begin or go on",
        (trouble.message, *network),
        trouble.hint or "surefoot explain SF-STORE-UNREACHABLE",
        code=trouble.code,
        runbook="store-down",
    )


def store_forgets(facts: Facts) -> Iterator[Finding]:
    """What a store has acknowledged must stand: with a lease that it forgets, two agents can have one token."""
    for weakness in facts.store.weaknesses:
        yield Finding(
            "store-forgets",
            Severity.WARNING,
            Depth.STORE,
            "the store may forget what it has acknowledged",
            (weakness.message,),
            weakness.hint,
            runbook="store-down",
        )


def shell(facts: Facts) -> Iterator[Finding]:
    """Other commands of this shell would look at nothing, or at an empty store beside the config."""
    if (borrowed := facts.borrowed) is not None:
        yield Finding(
            "shell",
            Severity.NOTE,
            Depth.STORE,
            "this shell does not know what the agents of this machine work for: other commands would look elsewhere",
            borrowed.told,
            borrowed.command,
            runbook="index",
        )


def config_trouble(facts: Facts) -> Iterator[Finding]:
    """A config that is wrong stops every new deployment; those in the journal carry their own plan."""
    if facts.config is not None:
        yield Finding(
            "config",
            Severity.BROKEN,
            Depth.CONFIG,
            "the config can't be used: nothing new can be deployed",
            (facts.config.message,),
            "surefoot check",
            code=facts.config.code,
        )


def clock_skew(facts: Facts) -> Iterator[Finding]:
    """No decision rests on this machine's clock; what people and certificates read does."""
    skew = facts.store.skew
    if skew is not None and abs(skew) > SKEW:
        way = "ahead of" if skew > 0 else "behind"
        yield Finding(
            "clock-skew",
            Severity.WARNING,
            Depth.SERVICES,
            f"the clock of {facts.here} is {abs(skew):.0f} s {way} the store's",
            ("times in logs mislead, tokens and certificates are judged wrongly",),
            "timedatectl set-ntp true",
            runbook="clock-skew",
        )


def disk_full(facts: Facts) -> Iterator[Finding]:
    """An agent needs room to unpack; without any, every deployment fails here."""
    if facts.disk_percent is not None and facts.disk_percent > DISK:
        yield Finding(
            "agent-disk",
            Severity.BROKEN,
            Depth.AGENTS,
            f"the disk of {facts.here} that is mounted at {facts.disk_where} is {facts.disk_percent:.0f} % full",
            ("agents unpack each deployment's files there",),
            f"du -xh {facts.disk_where} 2>/dev/null | sort -h | tail",
            code=Code.AGENT_FOLDER,
            runbook="runner-degraded",
        )


RULES = (store_trouble, store_forgets, shell, config_trouble, clock_skew, disk_full)
