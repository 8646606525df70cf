# SPDX-License-Identifier: Apache-2.0
"""Completion for shells."""

from __future__ import annotations

import click

from surefoot.cli.lazy import command


@command(
    "completion",
    example='eval "$(surefoot completion bash)"\nsurefoot completion fish > ~/.config/fish/completions/surefoot.fish',
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a shell's completion script."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "click knows the shells that the argument allows"
    click.echo(kind(ctx.find_root().command, {}, "surefoot", "_SUREFOOT_COMPLETE").source())
