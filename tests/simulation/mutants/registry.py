# SPDX-License-Identifier: Apache-2.0
"""The mutants, and how most of them are put in: by patching from here; the product has no switch for them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from surefoot.core import decide as do
from surefoot.core import deployment as states
from surefoot.core import events as ev
from tests.simulation.script import Script

Around = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True)
class Mutant:
    """One bug: what is left out, and how it is put in."""

    name: str
    around: Around
    where: Callable[[Script], bool]  #: of the others it is known that they can't show it


MUTANTS: list[Mutant] = []


def mutant_where(where: Callable[[Script], bool]) -> Callable[[Around], Around]:
    """Register a mutant that only certain scripts can show, under its function's name."""

    def register(make: Around) -> Around:
        MUTANTS.append(Mutant(make.__name__.replace("_", " "), make, where))
        return make

    return register


#: Register a mutant that any script may show.
mutant = mutant_where(lambda _: True)


def decided(change: Callable[[states.Deployment, do.Action], do.Action]) -> contextlib.AbstractContextManager[Any]:
    """Patch what is decided, from the state and from what should have been decided."""
    right = do.decide
    return patch.object(do, "decide", lambda s, now: change(s, right(s, now)))


def evolved(kind: type, change: Callable[[states.Deployment, states.Deployment], states.Deployment]) -> Any:
    """Patch what a kind of event makes of a state, from before and after."""
    right = states._apply

    def apply(s: states.Deployment, entry: ev.Entry) -> states.Deployment:
        after = right(s, entry)
        return change(s, after) if isinstance(entry.event, kind) else after

    return patch.object(states, "_apply", apply)
