# SPDX-License-Identifier: Apache-2.0
"""A comment for Jira: what was deployed, when, with what result, and the evidence; as text and as a document.

The document is Atlassian's format (ADF) and keeps to few of its nodes: paragraphs, lists, code, a table. It is one and
the same content as the text.
"""

from __future__ import annotations

from typing import Any

from surefoot.core.deployment import Deployment
from surefoot.core.plan import Direction
from surefoot.core.views import rfc3339
from surefoot.core.wording import duration
from surefoot.reports import story as tell
from surefoot.reports.story import Story

Node = dict[str, Any]
#: Rows of steps and lines of evidence; Jira ends comments at 32,767 characters.
STEPS = 50
LINES = 15
LONGEST_LINE = 300


def facts(story: Story) -> list[tuple[str, str]]:
    """Return what the comment says, by name."""
    state = story.state
    origin = state.origin
    finished = rfc3339(state.finished_at)
    rows = [
        ("Result", str(state.status)),
        ("Environment", state.environment),
        ("Version", f"{state.version} (before: {state.previous_version or 'none'})"),
        ("Commit", state.commit or ""),
        ("Deployment", state.id),
        ("Asked for by", state.requested_by),
        ("Finished", finished or "not yet"),
        ("Took", duration((state.finished_at or state.last_at) - (state.started_at or state.requested_at))),
        ("Run", origin.run_url if origin is not None else ""),
        ("Agents", "; ".join(tell.agents(story.entries))),
        ("Why", "; ".join(f"{failure.code}: {failure.message}" for failure in tell.failures(state))),
        ("Now", tell.runs_now(state)),
    ]
    return [(name, value) for name, value in rows if value]


def evidence(state: Deployment) -> list[tuple[str, str]]:
    """Return what was tested and what came of it: the steps and the health checks."""
    rows = [
        (f"{'undo of ' if run.direction is Direction.UNDO else ''}{run.name}", f"{run.status}, {run.attempt} tries")
        for run in state.steps[:STEPS]
    ]
    if state.healthy is not None:
        rows.append(("health checks", "passed" if state.healthy else "failed"))
    if state.recorded is not None:
        rows.append(("one version on all hosts", "yes" if state.recorded else "no"))
    return rows


def text(story: Story) -> str:
    """Return the comment as plain text."""
    state = story.state
    lines = [tell.headline(state, tell.final(state)), ""]
    lines += [f"{name}: {value}" for name, value in facts(story)]
    lines += ["", "Evidence:"] + [f"  {name}: {value}" for name, value in evidence(state)]
    if state.origin is not None and state.origin.changes:
        lines += ["", "Commits:"] + [f"  {c.commit} {c.subject} ({c.author})" for c in state.origin.changes]
    return "\n".join(lines) + "\n"


def document(story: Story) -> Node:
    """Return the comment as an Atlassian document."""
    state = story.state
    content = [
        _paragraph(_text(tell.headline(state, tell.final(state)), strong=True)),
        _table([(name, [_value(value)]) for name, value in facts(story)]),
        _paragraph(_text("Evidence", strong=True)),
        _table([(name, [_text(value)]) for name, value in evidence(state)]),
    ]
    if state.origin is not None and state.origin.changes:
        items = [[_text(c.commit[:12], code=True), _text(f" {c.subject} ({c.author})")] for c in state.origin.changes]
        content += [_paragraph(_text("Commits", strong=True)), _list(items)]
    if lines := [line[:LONGEST_LINE] for line in story.lines[-LINES:] if tell.failures(state)]:
        content.append({"type": "codeBlock", "content": [_text("\n".join(lines) or " ")]})
    return {"version": 1, "type": "doc", "content": content}


def _text(text: str, *, strong: bool = False, code: bool = False, href: str = "") -> Node:
    marks: list[Node] = []
    if strong:
        marks.append({"type": "strong"})
    if code:
        marks.append({"type": "code"})
    if href:
        marks.append({"type": "link", "attrs": {"href": href}})
    node: Node = {"type": "text", "text": text or " "}
    return {**node, "marks": marks} if marks else node


def _value(value: str) -> Node:
    return _text(value, href=value) if value.startswith(("https://", "http://")) and " " not in value else _text(value)


def _paragraph(*content: Node) -> Node:
    return {"type": "paragraph", "content": list(content)}


def _table(rows: list[tuple[str, list[Node]]]) -> Node:
    return {
        "type": "table",
        "content": [
            {
                "type": "tableRow",
                "content": [
                    {"type": "tableHeader", "content": [_paragraph(_text(name))]},
                    {"type": "tableCell", "content": [_paragraph(*value)]},
                ],
            }
            for name, value in rows
        ],
    }


def _list(items: list[list[Node]]) -> Node:
    return {"type": "bulletList", "content": [{"type": "listItem", "content": [_paragraph(*item)]} for item in items]}
