# SPDX-License-Identifier: Apache-2.0
"""The live view on a terminal: what has happened above, the steps as they are below.

Guarantees: nothing that a step, a version or a reason says is taken for markup or moves the cursor.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from surefoot.api.follow import Update
from surefoot.cli.console import Console
from surefoot.cli.text import clean, duration
from surefoot.cli.views.plain import clock, in_order
from surefoot.core import events as ev
from surefoot.core.deployment import Deployment, StepRun
from surefoot.core.events import Entry
from surefoot.core.plan import Direction
from surefoot.core.sentences import sentence
from surefoot.core.status import StepStatus
from surefoot.store.protocol import LogLine

_MARKS = {
    StepStatus.PENDING: ("·", "dim"),
    StepStatus.RUNNING: ("▸", "cyan"),
    StepStatus.SUCCEEDED: ("✓", "green"),
    StepStatus.FAILED: ("✗", "red"),
    StepStatus.INTERRUPTED: ("⚡", "magenta"),
    StepStatus.SKIPPED: ("-", "dim"),
}
#: Lines of a failed attempt's output that stay on the screen.
TAIL = 15
_KEPT_ABOVE = (
    ev.Accepted,
    ev.Waiting,
    ev.ApprovalGiven,
    ev.Rejected,
    ev.Superseded,
    ev.BakeStarted,
    ev.BakeFailed,
    ev.LeaseGranted,
    ev.HandedOver,
    ev.PreflightFailed,
    ev.FenceFailed,
    ev.NotBegun,
    ev.StepFailed,
    ev.StepInterrupted,
    ev.HealthFailed,
    ev.VersionsMixed,
    ev.CancelRequested,
    ev.UndoStarted,
    ev.ResolveRequested,
    ev.ResolveRefused,
    ev.Resolved,
)


class _Terminal(RichConsole):
    """A terminal that may go away: rich would end the whole program then."""

    def on_broken_pipe(self) -> None:
        """Show no more."""
        self.quiet = True


class LiveView:
    """See the module's docstring."""

    def __init__(self, console: Console) -> None:
        """Draw on the terminal behind stderr."""
        self._state: Deployment | None = None
        self._at = 0.0
        self._tail: list[str] = []  # what the running step has printed last
        self._spinner = Spinner("dots")
        self._rich = _Terminal(file=sys.stderr, no_color=not console.colors, highlight=False, markup=False, emoji=False)
        self._live = Live(console=self._rich, get_renderable=self._render, auto_refresh=False)
        with suppress(OSError, ValueError):
            self._live.start()

    def update(self, update: Update) -> None:
        """Redraw with what is new."""
        import time

        with suppress(OSError, ValueError):
            self._state = update.state
            for item in in_order(update):
                if isinstance(item, Entry):
                    self._entry(item)
                else:
                    self._line(item)
            if update.entries:
                self._at = time.monotonic()
            self._live.refresh()

    def say(self, text: str) -> None:
        """Print a sentence above."""
        with suppress(OSError, ValueError):
            self._rich.print(Text(clean(text), style="yellow"))

    def close(self) -> None:
        """Leave the last picture on the screen."""
        with suppress(OSError, ValueError):
            self._live.stop()

    # -- what is new ---------------------------------------------------------------------------------

    def _entry(self, entry: Entry) -> None:
        if isinstance(entry.event, ev.StepStarted):
            self._tail.clear()
        if isinstance(entry.event, ev.StepFailed):
            for last in self._tail:
                self._rich.print(Text(f"         │ {last}", style="dim"))
            self._tail.clear()
        if isinstance(entry.event, _KEPT_ABOVE):
            line = Text(f"{clock(entry.at)} ", style="dim")
            line.append(clean(sentence(entry)), style=_style(entry.event))
            self._rich.print(line)

    def _line(self, line: LogLine) -> None:
        text = clean(line.text)
        if line.stream != "agent" and text.strip():
            self._tail = [*self._tail[-TAIL + 1 :], text]

    # -- the picture ---------------------------------------------------------------------------------

    def _render(self) -> RenderableType:
        state = self._state
        if state is None:
            return Text("")
        return Group(self._head(state), *(self._step(state, run) for run in state.steps))

    def _head(self, state: Deployment) -> RenderableType:
        import time

        since = state.started_at or state.requested_at
        until = state.finished_at or state.last_at + (time.monotonic() - self._at)
        parts = [f"{state.previous_version or 'none'} → {state.version}", str(state.status).replace("_", " ")]
        parts += [wait.message for wait in state.waits]
        if state.agent:
            parts.append(f"on {state.agent}")
        if state.takeovers:
            parts.append(f"{state.takeovers} takeover{'s' * (state.takeovers != 1)}")
        parts.append(duration(until - since))
        line = Text(clean(f"{state.id}  "), style="bold")
        line.append(clean("  ·  ".join(parts)), style="not bold")
        if state.status.terminal:
            return line
        self._spinner.update(text=line)
        return self._spinner

    def _step(self, state: Deployment, run: StepRun) -> RenderableType:
        mark, style = _MARKS[run.status]
        name = f"undo {run.name}" if run.direction is Direction.UNDO else run.name
        text = Text(f"  {mark} ", style=style)
        text.append(clean(name), style="" if run.status is not StepStatus.PENDING else "dim")
        if run.attempt > 1:
            text.append(f"  attempt {run.attempt}", style="yellow")
        if run.started_at is not None and run.finished_at is not None:
            text.append(f"  {duration(run.finished_at - run.started_at)}", style="dim")
        if run.status is not StepStatus.RUNNING or not self._tail:
            return text
        return Group(text, Text(f"       {self._tail[-1]}", no_wrap=True, overflow="ellipsis"))


def _style(event: ev.Event) -> str:
    match event:
        case ev.StepFailed() | ev.HealthFailed() | ev.FenceFailed() | ev.VersionsMixed() | ev.PreflightFailed():
            return "red"
        case ev.BakeFailed() | ev.NotBegun() | ev.Rejected():
            return "red"
        case ev.LeaseGranted(taken_from=str()) | ev.UndoStarted() | ev.StepInterrupted() | ev.HandedOver():
            return "yellow"
        case ev.Waiting():
            return "yellow"
        case ev.CancelRequested():
            return "magenta"
        case _:
            return ""
