# SPDX-License-Identifier: Apache-2.0
"""Who is who, as far as a name tells: `alice` (a CI's user) or `alice@laptop` (a machine's user).

What this does not prove: that the name is true. Whoever may write to the store may write any name into it; a gate
records who said that they agree, it does not keep out an enemy who has the store's password.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from surefoot.core.gates import Approvals


def person(identity: str) -> str:
    """Return the person's name without the machine's."""
    return _name(identity).partition("@")[0].strip()


def _name(text: str) -> str:
    """Return a name such that names which look the same are the same: whatever case and form of its letters, without
    blanks around it and signs that nobody sees.
    """
    seen = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) not in ("Cc", "Cf"))
    return unicodedata.normalize("NFKC", seen.casefold()).strip()


def same_person(one: str, other: str) -> bool:
    """Whether two names are taken for one person's: an `alice` somewhere else is still alice."""
    return person(one) == person(other)


def is_member(identity: str, members: Iterable[str]) -> bool:
    """Whether a person is listed: by name, or by name and machine where the list says which machine."""
    return not {_name(identity), person(identity)}.isdisjoint(map(_name, members))


def groups_of(identity: str, approvals: Approvals) -> tuple[str, ...]:
    """Return the groups of a gate that a person belongs to; everyone belongs to one that the config does not know."""
    return tuple(name for name, members in approvals.groups.items() if members is None or is_member(identity, members))
