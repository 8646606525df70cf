# SPDX-License-Identifier: Apache-2.0
"""Where output goes: results to stdout, progress to stderr; JSON alone on stdout where it is asked for.

Guarantees: text reaches a terminal only clean (see `text`); no colours but on a terminal; JSON is ASCII, so that no
terminal, locale or log collector can break it. What can't be written because its reader is gone raises
BrokenPipeError on stdout, OutputError where it can't be for another reason, and is dropped on stderr: progress must
never end what it tells of.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click

from surefoot.cli.settings import Settings, colors_wanted
from surefoot.cli.text import clean, table
from surefoot.core.errors import Code, SurefootError

_COLORS = {
    "succeeded": "green",
    "online": "green",
    "running": "cyan",
    "queued": "blue",
    "waiting": "yellow",
    "degraded": "yellow",
    "draining": "yellow",
    "rolling_back": "yellow",
    "rolled_back": "yellow",
    "cancelled": "magenta",
    "interrupted": "magenta",
    "failed": "red",
    "stranded": "red",
    "offline": "red",
    "pass": "green",
    "warn": "yellow",
    "skip": "blue",
    "fail": "red",
}


class OutputError(SurefootError):
    """A result could not be written."""

    default_code = Code.OUTPUT


def to_nowhere(stream: TextIO) -> None:
    """Let all that is still written to a stream whose reader is gone succeed; the interpreter's last flush too."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextmanager
def last_words() -> Iterator[None]:
    """Say what no exit code may depend on: an outcome is what it is, whether anybody reads it or not."""
    try:
        yield
        sys.stdout.flush()
    except (OSError, OutputError):
        to_nowhere(sys.stdout)


def _result(text: str) -> None:
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        to_nowhere(sys.stdout)
        raise OutputError(
            f"the result can't be written to stdout: {error.strerror}", hint="look at what stdout is redirected to"
        ) from error


class Console:
    """The two streams, as the global options want them."""

    def __init__(self, settings: Settings) -> None:
        """Take what the global options say."""
        self.json = settings.json
        self.colors = colors_wanted(settings.no_color)

    # -- results -------------------------------------------------------------------------------------

    def print(self, text: str = "") -> None:
        """Print one line for people to stdout."""
        _result(self._styled(text, sys.stdout))

    def prints(self, texts: Iterable[str]) -> None:
        """Print lines for people to stdout, in one piece: there may be many."""
        if lines := list(texts):
            self.print("\n".join(lines))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table for people."""
        first, *lines = table(head, [[clean(str(cell)) for cell in row] for row in rows])
        self.print(click.style(first, bold=True) if self.colors else first)
        for line in lines:
            self.print(self._words(line))

    def document(self, value: Any) -> None:
        """Print one JSON document."""
        _result(json.dumps(value, indent=2, allow_nan=False))

    def line(self, value: Any) -> None:
        """Print one line of JSON Lines, at once."""
        _result(json.dumps(value, allow_nan=False))

    def lines(self, values: Iterable[Any]) -> None:
        """Print lines of JSON Lines, at once, in one piece: there may be many."""
        if lines := [json.dumps(value, allow_nan=False) for value in values]:
            _result("\n".join(lines))

    # -- progress ------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Say one thing on stderr, where somebody still listens."""
        try:
            click.echo(self._styled(text, sys.stderr), err=True)
            sys.stderr.flush()
        except (OSError, ValueError):
            return

    def warn(self, text: str, hint: str = "") -> None:
        """Warn on stderr."""
        self.note(f"{self.paint('warning:', 'yellow')} {clean(text)}")
        if hint:
            self.note(f"hint: {clean(hint)}")

    # -- colours -------------------------------------------------------------------------------------

    def paint(self, text: str, color: str) -> str:
        """Return coloured text; the colour is taken out again where the stream is no terminal."""
        return click.style(text, fg=color) if self.colors else text

    def status(self, status: str) -> str:
        """Return a status in its colour."""
        color = _COLORS.get(status)
        return self.paint(status, color) if color else status

    def _words(self, line: str) -> str:
        """Colour the first status in a table's line."""
        for word in line.split("  "):
            if (bare := word.strip()) in _COLORS:
                return line.replace(bare, self.status(bare), 1) if self.colors else line
        return line

    def _styled(self, text: str, stream: Any) -> str:
        return text if self.colors and stream.isatty() else click.unstyle(text)
