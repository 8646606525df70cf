# SPDX-License-Identifier: Apache-2.0
"""What a view of a followed deployment is told, and which view fits the place where the program runs."""

from __future__ import annotations

import os
import sys
from typing import Protocol

from surefoot.api.follow import Update
from surefoot.cli.console import Console


class View(Protocol):
    """Shows progress on stderr. A view never raises because nobody looks any more."""

    def update(self, update: Update) -> None:
        """Show what is new."""

    def say(self, text: str) -> None:
        """Show one sentence about the following itself."""

    def close(self) -> None:
        """Show no more."""


def view_for(console: Console) -> View:
    """Return the view that fits: GitHub Actions, a terminal, or plain lines."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from surefoot.cli.views.github import GitHubView

        return GitHubView(console)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not console.json:
        from surefoot.cli.views.live import LiveView

        return LiveView(console)
    from surefoot.cli.views.plain import PlainView

    return PlainView(console)
