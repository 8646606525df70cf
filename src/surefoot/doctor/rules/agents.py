# SPDX-License-Identifier: Apache-2.0
"""Agents, and the CI's own runner: who is there, who is not, and why.

The store knows whether an agent's process is gone and when it was last heard of; processes on this machine tell the
rest. One that the store has not heard of, and that is not here, may be frozen or cut off: only its machine knows.
"""

from __future__ import annotations

from collections.abc import Iterator

from surefoot.core.errors import Code
from surefoot.core.lease import AgentStatus
from surefoot.doctor.facts import AgentProcess, Facts, Unit
from surefoot.doctor.findings import Depth, Finding, Severity
from surefoot.store.protocol import AgentRow


def nobody_left(facts: Facts) -> bool:
    """Whether no agent could take work, where agents elsewhere do it."""
    return facts.store.trouble is None and facts.has_agents and not any(row.status.able for row in facts.agents)


def _severity(facts: Facts) -> Severity:
    return Severity.BROKEN if nobody_left(facts) else Severity.WARNING


def _processes(facts: Facts, name: str) -> list[AgentProcess]:
    return [process for process in facts.processes if process.name == name]


def start_of(facts: Facts, name: str) -> str:
    """Return the command that starts an agent, and where: a machine that is another agent's is not this one's."""
    units = {unit.agent: unit.name for unit in facts.units if unit.agent}
    if unit := units.get(name):
        return f"systemctl restart {unit}"
    others = sorted({process.name for process in facts.processes if process.name != name} | units.keys())
    there = f"on the machine of {name}: " if others else ""
    like = next((units[other].replace(other, name) for other in others if other in units), None)
    return f"{there}systemctl restart {like}" if like else f"{there}surefoot agent run {name}"


def frozen(facts: Facts) -> Iterator[Finding]:
    """A stopped process keeps its connection and does nothing; SIGCONT wakes it, and it gives up what it has lost."""
    for process in facts.processes:
        if process.frozen and process.here is not False:
            yield Finding(
                "agent-frozen",
                _severity(facts),
                Depth.AGENTS,
                f"agent {process.name} is frozen: its process {process.pid} on {facts.here} is stopped",
                (f"state T of process {process.pid}", *_seen(facts, process.name)),
                f"kill -CONT {process.pid}",
                agent=process.name,
                runbook="runner-offline",
            )


def duplicate(facts: Facts) -> Iterator[Finding]:
    """The second one of a name is refused; which of the two should be there, a person knows."""
    for unit in facts.units:
        if _elsewhere(facts, unit):
            yield Finding(
                "agent-duplicate",
                Severity.WARNING,
                Depth.AGENTS,
                f"another machine runs an agent of the name {unit.agent}, so {unit.name} of {facts.here} is refused",
                (f"{unit.name} is {unit.active} ({unit.sub})", *_seen(facts, unit.agent)),
                f"on every other machine that runs agents: pgrep -af 'agent run {unit.agent}'; end it there, "
                f"then here: systemctl restart {unit.name}",
                agent=unit.agent,
                code=Code.AGENT_DUPLICATE,
                runbook="runner-offline",
            )
    for name in dict.fromkeys(process.name for process in facts.processes):
        same = [process for process in _processes(facts, name) if process.here is not False]
        if len(same) > 1:
            pids = ", ".join(str(process.pid) for process in same)
            one = next((process for process in same if process.frozen), same[-1])
            yield Finding(
                "agent-duplicate",
                Severity.WARNING,
                Depth.AGENTS,
                f"{len(same)} processes on {facts.here} run an agent of the name {name}",
                (f"processes {pids}",),
                f"kill {'-KILL ' if one.frozen else ''}{one.pid}",  # a stopped process takes no other signal
                agent=name,
                code=Code.AGENT_DUPLICATE,
                runbook="runner-offline",
            )


def offline(facts: Facts) -> Iterator[Finding]:
    """One that has ended, and one that nobody has heard of, want different things."""
    for row in facts.agents:
        name = row.report.name
        if row.status is not AgentStatus.OFFLINE or name in facts.emergency or _known_here(facts, name):
            continue
        if facts.configured and name not in facts.configured:
            continue  # one that came for a while
        gone = row.reason in ("its process is gone", "stopped")
        title = (
            f"agent {name} has ended ({row.reason})"
            if gone
            else f"agent {name} is frozen, off or cut off: {row.reason}"
        )
        fix = start_of(facts, name) if gone else "power its machine on, if it is off; else on it: surefoot doctor"
        yield Finding(
            "agent-ended" if gone else "agent-silent",
            _severity(facts),
            Depth.AGENTS,
            title,
            (*_seen(facts, name), *_strangers(facts, name)),
            fix,
            agent=name,
            runbook="both-runners-offline" if nobody_left(facts) else "runner-offline",
        )


