# SPDX-License-Identifier: Apache-2.0
"""The global options: what they are, and what was given, before or after the command."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import click

GLOBAL = "Global options"


@dataclass
class Settings:
    """What the global options say. Written while the command line is parsed, read-only afterwards."""

    config: str | None = None
    store: str | None = None
    output: str = "text"
    no_color: bool = False
    verbose: bool = False

    @property
    def json(self) -> bool:
        """Whether one JSON document (or JSON Lines) is all that stdout takes."""
        return self.output == "json"


def colors_wanted(no_color: bool) -> bool:
    """Whether a terminal may get colours; an empty $NO_COLOR says nothing (no-color.org)."""
    return not no_color and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def settings(ctx: click.Context) -> Settings:
    """Return the settings of this call."""
    root = ctx.find_root()
    if root.obj is None:
        root.obj = Settings()
    assert isinstance(root.obj, Settings)
    return root.obj


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Take what was given; what was not given here may have been given before the command."""
    if value not in (None, False):
        assert param.name is not None
        setattr(settings(ctx), param.name, value)


class GlobalOption(click.Option):
    """An option that every command takes and none has to know."""

    def __init__(self, *declarations: str, **attrs: Any) -> None:
        """Declare it as click does."""
        super().__init__(declarations, expose_value=False, callback=_keep, **attrs)


def global_options() -> list[click.Parameter]:
    """Return fresh global options."""
    return [
        GlobalOption(
            "--config", metavar="PATH", help="The config. Default: $SUREFOOT_CONFIG, else surefoot.yml here or above."
        ),
        GlobalOption("--store", metavar="URL", help="The store. Default: $SUREFOOT_STORE, else what the config says."),
        GlobalOption(
            "--output", type=click.Choice(["text", "json"]), help="For people, or one JSON document on stdout."
        ),
        GlobalOption("--no-color", is_flag=True, help="No colours, as with $NO_COLOR."),
        GlobalOption("-v", "--verbose", is_flag=True, help="Say more; show tracebacks."),
    ]
