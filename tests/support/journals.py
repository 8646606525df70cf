# SPDX-License-Identifier: Apache-2.0
"""Deployments of one command, folded from the events of their journals."""

from __future__ import annotations

from surefoot.core import events as ev
from surefoot.core.deployment import Deployment, accept, fold
from surefoot.core.gates import Gates
from surefoot.core.plan import Command, Plan, Step


def deployment(gates: Gates, number: int = 1, at: float = 0.0, **more: object) -> Deployment:
    """Return one that eve has asked for, to prod."""
    plan = Plan(project="p", environment="prod", steps=(Step("go", Command("true")),), gates=gates)
    event = ev.Accepted(f"prod-{number}", "prod", number, f"{number}.0", plan, requested_by="eve", **more)
    return accept(ev.Entry(1, at, event))


def add(state: Deployment, at: float, *events: ev.Event) -> Deployment:
    """Return the state after these events, all at one time."""
    return fold([ev.Entry(state.seq + place, at, event) for place, event in enumerate(events, 1)], state)
