# SPDX-License-Identifier: Apache-2.0
"""The project's files: write a first config, check the one there is."""

from __future__ import annotations

import click

from surefoot.cli.lazy import command
from surefoot.cli.params import TEXT


@command("init", example="surefoot init\nsurefoot init --example ansible")
@click.option("--example", "name", metavar="NAME", type=TEXT, help="Which example; a small one if not given.")
@click.pass_context
def init(ctx: click.Context, name: str | None) -> None:
    """Write a first surefoot.yml.

    It is commented, and what it needs is written with it, into this folder. Files that are there are never overwritten.
    """
    from surefoot.cli.app import App
    from surefoot.cli.text import clean
    from surefoot.config.discovery import this_folder
    from surefoot.config.templates import write_template

    app = App.of(ctx)
    written = write_template(name, this_folder())
    if app.json:
        app.console.document({"written": [str(path) for path in written]})
        return
    for path in written:
        app.console.print(clean(f"wrote {path}"))
    app.console.note("hint: surefoot check, then surefoot plan ENV VERSION")


@command("check", example="surefoot check\nsurefoot check --config deploy/surefoot.yml")
@click.pass_context
def check(ctx: click.Context) -> None:
    """Validate the config.

    Every problem is named with file, line, key and what is allowed.
    """
    from surefoot.cli.app import App
    from surefoot.cli.text import clean

    app = App.of(ctx)
    config = app.config
    if app.json:
        app.console.document(
            {
                "config": str(app.config_path),
                "project": config.project,
                "environments": list(config.environments),
                "agents": list(config.agents or ()),
            }
        )
        return
    environments = len(config.environments)
    app.console.print(
        clean(
            f"{app.config_path}: valid; project {config.project}, {environments} environment{'s' * (environments != 1)}"
        )
    )
