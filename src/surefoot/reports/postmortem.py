# SPDX-License-Identifier: Apache-2.0
"""A post-mortem to begin with: what the journal knows is filled in, what only people know is asked.

Guarantees: times, agents, failures and what was done are the journal's; it blames nobody, and says so.
"""

from __future__ import annotations

from typing import Any

from surefoot.core import events as ev
from surefoot.core import views
from surefoot.core.summary import summarise
from surefoot.core.wording import duration
from surefoot.reports import story as tell
from surefoot.reports.markdown import block, code, inline, link, table
from surefoot.reports.story import Story

QUESTIONS = (
    "What did users notice, for how long, and how do we know?",
    "Which check could have found this before anything was touched?",
    "What made it take as long as it did: to notice, to decide, to put back?",
    "What went well, and what was luck?",
    "What is changed so that this does not happen again, by whom, until when?",
)


def facts(story: Story) -> dict[str, Any]:
    """Return the post-mortem as JSON."""
    state = story.state
    started = state.started_at or state.requested_at
    undo = next((entry.at for entry in story.entries if isinstance(entry.event, ev.UndoStarted)), None)
    resolved = next((entry.at for entry in story.entries if isinstance(entry.event, ev.Resolved)), None)
    end = resolved or state.finished_at
    return {
        "deployment": views.row(summarise(state), state.plan.project),
        "run_url": state.origin.run_url if state.origin is not None else "",
        "failures": [views.reason(failure) for failure in tell.failures(state)],
        "time_to_detect_seconds": None if undo is None else undo - started,
        "time_to_restore_seconds": None if undo is None or end is None else end - undo,
        "takeovers": [_takeover(entry) for entry in story.entries if _is_takeover(entry)],
        "agents": tell.agents(story.entries),
        "done": tell.done(state),
        "runs_now": tell.runs_now(state),
        "timeline": [
            {"at": views.rfc3339(entry.at), "type": ev.type_of(entry.event), "text": text}
            for entry, (_, _, text) in zip(_told(story), tell.timeline(story.entries), strict=True)
        ],
        "commits": [
            {"commit": change.commit, "author": change.author, "subject": change.subject}
            for change in (state.origin.changes if state.origin is not None else ())
        ],
        "told": [{"target": told.target, "what": told.what, "where": told.where} for told in state.deliveries],
        "questions": list(QUESTIONS),
    }


def markdown(story: Story) -> str:
    """Return the post-mortem as a page to go on with."""
    state, known = story.state, facts(story)
    issue = next((told for told in state.deliveries if told.where), None)
    rows = [
        ("Deployment", code(state.id)),
        ("Version", f"{code(state.version)}, before: {code(state.previous_version or 'none')}"),
        ("Asked for by", inline(state.requested_by)),
        ("Run", link(known["run_url"], known["run_url"]) if known["run_url"] else ""),
        ("Incident", link(issue.where, issue.where) if issue is not None else ""),
        ("From the start to the decision to put it back", _seconds(known["time_to_detect_seconds"])),
        ("From that decision to the end", _seconds(known["time_to_restore_seconds"])),
        ("Takeovers", "; ".join(inline(text) for text in known["takeovers"])),
        ("Now", inline(known["runs_now"])),
    ]
    commits = [
        f"- {code(change['commit'][:12])} {inline(change['subject'])} ({inline(change['author'])})"
        for change in known["commits"]
    ]
    timeline = [(when, since, inline(what)) for when, since, what in tell.timeline(story.entries)]
    parts = [
        f"# Post-mortem: {inline(tell.headline(state, tell.final(state)))}",
        "Written to learn from, not to blame: people did what made sense with what they knew.",
        table(("", ""), [(f"**{name}**", value) for name, value in rows if value]),
        "## What failed",
        *(_failure(failure) for failure in tell.failures(state)),
        "## What Surefoot did",
        "\n".join(f"- {inline(text)}" for text in known["done"]),
        "## Timeline (UTC)",
        table(("when", "", "what"), timeline),
        "## Commits" if commits else "",
        "\n".join(commits),
        "## To be answered",
        "\n\n".join(f"**{question}**\n\n…" for question in QUESTIONS),
        "## The log's last lines" if story.lines else "",
        block(story.lines) if story.lines else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _told(story: Story) -> list[ev.Entry]:
    return [entry for entry in story.entries if not isinstance(entry.event, ev.Delivered | ev.DeliveryFailed)]


def _is_takeover(entry: ev.Entry) -> bool:
    return isinstance(entry.event, ev.LeaseGranted) and entry.event.taken_from is not None


def _takeover(entry: ev.Entry) -> str:
    event = entry.event
    assert isinstance(event, ev.LeaseGranted)
    after = "" if event.waited_seconds is None else f" after {duration(event.waited_seconds)}"
    return f"{event.agent} from {event.taken_from}{after}"


def _failure(failure: Any) -> str:
    text = f"**{failure.code}** {inline(failure.message)}"
    return f"{text}\n\n{block(failure.evidence.splitlines())}" if failure.evidence else text


def _seconds(value: float | None) -> str:
    return "" if value is None else duration(value)
