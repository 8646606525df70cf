# SPDX-License-Identifier: Apache-2.0
"""How a deployment ended, on one screen of Markdown: for the summary of a CI's run."""

from __future__ import annotations

from collections.abc import Sequence

from surefoot.core import events as ev
from surefoot.core.deployment import Deployment, StepRun, fold
from surefoot.core.plan import Direction
from surefoot.core.sentences import told
from surefoot.core.status import Status, StepStatus
from surefoot.core.wording import duration
from surefoot.reports import preflight
from surefoot.reports import story as tell
from surefoot.reports.markdown import code, inline, link, table

_SIGNS = {
    Status.SUCCEEDED: "✅",
    Status.FAILED: "⚠️",
    Status.ROLLED_BACK: "❌",
    Status.CANCELLED: "⚠️",
    Status.STRANDED: "❌",
}
_STEP_SIGNS = {StepStatus.SUCCEEDED: "✅", StepStatus.FAILED: "❌", StepStatus.INTERRUPTED: "⚠️"}


def markdown(entries: Sequence[ev.Entry]) -> str:
    """Return the outcome: what, who ran it and why they were chosen, each step, what failed, what comes next."""
    state = fold(entries)
    sign = _SIGNS.get(state.status, "⏳")
    parts = [
        f"### {sign} {inline(tell.headline(state, tell.final(state)))}",
        table(("", ""), [(f"**{name}**", value) for name, value in _facts(state, entries) if value]),
        _preflight(entries),
        table(("", "step", "tries", "took"), [_step(run) for run in state.steps]),
    ]
    if state.status is not Status.SUCCEEDED:
        parts += [f"**{failure.code}** {inline(told(failure))}" for failure in tell.failures(state)]
        parts.append("\n".join(f"- {inline(text)}" for text in tell.next_steps(state)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _preflight(entries: Sequence[ev.Entry]) -> str:
    """Return the table of the preflight checks that ran last."""
    found = (e.event for e in reversed(entries) if isinstance(e.event, ev.PreflightPassed | ev.PreflightFailed))
    event = next(found, None)
    return preflight.rows(event.checks) if event is not None and event.checks else ""


def _facts(state: Deployment, entries: Sequence[ev.Entry]) -> list[tuple[str, str]]:
    took = (state.finished_at or state.last_at) - (state.started_at or state.requested_at)
    deliveries = [
        link(f"{event.target}: {event.what}", event.where) if event.where else inline(f"{event.target}: {event.what}")
        for event in state.deliveries
    ]
    return [
        ("Deployment", code(state.id)),
        ("Version", f"{code(state.version)}, before: {code(state.previous_version or 'none')}"),
        ("Runs on", "<br>".join(inline(agent) for agent in tell.agents(entries))),
        ("Took", duration(took)),
        ("Commit", code(state.commit or "")),
        ("Now", inline(tell.runs_now(state))),
        ("Told", "<br>".join(deliveries)),
    ]


def _step(run: StepRun) -> tuple[str, str, str, str]:
    name = f"undo of {run.name}" if run.direction is Direction.UNDO else run.name
    took = ""
    if run.started_at is not None and run.finished_at is not None:
        took = duration(run.finished_at - run.started_at)
    return _STEP_SIGNS.get(run.status, ""), inline(name), str(run.attempt or ""), took
