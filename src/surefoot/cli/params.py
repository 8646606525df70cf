# SPDX-License-Identifier: Apache-2.0
"""Kinds of arguments: text that any store and terminal takes, durations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    TextBase = click.ParamType[str]
    DurationBase = click.ParamType[float]
else:  # older versions of click don't know it as a generic
    TextBase = DurationBase = click.ParamType


class TextParam(TextBase):
    """Text in valid UTF-8. What isn't comes from Python as lone surrogates, which no store takes."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, or say which argument is no text."""
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail("it is not valid UTF-8", param, ctx)
        return value


class Duration(DurationBase):
    """A duration such as `500ms`, `5s`, `10m`, `1h`; seconds."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        from surefoot.cli.lazy import Misused
        from surefoot.config.durations import DurationError, parse_duration

        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(value)
        except DurationError as error:
            raise Misused(str(error), error.hint, ctx) from error


TEXT = TextParam()
DURATION = Duration()
