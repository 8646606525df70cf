# SPDX-License-Identifier: Apache-2.0
"""Finds root causes, and names the command that mends each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from surefoot.cli.lazy import command
from surefoot.cli.params import DURATION, TEXT

if TYPE_CHECKING:
    from surefoot.cli.app import App
    from surefoot.doctor.collect import Question
    from surefoot.doctor.facts import Borrowed

#: Seconds that a look takes at most, where nobody says otherwise.
SECONDS = 10.0


@command(
    "doctor",
    example="surefoot doctor\nsurefoot doctor production-12\nsurefoot doctor --bundle support.tar.gz",
)
@click.argument("deployment", metavar="[ID]", type=TEXT, required=False)
@click.option("--bundle", metavar="FILE", type=TEXT, help="Also write an archive for support, without secrets.")
@click.option("--timeout", metavar="DURATION", type=DURATION, help="How long to look at most. Default: 10s.")
@click.pass_context
def doctor(ctx: click.Context, deployment: str | None, *, bundle: str | None, timeout: float | None) -> None:
    """Find out what is wrong, and what mends it.

    Looks at store, agents, this machine, hosts, secrets and checks side by side, from this machine, and changes
    nothing. Names causes, the most likely first, each with what shows it and the one command that mends it; then what
    could not be looked at. With an ID it also says why that deployment is where it is. Run it where an agent runs: it
    then sees what the agent sees.

    Ends with 0 whatever it finds; programs read `healthy` in --output json.
    """
    import asyncio
    import time

    from surefoot.cli.app import App
    from surefoot.cli.text import clean
    from surefoot.doctor.collect import collect
    from surefoot.doctor.report import document, lines

    app = App.of(ctx)
    borrowed = _borrow(app)
    question = _question(app, deployment, timeout or SECONDS, borrowed)
    begun = time.monotonic()
    facts, secrets = asyncio.run(collect(question))
    redact = secrets.redactor(facts.secrets.names).text
    report = document(facts, time.monotonic() - begun, redact)
    text = [clean(line) for line in lines(report)]
    if app.json:
        app.console.document(report)
    else:
        for line in text:
            app.console.print(_painted(app, line))
    if bundle is not None:
        whole = {"report": report, "text": "\n".join(text) + "\n", "config": app.config_path, "clean": redact}
        _archive(app, Path(bundle), deployment, whole)


def _borrow(app: App) -> Borrowed | None:
    """Have the app stand in the project of this machine's agents, and use their store, where nobody has said which."""
    import asyncio
    from shlex import quote

    from surefoot.doctor.facts import Borrowed
    from surefoot.doctor.named import named

    if app.config_path is not None and app.names_store:
        return None
    found = asyncio.run(named())
    told, commands = [], []
    projects = {one.config: one.by for one in found if one.service}
    if app.config_path is None and not app.names_store and len(projects) == 1:
        ((config, by),) = projects.items()
        app.stand_in(config=config)
        told.append(f"{by} works for {config.parent}")
        commands.append(f"cd {quote(str(config.parent))}")
    if app.config_path is not None and not app.names_store:
        of_this = (one for one in found if one.store and one.config == app.config_path.resolve())
        if (its := next(of_this, None)) is not None:
            app.stand_in(store=its.store)
            told.append(f"{its.by} names the store")
            commands.append(its.command)
    return Borrowed(tuple(told), "; ".join(commands)) if told else None


def _question(app: App, deployment: str | None, seconds: float, borrowed: Borrowed | None) -> Question:
    """Return what is asked; a config that is wrong is a finding, not an end."""
    from surefoot.core.errors import ConfigError
    from surefoot.doctor.collect import Question
    from surefoot.doctor.facts import Trouble

    config, trouble = None, None
    if app.config_path is not None:
        try:
            config = app.config
        except ConfigError as error:
            trouble = Trouble(error.code, error.message, error.hint)
    return Question(app.store_url, app.state_folder, config, trouble, deployment, borrowed, seconds=seconds)


def _painted(app: App, line: str) -> str:
    for words, color in ((". broken:", "red"), (". warning:", "yellow"), (". note:", "blue"), ("   fix:", "green")):
        place = line.find(words)
        if 0 <= place <= 3:
            end = place + len(words)
            return app.console.paint(line[:end], color) + line[end:]
    return line


def _archive(app: App, path: Path, deployment: str | None, report: dict[str, Any]) -> None:
    """Write the archive; what of the store can't be read is left out."""
    from surefoot.core.errors import StoreError
    from surefoot.doctor import archive

    try:
        with app.reading() as store:
            archive.write(path, store=store, deployment=deployment, **report)
    except StoreError:
        archive.write(path, store=None, deployment=None, **report)
    app.console.note(f"{path} written; look through it before you pass it on")
