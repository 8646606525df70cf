# SPDX-License-Identifier: Apache-2.0
"""The rules: pure functions from facts to findings. Each names one cause, and is tested with the fault itself."""

from __future__ import annotations

from surefoot.doctor.facts import Facts
from surefoot.doctor.findings import Finding, ranked
from surefoot.doctor.rules import agents, checks, deployments, gates, hosts, store, versions

_RULES = (
    *store.RULES,
    *agents.RULES,
    *checks.RULES,
    *hosts.RULES,
    *versions.RULES,
    *deployments.RULES,
    *gates.RULES,
)


def diagnose(facts: Facts) -> list[Finding]:
    """Return what is wrong, most likely cause first."""
    focus = facts.focus.environment if facts.focus is not None else None
    return ranked((finding for rule in _RULES for finding in rule(facts)), focus)
