# SPDX-License-Identifier: Apache-2.0
"""Draws scripts: what a seed stands for. What was thought of later is drawn last, with chances of its own, so that all
else stays as it was for a seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import blake2b

from msgspec.structs import replace

from surefoot.core.lease import Role
from tests.simulation.script import (
    ANY,
    DRIFT,
    LATE_KINDS,
    LATE_WRONGS,
    LENGTH,
    LONG,
    PRODUCTION,
    STAGING,
    WRONGS,
    Fault,
    Kind,
    Limb,
    Script,
    Version,
)

#: One schedule in so many runs on the real SQL; it takes ten times as long.
SQL_SHARE = 50


def draw(seed: int) -> Script:
    """Return the script of a seed."""
    rng = random.Random(f"script {seed}")
    rate = lambda: rng.uniform(1 - DRIFT, 1 + DRIFT)  # noqa: E731
    agents = [Limb("primary", Role.PRIMARY, rate()), Limb("secondary", Role.SECONDARY, rate())]
    if rng.random() < 0.3:
        starts = rng.choice([0.0, rng.uniform(0, LENGTH)])
        agents.append(Limb("emergency", Role.EMERGENCY, rate(), starts))
    fenced = rng.choice([0.0, 0.7, 1.0])
    steps = tuple(rng.random() < fenced for _ in range(rng.choice([1, 2, 3])))
    # A few kinds at a time: what each one alone brings about is otherwise lost in the noise of the others ("swarm
    # testing", Groce et al., 2012).
    impossible = _impossible(rng, steps) | {Kind.GONE, Kind.HIDDEN, *LATE_KINDS}
    possible = [kind for kind in Kind if kind not in impossible]
    kinds = rng.sample(possible, rng.choice([1, 2, 4, len(possible)]))
    versions, at = [], 0.0
    for _ in range(rng.choice([1, 1, 2, 3])):
        versions.append(Version(at, rng.choice(WRONGS) if rng.random() < 0.3 else ""))
        at += rng.uniform(0, 8)
    faults = tuple(_fault(rng, kinds) for _ in range(rng.choice([0, 1, 2, 3, 6])))
    look_every, pace, busy, timeout = (
        rng.choice([1.5, 2.0, 3.0]),
        rng.choice([50.0, 400.0, 400.0, 1500.0]),
        0,
        12.0,
    )
    hosts = rng.choice([1, 2, 3])
    story = rng.random()
    if story < 0.4:
        # One good deployment, and one long fault of its agent in the midst of it: what leases and fences are for.
        # Steps that take longer than a lease are what is still at work when another agent begins.
        look_every, timeout = rng.choice([0.5, 1.0, 1.5]), 40.0
        busy, pace = rng.choice([(0, 400.0), (20, 20.0), (20, 20.0)])
        steps = rng.choice([steps, (False,), (False, False)])
        impossible |= _impossible(rng, steps)
        chosen = rng.random()
        if chosen < 0.65:
            long = [kind for kind in LONG if kind not in impossible]
            faults = (*_takeover(rng, long), *(fault for fault in faults[:1] if fault.kind not in impossible))
        elif chosen < 0.8:
            # Somebody who takes over does not reach a host on which a task of the one before still runs.
            steps, pace, busy, hosts = (True,) * rng.choice([1, 2]), 1200.0, 0, rng.choice([2, 3])
            faults = tuple(_unreached(rng, hosts))
        else:
            # Clocks as far apart as may be, and answers that come late: to the holder before it is cut off, or to the
            # one that watches a holder which is cut off for a little less than its lease.
            agents = [replace(agents[0], rate=1 - DRIFT), *(replace(agent, rate=1 + DRIFT) for agent in agents[1:])]
            faults = tuple(_slow_holder(rng) if chosen < 0.88 else _slow_observer(rng))
            look_every = 0.5
        versions = [Version(0.0)]
    elif story < 0.52 and Kind.OLD_DISK in possible:
        # An undo, and a host that forgets some of it.
        faults = (_fault(rng, [Kind.OLD_DISK]), *faults[:1])
        versions = [Version(0.0, rng.choice(["fails", "unhealthy"]))]
    elif story < 0.56:
        # Both runners are lost for good, and somebody starts an emergency runner.
        agents = [*agents[:2], Limb("emergency", Role.EMERGENCY, rate(), rng.uniform(0, LENGTH))]
        faults = (*(Fault(rng.uniform(0, 6), Kind.GONE, agent, 0, 0.0, 0) for agent in (1, 2)), *faults[:1])
    # What people do is drawn apart, so that all else stays as it is for a seed.
    people = random.Random(f"people {seed}")
    freezes, bake = (), 0.0
    if story >= 0.56 and people.random() < 0.4:
        versions = [_decided(people, version) for version in versions]
        freezes = tuple((people.uniform(0, 8), people.uniform(0.1, 12)) for _ in range(people.choice([0, 1, 2])))
        bake = people.choice([0.0, 0.0, 3.0, 12.0])
    script = Script(
        seed=seed,
        hosts=hosts,
        agents=tuple(agents),
        steps=steps,
        attempts=rng.choice([1, 2, 3]),
        delay=rng.choice([0.0, 0.0, 1.0, 6.0]),
        takeover_limit=rng.choice([1, 5]),
        versions=tuple(versions),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        store_faults=rng.choice([0.0, 0.0, 0.01, 0.05]),
        step_faults=rng.choice([0.0, 0.0, 0.05, 0.2]),
        store="sqlite" if seed % SQL_SHARE == 0 else "memory",
        talks=rng.random() < 0.05,
        pace=pace,
        busy=busy,
        timeout=timeout,
        look_every=look_every,
        chatty=rng.random() < 0.3,
        freezes=freezes,
        bake=bake,
    )
    chance = people.random() if story >= 0.56 else 1.0
    if chance < 0.1:
        script = _set_back(people, script)
    elif chance < 0.15:
        script = _asleep(people, script)
    for name, share, change in TOPICS:
        if (topic := _topic(name, seed, share)) is not None:
            script = change(topic, script)
    return script


def _topic(name: str, seed: int, share: float) -> random.Random | None:
    """Return what a topic is drawn with, in a share of all schedules: no topic changes what another one draws, and most
    schedules, which are about few, need not pay for the seeds of all.
    """
    chance = int.from_bytes(blake2b(f"{name} {seed}".encode(), digest_size=8).digest())
    return random.Random(chance) if chance < share * 2**64 else None


def _meets(script: Script, kind: Kind) -> bool:
    return any(fault.kind is kind for fault in script.faults)


def _cornered(rng: random.Random, script: Script) -> Script:
    """Have whoever works be lost while commands are on their way to hosts, and the machines of those who could raise
    the fence against them be full; people put hosts back meanwhile.
    """
    # What is paused in the midst of a play goes on with it when it wakes up: people may have put hosts back by then,
    # and said so, and nobody has come yet to look.
    asleep = rng.random() < 0.5
    at, everybody = rng.uniform(0.5, 3.5 if asleep else 8), range(1, len(script.agents) + 1)
    kind = Kind.PAUSE if asleep else rng.choice([Kind.GONE, *LONG])
    lost = [Fault(at, kind, agent=0, host=0, seconds=rng.uniform(9 if asleep else 7, 14), steps=0)]
    if asleep:
        lost.append(Fault(at + rng.uniform(8, 11), Kind.KILL, agent=2, host=0, seconds=rng.uniform(3, 12), steps=0))
    full = [
        Fault(
            at + rng.uniform(0, 2),
            Kind.FULL,
            agent,
            host=0,
            seconds=rng.uniform(*((7, 12) if asleep else (4, 28))),
            steps=0,
        )
        for agent in (everybody if asleep else rng.choice([(0,), (2,), everybody]))
    ]
    steps = (True,) * rng.choice([1, 1, 2])
    # One of the two runners is to be left.
    kept = [fault for fault in script.faults[:1] if fault.kind not in (Kind.OLD_DISK, Kind.RESOLVE, Kind.GONE)]
    faults = sorted((*lost, *full, *kept), key=lambda fault: fault.at)
    return replace(
        script,
        hosts=3 if asleep else script.hosts,
        steps=steps,
        undos=rng.choice([(), (), (False, True)]) if len(steps) == 2 else (),
        whole=rng.random() < 0.2,
        attempts=rng.choice([1, 1, 1, 2]),
        takeover_limit=rng.choice([1, 5]),
        versions=(Version(0.0, rng.choice(["", "fails", "unhealthy", "stuck"])), *script.versions[1:2]),
        faults=tuple(faults),
        pace=1200.0 if asleep else rng.choice([50.0, 400.0, 1200.0]),
        busy=0,
        timeout=40.0 if asleep else rng.choice([2.0, 12.0, 40.0]),
        late=rng.choice([5.0, 20.0]),
        forks=rng.random() < 0.5,
        shown_by=rng.choice(["probe", "file", "file", ""]),
        impatient=rng.random() < 0.5,
        onward=rng.random() < 0.3,
    )


def _hidden(rng: random.Random, script: Script) -> Script:
    """Have the inventory lose sight of a host in the midst of the only deployment, for a while or to its end."""
    first = replace(script.versions[0], wrong=rng.choice(["", "", "fails", "unhealthy"]))
    seconds = rng.choice([rng.uniform(0, 3), rng.uniform(3, 15), 30.0])
    hidden = Fault(rng.uniform(0.3, 8), Kind.HIDDEN, agent=0, host=rng.randrange(3), seconds=seconds, steps=0)
    known = [fault for fault in script.faults[:2] if fault.kind is not Kind.OLD_DISK]
    return replace(
        script,
        hosts=rng.choice([2, 3]),
        steps=(True,) * rng.choice([1, 2, 2, 3]),
        undos=(),
        versions=(first,),
        faults=tuple(sorted((*known, hidden), key=lambda fault: fault.at)),
    )


def _once_more(rng: random.Random, script: Script) -> Script:
    """Have a version be deployed that was deployed before, perhaps as a rollback; or one that is to start later."""
    versions = list(script.versions)
    if _meets(script, Kind.HIDDEN):
        return script  # whatever begins without a host is not about that host
    if rng.random() < 0.6:
        if len(versions) == 1:
            versions.append(replace(versions[0], at=versions[0].at + rng.uniform(0, 15), wrong="", withdrawn=0.0))
        for place, version in enumerate(versions[1:], 1):
            known = [
                n for n, v in enumerate(versions[:place], 1) if (v.environment, v.repeats) == (version.environment, 0)
            ]
            if known and rng.random() < 0.8:
                versions[place] = replace(version, repeats=rng.choice(known), back=rng.random() < 0.4)
    elif not _meets(script, Kind.CLOCK):
        # By the store's clock, which may be anywhere after a jump.
        versions = [replace(version, waits=rng.choice([0.0, rng.uniform(0.5, 12)])) for version in versions]
    return replace(script, versions=tuple(versions))


def _alone(rng: random.Random, script: Script) -> Script:
    """Have the config name no agents, so that commands work by themselves; now and then with a deployment that is to
    start later, and that whoever has asked for it does not wait for.
    """
    if rng.random() < 0.15:
        first = replace(script.versions[0], waits=rng.uniform(5, 12))
        gone = Fault(rng.uniform(0.3, 4), rng.choice([Kind.STOP, Kind.KILL]), agent=0, host=0, seconds=5.0, steps=0)
        kept = [fault for fault in script.faults[:1] if fault.kind is not Kind.CLOCK]
        faults = sorted((gone, *kept), key=lambda fault: fault.at)
        script = replace(script, versions=(first, *script.versions[1:2]), faults=tuple(faults))
    return replace(script, agents=(), alone=True)


def _troubled(rng: random.Random, script: Script) -> Script:
    """Have a schedule meet one or two of the late kinds of faults, among the others."""
    # Of an agent that is called gone while it lives, only hosts can refuse what it does.
    kinds = [kind for kind in LATE_KINDS if kind is not Kind.PRESENCE or all(script.steps)]
    faults = (*script.faults, *(_fault(rng, kinds) for _ in range(rng.choice([1, 2]))))
    script = replace(script, impatient=rng.random() < 0.3, onward=rng.random() < 0.3)
    return replace(script, faults=tuple(sorted(faults, key=lambda fault: fault.at)))


def _shaped(rng: random.Random, script: Script) -> Script:
    """Have a schedule deploy by a plan of another shape, with plays as they can be, too."""
    undos = tuple(rng.random() < 0.6 for _ in script.steps) if rng.random() < 0.4 else ()
    script = replace(
        script,
        undos=undos if any(undos) else (),
        whole=rng.random() < 0.15,
        finishes=rng.random() < 0.2,
        health=rng.random() < 0.85,
        shown_by=rng.choice(["probe", "file", "file", ""]),
        forks=rng.random() < 0.5,
        late=rng.choice([0.0, 1.0, 5.0, 20.0]),
    )
    if script.steps[-1] and rng.random() < 0.15:
        versions = [replace(v, wrong=rng.choice([v.wrong, *LATE_WRONGS])) for v in script.versions]
        script = replace(script, versions=tuple(versions))
    if rng.random() < 0.25:
        script = _given_up(rng, script)
    if script.sees:
        return script
    # Where nobody sees what hosts really run, nobody is to lie about it, and no host to forget it.
    unseen = (Kind.OLD_DISK, Kind.RESOLVE)
    return replace(script, faults=tuple(fault for fault in script.faults if fault.kind not in unseen))


def _given_up(rng: random.Random, script: Script) -> Script:
    """Have a deployment be given up while something of it is on its way to hosts, and little or nothing to put back:
    only the fence keeps that from landing after the end.
    """
    cancel = Fault(rng.uniform(0.3, 9), Kind.CANCEL, agent=0, host=0, seconds=0.0, steps=0)
    undos = rng.choice([(), (False, True), (False, True), (False, False, True)])
    return replace(
        script,
        steps=(True,) * (len(undos) or 1),
        undos=undos,
        whole=False,
        finishes=False,
        versions=(Version(0.0, rng.choice(["", "", "", "fails"])),),
        faults=(cancel,),
        pace=rng.choice([50.0, 400.0, 1200.0]),
        timeout=rng.choice([2.0, 40.0]),
    )


def _late_comers(rng: random.Random, script: Script) -> Script:
    """Have what was thought of later, and is drawn last for the same reason: deployments that are taken back at once,
    not approved in time, or overtaken by newer ones; and somebody who is told.
    """
    if rng.random() < 0.1:
        versions = [replace(v, withdrawn=rng.choice([0.0, rng.uniform(0.01, 2)])) for v in script.versions]
        script = replace(script, versions=tuple(versions))
    if rng.random() < 0.3:
        script = replace(script, expires=rng.uniform(1, 10))
    if rng.random() < 0.1:
        script = replace(script, latest=True)
    # A letter that is to be tried again later waits by the store's clock; one that is set back has it wait longer.
    steady = not _meets(script, Kind.CLOCK)
    return replace(script, told=True) if rng.random() < 0.1 and steady else script


def _beside(rng: random.Random, script: Script) -> Script:
    """Have a second environment beside the first, that the same agents serve; what goes wrong may concern the hosts of
    either, or whoever holds its lease.
    """
    if _meets(script, Kind.HIDDEN):
        return script
    versions = list(script.versions)
    for environment in (STAGING, *rng.choice([(), (STAGING,), (PRODUCTION,)])):
        wrong = rng.choice(WRONGS) if rng.random() < 0.3 else ""
        version = Version(rng.uniform(0, 8), wrong, environment=environment)
        chance = rng.random()
        if chance < 0.3:  # what can't be put back is to be put back
            version = replace(version, wrong="stuck", withdrawn=rng.uniform(1, 6))
        versions.append(_decided(rng, version) if chance > 0.7 else version)
    halted = rng.choice([0.0, rng.uniform(0, 8)]) if rng.random() < 0.3 else None
    more = [_fault(rng, ANY) for _ in range(rng.choice([0, 0, 1, 2]))]
    faults = [replace(f, host=f.host % script.hosts + rng.choice([0, script.hosts])) for f in (*script.faults, *more)]
    return replace(
        script,
        versions=tuple(sorted(versions, key=lambda version: version.at)),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        halted=halted,
    )


def _set_back(rng: random.Random, script: Script) -> Script:
    """Have the store's clock jump while a step that failed waits for its next attempt, and the agent die that waits."""
    at = rng.uniform(1, 8)
    jump = Fault(at, Kind.CLOCK, agent=0, host=0, seconds=0.0, steps=0)
    kill = Fault(at + rng.uniform(0.1, 2), Kind.KILL, agent=0, host=0, seconds=rng.uniform(1, 9), steps=0)
    return replace(script, versions=(Version(0.0, "fails"),), faults=(jump, kill), attempts=3, delay=6.0)


