# SPDX-License-Identifier: Apache-2.0
"""Plain lines: one for each event and each line of the log, with the time before it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache

from surefoot.api.follow import Update
from surefoot.cli.console import Console
from surefoot.cli.text import clean
from surefoot.core.events import Entry
from surefoot.core.sentences import sentence
from surefoot.store.protocol import LogLine

#: What stands before a line of a step's own output.
BAR = "│"


def clock(at: float | None) -> str:
    """Return a time of day, local to whoever reads it."""
    return "--:--:--" if at is None else _clock(int(at), time.tzname)


@lru_cache(maxsize=64)
def _clock(second: int, _zone: tuple[str, str]) -> str:
    """Return it for all the lines that a step prints in one second."""
    return datetime.fromtimestamp(second).astimezone().strftime("%H:%M:%S")


def in_order(update: Update) -> Iterator[Entry | LogLine]:
    """Yield entries and lines as they happened; a line that came with an event came before it."""
    both: list[Entry | LogLine] = [*update.lines, *update.entries]
    yield from sorted(both, key=lambda item: item.at or 0.0)


def log_text(line: LogLine) -> str:
    """Return a line of the log, clean, with the agent where it is one that says it."""
    if line.stream == "agent":
        return clean(f"{line.agent or 'agent'}: {line.text}")
    return f"{BAR} {clean(line.text)}"


class PlainView:
    """See the module's docstring."""

    def __init__(self, console: Console) -> None:
        """Write to `console`'s stderr."""
        self._console = console

    def update(self, update: Update) -> None:
        """Write a line for each thing that is new."""
        for item in in_order(update):
            if isinstance(item, Entry):
                self._console.note(f"{clock(item.at)} {clean(sentence(item))}")
            else:
                self._console.note(f"{clock(item.at)} {log_text(item)}")

    def say(self, text: str) -> None:
        """Write one sentence."""
        self._console.note(clean(text))

    def close(self) -> None:
        """Nothing is left open."""
