# SPDX-License-Identifier: Apache-2.0
"""Delivers what the outbox holds: beside the work, never in its way.

Guarantees: what is in the outbox is told at least once, by whichever agent comes first, or given up after `GIVE_UP`
with an entry in the journal that says so; each delivery that worked, and the first failure of each that did not, is
in the journal. It needs no lease, holds none up, and can change nothing of a deployment but the list of who was told
of it. Text that leaves here has passed the redactor once more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from surefoot.agent.access import StoreAccess
from surefoot.agent.redact import Redactor
from surefoot.agent.secrets import Reach, Secrets
from surefoot.config.expansion import fill_secrets
from surefoot.core import events as ev
from surefoot.core.deployment import Deployment, fold
from surefoot.core.errors import Code, ConflictError, Failure, NotFoundError, StoreError
from surefoot.core.notes import Level, Note, Tell
from surefoot.core.outbox import target_named
from surefoot.core.targets import Target, secrets_of
from surefoot.core.wording import duration
from surefoot.integrations.delivery import WITHIN, NotDelivered, Parcel, Told, deliver
from surefoot.reports.story import Story
from surefoot.store.protocol import Append, Delivery, LogLine, Store

#: Seconds between looks into the outbox.
LOOK_EVERY = 1.0
#: Seconds for which a delivery that was begun is left to who began it: longer than it can take.
HOLD = 2 * WITHIN + 20.0
#: Pauses between tries: the first, doubled up to the last.
FIRST_PAUSE, LAST_PAUSE = 1.0, 300.0
#: How much longer the first pause is where a person has to do something before another try can work.
REFUSED_FACTOR = 20
#: Seconds after which nobody waits for the news any more.
GIVE_UP = 24 * 3600.0
#: Seconds that an agent without the secrets of a target leaves to others, who may have them.
LEAVE_TO_OTHERS = 30.0
#: Deliveries under way at once.
AT_ONCE = 8
#: Lines of the log that a story ends with.
LINES = 50
#: Tries to write down what came of a delivery; one that can't be written comes again.
WRITE_TRIES = 5


class Courier:
    """One agent's deliveries."""

    def __init__(
        self,
        store: Store,
        access: StoreAccess,
        *,
        agent: str,
        identity: str,
        secrets: Secrets,
        note: Tell,
        reach: Callable[[Deployment], AbstractAsyncContextManager[Reach]],
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        """`identity` is the store's; `note` takes what happens, for the agent's own log; `reach` is how secrets of a
        deployment are reached, which need not be under way any more.
        """
        self._store = store
        self._access = access
        self._agent = agent
        self._identity = identity
        self._secrets = secrets
        self._note = note
        self._reach = reach
        self._first_pause = first_pause
        self._under_way: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._failed = ""

    async def run(self) -> None:
        """Deliver what falls due until cancelled; what is under way then goes on until `finish`."""
        while True:
            await self._begin(patience=LEAVE_TO_OTHERS)
            await asyncio.sleep(LOOK_EVERY)

    async def finish(self, within: float) -> None:
        """Deliver what is due, and what falls due soon, for at most `within` seconds: this agent is about to end."""
        deadline = asyncio.get_running_loop().time() + within
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while True:
                    left = max(0.0, deadline - asyncio.get_running_loop().time())
                    begun = await self._begin(patience=0.0, within=left)
                    if not self._under_way and not begun:
                        break
                    if self._under_way:
                        await asyncio.wait(self._under_way.values(), timeout=0.1)
                    else:
                        await asyncio.sleep(0.1)
        await self.close()

    async def close(self) -> None:
        """Leave what is under way to others."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(self, *, patience: float, within: float = 0.0) -> bool:
        """Begin with what is due; say whether there is anything that is, or falls due in time."""
        try:
            found = await self._access(self._store.deliveries, within, AT_ONCE)
        except StoreError as error:
            if error.message != self._failed:
                self._note(Note(f"outbox: {error.message}", "outbox", Level.WARNING))
            self._failed = error.message
            return False
        self._failed = ""
        for delivery in found:
            story = (delivery.deployment, delivery.target)
            if delivery.due_in <= 0 and story not in self._under_way and len(self._under_way) < AT_ONCE:
                self._under_way[story] = asyncio.create_task(self._attempt(delivery, patience))
        return bool(found)

    async def _attempt(self, delivery: Delivery, patience: float) -> None:
        """Try one delivery, and write down what came of it."""
        try:
            await self._tried(delivery, patience)
        except (StoreError, NotFoundError) as error:
            # It comes again when the hold is over.
            self._note(Note(f"outbox: {error.message}", "outbox", Level.WARNING, delivery.deployment))
        finally:
            del self._under_way[delivery.deployment, delivery.target]

    async def _tried(self, delivery: Delivery, patience: float) -> None:
        entries = tuple(await self._access(self._store.journal, delivery.deployment))
        story = Story(entries, delivery.of, store=self._identity)
        state = story.state
        target = target_named(state, delivery.target)
        assert target is not None, "the outbox is a fold of the journal"
        async with self._reach(state) as reach:
            reading = await self._secrets.read(state.plan, secrets_of(target), reach)
        if reading.failures and -delivery.due_in < patience:
            return
        if not await self._access(self._store.take_delivery, delivery, HOLD):
            return
        redactor = self._secrets.redactor(state.plan.hidden)
        try:
            if reading.failures:
                raise _not_opened(reading.failures[0])
            told = await self._tell(target, delivery, story, redactor, reading.values)
        except NotDelivered as error:
            await self._not_told(delivery, story, error, redactor)
        else:
            await self._told(delivery, state, told)

    async def _tell(
        self, target: Target, delivery: Delivery, story: Story, redactor: Redactor, values: Mapping[str, str]
    ) -> Told:
        lines = tuple(redactor.text(_line(line)) for line in await self._last_lines(delivery.deployment))
        parcel = Parcel(
            story=replace(story, lines=lines),
            before=tuple(told for told in story.state.deliveries if told.target == target.name),
            tried=delivery.tries > 0,
            reveal=lambda text: fill_secrets(text, values),
        )
        told = await deliver(target, parcel)
        # A service may give back what it was sent.
        return Told(redactor.quoted(told.what), redactor.quoted(told.where), told.reference)

    async def _last_lines(self, deployment: str) -> list[LogLine]:
        end = await self._access(self._store.log_end, deployment)
        return await self._access(self._store.log, deployment, max(0, end - LINES), LINES)

    async def _told(self, delivery: Delivery, state: Deployment, told: Told) -> None:
        event = ev.Delivered(
            target=delivery.target,
            of=delivery.of,
            what=told.what,
            where=told.where,
            reference=told.reference,
            tries=delivery.tries + 1,
            by=self._agent,
        )
        text = f"{delivery.target}: {told.what} {told.where}".rstrip()
        self._note(Note(text, ev.type_of(event), deployment=state.id, token=state.token or None))
        await self._write_down(state, event, f"told:{delivery.of}:{delivery.target}")

    async def _not_told(self, delivery: Delivery, story: Story, error: NotDelivered, redactor: Redactor) -> None:
        tries = delivery.tries + 1
        message = redactor.quoted(error.message)
        age = await self._access(self._store.now) - story.entry.at
        first = self._first_pause * (REFUSED_FACTOR if error.code is not Code.DELIVERY_FAILED else 1)
        pause = max(error.after, min(LAST_PAUSE, first * 2 ** min(delivery.tries, 20)))
        given_up = age + pause > GIVE_UP
        known = any(
            isinstance(e, ev.DeliveryFailed) and (e.target, e.of) == (delivery.target, delivery.of)
            for e in (entry.event for entry in story.entries)
        )
        what = "given up" if given_up else f"again in {duration(pause)}"
        state = story.state
        text = f"{delivery.target}: {message}; {what}"
        fields = {"code": str(error.code)}
        self._note(Note(text, "delivery_failed", Level.WARNING, state.id, state.token or None, fields=fields))
        if not given_up:
            await self._access(self._store.postpone_delivery, delivery, pause)
        if given_up or not known:
            event = ev.DeliveryFailed(
                target=delivery.target,
                of=delivery.of,
                failure=Failure(error.code, message, hint=redactor.quoted(error.hint), agent=self._agent),
                tries=tries,
                given_up=given_up,
                by=self._agent,
            )
            await self._write_down(state, event, f"untold:{delivery.of}:{delivery.target}:{tries}")

    async def _write_down(self, state: Deployment, event: ev.Delivered | ev.DeliveryFailed, event_id: str) -> None:
        """Append, behind whatever was appended meanwhile; once, however often this is tried."""
        for _ in range(WRITE_TRIES):
            try:
                await self._access(self._store.append, Append(state, (event,), event_id))
            except ConflictError:
                state = fold(await self._access(self._store.journal, state.id, state.seq), state)
            except StoreError:
                await asyncio.sleep(LOOK_EVERY)
            else:
                return
        text = "what was told could not be written down; it comes again"
        self._note(Note(text, "outbox", Level.WARNING, state.id, state.token or None))


def _not_opened(failure: Failure) -> NotDelivered:
    return NotDelivered(failure.message, code=failure.code, hint=failure.hint)


def _line(line: LogLine) -> str:
    return f"{line.step or line.stream} | {line.text}"