def _asleep(rng: random.Random, script: Script) -> Script:
    """Have a machine paused with its clock in the midst of a play: it goes on with the next host when it wakes up, long
    after another agent has begun, and only that host can refuse it.
    """
    pause = Fault(rng.uniform(0.3, 4), Kind.PAUSE, agent=0, host=0, seconds=rng.uniform(6, 14), steps=0)
    steps = (True,) * rng.choice([1, 2])
    return replace(script, hosts=3, steps=steps, versions=(Version(0.0),), faults=(pause,), pace=1200.0, timeout=40.0)


def _decided(rng: random.Random, version: Version) -> Version:
    if rng.random() < 0.5:
        return version
    return replace(version, decided=rng.uniform(0.1, 10), rejected=rng.random() < 0.2)


def _fault(rng: random.Random, kinds: Sequence[Kind]) -> Fault:
    return Fault(
        at=rng.uniform(0, LENGTH if rng.random() < 0.2 else 6),
        kind=rng.choice(kinds),
        agent=rng.choice([0, 0, 0, 1, 2]),
        host=rng.randrange(3),
        seconds=rng.choice([rng.uniform(0, 2), rng.uniform(3, 9), rng.uniform(5, 15)]),
        steps=rng.randrange(1, 150),
    )


def _takeover(rng: random.Random, kinds: list[Kind]) -> list[Fault]:
    at, seconds, host = rng.uniform(0.1, 3), rng.uniform(5, 14), rng.randrange(3)
    faults = [Fault(at, rng.choice(kinds), agent=0, host=0, seconds=seconds, steps=0)]
    if rng.random() < 0.2:  # and a host that whoever takes over does not reach at first
        faults += [Fault(at, Kind.UNPLUG, agent, host, rng.uniform(1, 10), steps=0) for agent in (1, 2)]
    return faults


