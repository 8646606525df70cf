# SPDX-License-Identifier: Apache-2.0
"""What people do to an environment as a whole: a journal of its own, and the freeze that it folds to.

Guarantees: the journal only grows; a freeze that has an end is over at that time by the store's clock, without anyone
doing anything; a freeze that is put on again takes the place of the one before.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from surefoot.core.codec import Codec


class Frozen(msgspec.Struct, frozen=True, tag="frozen"):
    """Nothing may start, for good or until a time."""

    by: str
    reason: str
    until: float | None = None


class Unfrozen(msgspec.Struct, frozen=True, tag="unfrozen"):
    """Deployments may start again."""

    by: str
    reason: str = ""


Deed = Frozen | Unfrozen


class EnvironmentEntry(msgspec.Struct, frozen=True):
    """One line of an environment's journal. `seq` counts from 1 without gaps; `at` is the store's clock."""

    seq: int
    at: float
    event: Deed


class Freeze(msgspec.Struct, frozen=True):
    """A freeze as it stands."""

    by: str
    reason: str
    at: float
    until: float | None = None

    def in_force(self, now: float) -> bool:
        """Whether it keeps deployments from starting at that time."""
        return self.until is None or now < self.until


def freeze_after(entry: EnvironmentEntry) -> Freeze | None:
    """Return the freeze that an entry leaves behind; whatever was before is over with it."""
    match entry.event:
        case Frozen(by=by, reason=reason, until=until):
            return Freeze(by, reason, entry.at, until)
        case Unfrozen():
            return None
        case _:
            assert_never(entry.event)


_codec: Codec[Deed] = Codec(Deed)
encode, decode, type_of = _codec.encode, _codec.decode, _codec.type_of
