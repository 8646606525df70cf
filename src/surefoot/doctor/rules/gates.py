# SPDX-License-Identifier: Apache-2.0
"""What waits, and for whom: approvals, freezes, a queue that grows."""

from __future__ import annotations

from collections.abc import Iterator

from surefoot.core.gates import Gate
from surefoot.core.views import rfc3339
from surefoot.core.wording import duration
from surefoot.doctor.facts import EnvironmentFacts, Facts
from surefoot.doctor.findings import Depth, Finding, Severity

#: Seconds: a freeze without an end that is older than this was probably forgotten.
FORGOTTEN = 24 * 3600.0
#: Deployments that wait, and seconds that the first of them has waited, from which a queue is worth a look.
LONG_QUEUE = 3
LONG_WAIT = 15 * 60.0


def approval(facts: Facts) -> Iterator[Finding]:
    """A person has to say yes."""
    for environment in facts.environments:
        for deployment in environment.queued:
            gate = deployment.approvals_gate
            if not deployment.approvals_missing or gate is None:
                continue
            groups = ", ".join(gate.groups) or "anyone"
            until = next((wait.until for wait in deployment.waits if wait.gate is Gate.APPROVAL), None)
            if until is not None and until <= facts.now:
                yield Finding(
                    "approval-expired",
                    Severity.NOTE,
                    Depth.GATES,
                    f"{deployment.id} was not approved in time, and waits for any agent to end it",
                    (f"asked for by {deployment.requested_by}", f"until {rfc3339(until)}"),
                    f"surefoot cancel {deployment.id}",
                    environment=environment.row.name,
                    runbook="queue-growing",
                )
                continue
            yield Finding(
                "approval-waits",
                Severity.NOTE,
                Depth.GATES,
                f"{deployment.id} waits for {deployment.approvals_missing} approval"
                f"{'s' if deployment.approvals_missing != 1 else ''} (of {groups}) since "
                f"{duration(facts.now - deployment.requested_at)}",
                (f"asked for by {deployment.requested_by}", *((f"until {rfc3339(until)}",) if until else ())),
                f"surefoot approve {deployment.id}",
                environment=environment.row.name,
                runbook="queue-growing",
            )


def freeze(facts: Facts) -> Iterator[Finding]:
    """A freeze that somebody waits for, or that has no end and was forgotten."""
    for environment in facts.environments:
        frozen = environment.row.freeze
        if frozen is None or not frozen.in_force(facts.now):
            continue
        age = facts.now - frozen.at
        waiting = [d for d in environment.queued if any(wait.gate is Gate.FREEZE for wait in d.waits)]
        forgotten = frozen.until is None and age > FORGOTTEN
        yield Finding(
            "freeze-forgotten" if forgotten else "frozen",
            Severity.WARNING if forgotten else Severity.NOTE,
            Depth.GATES,
            f"{environment.row.name} is frozen since {duration(age)} by {frozen.by}: {frozen.reason}",
            (
                f"until {rfc3339(frozen.until)}" if frozen.until is not None else "it has no end",
                *((f"{', '.join(d.id for d in waiting)} wait for it",) if waiting else ()),
            ),
            f"surefoot unfreeze {environment.row.name}",
            environment=environment.row.name,
            runbook="queue-growing",
        )


def queue(facts: Facts) -> Iterator[Finding]:
    """Deployments pile up; what they wait for is told by another rule, or is the one that runs."""
    for environment in facts.environments:
        ready = [d for d in environment.queued if not d.approvals_missing and not d.waits]
        if not ready:
            continue
        waited = facts.now - ready[0].requested_at
        if len(ready) < LONG_QUEUE and waited < LONG_WAIT:
            continue
        yield Finding(
            "queue-grows",
            Severity.WARNING,
            Depth.SYMPTOM,
            f"{len(ready)} deployment{'s' if len(ready) != 1 else ''} to {environment.row.name} wait, the first since "
            f"{duration(waited)}",
            (_behind(environment),),
            f"surefoot doctor {ready[0].id}",
            environment=environment.row.name,
            runbook="queue-growing",
        )


def _behind(environment: EnvironmentFacts) -> str:
    if environment.row.locked_by is not None:
        return f"behind the lock of {environment.row.locked_by}"
    if environment.running is not None:
        return f"behind {environment.running.id}, which is {environment.running.status}"
    return "no agent has begun with the first"


RULES = (approval, freeze, queue)
