# SPDX-License-Identifier: Apache-2.0
"""Who is told what becomes of deployments, by the agents' real courier: over a service that is slow, fails, and takes
in what it says that it has not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from surefoot.agent import courier
from surefoot.agent.courier import Courier
from surefoot.agent.secrets import Secrets
from surefoot.core import events as ev
from surefoot.core.notes import Note
from surefoot.core.targets import Moment, Target, Webhook
from surefoot.integrations.delivery import WITHIN, NotDelivered, Parcel, Told

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.world import World

#: All ends, and what people want to know before.
TARGET = Webhook("hook", "http://sim", on=tuple(Moment))


class Listener:
    """See the module's docstring."""

    def __init__(self, world: World) -> None:
        self.world = world

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Be what couriers deliver to."""
        with patch.object(courier, "deliver", self._deliver):
            yield

    def courier(self, agent: str, access: Any, note: Callable[[Note], None]) -> Courier:
        """Return an agent's courier."""

        @contextlib.asynccontextmanager
        async def reach(_: object) -> AsyncIterator[Any]:
            yield None

        return Courier(
            self.world.store, access, agent=agent, identity="sim", secrets=Secrets({}), note=note, reach=reach
        )

    async def _deliver(self, _: Target, parcel: Parcel) -> Told:
        rng, troubled = self.world.loop.random, self.world.faults > 0 or self.world.step_faults > 0
        await asyncio.sleep(rng.uniform(0, WITHIN) if troubled and rng.random() < 0.2 else rng.uniform(0.01, 0.3))
        trouble = rng.random() if troubled else 1.0
        if trouble < 0.2:
            raise NotDelivered("503", after=rng.choice((0.0, 5.0)))
        accepted = parcel.story.entries[0].event
        assert isinstance(accepted, ev.Accepted)
        self.world.judge_of(accepted.id).heard(accepted.id, parcel.story)
        if trouble < 0.4:
            raise NotDelivered("no answer")
        return Told("posted")
