# SPDX-License-Identifier: Apache-2.0
"""Who may run, and until when: lease timings, expiry as seen by an observer, and the ranking of agents.

**Expiry is observed, not read.** No wall clock takes part. A holder renews by raising a counter in the lease's row.
It counts its own deadline on its own monotonic clock from *before* it sends the renewal. Another agent calls the
lease expired only when it has seen neither token nor counter change for a whole ttl on *its* monotonic clock, and its
claim is conditional on both still being what it saw. Invariant: a holder's deadline (`sent + ttl * HOLD`) passes
before any observer's (`seen + ttl`, and seen >= committed >= sent), as long as two machines' monotonic clocks run at
rates within 1/HOLD of each other. The same idea carries Kubernetes' leader election (client-go); the token, and the
fence on the hosts, cover what it can't.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

#: Share of the ttl for which a holder trusts its lease. The rest pays for clocks that run at different rates
#: (10 %) and for ending the processes of a step.
HOLD = 0.8
#: Renewals in a ttl: three may fail before the holder has to give up.
RENEWALS = 5
#: Seconds between an agent's signs of life, at most.
REPORT_EVERY = 1.0
#: A shorter ttl is lost to an ordinary pause of a busy machine.
MIN_TTL = 1.0


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """All times that follow from the ttl, in seconds."""

    ttl: float = 5.0

    def __post_init__(self) -> None:
        if self.ttl < MIN_TTL:
            raise ValueError(f"lease ttl {self.ttl:g}s is shorter than {MIN_TTL:g}s")

    @property
    def renew_every(self) -> float:
        """How often a holder renews."""
        return self.ttl / RENEWALS

    @property
    def report_every(self) -> float:
        """How often every agent says that it lives. However long the ttl, who reads must tell within seconds who does
        not.
        """
        return min(self.renew_every, REPORT_EVERY)

    def deadline(self, sent: float) -> float:
        """Return when a holder must have stopped, on its own clock, if it sent its last good renewal at `sent`."""
        return sent + self.ttl * HOLD


class LeaseSeen(msgspec.Struct, frozen=True):
    """What an observer saw of a lease, and when on its own monotonic clock it first saw just that."""

    token: int
    renewals: int
    ttl: float
    at: float

    def seen(self, token: int, renewals: int, ttl: float, now: float) -> LeaseSeen:
        """Return the observation after one more look: the same one if nothing has changed."""
        if (token, renewals) == (self.token, self.renewals):
            return self
        return LeaseSeen(token, renewals, ttl, now)

    def expired(self, now: float) -> bool:
        """Whether the holder has been unheard of for its whole ttl."""
        return now - self.at >= self.ttl


class Role(StrEnum):
    """What an agent is for."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    EMERGENCY = "emergency"  #: takes work only when no other is eligible


_ROLES = tuple(Role)  # in the order in which they are asked


class AgentStatus(StrEnum):
    """How an agent is; names are part of the public contract."""

    ONLINE = "online"
    DEGRADED = "degraded"
    DRAINING = "draining"
    OFFLINE = "offline"

    @property
    def able(self) -> bool:
        """Whether such an agent takes work."""
        return self in (AgentStatus.ONLINE, AgentStatus.DEGRADED)


class Candidate(msgspec.Struct, frozen=True):
    """An agent, as far as the choice is concerned."""

    name: str
    role: Role
    status: AgentStatus
    preference: int  #: place in the config
    running: str | None  #: the deployment it is busy with
    reason: str  #: why it is degraded, draining or offline

    @property
    def place(self) -> tuple[int, int]:
        """Where the config puts it among all agents."""
        return (_ROLES.index(self.role), self.preference)


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether an agent may claim now, whom it lets go first, and why."""

    rank: int  #: how many idle agents come before it
    reasons: tuple[str, ...]
    eligible: bool = True


def rank(agents: Sequence[Candidate]) -> list[Candidate]:
    """Order the agents that may take work, best first.

    Role comes first, then health within primaries and secondaries together: a healthy secondary comes before a
    degraded primary; an emergency agent comes after all others. Draining and offline agents never take work.
    """
    return sorted(
        (a for a in agents if a.status.able),
        key=lambda a: (
            a.role is Role.EMERGENCY,
            a.status is AgentStatus.DEGRADED,
            a.place,
            a.name,
        ),
    )


def choose(me: str, agents: Sequence[Candidate], *, deployment: str | None = None) -> Choice:
    """Say whether `me` may claim, how many idle agents come before it, and why it (and not they) was chosen.

    Agents that are busy with another deployment do not stand before anyone; emergency agents wait until no other is
    eligible, busy or not.
    """
    order = rank(agents)
    mine = next((a for a in order if a.name == me), None)
    if mine is None:
        state = next((a for a in agents if a.name == me), None)
        why = f"{me} {state.status}" if state else f"{me} has not reported"
        return Choice(rank=len(order), reasons=(why,), eligible=False)
    before = order[: order.index(mine)]
    if mine.role is Role.EMERGENCY and any(a.role is not Role.EMERGENCY for a in before):
        others = ", ".join(a.name for a in before if a.role is not Role.EMERGENCY)
        return Choice(rank=len(before), reasons=(f"{others} eligible",), eligible=False)
    idle = [a for a in before if a.running is None or a.running == deployment]
    return Choice(rank=len(idle), reasons=tuple(_reasons(mine, agents)))


def gives_way(me: str, agents: Sequence[Candidate]) -> str | None:
    """Say why an agent should hand over what it works on, at the next point where nothing is in flight; None if it
    should go on.

    A drained agent gives way to any that is able and idle, one whose machine is not fit to a healthy idle one that is
    no emergency agent. To an emergency agent nobody gives way while any other is able, busy or not: it could not take
    it (`choose`). Whoever is alone goes on: a deployment that nobody works on ends never.
    """
    mine = next((agent for agent in agents if agent.name == me), None)
    if mine is None or mine.status not in (AgentStatus.DRAINING, AgentStatus.DEGRADED):
        return None
    able = [agent for agent in rank(agents) if agent.name != me]
    emergency = all(agent.role is Role.EMERGENCY for agent in able)
    idle = [a for a in able if a.running is None and (emergency or a.role is not Role.EMERGENCY)]
    if mine.status is AgentStatus.DEGRADED:
        idle = [a for a in idle if a.status is AgentStatus.ONLINE and a.role is not Role.EMERGENCY]
    if not idle:
        return None
    why = "drained" if mine.status is AgentStatus.DRAINING else mine.reason or str(mine.status)
    return f"{me} {why}; {idle[0].name} can take it"


def _reasons(mine: Candidate, agents: Sequence[Candidate]) -> list[str]:
    """Say why each agent that the config prefers was not taken."""
    reasons = [f"{mine.name} chosen: {mine.role} {mine.status}"]
    rest = (a for a in agents if a.name != mine.name and a.place <= mine.place)
    for other in sorted(rest, key=lambda a: (a.place, a.name)):
        if other.status is not AgentStatus.ONLINE:
            reasons.append(f"{other.name} {other.status}" + (f" ({other.reason})" if other.reason else ""))
        elif other.running is not None:
            reasons.append(f"{other.name} busy with {other.running}")
        else:
            reasons.append(f"{other.name} did not claim in time")
    return reasons
