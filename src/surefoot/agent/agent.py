# SPDX-License-Identifier: Apache-2.0
"""The agent: shows signs of life, claims work that is its to claim, and works it, one deployment at a time.

Guarantees: it claims a lease only when it is free, or its holder has shown no sign of life for a whole ttl on this
agent's own clock, or is known to be gone; a lease is never shared; SIGTERM (the `stop` event) hands over at once.
What it does not guarantee, that the old holder has really stopped, is guaranteed by the token and the fence.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from surefoot.agent.access import StoreAccess
from surefoot.agent.holding import Holding
from surefoot.agent.leases import Leases, candidate, candidates
from surefoot.agent.machine import Vitals
from surefoot.agent.outage import Outage
from surefoot.agent.performer import Performer
from surefoot.agent.worker import Changes, Worker
from surefoot.core import events as ev
from surefoot.core import opening
from surefoot.core.deployment import Deployment, fold
from surefoot.core.errors import (
    Code,
    ConflictError,
    Failure,
    LeaseLostError,
    NewerStoreError,
    NotAllowedError,
    NotFoundError,
    StoreError,
)
from surefoot.core.lease import Choice, LeaseTiming, Role, choose, gives_way
from surefoot.core.notes import Level, Note, Tell, note_of
from surefoot.core.summary import Summary
from surefoot.store.protocol import AgentReport, Append, Claim, EnvironmentRow, Standing, Store, Work

#: Seconds that an agent leaves to each better one before it claims in its place.
GRACE = 1.0
#: Seconds until an agent tries again to take its name.
ENTER_AGAIN = 0.25
#: Renewal intervals without a sign of life after which an agent counts as offline in the ranking (never for safety).
SILENT_INTERVALS = 3
#: Seconds for which a machine that could not do its work counts as degraded, whatever else is measured of it.
UNABLE_FOR = 60.0
#: Newer deployments that are looked at when one asks whether another has taken its place.
NEWER = 50


@dataclass(frozen=True)
class AgentSettings:
    """Who an agent is, and when it ends by itself."""

    name: str
    role: Role = Role.PRIMARY
    preference: int = 0
    timing: LeaseTiming = field(default_factory=LeaseTiming)
    look_every: float = 0.25  #: seconds between looks for work while no change is announced
    once: bool = False  #: ends when there is no work left
    until: str | None = None  #: ends when this deployment wants no agent any more
    passing: bool = False  #: its name is never used again, so nothing remembers it when it has ended


class Agent:
    """One agent process. Everything that waits or touches the world comes in through the constructor."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        store: Store,
        access: StoreAccess,
        vital_access: StoreAccess,
        performer: Performer,
        clock: Callable[[], float],
        vitals: Callable[[], Vitals],
        note: Tell,
        ended: Callable[[Deployment], None] = lambda _: None,
        entered: Callable[[], Awaitable[None]] | None = None,
        strays: Callable[[], object] = lambda: None,
    ) -> None:
        """`vital_access` is for renewals and signs of life; `note` takes what the agent says of itself;
        `ended` takes each deployment that it has brought to its end; `entered` is done once it has got its name, and
        others see it; `strays` is told when it goes on with what is not the deployment that it ends with, nor in the
        way of that.
        """
        self.settings = settings
        self.stop = asyncio.Event()
        self.incarnation = uuid.uuid4().hex
        self.left: str | None = None  #: what it has worked on last, if that is not done
        self._store = store
        self._access = access
        self._vital_access = vital_access
        self._performer = performer
        self._clock = clock
        self._vitals = vitals
        self._note = note
        self._ended = ended
        self._entered = entered
        self._strays = strays
        self._changed = Changes()
        self._own: Summary | None = None  # the deployment after which it ends
        self._ending = False
        self._running: str | None = None
        self._token: int | None = None
        self._gives_way = ""  # why another is to go on with what this one works on
        self._gave_way: set[str] = set()
        self._fit, self._drained = True, False
        #: What this machine could not do, and until when that counts.
        self._unable: tuple[str, float] = "", float("-inf")
        self._leases = Leases(clock, settings.timing.ttl)
        self._overtakes: tuple[str, ...] = ()  # what waits before the one that was claimed
        self._outage = Outage(clock, self._say)
        self._entered_at = float("-inf")
        self._duplicate: str | None = None

    async def run(self) -> None:
        """Run until `stop` is set (or `once`, `until` are fulfilled). NotAllowedError if the name is taken by a
        live process, NewerStoreError once a newer program has upgraded the store and what was begun before has ended.
        """
        await self._enter()
        helpers = [
            asyncio.create_task(self._signs_of_life()),
            asyncio.create_task(self._watch_store()),
            asyncio.create_task(self._watch_stop()),
        ]
        try:
            await self._claim_and_work()
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            self._ending = True
            with contextlib.suppress(StoreError, NotAllowedError):
                await self._send_report()
                if self.settings.passing:
                    await self._vital_access(self._store.leave, self.settings.name, self.incarnation)
        if self._duplicate:
            raise NotAllowedError(self._duplicate, code=Code.AGENT_DUPLICATE, hint="give each agent a name of its own")

    # -- signs of life -------------------------------------------------------------------------------

    async def _enter(self) -> None:
        """Take the name. A dead process of that name keeps it until its shims have ended what it ran."""
        patience = self._clock() + self.settings.timing.ttl
        while not self.stop.is_set():
            try:
                await self._access(self._store.enter, self.settings.name, self.incarnation)
                await self._send_report()
                if self._entered is not None:
                    await self._entered()
            except StoreError as error:
                self._outage.failed(error.message)
            except NotAllowedError:
                if self._clock() > patience:
                    raise
            else:
                return
            await self._stopped_within(ENTER_AGAIN)

    def _report(self) -> AgentReport:
        vitals = self._vitals()
        unable, until = self._unable
        degraded = vitals.degraded or (unable if self._clock() < until else "")
        self._fit = not degraded
        return AgentReport(
            name=self.settings.name,
            role=self.settings.role,
            incarnation=self.incarnation,
            preference=self.settings.preference,
            cpu_percent=vitals.cpu_percent,
            memory_percent=vitals.memory_percent,
            disk_percent=vitals.disk_percent,
            degraded=degraded,
            running=self._running,
            stopping=self._ending,
            ends_with=self.settings.until,
        )

    async def _signs_of_life(self) -> None:
        while True:
            try:
                if self._outage.failed_at > self._entered_at:
                    # The connection that carried the presence may be gone.
                    self._entered_at = self._clock()
                    await self._vital_access(self._store.enter, self.settings.name, self.incarnation)
                if await self._send_report() is Standing.TAKEN:
                    self._duplicate = f"another live agent is called {self.settings.name}"
                    self.stop.set()
                self._outage.answered()
                await self._consider_giving_way()
            except (StoreError, NotAllowedError) as error:
                self._outage.failed(error.message)
            except Exception as error:
                # Whatever it is, an agent that fell silent would live on, keep its name, and take no work for ever.
                self._say(f"no sign of life: {type(error).__name__}: {error}", "error", Level.ERROR)
            await asyncio.sleep(self.settings.timing.report_every)

    async def _send_report(self) -> Standing:
        standing = await self._vital_access(self._store.report, self._report())
        self._drained = standing is Standing.DRAINED
        return standing

    async def _consider_giving_way(self) -> None:
        """Have what this agent works on handed over where another should go on with it; once for each deployment, so
        that two agents never pass one back and forth.
        """
        running = self._running
        if running is None or running in self._gave_way or self._gives_way:
            return
        if self._fit and not self._drained:
            return  # `gives_way` would say so, whoever else there is
        rows = await self._vital_access(self._store.agents, self._silent)
        if (why := gives_way(self.settings.name, [candidate(row) for row in rows])) is not None:
            self._gave_way.add(running)
            self._say(why, "gives_way")
            self._gives_way = why
            self._changed.announce()

    async def _leave_to_others(self, failure: Failure) -> None:
        """Say that this machine can't do its work, and hand over what it works on if another is there that may."""
        self._unable = failure.message, self._clock() + UNABLE_FOR
        with contextlib.suppress(StoreError):
            await self._send_report()
            await self._consider_giving_way()

    @property
    def _silent(self) -> float:
        """Seconds without a sign of life after which an agent counts as offline in the ranking."""
        return SILENT_INTERVALS * self.settings.timing.report_every

    async def _watch_store(self) -> None:
        while True:
            try:
                if (news := await self._vital_access(self._store.wait_as_agent, self.settings.look_every)) is not None:
                    self._changed.announce(news.asked)
            except StoreError as error:
                self._outage.failed(error.message)
                await asyncio.sleep(self.settings.look_every)

    async def _watch_stop(self) -> None:
        await self.stop.wait()
        self._changed.announce()

    # -- claiming ------------------------------------------------------------------------------------

    async def _claim_and_work(self) -> None:
        while not self.stop.is_set():
            try:
                if await self._ends():
                    return  # what comes after is left to those who stay
                claimed = await self._find_work()
            except NewerStoreError:
                raise  # not for this program any more: those that were upgraded do what is left
            except StoreError as error:
                self._outage.failed(error.message)
                await self._stopped_within(self.settings.look_every)
                continue
            if claimed is not None:
                await self._work(*claimed)
            elif not self.stop.is_set():
                await self._changed.next(self.settings.look_every)

    async def _find_work(self) -> tuple[Deployment, Holding] | None:
        """Claim the first environment that is this agent's to claim."""
        work = await self._access(self._store.work)
        free = self._leases.free(work, self._outage.failed_at)
        if not free:
            return None
        rows = await self._access(self._store.agents, self._silent)
        unheld: Choice | None = None  # the same for all that nobody holds, but those that have an agent of their own
        own = {row.report.ends_with for row in rows}
        for place, item in enumerate(free):
            if item.lease.holder is not None or item.deployment in own:
                choice = choose(
                    self.settings.name, candidates(self.settings.name, rows, work, item), deployment=item.deployment
                )
            else:
                unheld = choice = unheld or choose(self.settings.name, candidates(self.settings.name, rows, work, item))
            if choice.eligible and self._my_turn(item, choice.rank - place):
                claimed = await self._claim(item, choice)
                if claimed is not None:
                    return claimed
        return None

    def _my_turn(self, item: Work, better: int) -> bool:
        """Say whether all the better agents that could have claimed have had their moment; one whose machine is not
        fit leaves them more of it.
        """
        grace = GRACE if self._fit else max(GRACE, self.settings.timing.ttl)
        return self._leases.free_for(item) >= max(0, better) * grace

    async def _claim(self, item: Work, choice: Choice) -> tuple[Deployment, Holding] | None:
        """Claim a lease; return the deployment as it was before, too."""
        state = fold(await self._access(self._store.journal, item.deployment))
        if not state.wants_agent or self._leaves(state):  # it has ended since it was seen, say
            return None
        queue: tuple[str, ...] = ()
        if state.grants:
            previous = state.previous_version
        else:
            row = await self._access(self._store.environment, item.environment)
            previous, queue = row.current_version, row.queue
            if not await self._may_begin(state, row):
                return None
        lost = item.lease.holder
        token = item.lease.token + 1
        granted = ev.LeaseGranted(
            agent=self.settings.name,
            token=token,
            reasons=choice.reasons,
            previous_version=previous,
            taken_from=lost,
            waited_seconds=round(self._leases.same_for(item), 3) if lost else None,
        )
        sent = self._clock()
        grant = await self._access(
            self._store.claim,
            Claim(
                agent=self.settings.name,
                incarnation=self.incarnation,
                ttl=self.settings.timing.ttl,
                seen=item.lease,
                append=Append(state, (granted,)),
            ),
        )
        if grant is None:
            return None
        self._overtakes = queue if state.plan.gates.latest else ()
        return state, Holding(
            grant, self.settings.timing, sent, store=self._store, access=self._vital_access, clock=self._clock
        )

    def _leaves(self, state: Deployment) -> bool:
        """Whether it is for others to begin: an agent that ends with its own deployment would leave it half done."""
        own = self._own
        return (
            own is not None and not state.grants and (state.environment != own.environment or state.number > own.number)
        )

    async def _may_begin(self, state: Deployment, row: EnvironmentRow) -> bool:
        """Say whether all gates are open; if not, write down what becomes of the deployment."""
        if row.freeze is None and opening.gateless(state):
            return True
        newer = []
        if state.plan.gates.latest:
            found = await self._access(self._store.history, state.environment, NEWER)
            newer = [summary for summary in found if summary.number > state.number]
        verdict = opening.begin(state, row.freeze, await self._access(self._store.now), newer)
        if isinstance(verdict, opening.Begin):
            return True
        await self._settle(state, verdict.events)
        return False

    async def _supersede(self, newer: Deployment, queue: tuple[str, ...]) -> None:
        """End those that wait for a person, and whose place a newer one has taken. Left undone, it is done when they
        are looked at.
        """
        with contextlib.suppress(StoreError):
            for deployment in queue:
                older = fold(await self._access(self._store.journal, deployment))
                if older.number < newer.number and not older.begun and older.plan.gates.latest:
                    await self._settle(older, opening.superseded(older, newer.id, newer.version))

    async def _settle(self, state: Deployment, events: tuple[ev.Event, ...]) -> None:
        """Append what needs no lease; whoever was faster has said something else, which is looked at again."""
        with contextlib.suppress(ConflictError, NotAllowedError):
            await self._access(self._store.append, Append(state, events))

    # -- working -------------------------------------------------------------------------------------

    async def _work(self, state: Deployment, holding: Holding) -> None:
        self._gives_way = ""
        self._running, self._token = state.id, holding.grant.token
        self.left = state.id
        if self._own is not None and holding.grant.environment != self._own.environment:
            self._strays()
        renewals = asyncio.create_task(holding.keep())
        worker = Worker(
            state,
            holding,
            store=self._store,
            access=self._access,
            performer=self._performer,
            changed=self._changed,
            handover=self.stop,
            note=lambda text: self._say(text, "note"),
            told=lambda entry: self._tell(state.id, entry),
            gives_way=lambda: self._gives_way,
            unable=self._leave_to_others,
        )
        try:
            await self._supersede(state, self._overtakes)  # not before the lease is renewed: there may be many
            await worker.work()
            if not worker.state.wants_agent:
                self.left = None
            if worker.state.status.terminal:
                self._ended(worker.state)
        except LeaseLostError as error:
            self.left = None  # to whoever took it
            self._say(error.message, "lease_lost", Level.WARNING)
        except NewerStoreError:
            raise  # with this process goes its presence, and an agent that knows more takes over
        except Exception as error:
            # As if this process had died: the lease runs out and the deployment is taken over, here or elsewhere, until
            # the limit of takeovers has it put back.
            self._say(f"given up after an error: {type(error).__name__}: {error}", "error", Level.ERROR)
            await self._stopped_within(self.settings.timing.ttl)
        finally:
            self._running = self._token = None
            self._leases.work_is_done()
            renewals.cancel()
            await asyncio.gather(renewals, return_exceptions=True)

    def _say(self, text: str, what: str, level: Level = Level.INFO) -> None:
        """Say something, of the deployment that is worked on where one is."""
        self._note(Note(text, what, level, self._running, self._token))

    def _tell(self, deployment: str, entry: ev.Entry) -> None:
        """Say what was written into the journal; deliveries are said by whoever delivers."""
        match entry.event:
            case ev.Delivered() | ev.DeliveryFailed():
                pass
            case _:
                self._note(note_of(deployment, entry))

    async def _ends(self) -> bool:
        """Say whether it is to end by itself. It says that it does before it looks for the last time: whoever asks for
        something, and looks then whether an agent is there, finds none or has been heard.
        """
        if not await self._done():
            return False
        self._ending = True
        try:
            await self._send_report()
            self._ending = await self._done()
        except StoreError:
            self._ending = False
            raise
        if not self._ending:
            await self._send_report()
        return self._ending

    async def _done(self) -> bool:
        if self.settings.until is not None:
            with contextlib.suppress(NotFoundError):
                found = self._own = await self._access(self._store.summary, self.settings.until)
                return found.status.terminal and not found.wants_agent
            return True
        if not self.settings.once:
            return False
        nothing_now = not await self._access(self._store.work)
        return nothing_now and await self._access(self._store.next_ready) is None

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        return self.stop.is_set()
