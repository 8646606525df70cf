# SPDX-License-Identifier: Apache-2.0
"""Kinds of arguments: text that any store and terminal takes, durations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    TextBase = click.ParamType[str]
    DurationBase = click.ParamType[float]
    TimeBase = click.ParamType["When"]
else:  # older versions of click don't know it as a generic
    TextBase = DurationBase = TimeBase = click.ParamType


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


@dataclass(frozen=True)
class When:
    """A time as somebody gives it, who may mean it from now."""

    after: Callable[[float], float]  #: from the store's present time to the time that is meant


class Time(TimeBase):
    """A time: RFC 3339, a time of day (the next one, local), or a duration from now."""

    name = "time"

    def convert(self, value: str | When, param: click.Parameter | None, ctx: click.Context | None) -> When:
        """Return a time."""
        from surefoot.cli.lazy import Misused
        from surefoot.config.durations import DurationError, parse_duration

        if isinstance(value, When):
            return value
        if (found := _time_of_day(value) or _date(value)) is not None:
            return found
        try:
            seconds = parse_duration(value)
        except DurationError as error:
            hint = "write 2026-01-31T22:00Z, 22:00, or a duration from now such as 90m"
            raise Misused(f"{value[:60]!r} is no time", hint, ctx) from error
        return When(lambda now: now + seconds)


def _time_of_day(text: str) -> When | None:
    """Return the next time that the clocks here show it."""
    from datetime import datetime, timedelta

    try:
        wanted = datetime.strptime(text, "%H:%M").time()
    except ValueError:
        return None

    def after(now: float) -> float:
        today = datetime.combine(datetime.fromtimestamp(now).date(), wanted)
        days = [today, today + timedelta(days=1)]
        # Where clocks are set back they show a time twice; one that they skip is the one after it.
        shown = (max(day.timestamp(), day.replace(fold=fold).timestamp()) for day in days for fold in (0, 1))
        return min(at for at in shown if at > now)

    return When(after)


def _date(text: str) -> When | None:
    """Return a date with its time; local if no zone is given."""
    from datetime import UTC, datetime

    try:
        at = datetime.fromisoformat(text.upper()).astimezone(UTC).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return When(lambda _: at)


TEXT = TextParam()
DURATION = Duration()
TIME = Time()


def log_format(function: Callable[..., None]) -> Callable[..., None]:
    """Add the option that says how a program that runs for long logs; what is given goes to `cli.log`."""
    return click.option(
        "--log-format",
        type=click.Choice(["text", "json", "journal"]),
        help="How it logs, on stderr. Default: $SUREFOOT_LOG_FORMAT, else as systemd's journal has it where that reads "
        "stderr, else text.",
    )(function)