def _slow_holder(rng: random.Random) -> list[Fault]:
    at = rng.uniform(1, 4)
    slow = Fault(at - 1, Kind.SLOW, agent=0, host=0, seconds=4.0, steps=0)
    return [slow, Fault(at, Kind.CUT, agent=0, host=0, seconds=rng.uniform(5, 14), steps=0)]


def _slow_observer(rng: random.Random) -> list[Fault]:
    """Cut the holder off twice, with one sign of life between; whoever watches it may hear of that too late."""
    at, seconds = rng.uniform(0.2, 3), rng.uniform(2.5, 4)
    cuts = ((at, seconds), (at + seconds + rng.uniform(0.3, 1.3), 8.0))
    slow = Fault(at + 2, Kind.SLOW, agent=2, host=0, seconds=rng.uniform(2.5, 4), steps=0)
    return [slow, *(Fault(when, Kind.CUT, agent=0, host=0, seconds=long, steps=0) for when, long in cuts)]


def _unreached(rng: random.Random, hosts: int) -> list[Fault]:
    at, host = rng.uniform(0.3, 4), rng.randrange(1, hosts)
    kill = Fault(at, Kind.KILL, agent=0, host=0, seconds=10.0, steps=0)
    return [kill, Fault(at, Kind.UNPLUG, agent=2, host=host, seconds=rng.uniform(4, 10), steps=0)]


def _impossible(rng: random.Random, steps: tuple[bool, ...]) -> set[Kind]:
    """Return the faults that nothing could stand, and that nothing promises to.

    A machine that freezes whole and wakes up can only be refused by hosts: what a command does there is not fenced. A
    host that forgets its fence with its disk can't refuse such a machine either.
    """
    asleep = {Kind.MACHINE, Kind.PAUSE}
    if not all(steps):
        return asleep
    return rng.choice([asleep, {Kind.OLD_DISK}])


#: What was thought of later, in its order: each by what it is drawn with, and which share of schedules it is about.
TOPICS = (
    ("late", 1.0, _late_comers),
    ("shape", 0.33, _shaped),
    ("trouble", 0.17, _troubled),
    ("corner", 0.04, _cornered),
    ("hidden", 0.03, _hidden),
    ("beside", 0.08, _beside),
    ("again", 0.17, _once_more),
    ("alone", 0.07, _alone),
)
