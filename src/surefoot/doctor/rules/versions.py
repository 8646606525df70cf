# SPDX-License-Identifier: Apache-2.0
"""Which version runs where: stranded environments, and hosts that were changed behind our back."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from surefoot.core.deployment import Deployment
from surefoot.core.errors import Code
from surefoot.core.plan import Playbook
from surefoot.doctor.facts import EnvironmentFacts, Facts
from surefoot.doctor.findings import Depth, Finding, Severity


def stranded(facts: Facts) -> Iterator[Finding]:
    """An environment that a person has to repair: say which host runs what, and what is left to do."""
    for environment in facts.environments:
        if (lock := environment.lock) is None or lock.resolve is not None:
            continue
        evidence = [f"{lock.id}: {lock.outcome.message}"] if lock.outcome is not None else [lock.id]
        evidence += _each(environment)
        if lock.resolve_refused is not None:
            evidence.append(f"the last resolve was refused: {lock.resolve_refused.message}")
        yield Finding(
            "stranded",
            Severity.BROKEN,
            Depth.VERSIONS,
            f"{environment.row.name} is stranded by {lock.id}: locked until a person has repaired it",
            tuple(evidence),
            _repair(environment, lock),
            environment=environment.row.name,
            code=Code.LOCKED,
            runbook="stranded",
        )


def mixed(facts: Facts) -> Iterator[Finding]:
    """No deployment is at work, and hosts run other versions than the journal says."""
    for environment in facts.environments:
        row = environment.row
        if environment.lock is not None or environment.running is not None or not _known(environment):
            continue
        told = [host for host in environment.hosts if host.answered and not host.hides]
        wrong = [host for host in told if host.version != row.current_version]
        if row.current_version is None or not wrong:
            continue
        yield Finding(
            "versions-mixed",
            Severity.BROKEN,
            Depth.VERSIONS,
            f"{row.name}: {', '.join(host.name for host in wrong)} {'does' if len(wrong) == 1 else 'do'} not run "
            f"{row.current_version}, as the journal says",
            tuple(_each(environment)),
            f"surefoot deploy {quote(row.name)} {quote(row.current_version)}",
            environment=row.name,
            code=Code.VERSIONS_MIXED,
            runbook="stranded",
            host=wrong[0].name,
        )


def _known(environment: EnvironmentFacts) -> bool:
    return environment.state_file is not None and any(host.told for host in environment.hosts)


def _each(environment: EnvironmentFacts) -> list[str]:
    """Return which version each host runs, one line for each."""
    if not _known(environment):
        return []
    return [f"{host.name} {host.runs}" for host in environment.hosts]


def _repair(environment: EnvironmentFacts, lock: Deployment) -> str:
    """Return the next thing to do: bring the hosts to one version, or say that they are."""
    resolve = f"surefoot resolve {lock.id} --reason TEXT"
    if not _known(environment):
        return resolve
    if any(host.hides for host in environment.hosts):
        return "look at the hosts as a user who may read their state file, or as root"
    if not all(host.answered for host in environment.hosts):
        return "surefoot doctor again when every host answers: nobody knows yet what the silent ones run"
    versions = {host.version for host in environment.hosts}
    failing = any(found.health and found.result.status == "fail" for found in environment.checks)
    if len(versions) == 1 and not failing:
        return resolve
    wanted = lock.previous_version
    off = [host.name for host in environment.hosts if host.version != wanted]
    playbook = _way_back(lock)
    if len(versions) > 1 and playbook is not None and wanted is not None:
        return (
            f"ansible-playbook -i {environment.inventory} {playbook} --limit {','.join(off)} "
            f"-e surefoot_version={quote(lock.version)} -e surefoot_previous_version={quote(wanted)} && {resolve}"
        )
    if len(versions) > 1:
        return f"bring {', '.join(off)} to {wanted or 'what they ran before'} by hand; then: {resolve}"
    return f"make the health checks pass; then: {resolve}"


def _way_back(lock: Deployment) -> str | None:
    """Return the playbook that puts a host back, if there is just one."""
    works = [lock.plan.rollback] if lock.plan.rollback is not None else [step.undo for step in lock.plan.steps]
    playbooks = [work.playbook for work in works if isinstance(work, Playbook)]
    return quote(playbooks[0]) if len(playbooks) == 1 else None


RULES = (stranded, mixed)
