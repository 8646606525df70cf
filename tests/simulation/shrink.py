# SPDX-License-Identifier: Apache-2.0
"""Makes a script that breaks a promise as small as it can, with the promise still broken: fewer environments, faults,
deployments, agents, hosts and steps, and nothing random that is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from surefoot.core.gates import APPROVALS_EXPIRE
from surefoot.core.lease import Role
from tests.simulation.schedule import broken_by
from tests.simulation.script import PRODUCTION, Limb, Script, Version

#: What a script can do without, the plainest value of each last.
PLAIN: dict[str, tuple[object, ...]] = {
    "store": ("memory",),
    "talks": (False,),
    "store_faults": (0.0,),
    "step_faults": (0.0,),
    "delay": (0.0,),
    "attempts": (1, 2),
    "takeover_limit": (5,),
    "hosts": (1, 2),
    "pace": (400.0,),
    "look_every": (1.0,),
    "chatty": (True,),
    "freezes": ((),),
    "bake": (0.0,),
    "expires": (APPROVALS_EXPIRE,),
    "latest": (False,),
    "told": (False,),
    "halted": (None,),
    "undos": ((),),
    "whole": (False,),
    "finishes": (False,),
    "health": (True,),
    "shown_by": ("probe",),
    "forks": (False,),
    "impatient": (False,),
    "onward": (False,),
    "late": (0.0,),
}

#: Other seeds that each lesser script is tried with.
SEEDS = 12


def kind(promise: str) -> str:
    """Return which promise it is, without the particulars."""
    return promise.partition(":")[0]


def lesser(script: Script) -> Iterator[Script]:
    """Return scripts that have one thing less, the greatest simplifications first."""
    for environment in script.environments:
        others = tuple(replace(v, environment=PRODUCTION) for v in script.versions if v.environment != environment)
        if others and others != script.versions:
            yield replace(script, versions=others)
    if script.alone:
        agents = (Limb("primary", Role.PRIMARY, 1.0), Limb("secondary", Role.SECONDARY, 1.0))
        yield replace(script, alone=False, agents=agents)
    for place in range(len(script.faults)):
        yield replace(script, faults=script.faults[:place] + script.faults[place + 1 :])
    if len(script.versions) > 1:
        for place in range(len(script.versions)):
            yield replace(script, versions=script.versions[:place] + script.versions[place + 1 :])
    if len(script.agents) > 1:
        for place in range(len(script.agents)):
            yield replace(script, agents=script.agents[:place] + script.agents[place + 1 :])
    if len(script.steps) > 1:
        for place in range(len(script.steps)):
            yield replace(script, steps=script.steps[:place] + script.steps[place + 1 :])
    for name, values in PLAIN.items():
        for value in values:
            if getattr(script, name) != value:
                yield replace(script, **{name: value})
    for place, limb in enumerate(script.agents):
        if limb.rate != 1.0 or limb.starts:
            limbs = list(script.agents)
            limbs[place] = replace(limb, rate=1.0, starts=0.0)
            yield replace(script, agents=tuple(limbs))
    for place, version in enumerate(script.versions):
        plain = Version(version.at, environment=version.environment)
        if version != plain:
            versions = list(script.versions)
            versions[place] = plain
            yield replace(script, versions=tuple(versions))


def shrink(
    script: Script, promise: str, fails: Callable[[Script], str | None] = broken_by, *, tries: int = 2000
) -> Script:
    """Return the least script that was found to break the same promise.

    Whatever is left out moves all that chance decides afterwards, so each lesser script is tried with other seeds too.
    """
    found = True
    while found:
        found = False
        for smaller in lesser(script):
            for seed in (script.seed, *range(SEEDS)):
                tries -= 1
                if tries < 0:
                    return script
                again = fails(replace(smaller, seed=seed))
                if again is not None and kind(again) == kind(promise):
                    script, found = replace(smaller, seed=seed), True
                    break
            if found:
                break
    return script
