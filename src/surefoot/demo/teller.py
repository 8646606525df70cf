# SPDX-License-Identifier: Apache-2.0
"""How the demo talks: short lines in the present tense, each with its time. Formats, never decides."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TextIO

from surefoot.core import events as ev
from surefoot.core.plan import Direction
from surefoot.core.status import Status
from surefoot.demo.verdict import Finding


class Tone(StrEnum):
    """How a line is meant."""

    PLAIN = ""
    DIM = "\x1b[2m"
    BOLD = "\x1b[1m"
    GOOD = "\x1b[32m"
    BAD = "\x1b[31m"
    DRAMA = "\x1b[1;33m"


#: Characters of a failure that are shown.
LONGEST = 100

_END = "\x1b[0m"
_ENDS = {
    Status.SUCCEEDED: "succeeded: healthy on every host",
    Status.ROLLED_BACK: "rolled back: every host is as it was",
    Status.CANCELLED: "cancelled: every host is as it was",
    Status.FAILED: "refused; nothing was touched",
    Status.STRANDED: "stranded: a person is needed",
    Status.QUEUED: "queued",
    Status.WAITING: "waiting",
    Status.RUNNING: "running",
    Status.ROLLING_BACK: "rolling back",
}


class Teller:
    """Writes the story to a stream."""

    def __init__(self, *, color: bool, out: TextIO | None = None) -> None:
        """Use colour only where asked."""
        self._color = color
        self._out = out or sys.stdout

    def line(self, text: str = "", tone: Tone = Tone.PLAIN, *, at: float | None = None, mark: str = " ") -> None:
        """Write one line; `at`: seconds since the deploy began."""
        clock = f"{at:6.1f} s " if at is not None else ""
        body = self._tinted(text, tone)
        print(f"{self._tinted(clock, Tone.DIM)}{mark} {body}".rstrip() if clock else body, file=self._out, flush=True)

    def act(self, number: int, title: str) -> None:
        """Begin an act."""
        self.line()
        self.line(f"{number}. {title}", Tone.BOLD)

    def command(self, text: str) -> None:
        """Show a command that is run."""
        self.line(f"   $ {text}", Tone.DIM)

    def quote(self, text: str) -> None:
        """Show what a command printed."""
        for line in text.rstrip().splitlines():
            self.line(f"     {line}", Tone.DIM)

    def drama(self, text: str, at: float) -> None:
        """Say what the demo does to the players."""
        self.line(text, Tone.DRAMA, at=at, mark=">")

    def good(self, text: str) -> None:
        """Say what went well."""
        self.line(f"   ✓ {text}", Tone.GOOD)

    def verdict(self, findings: Sequence[Finding]) -> None:
        """Show each promise, and whether it was kept."""
        width = max(len(finding.promise) for finding in findings)
        for finding in findings:
            mark, tone = ("✓", Tone.GOOD) if finding.kept else ("✗", Tone.BAD)
            self.line(f"   {mark} {finding.promise:<{width}}  {finding.evidence}", tone)

    def entry(self, entry: ev.Entry, at: float) -> None:
        """Tell an entry of a journal, if it is worth it."""
        told = _sentence(entry.event, entry.token)
        if told is not None:
            text, tone = told
            self.line(text, tone, at=at)

    def _tinted(self, text: str, tone: Tone) -> str:
        return f"{tone}{text}{_END}" if self._color and tone and text else text


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _sentence(event: ev.Event, token: int | None) -> tuple[str, Tone] | None:
    match event:
        case ev.Accepted(id=name):
            return f"{name} is in the journal: from here on it ends, whatever happens", Tone.PLAIN
        case ev.LeaseGranted(taken_from=None) as granted:
            return f"{granted.agent} takes the lease, token {granted.token}", Tone.PLAIN
        case ev.LeaseGranted() as granted:
            waited = granted.waited_seconds
            after = "" if waited is None else f", {waited:.1f} s after its last sign of life"
            return (
                f"{granted.agent} takes over from {granted.taken_from}{after}; its token is {granted.token}",
                Tone.GOOD,
            )
        case ev.FenceRaised(hosts=hosts):
            return f"{' and '.join(hosts)} obey token {token} only from now on", Tone.PLAIN
        case ev.StepStarted(step=step, direction=direction, attempt=attempt):
            again = f" (attempt {attempt})" if attempt > 1 else ""
            return f"{'undo ' if direction is Direction.UNDO else ''}{step} begins{again}", Tone.PLAIN
        case ev.StepFailed(step=step, failure=failure) | ev.StepInterrupted(step=step, cause=str() as failure):
            return f"{step} ends early: {getattr(failure, 'message', failure)}", Tone.BAD
        case ev.HealthPassed():
            return "health checks pass on every host", Tone.GOOD
        case ev.HealthFailed(failure=failure):
            return f"health check fails: {_short(failure.message)}", Tone.BAD
        case ev.CancelRequested():
            return "the request to cancel is in the journal", Tone.PLAIN
        case ev.UndoStarted():
            return "no way forward: putting everything back", Tone.PLAIN
        case ev.VersionsRecorded(version=version):
            return f"asked which version they run, all hosts say {version}", Tone.PLAIN
        case ev.Finished(status=status):
            bad = status in (Status.FAILED, Status.STRANDED)
            return _ENDS[status], Tone.BAD if bad else Tone.GOOD
        case _:
            return None
