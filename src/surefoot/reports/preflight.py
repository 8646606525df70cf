# SPDX-License-Identifier: Apache-2.0
"""The preflight checks as a table in Markdown, with a fix for each that failed: for the summary of a CI's run."""

from __future__ import annotations

from collections.abc import Sequence

from surefoot.core.events import Checked
from surefoot.core.wording import duration
from surefoot.reports.markdown import inline, table

SIGNS = {"pass": "✅", "fail": "❌", "warn": "⚠️", "skip": "⏭️"}


def markdown(checks: Sequence[Checked], title: str) -> str:
    """Return a heading, which says how many failed, and the table."""
    failed = sum(check.status == "fail" for check in checks)
    said = f"{failed} of {len(checks)} failed" if failed else "passed"
    heading = f"### {SIGNS['fail' if failed else 'pass']} {inline(title)}: {said}"
    return f"{heading}\n\n{rows(checks)}\n" if checks else f"{heading}\n"


def rows(checks: Sequence[Checked]) -> str:
    """Return the table alone."""
    return table(("", "check", "result", "fix", "took"), map(_row, checks))


def _row(check: Checked) -> tuple[str, str, str, str, str]:
    name = f"{check.name} on {check.host}" if check.host else check.name
    fix = check.hint if check.status in ("fail", "warn") else ""
    return (
        SIGNS.get(check.status, ""),
        inline(name),
        inline(check.message),
        inline(fix),
        duration(check.duration_seconds),
    )
