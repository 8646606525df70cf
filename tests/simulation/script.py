# SPDX-License-Identifier: Apache-2.0
"""What a schedule plays: agents, deployments, and what goes wrong when. Drawn before anything runs (`draw`), so that
parts of it can be left out while the rest stays as it is (`shrink`).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from surefoot.core.gates import APPROVALS_EXPIRE
from surefoot.core.lease import Role

#: Machines' monotonic clocks run at rates within 10 % of true time: what the lease's timing promises to bear.
DRIFT = 0.1
#: Virtual seconds that faults may go on for.
LENGTH = 20.0
#: The environment that all scripts have, and one that a few have beside it.
PRODUCTION, STAGING = "production", "staging"
#: What steps print, in pieces, where a script has them talk.
CANARY = "s3cr3t-c4n4ry-9f8e7d"
#: What can be wrong with a version.
WRONGS = ("unhealthy", "fails", "hangs", "poison", "refused", "stuck")
#: And what was thought of later: no playbook of its last step can be begun, forward, or on the way back.
LATE_WRONGS = ("unreadable", "no way back")


class Kind(StrEnum):
    """What can go wrong, or be asked for."""

    KILL = "kill"  #: the agent's process; its shims end what it started
    CRASH = "crash"  #: the same, so many of its own steps later: at any `await`
    STOP = "stop"  #: SIGTERM, and another one of its name
    FREEZE = "freeze"  #: the agent's process
    MACHINE = "machine"  #: the agent and all that it started
    PAUSE = "pause"  #: the same, with the machine's clock: it wakes up and believes that no time has passed
    GONE = "gone"  #: the agent's machine, for good
    CUT = "cut"  #: the agent from the store
    SLOW = "slow"  #: the store's answers to the agent take long
    DEAF = "deaf"  #: the agent's calls reach the store, and no answer comes back
    UNPLUG = "unplug"  #: the agent from one host
    STORE = "store"  #: the store from all
    CLOCK = "clock"  #: the store's clock jumps
    HOST = "host"  #: a host is off, and on again
    OLD_DISK = "old disk"  #: the same, with what it had some time ago
    CANCEL = "cancel"
    DRAIN = "drain"
    AGAIN = "again"  #: the same submission once more
    RESOLVE = "resolve"  #: somebody says that it is repaired, whether it is or not, whatever its state
    POWER = "power"  #: the agent's machine; for so long nobody notices that its presence is gone
    PRESENCE = "presence"  #: the agent's presence alone: its session was ended, and is taken again
    UNFIT = "unfit"  #: the agent's machine says that it is not fit
    HIDDEN = "hidden"  #: a host from the inventory, once something was changed
    FULL = "full"  #: the disk of the agent's machine: nothing can be begun on it


#: What any script can stand.
ANY = (Kind.KILL, Kind.CRASH, Kind.STOP, Kind.FREEZE, Kind.CUT, Kind.DEAF, Kind.UNPLUG, Kind.DRAIN)
#: What was thought of later, and is drawn by itself.
LATE_KINDS = (Kind.POWER, Kind.PRESENCE, Kind.UNFIT, Kind.FULL)
#: What an agent loses its lease by.
LONG = (Kind.KILL, Kind.FREEZE, Kind.MACHINE, Kind.PAUSE, Kind.CUT, Kind.DEAF)


class Fault(msgspec.Struct, frozen=True):
    """One thing that goes wrong at `at`, for so many seconds. `agent` 0 is whoever holds the lease then."""

    at: float
    kind: Kind
    agent: int
    host: int
    seconds: float
    steps: int


class Version(msgspec.Struct, frozen=True):
    """One deployment, and what is wrong with its version."""

    at: float
    #: unhealthy; fails (a step, always); hangs (a step, always); poison (kills agents); refused; stuck (its undo fails)
    wrong: str = ""
    decided: float = 0.0  #: it needs an approval, and so many seconds after it a person says yes (0: it needs none)
    rejected: bool = False  #: or says no
    withdrawn: float = 0.0  #: whoever asked for it cancels it so many seconds later (0: nobody does)
    environment: str = PRODUCTION
    repeats: int = 0  #: it is this one's version, once more
    back: bool = False  #: it is asked for as a rollback
    waits: float = 0.0  #: it is to start so many seconds later


class Limb(msgspec.Struct, frozen=True):
    """One agent; its clock runs at a rate of its own."""

    name: str
    role: Role
    rate: float
    starts: float = 0.0
    until: str | None = None  #: it ends with this deployment
    once: bool = False  #: it ends when nothing is left to do


class Script(msgspec.Struct, frozen=True):
    """See the module's docstring."""

    seed: int
    hosts: int
    agents: tuple[Limb, ...]
    steps: tuple[bool, ...]  #: for each step whether it is fenced: a playbook, not a command
    attempts: int
    delay: float
    takeover_limit: int
    versions: tuple[Version, ...]
    faults: tuple[Fault, ...]
    store_faults: float
    step_faults: float
    store: str = "memory"  #: or "sqlite": the real SQL
    talks: bool = False  #: steps print a secret, and the agents' own log takes it down
    pace: float = 400.0  #: the longest that a part of a step takes, in hundredths of a second
    busy: int = 0  #: how often a command changes each host in its course, so that two at a time are seen for sure
    timeout: float = 12.0  #: what a command may take; what hangs is ended then
    look_every: float = 1.0  #: seconds between an idle agent's looks
    freezes: tuple[tuple[float, float], ...] = ()  #: production is frozen from then on, for so many seconds
    bake: float = 0.0  #: for how long health is watched at the end
    expires: float = APPROVALS_EXPIRE  #: seconds within which an approval must be given
    latest: bool = False  #: a newer deployment takes the place of those that have not begun
    told: bool = False  #: somebody is told what becomes of deployments
    chatty: bool = True  #: every change of a journal wakes every agent (SQLite), or only what concerns it (PostgreSQL)
    halted: float | None = None  #: staging is frozen from then on, until production has ended
    undos: tuple[bool, ...] = ()  #: for each step whether there is a way back; none given: for all
    whole: bool = False  #: one step puts everything back, in place of the steps' own
    finishes: bool = False  #: a cancel takes what waits out of the queue; what has begun goes on
    health: bool = True  #: there are health checks
    #: What says which version a host runs: a probe that looks at the host itself, or only the file that says what it
    #: was told (then health checks don't see the version, either), or nothing.
    shown_by: str = "probe"
    forks: bool = False  #: plays change all hosts side by side
    impatient: bool = False  #: who has repaired hosts does not wait until that was checked
    onward: bool = False  #: and may have brought them on to the version that could not be put back, and say so
    late: float = 0.0  #: the longest that a play's command is on its way to a host, in seconds
    alone: bool = False  #: there are no agents but those that commands run by themselves

    @property
    def environments(self) -> tuple[str, ...]:
        """Production, and what else versions are asked for in."""
        return tuple(dict.fromkeys((PRODUCTION, *(version.environment for version in self.versions))))

    @property
    def sees(self) -> bool:
        """Whether what hosts really run is looked at before a deployment ends."""
        return self.shown_by == "probe"
