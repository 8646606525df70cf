# SPDX-License-Identifier: Apache-2.0
"""Commands and groups of ours: global options everywhere, an example in every help, nothing imported before it is
called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, TypeVar

import click

from surefoot.cli.settings import GLOBAL, GlobalOption, global_options

F = TypeVar("F", bound=Callable[..., Any])


class Misused(click.UsageError):
    """A usage error that knows what was probably meant."""

    def __init__(self, message: str, hint: str, ctx: click.Context | None = None) -> None:
        """Take one sentence, and one about what to do."""
        super().__init__(message, ctx)
        self.hint = hint


class Shown(click.Command):
    """What commands and groups have in common: the global options, and the example at the end of the help."""

    def __init__(self, *args: Any, example: str, **attrs: Any) -> None:
        """`example` has one command a line."""
        super().__init__(*args, **attrs)
        self.example = example
        self.params = [*self.params, *global_options()]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then the global ones."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        shown = [(param, record) for param in options if (record := param.get_help_record(ctx))]
        own = [record for param, record in shown if not isinstance(param, GlobalOption)]
        everywhere = [record for param, record in shown if isinstance(param, GlobalOption)]
        for title, records in (("Options", own), (GLOBAL, everywhere)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        with formatter.section("Example"):
            for line in self.example.splitlines():
                formatter.write(f"  {line}\n")


class Command(Shown):
    """A command."""


class LazyGroup(Shown, click.Group):
    """A group whose commands are imported when they are called."""

    def __init__(self, *args: Any, commands_at: Mapping[str, str] | None = None, **attrs: Any) -> None:
        """`commands_at` maps names to `module:attribute`."""
        super().__init__(*args, invoke_without_command=True, no_args_is_help=False, **attrs)
        self._commands_at = dict(commands_at or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, in the order of the story that they tell."""
        return [*self._commands_at, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now."""
        where = self._commands_at.get(cmd_name)
        if where is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = where.partition(":")
        found = getattr(import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was probably meant."""
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            raise Misused(f"there is no command {name!r}", _meant(name, self.list_commands(ctx), ctx), ctx)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands first, then the options."""
        self.format_commands(ctx, formatter)
        Shown.format_options(self, ctx, formatter)


def _meant(name: str, names: Iterable[str], ctx: click.Context) -> str:
    from surefoot.cli.text import did_you_mean

    return did_you_mean(name, names) or f"{ctx.command_path} --help"


def command(name: str, *, example: str, **attrs: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command."""
    return click.command(name, cls=Command, example=example, **attrs)