def never_came(facts: Facts) -> Iterator[Finding]:
    """The config counts on an agent that has never reported."""
    if facts.store.trouble is not None:
        return
    known = {row.report.name for row in facts.agents}
    for name in facts.configured:
        if name not in known and name not in facts.emergency and not _known_here(facts, name):
            yield Finding(
                "agent-never-came",
                _severity(facts),
                Depth.AGENTS,
                f"agent {name} of the config has never reported to this store",
                (f"the store is {facts.store.where}", *_strangers(facts, name)),
                start_of(facts, name),
                agent=name,
                runbook="runner-offline",
            )


def unfit(facts: Facts) -> Iterator[Finding]:
    """A degraded one takes work when no other is there; a draining one never does."""
    for row in facts.agents:
        name = row.report.name
        if row.status is AgentStatus.DEGRADED:
            yield Finding(
                "agent-degraded",
                Severity.WARNING,
                Depth.AGENTS,
                f"agent {name} is degraded: {row.reason}",
                _vitals(row),
                f"on the machine of {name}: ps aux --sort=-%mem | head; df -h",
                agent=name,
                runbook="runner-degraded",
            )
        elif row.status is AgentStatus.DRAINING:
            alone = nobody_left(facts)
            yield Finding(
                "agent-draining",
                Severity.BROKEN if alone else Severity.NOTE,
                Depth.AGENTS,
                f"agent {name} is drained: it takes no work" + (", and no other is there" if alone else ""),
                _seen(facts, name),
                f"surefoot agent undrain {name}",
                agent=name,
                runbook="queue-growing",
            )


def nobody(facts: Facts) -> Iterator[Finding]:
    """With no agent at all, an emergency one can be started from anywhere."""
    if not nobody_left(facts):
        return
    waiting = [e for e in facts.environments if e.running is not None or e.queued]
    yield Finding(
        "no-agent",
        Severity.BROKEN if waiting else Severity.WARNING,
        Depth.SYMPTOM,
        "no agent can take work" + (": deployments wait" if waiting else ""),
        tuple(f"{row.report.name}: {row.status} ({row.reason})" for row in facts.agents) or ("none ever reported",),
        "surefoot agent run emergency --role emergency",
        runbook="both-runners-offline",
    )


def services(facts: Facts) -> Iterator[Finding]:
    """A machine may be up while the service on it is down: CI's jobs wait then."""
    for unit in facts.units:
        if unit.active in ("active", "activating", "reloading") and unit.sub != "auto-restart":
            continue
        if unit.agent and any(row.report.name == unit.agent and not row.status.able for row in facts.agents):
            continue  # told as the agent
        if _elsewhere(facts, unit):
            continue  # told as a duplicate
        ours = unit.name.startswith("surefoot")
        yield Finding(
            "service-down",
            Severity.WARNING,
            Depth.AGENTS,
            f"the service {unit.name} on {facts.here} is {unit.active} ({unit.sub})"
            + ("" if ours else ": CI's jobs for this runner wait"),
            (f"systemctl status {unit.name}",),
            f"systemctl restart {unit.name}",
            runbook="runner-offline",
        )


def _known_here(facts: Facts, name: str) -> bool:
    return any(process.here is not False for process in _processes(facts, name))


def _elsewhere(facts: Facts, unit: Unit) -> bool:
    """Whether a service does not run while its agent does: on another machine then."""
    able = any(row.report.name == unit.agent and row.status.able for row in facts.agents)
    return able and unit.active in ("failed", "inactive", "activating") and not _known_here(facts, unit.agent)


def _strangers(facts: Facts, name: str) -> tuple[str, ...]:
    """Return what may be the same agent, started with another store or config: it waits for work that never comes."""
    return tuple(
        f"process {process.pid} on {facts.here} runs an agent of that name with another store or config"
        for process in _processes(facts, name)
        if process.here is False
    )


def _seen(facts: Facts, name: str) -> tuple[str, ...]:
    for row in facts.agents:
        if row.report.name == name:
            return (f"last heard of {max(0.0, facts.now - row.last_seen_at):.0f} s ago", *_vitals(row))
    return ()


def _vitals(row: AgentRow) -> tuple[str, ...]:
    report = row.report
    return (
        f"CPU {report.cpu_percent:.0f} %, memory {report.memory_percent:.0f} %, disk {report.disk_percent:.0f} %",
        *((f"it was at work on {report.running}",) if report.running else ()),
    )


RULES = (frozen, duplicate, offline, never_came, unfit, nobody, services)
