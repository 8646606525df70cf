# SPDX-License-Identifier: Apache-2.0
"""An incident in Markdown: all that the person who is called needs, in the order in which it is needed.

Guarantees: it fits into a GitHub issue, whatever the log and the journal hold: the middle of the timeline and the
oldest lines are left out, and that is said. It begins with a marker, by which it is found again.
"""

from __future__ import annotations

from surefoot.core.deployment import Deployment
from surefoot.core.errors import Failure
from surefoot.core.sentences import told
from surefoot.core.targets import Moment
from surefoot.core.wording import duration
from surefoot.reports import story as tell
from surefoot.reports.markdown import block, code, inline, link, table
from surefoot.reports.story import Story

#: GitHub takes 65,536 characters; titles end at 256.
LONGEST_BODY = 60_000
LONGEST_TITLE = 250
#: Lines of the log that are shown, and how long one may be.
LINES = 50
LONGEST_LINE = 500
#: Entries of the timeline that are shown whole; of a longer one, the first and the last ones.
ENTRIES = 80
#: Commits that are shown.
COMMITS = 30


def marker(story: Story, of: int | None = None) -> str:
    """Return the hidden first line of an issue, or of the comment on one entry."""
    entry = "" if of is None else f"#{of}"
    return f"<!-- surefoot:{story.store}:{story.state.id}{entry} -->"


def title(story: Story) -> str:
    """Return the issue's title."""
    text = tell.headline(story.state, story.moment)
    return text if len(text) <= LONGEST_TITLE else text[: LONGEST_TITLE - 1] + "…"


def body(story: Story, runbook: str = "") -> str:
    """Return the issue's text."""
    state = story.state
    parts = [
        marker(story),
        f"**{inline(tell.headline(state, story.moment))}.** {inline(tell.runs_now(state))}",
        table(("", ""), _facts(story)),
        *(_failure(failure) for failure in tell.failures(state)),
        "## What to do next\n\n" + _next(state, runbook),
        "## What Surefoot did\n\n" + "\n".join(f"- {inline(text)}" for text in tell.done(state)),
        _timeline(story),
        _commits(state),
    ]
    text = "\n\n".join(part for part in parts if part)[: LONGEST_BODY - 2_000]
    return text + "\n\n" + _log(story, LONGEST_BODY - len(text) - 100)


def comment(story: Story) -> str:
    """Return the text of a comment on what has happened since."""
    state, entry = story.state, story.entry
    when, _, what = tell.timeline((entry,))[0]
    parts = [marker(story, entry.seq), f"**{inline(what)}** ({when} UTC)"]
    if story.moment is Moment.RESOLVED:
        parts.append(f"{inline(tell.runs_now(state))} " + _next(state, ""))
    return "\n\n".join(parts)


def _facts(story: Story) -> list[tuple[str, str]]:
    state = story.state
    origin = state.origin
    commit = code(state.commit or "")
    if origin is not None and origin.since:
        commit += f" (before: {code(origin.since)})"
    first = state.cause or state.outcome
    run = link(origin.run_url, origin.run_url) if origin is not None and origin.run_url else ""
    took = duration((state.finished_at or state.last_at) - state.requested_at)
    facts = [
        ("Deployment", code(state.id)),
        ("Version", f"{code(state.version)}, before: {code(state.previous_version or 'none')}"),
        ("Asked for by", inline(state.requested_by) + (f" ({inline(state.reason)})" if state.reason else "")),
        ("Run", run),
        ("Commit", commit),
        ("Failing step", code(first.step or "") if first else ""),
        ("Host", code(first.host or "") if first else ""),
        ("Agents", "<br>".join(inline(agent) for agent in tell.agents(story.entries))),
        ("Took", took),
    ]
    return [(f"**{name}**", value) for name, value in facts if value]


def _failure(failure: Failure) -> str:
    text = f"**{code(failure.code)}** {inline(told(failure))}"
    if failure.hint:
        text += f"  \n*Hint:* {inline(failure.hint)}"
    if failure.evidence:
        lines = failure.evidence.splitlines()[-10:]
        text += "\n\n" + block([line[:LONGEST_LINE] for line in lines])
    return text


def _next(state: Deployment, runbook: str) -> str:
    steps = []
    for text in tell.next_steps(state):
        sentence, colon, command = text.partition(": surefoot ")
        steps.append(f"1. {inline(sentence)}" + (f": {code(f'surefoot {command}')}" if colon else ""))
    if runbook:
        steps.append(f"1. {link('the runbook', runbook)}: {inline(runbook)}")
    return "\n".join(steps)


def _timeline(story: Story) -> str:
    rows = [(when, since, inline(what)[:LONGEST_LINE]) for when, since, what in tell.timeline(story.entries)]
    if len(rows) > ENTRIES:
        left_out = len(rows) - ENTRIES
        rows = [*rows[: ENTRIES // 2], ("…", "", f"{left_out} entries are left out"), *rows[-ENTRIES // 2 :]]
    return "## Timeline (UTC)\n\n" + table(("when", "", "what"), rows)


def _commits(state: Deployment) -> str:
    if state.origin is None or not state.origin.changes:
        return ""
    listed = state.origin.changes
    rows = [f"- {code(c.commit[:12])} {inline(c.subject)[:200]} ({inline(c.author)})" for c in listed[:COMMITS]]
    if len(listed) > COMMITS:
        rows.append(f"- … and {len(listed) - COMMITS} more")
    authors = ", ".join(dict.fromkeys(inline(change.author) for change in listed))
    return f"## Commits, by {authors}\n\n" + "\n".join(rows)


def _log(story: Story, room: int) -> str:
    lines = [line[:LONGEST_LINE] for line in story.lines[-LINES:]]
    while lines and len("\n".join(lines)) > room - 200:
        lines = lines[1:]
    if not lines:
        return "## Log\n\nNothing was printed."
    return f"## Log, the last {len(lines)} lines\n\n{block(lines)}"
