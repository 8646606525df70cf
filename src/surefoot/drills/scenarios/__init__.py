# SPDX-License-Identifier: Apache-2.0
"""All drills, in the order in which they are played."""

from __future__ import annotations

from surefoot.core.errors import NotFoundError
from surefoot.drills.drill import Drill
from surefoot.drills.scenarios import (
    concurrency,
    exhaustion,
    failover,
    healthy,
    interruption,
    partition,
    putting_back,
    secrets,
    store,
)

DRILLS: tuple[Drill, ...] = (
    *healthy.DRILLS,
    *failover.DRILLS,
    *concurrency.DRILLS,
    *interruption.DRILLS,
    *putting_back.DRILLS,
    *partition.DRILLS,
    *store.DRILLS,
    *exhaustion.DRILLS,
    *secrets.DRILLS,
)


def find(names: tuple[str, ...]) -> list[Drill]:
    """Return drills by their names, or by their groups'; NotFoundError if there is none."""
    chosen = []
    for name in names:
        found = [drill for drill in DRILLS if name in (drill.name, drill.group)]
        if not found:
            raise NotFoundError(f"there is no drill {name!r}", hint="surefoot drill --list")
        chosen += [drill for drill in found if drill not in chosen]
    return sorted(chosen, key=DRILLS.index)
