# SPDX-License-Identifier: Apache-2.0
"""The whole story on one machine."""

from __future__ import annotations

from pathlib import Path

import click

from surefoot.cli.lazy import command


@command("demo", example="surefoot demo\nsurefoot demo --keep --folder /tmp/surefoot-demo")
@click.option("--keep", is_flag=True, help="Leave the hosts and agents up to play with.")
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), help="Where; a temporary folder if not given."
)
@click.pass_context
def demo(ctx: click.Context, keep: bool, folder: Path | None) -> int:
    """See it survive a kill, on one machine.

    Deploys to two small hosts, kills the agent in mid-deploy, breaks a version, cancels one, and checks how all ended.
    """
    import sys

    from surefoot.cli.console import Console
    from surefoot.cli.settings import settings
    from surefoot.demo import run

    console = Console(settings(ctx))
    return run(keep=keep, folder=folder, color=console.colors and sys.stdout.isatty())
