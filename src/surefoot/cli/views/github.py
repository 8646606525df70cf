# SPDX-License-Identifier: Apache-2.0
"""GitHub Actions: plain lines, one group for each attempt of a step, failures as annotations.

What failed on the way (and may yet be tried again) is a warning; how the deployment ended is the error.

Guarantees: text from steps, versions or reasons can't speak to the runner: every line of it has a time before it (so
`::` never opens a line), and what goes into a command is escaped as the runner expects.
"""

from __future__ import annotations

from surefoot.api.follow import Update
from surefoot.cli.console import Console
from surefoot.cli.text import clean
from surefoot.cli.views.plain import clock, in_order, log_text
from surefoot.core import events as ev
from surefoot.core.errors import Failure
from surefoot.core.events import Entry
from surefoot.core.sentences import sentence, told


def escaped(text: str) -> str:
    """Return the text of a workflow command."""
    return clean(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escaped_property(text: str) -> str:
    """Return the value of a workflow command's property."""
    return escaped(text).replace(":", "%3A").replace(",", "%2C")


class GitHubView:
    """See the module's docstring."""

    def __init__(self, console: Console) -> None:
        """Write to `console`'s stderr, which the runner reads as it reads stdout."""
        self._console = console
        self._grouped = False

    def update(self, update: Update) -> None:
        """Write lines, groups and annotations for what is new."""
        for item in in_order(update):
            if isinstance(item, Entry):
                self._entry(item)
            else:
                self._console.note(f"{clock(item.at)} {log_text(item)}")

    def say(self, text: str) -> None:
        """Write one sentence, as a line that is no command."""
        self._console.note(f"- {clean(text)}")

    def close(self) -> None:
        """End the group."""
        self._end_group()

    def _entry(self, entry: Entry) -> None:
        text = clean(sentence(entry))
        match entry.event:
            case ev.StepStarted():
                self._end_group()
                self._console.note(f"::group::{escaped(text)}")
                self._grouped = True
            case ev.StepFailed(failure=failure) | ev.NotBegun(failure=failure):
                self._end_group()
                self._annotate("warning", failure)
            case ev.StepSucceeded() | ev.StepInterrupted() | ev.LeaseGranted() | ev.HandedOver():
                self._end_group()
            case ev.PreflightFailed(failure=failure) | ev.FenceFailed(failure=failure):
                self._annotate("warning", failure)
            case ev.HealthFailed(failure=failure) | ev.VersionsMixed(failure=failure):
                self._annotate("warning", failure)
            case ev.BakeFailed(failure=failure):
                self._annotate("warning", failure)
            case ev.Waiting(waits=waits):
                self._console.note(f"::notice title=waiting::{escaped('; '.join(wait.message for wait in waits))}")
            case ev.Finished(reason=reason):
                self._end_group()
                if reason is not None:
                    self._annotate("error", reason)
            case _:
                pass
        self._console.note(f"{clock(entry.at)} {text}")

    def _annotate(self, level: str, failure: Failure) -> None:
        hint = f" Hint: {failure.hint}" if failure.hint else ""
        self._console.note(f"::{level} title={escaped_property(failure.code)}::{escaped(told(failure) + hint)}")

    def _end_group(self) -> None:
        if self._grouped:
            self._console.note("::endgroup::")
            self._grouped = False
