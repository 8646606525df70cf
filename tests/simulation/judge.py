# SPDX-License-Identifier: Apache-2.0
"""The promises, judged after each thing that happens, by what hosts saw and by a copy of all that was ever accepted.

Nothing is asked of the code under test but what it wrote: the journal's entries as they were committed.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from surefoot.core import events as ev
from surefoot.core.deployment import FENCES, Deployment, fold
from surefoot.core.errors import Code
from surefoot.core.plan import ROLLBACK, Direction, Playbook
from surefoot.core.sentences import sentence
from surefoot.core.status import Status
from tests.simulation.script import CANARY

if TYPE_CHECKING:
    from surefoot.reports.story import Story
    from tests.simulation.hosts import Environment, Host, Touch

MIXED = "mixed"


class PromiseBrokenError(AssertionError):
    """A promise did not hold. `promise` says which; the message tells the story, and the seed replays it."""

    def __init__(self, promise: str, story: str = "") -> None:
        super().__init__(f"{promise}\n{story}")
        self.promise = promise


class Seen(msgspec.Struct, frozen=True):
    """A change, for the story; said when it is asked for, which is seldom."""

    host: str
    touch: Touch

    def __str__(self) -> str:
        touch = self.touch
        return (
            f"    {self.host} {touch.direction} step-{touch.step} to {touch.version}, {touch.deployment}, {touch.token}"
        )


class Written(msgspec.Struct, frozen=True):
    """An entry of a journal, for the story."""

    deployment: str
    entry: ev.Entry

    def __str__(self) -> str:
        entry = self.entry
        return f"  {self.deployment} {entry.seq} [{entry.agent} {entry.token}] {sentence(entry)}"


def _listed(versions: set[str | None]) -> str:
    """Say versions, in an order that is the same each time."""
    return ", ".join(sorted(map(str, versions)))


#: What there is somebody to be told of.
TELLS = (ev.Accepted, ev.UndoStarted, ev.Finished, ev.ResolveRefused, ev.Resolved)


class Judge:
    """Watches one environment. The first promise that is broken in any of them is kept in the world's `broken`."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.world = environment.world
        self.tell = environment.world.tell
        self.journals: dict[str, list[ev.Entry]] = {}
        self.known: dict[str, Deployment] = {}  #: what `state` has folded
        self.ended: dict[str, Status] = {}
        self.locked_by: str | None = None
        self.unfenced = False  #: what is stranded says that it could not fence off all hosts
        self.by_hand = False  #: people have put its hosts back: what it left on them does not go on in any order
        #: What all hosts run while nothing changes them.
        self.version: str | None = None
        self.before: dict[str, str | None] = {}  #: by deployment, what its environment ran when it began
        self.newest = 0
        self.granted = 0  #: the newest token that a lease was granted with
        self.touched: set[str] = set()
        #: On which hosts journals say that a deployment's fence is raised: (deployment, host).
        self.raised: set[tuple[str, str]] = set()
        #: What hosts were asked for since the last change of any of them, or the last request to resolve: (health or
        #: version, host).
        self.asked: set[tuple[str, str]] = set()
        #: Hosts that came back with an old disk, and were neither changed nor asked since: nobody can know.
        self.forgot: set[str] = set()
        #: What somebody is to be told of, and has not been: (deployment, number of the entry).
        self.untold: set[tuple[str, int]] = set()
        self.told: dict[str, int] = {}  #: by deployment, the last entry that somebody was told of
        self.refused: set[str] = set()
        self.cancelled: set[str] = set()
        self.waited: set[str] = set()
        self.approved: set[str] = set()
        self.freezes = 0
        self.released_at = -inf  #: when people last let it go on

    def hold(self, promise: str, *about: object, holds: bool) -> None:
        """Note that a promise is broken, unless it holds. What it is about is put in its `{}` only then."""
        if not holds and self.world.broken is None:
            self.world.broken = promise.format(*about) if about else promise
            self.tell(f"BROKEN: {self.world.broken}")

    def state(self, deployment: str) -> Deployment:
        """Return what one journal says, folding only what is new of it."""
        known, entries = self.known.get(deployment), self.journals[deployment]
        state = self.known[deployment] = fold(entries[known.seq :] if known else entries, known)
        return state

    def states(self) -> list[Deployment]:
        """Return what the journals say."""
        return [self.state(deployment) for deployment in self.journals]

    @property
    def rests(self) -> bool:
        """Whether all has ended, and nothing waits for a repair."""
        return len(self.ended) == len(self.journals) and self.locked_by is None

    # -- hosts ---------------------------------------------------------------------------------------

    def saw(self, host: Host, touch: Touch) -> None:
        """Judge one change of a host, before it is made."""
        self.tell(Seen(host.name, touch))
        self._changes(host, touch.deployment, touch.token, touch)
        step = self.accepted_as(touch.deployment).plan.step(touch.name)
        if isinstance(step.work if touch.direction is Direction.FORWARD else step.undo, Playbook):
            known = (touch.deployment, host.name) in self.raised
            self.hold("4, nothing is lost: {} on {}, of which the journal knows nothing", touch, host.name, holds=known)
        self.touched.add(touch.deployment)
        self.asked.clear()
        self.forgot.discard(host.name)
        if host.name not in self.world.restored and not self.by_hand:
            self._order(host, touch)

    def saw_told(self, host: Host, deployment: str, token: int, version: str | None) -> None:
        """Judge that a host is told which version it runs, before it is."""
        what = f"{host.name} told {version} by {deployment} ({token})"
        self.tell(f"    {what}")
        self._changes(host, deployment, token, what)

    def _changes(self, host: Host, deployment: str, token: int, what: object) -> None:
        """Judge whether a deployment may do anything to a host just now."""
        mine = deployment in self.journals
        self.hold("1, one at a time: {} on {} of {}", what, host.name, self.environment.name, holds=mine)
        self.hold("1, one at a time: {} after token {}", what, self.newest, holds=token >= self.newest)
        # What it left on a host that could not be fenced off may end as it likes: its journal says so.
        left = deployment == self.locked_by and self.unfenced
        self.hold("1, one at a time: {} after the end", what, holds=left or deployment not in self.ended)
        self.hold("5, honest: {} while {} is stranded", what, self.locked_by, holds=left or self.locked_by is None)
        self.hold("3, all or nothing: {} although it was refused", what, holds=deployment not in self.refused)
        self.newest = max(self.newest, token)

    def fenced(self, host: Host, token: int) -> None:
        """Judge that a host is to refuse smaller tokens than one that its environment has granted."""
        token //= FENCES
        unknown = "1, one at a time: {} fenced with token {}, which nobody was granted"
        self.hold(unknown, host.name, token, holds=token <= self.granted)

    def was_asked(self, host: Host, what: str) -> None:
        """Note that a host is asked for its health, or its version."""
        self.asked.add((what, host.name))
        self.forgot.discard(host.name)

    def _order(self, host: Host, touch: Touch) -> None:
        """Forward, a step finds those before it done; back, it finds those after it undone."""
        if touch.direction is Direction.FORWARD:
            done = all(host.applied.get(step) == touch.version for step in range(touch.step))
            self.hold("3, all or nothing: {} on {} before the steps before it", touch, host.name, holds=done)
        elif touch.step in self.world.steps:
            later = [step for step in self.world.undone if step > touch.step]
            undone = all(host.applied.get(step) == touch.version for step in later)
            told = "3, all or nothing: {} on {} undone before the steps after it"
            self.hold(told, touch, host.name, holds=undone)

    def _run(self, version: str | None) -> bool:
        """Whether all hosts run this version, as far as anybody can know."""
        return self._hosts() <= {version}

    def _hosts(self) -> set[str | None]:
        return {host.version for host in self.environment.hosts.values() if host.name not in self.forgot}

    def heard(self, deployment: str, story: Story) -> None:
        """Judge what somebody is told: only what is written, in its order; again if an answer was lost."""
        known = self.journals.get(deployment, [])
        holds = list(story.entries) == known[: len(story.entries)]
        self.hold(f"4, nothing is lost: told of {deployment} what is not written", holds=holds)
        holds = story.of >= self.told.get(deployment, 0)
        self.hold(f"4, nothing is lost: told of {deployment}, entry {story.of}, out of order", holds=holds)
        self.told[deployment] = story.of
        self.untold.discard((deployment, story.of))

    # -- the journal ---------------------------------------------------------------------------------

    def accepted(self, deployment: str) -> None:
        """Judge a submission that the store took."""
        self.hold(f"5, honest: {deployment} accepted while {self.locked_by} is stranded", holds=self.locked_by is None)
        self.journals.setdefault(deployment, [])

    def wrote(self, store: Any, deployment: str) -> None:
        """Judge what was committed to a journal since the last time."""
        known = self.journals.setdefault(deployment, [])
        for entry in store.journal(deployment, len(known)):
            known.append(entry)
            self.tell(Written(deployment, entry))
            self.hold(f"4, nothing is lost: {deployment} has a gap before {entry.seq}", holds=entry.seq == len(known))
            self._entry(deployment, entry)
            if isinstance(entry.event, TELLS) and self.accepted_as(deployment).plan.targets:
                self.untold.add((deployment, entry.seq))

    def accepted_as(self, deployment: str) -> ev.Accepted:
        """Return the first event of a journal."""
        accepted = self.journals[deployment][0].event
        assert isinstance(accepted, ev.Accepted)
        return accepted

    def _entry(self, deployment: str, entry: ev.Entry) -> None:
        self.granted = max(self.granted, entry.token or 0)
        match entry.event:  # one kind after the other is asked for, so what happens most comes first
            case ev.StepSucceeded() | ev.FenceFailed() | ev.Delivered():
                pass
            case ev.StepStarted(direction=Direction.FORWARD):
                holds = deployment not in self.cancelled
                self.hold(f"2, it ends: {deployment} goes on although it was cancelled", holds=holds)
            case ev.StepStarted(step=step):
                whole = (step == ROLLBACK) == self.world.script.whole
                self.hold(f"3, all or nothing: {deployment} goes back by {step}", holds=whole)
            case ev.LeaseGranted() if deployment in self.ended:
                resolves = self.locked_by == deployment
                self.hold(f"5, honest: {deployment} is begun after it has ended", holds=resolves)
            case ev.LeaseGranted() if deployment not in self.before:
                self.before[deployment] = self.version
                self.hold(f"gates: {deployment} begins while it is frozen", holds=not self.freezes)
                own = self.world.own.get(entry.agent or "")
                told = f"2, it ends: {entry.agent}, which ends with {own}, begins {deployment}"
                self.hold(told, holds=own is None or self._before(deployment, own))
                accepted = self.accepted_as(deployment)
                early = accepted.not_before is not None and self.world.store.now() < accepted.not_before
                self.hold(f"gates: {deployment} begins before its time", holds=not early)
                gate = accepted.plan.gates.approvals
                needs = gate is not None and (gate.rollbacks or not accepted.rollback)
                self.hold(f"gates: {deployment} begins unapproved", holds=not needs or deployment in self.approved)
                # What has waited for a gate has let others go first.
                waiting = [d for d in self.journals if d not in {*self.ended, *self.waited} and d != deployment]
                first = all(self._number(deployment) < self._number(other) for other in waiting)
                self.hold(f"1, first come, first served: {deployment} before {waiting}", holds=first)
            case ev.FenceRaised(hosts=hosts):
                self.raised |= {(deployment, host) for host in hosts}
                if deployment == self.locked_by:
                    self.unfenced = False  # to look at what is said to be repaired: nothing is left that may land
            case ev.ResolveRequested():
                self.asked.clear()  # what was seen before says nothing of what is said to be repaired
            case ev.ResolveRefused():
                holds = self.locked_by == deployment
                self.hold(f"5, honest: {deployment} is not repaired after it was", holds=holds)
            case ev.Finished(status=status):
                self._finished(deployment, status)
            case ev.UndoStarted():
                told = f"5, honest: {deployment} is put back, and nothing of it ever got past the fence"
                self.hold(told, holds=bool(self._past_the_fence(deployment)))
            case ev.Accepted(number=number):
                self.hold(f"4, nothing is lost: {deployment} is number {number}", holds=number == len(self.journals))
            case ev.Waiting(waits=waits):
                self.waited.add(deployment)
                self.hold(f"2, it ends: {deployment} waits for nothing", holds=bool(waits))
            case ev.ApprovalGiven():
                self.approved.add(deployment)
            case ev.PreflightFailed():
                self.refused.add(deployment)
            case ev.ApprovalExpired():
                self.hold(f"gates: {deployment} expired, and is approved", holds=deployment not in self.approved)
            case ev.Superseded(by=by):
                newer = by in self.journals and self._number(by) > self._number(deployment)
                holds = newer and deployment not in self.before
                self.hold(f"gates: {deployment} superseded by {by}", holds=holds)
            case ev.CancelRequested():
                if deployment not in self.before or not self.world.script.finishes:
                    self.cancelled.add(deployment)
            case ev.Resolved(version=version, unchecked=unchecked):
                self.locked_by, self.by_hand = None, False
                self.released_at = self.world.loop.now
                saw = self._hosts()
                self.hold(f"5, honest: {deployment} resolved: {_listed(saw)}", holds=self._run(version))
                self.hold(f"5, honest: {deployment} resolved by itself", holds=unchecked or version is not MIXED)
                told = f"5, honest: {deployment} resolved, and not every host was asked for its version since"
                self.hold(told, holds=unchecked or not self.world.script.shown_by or self._were_asked("version"))
                self.version = version
            case _:
                pass

    def _before(self, deployment: str, own: str) -> bool:
        """Whether a deployment has to end before another one can begin, or is it."""
        return own in self.journals and self._number(deployment) <= self._number(own)

    @staticmethod
    def _number(deployment: str) -> int:
        return int(deployment.rpartition("-")[2])

    def _finished(self, deployment: str, status: Status) -> None:
        self.hold(f"4, nothing is lost: {deployment} ended twice", holds=deployment not in self.ended)
        self.ended[deployment] = status
        version = self.accepted_as(deployment).version  # not its number, where one before it was refused
        was = self.before.get(deployment)
        saw = self._hosts()
        match status:
            case Status.SUCCEEDED:
                self.hold(
                    f"3, all or nothing: {deployment} {status}, hosts run {_listed(saw)}", holds=self._run(version)
                )
                well = version not in self.world.unhealthy or not self.world.script.health
                self.hold(f"5, honest: {deployment} {status} and is not healthy", holds=well)
                late = deployment not in self.cancelled
                self.hold(f"2, it ends: {deployment} {status} although it was cancelled", holds=late)
                self._checked(deployment, "health", "version")
                self._were_told(version)
                self.version = version
            case Status.FAILED:
                holds = deployment not in self.touched
                self.hold(f"3, all or nothing: {deployment} {status}, and touched hosts", holds=holds)
            case Status.ROLLED_BACK | Status.CANCELLED:
                begun = status is Status.CANCELLED and deployment in self.before
                told = f"2, it ends: {deployment} {status} after it had begun, which was to be finished"
                self.hold(told, holds=not begun or not self.world.script.finishes)
                holds = deployment not in self.touched or self._run(was)
                put_back = f"3, all or nothing: {deployment} {status}, hosts run {_listed(saw)}, before: {was}"
                self.hold(put_back, holds=holds)
                if deployment in self.touched:  # where nothing ran before, nothing can be healthy
                    self._checked(deployment, *(("health",) if was is not None else ()), "version")
                    self._were_told(was)
            case Status.STRANDED:
                self._tried(deployment)
                self.locked_by = deployment

    def _checked(self, deployment: str, *whats: str) -> None:
        """What ends well was checked after the last change, as far as its plan has it checked; and what the journal
        says was checked is what hosts themselves were asked for, each of them.
        """
        events = [entry.event for entry in self.journals[deployment]]
        last = max(place for place, event in enumerate(events) if isinstance(event, ev.StepStarted))
        plan = self.accepted_as(deployment).plan
        for what in whats:
            planned, kind = (plan.health, ev.HealthPassed) if what == "health" else (plan.records, ev.VersionsRecorded)
            if planned:
                holds = any(isinstance(event, kind) for event in events[last:])
                self.hold(f"5, honest: {deployment} ended without {kind.__name__}", holds=holds)
                told = f"5, honest: {deployment} ended, and not every host was asked for its {what}"
                self.hold(told, holds=self._were_asked(what))

    def _were_asked(self, what: str) -> bool:
        """Whether every host was asked for its health, or its version, since `asked` was forgotten."""
        return all((what, host) in self.asked for host in self.environment.hosts)

    def _were_told(self, version: str | None) -> None:
        """Hosts that only know what they were told were told the truth in the end."""
        if self.world.script.shown_by == "file":
            files = {host.file for host in self.environment.hosts.values()}
            self.hold(f"5, honest: hosts are told to run {_listed(files)}, not {version}", holds=files == {version})

    def _past_the_fence(self, deployment: str) -> list[str]:
        """Return the steps of which an attempt came further than to a fence that could not be raised, or may have."""
        past: list[str] = []
        began = ""
        for entry in self.journals[deployment]:
            match entry.event:
                case ev.StepStarted(step=step, direction=Direction.FORWARD):
                    began = step
                case ev.FenceFailed() | ev.NotBegun():
                    began = ""
                case ev.UndoStarted():
                    break
                case ev.FenceRaised() | ev.StepSucceeded() | ev.StepFailed() | ev.StepInterrupted():
                    past.append(began)
                case ev.LeaseGranted() | ev.HandedOver():  # nobody knows how far it came
                    past.append(began)
                case _:
                    pass
        return [step for step in dict.fromkeys(past) if step]

    def _of_the_fence(self, deployment: str) -> ev.Event:
        """Return the last event that has left something on its way to a host, or tells how a raise went after that."""
        events = [entry.event for entry in self.journals[deployment]]
        plan = self.accepted_as(deployment).plan

        def counts(event: ev.Event) -> bool:
            if not isinstance(event, ev.StepFailed | ev.StepInterrupted):
                kinds = ev.LeaseGranted | ev.UndoStarted | ev.FenceFailed | ev.FenceRaised
                return isinstance(event, kinds)
            step = plan.step(event.step)
            return isinstance(step.work if event.direction is Direction.FORWARD else step.undo, Playbook)

        return next(filter(counts, reversed(events)))

    def _tried(self, deployment: str) -> None:
        """What is stranded could not be put back: each step was undone, or something kept it from that."""
        events = [entry.event for entry in self.journals[deployment]]
        start = max(place for place, event in enumerate(events) if isinstance(event, ev.UndoStarted))
        end = events[-1]
        kept = any(isinstance(event, ev.StepFailed | ev.FenceFailed | ev.NotBegun) for event in events[start:])
        begun = set(self._past_the_fence(deployment))
        undone = {event.step for event in events[start:] if isinstance(event, ev.StepSucceeded)}
        often = isinstance(end, ev.Finished) and end.reason is not None and end.reason.code is Code.TAKEN_OVER_TOO_OFTEN
        # Whoever is told that it kills agents knows that nobody dared to touch a host again.
        self.unfenced = often or isinstance(self._of_the_fence(deployment), ev.FenceFailed)
        wanted = set(self.accepted_as(deployment).plan.undo_of(sorted(begun)))
        holds = kept or often or wanted == undone
        self.hold(f"3, all or nothing: {deployment} stranded, undone: {undone} of {wanted}", holds=holds)

    def _log(self, deployment: str, lines: list[Any]) -> None:
        """A log quotes no secret, and takes nothing from an agent that was taken over from."""
        newest = 0
        for line in lines:
            self.hold(f"6, secrets: the log of {deployment} holds one", holds=CANARY not in line.text)
            if line.token is not None:
                late = f"1, one at a time: {deployment}'s log has a line of token {line.token} after {newest}"
                self.hold(late, holds=line.token >= newest)
                newest = line.token

    # -- the end -------------------------------------------------------------------------------------

    def final(self, store: Any) -> None:
        """Judge what is left when all has ended."""
        for deployment, known in self.journals.items():
            holds = store.journal(deployment) == known
            self.hold(f"4, nothing is lost: the journal of {deployment} has changed", holds=holds)
            self._log(deployment, store.log(deployment))
            quiet = CANARY.encode() not in msgspec.json.encode(known)
            self.hold(f"6, secrets: the journal of {deployment} holds one", holds=quiet)
        row = store.environment(self.environment.name)
        self.hold(f"4, nothing is lost: locked by {row.locked_by}", holds=row.locked_by == self.locked_by)
        if self.locked_by is None:
            self.hold(f"3, all or nothing: hosts run {_listed(self._hosts())}", holds=self._run(self.version))
            holds = row.current_version == self.version
            self.hold(f"4, nothing is lost: {row.current_version} is not {self.version}", holds=holds)
