# SPDX-License-Identifier: Apache-2.0
"""What a seed stands for: agents, deployments, and what goes wrong when. Drawn before anything runs, so that parts of
it can be left out while the rest stays as it is (`shrink`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from surefoot.core.lease import Role

#: Machines' monotonic clocks run at rates within 10 % of true time: what the lease's timing promises to bear.
DRIFT = 0.1
#: Virtual seconds that faults may go on for.
LENGTH = 30.0


class Kind(StrEnum):
    """What can go wrong, or be asked for."""

    KILL = "kill"  #: the agent's process; its shims end what it started
    CRASH = "crash"  #: the same, so many of its own steps later: at any `await`
    STOP = "stop"  #: SIGTERM, and another one of its name
    FREEZE = "freeze"  #: the agent's process
    MACHINE = "machine"  #: the agent and all that it started
    CUT = "cut"  #: the agent from the store
    UNPLUG = "unplug"  #: the agent from one host
    STORE = "store"  #: the store from all
    CLOCK = "clock"  #: the store's clock jumps
    HOST = "host"  #: a host is off, and on again
    OLD_DISK = "old disk"  #: the same, with what it had some time ago
    CANCEL = "cancel"
    DRAIN = "drain"
    AGAIN = "again"  #: the same submission once more


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong at `at`, for so many seconds. `agent` 0 is whoever holds the lease then."""

    at: float
    kind: Kind
    agent: int
    host: int
    seconds: float
    steps: int


@dataclass(frozen=True)
class Version:
    """One deployment, and what is wrong with its version."""

    at: float
    wrong: str = ""  #: unhealthy; fails (a step, always); hangs (a step, always); poison (kills agents); refused


@dataclass(frozen=True)
class Limb:
    """One agent; its clock runs at a rate of its own."""

    name: str
    role: Role
    rate: float


@dataclass(frozen=True)
class Script:
    """See the module's docstring."""

    seed: int
    hosts: int
    agents: tuple[Limb, ...]
    steps: tuple[bool, ...]  #: for each step whether it is fenced: a playbook, not a command
    attempts: int
    delay: float
    takeover_limit: int
    versions: tuple[Version, ...]
    faults: tuple[Fault, ...]
    store_faults: float
    step_faults: float


def draw(seed: int) -> Script:
    """Return the script of a seed."""
    rng = random.Random(f"script {seed}")
    rate = lambda: rng.uniform(1 - DRIFT, 1 + DRIFT)  # noqa: E731
    agents = [Limb("primary", Role.PRIMARY, rate()), Limb("secondary", Role.SECONDARY, rate())]
    if rng.random() < 0.3:
        agents.append(Limb("emergency", Role.EMERGENCY, rate()))
    fenced = rng.choice([0.0, 0.7, 1.0])
    steps = tuple(rng.random() < fenced for _ in range(rng.choice([1, 2, 3])))
    # A few kinds at a time: what each one alone brings about is otherwise lost in the noise of the others ("swarm
    # testing", Groce et al., 2012).
    possible = [kind for kind in Kind if kind not in _impossible(rng, steps)]
    kinds = rng.sample(possible, rng.choice([1, 2, 4, len(possible)]))
    versions, at = [], 0.0
    for _ in range(rng.choice([1, 1, 2, 3])):
        wrong = rng.choice(["unhealthy", "fails", "hangs", "poison", "refused"]) if rng.random() < 0.3 else ""
        versions.append(Version(at, wrong))
        at += rng.uniform(0, 8)
    faults = tuple(_fault(rng, kinds) for _ in range(rng.choice([0, 1, 2, 3, 6])))
    if rng.random() < 0.4:
        # One good deployment, and one long fault of its agent in the midst of it: what leases and fences are for.
        faults = (*_takeover(rng, possible), *faults[:1])
        versions = [Version(0.0)]
    elif Kind.OLD_DISK in possible and rng.random() < 0.2:
        # An undo, and a host that forgets some of it.
        faults = (_fault(rng, [Kind.OLD_DISK]), *faults[:1])
        versions = [Version(0.0, rng.choice(["fails", "unhealthy"]))]
    return Script(
        seed=seed,
        hosts=rng.choice([1, 2, 3]),
        agents=tuple(agents),
        steps=steps,
        attempts=rng.choice([1, 2, 3]),
        delay=rng.choice([0.0, 0.0, 1.0, 10.0]),
        takeover_limit=rng.choice([1, 5]),
        versions=tuple(versions),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        store_faults=rng.choice([0.0, 0.0, 0.01, 0.05]),
        step_faults=rng.choice([0.0, 0.0, 0.05, 0.2]),
    )


def _fault(rng: random.Random, kinds: list[Kind]) -> Fault:
    return Fault(
        at=rng.uniform(0, LENGTH if rng.random() < 0.3 else 8),
        kind=rng.choice(kinds),
        agent=rng.choice([0, 0, 0, 1, 2]),
        host=rng.randrange(3),
        seconds=rng.choice([rng.uniform(0, 2), rng.uniform(3, 9), rng.uniform(5, 15)]),
        steps=rng.randrange(1, 150),
    )


def _takeover(rng: random.Random, possible: list[Kind]) -> list[Fault]:
    kinds = [kind for kind in (Kind.KILL, Kind.FREEZE, Kind.MACHINE, Kind.CUT) if kind in possible]
    at, seconds, host = rng.uniform(0.1, 4), rng.uniform(4, 12), rng.randrange(3)
    faults = [Fault(at, rng.choice(kinds), agent=0, host=0, seconds=seconds, steps=0)]
    if rng.random() < 0.2:  # and a host that whoever takes over does not reach at first
        faults += [Fault(at, Kind.UNPLUG, agent, host, rng.uniform(1, 10), steps=0) for agent in (1, 2)]
    return faults


def _impossible(rng: random.Random, steps: tuple[bool, ...]) -> set[Kind]:
    """Return the faults that nothing could stand, and that nothing promises to.

    A machine that freezes whole and wakes up can only be refused by hosts: what a command does there is not fenced. A
    host that forgets its fence with its disk can't refuse such a machine either.
    """
    if not all(steps):
        return {Kind.MACHINE}
    return {rng.choice([Kind.MACHINE, Kind.OLD_DISK])}
