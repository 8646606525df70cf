# SPDX-License-Identifier: Apache-2.0
"""A host of an inventory, as far as deployments are concerned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Host:
    """A host: its name, the address it is reached at, and its plain variables."""

    name: str
    address: str
    variables: Mapping[str, str] = field(default_factory=dict)
    port: int = 22  #: where its SSH listens
    local: bool = False  #: whether it is the agent's own machine
    becomes: bool = False  #: whether the inventory has tasks become another user there, and names no password for it
