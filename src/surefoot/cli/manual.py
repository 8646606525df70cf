# SPDX-License-Identifier: Apache-2.0
"""The manual's pages, `surefoot(1)` and one for each command, made from the commands themselves.

`python -m surefoot.cli.manual man` writes them (`make man`); the package brings them along, so that `man
surefoot-deploy` finds them. They bear no date: the same commands give the same pages.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from surefoot.cli.lazy import Shown
from surefoot.cli.reference import EXITS
from surefoot.cli.settings import GLOBAL, GlobalOption

_ENVIRONMENT = {
    "SUREFOOT_CONFIG": "The config, where --config is not given.",
    "SUREFOOT_STORE": "The store, where --store is not given.",
    "NO_COLOR": "If it is set, no colours.",
}
_FILES = {
    "surefoot.yml": "The config, in this folder or the nearest one above.",
    ".surefoot/surefoot.db": "The store, beside the config, where none is named.",
}


def pages() -> dict[str, str]:
    """Return the content of each page, by the name of its file."""
    from surefoot.cli.main import cli

    return dict(_pages(cli, "surefoot", None))


def _pages(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    """Yield a command's page, then those of the ones below it."""
    assert isinstance(command, Shown)
    ctx = click.Context(command, info_name=name, parent=parent)
    below: list[click.Command] = []
    if isinstance(command, click.Group):
        below = [found for one in command.list_commands(ctx) if (found := command.get_command(ctx, one))]
    yield f"{_page(ctx)}.1", "\n".join(_lines(ctx, command, below)) + "\n"
    for one in below:
        assert one.name is not None
        yield from _pages(one, one.name, ctx)


def _lines(ctx: click.Context, command: Shown, below: list[click.Command]) -> Iterator[str]:
    """Yield a page in man(7)."""
    summary, _, description = inspect.cleandoc(command.help or "").partition("\n\n")
    yield r".\" Made from the program by `make man`."
    yield f'.TH {_page(ctx).upper()} 1 "" Surefoot "Surefoot\'s manual"'
    yield ".SH NAME"
    yield rf"{_text(_page(ctx))} \- {_text(summary.rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield f".B {_text(ctx.command_path)}"
    yield _text(" ".join(command.collect_usage_pieces(ctx)))
    yield ".SH DESCRIPTION"
    yield from _wrapped(summary)
    for paragraph in description.split("\n\n") if description else ():
        yield ".PP"
        yield from _wrapped(paragraph)
    if below:
        yield ".SH COMMANDS"
        yield from _terms((one.name or "", one.get_short_help_str(limit=200)) for one in below)
    options = [param for param in command.get_params(ctx) if isinstance(param, click.Option)]
    for title, shown in (
        ("OPTIONS", [option for option in options if not isinstance(option, GlobalOption)]),
        (GLOBAL.upper(), [option for option in options if isinstance(option, GlobalOption)]),
    ):
        yield f".SH {title}"
        yield from _terms(record for option in shown if (record := option.get_help_record(ctx)))
    yield ".SH EXIT STATUS"
    if ctx.parent is None:
        yield from _terms((str(int(code)), f"{meaning[0].upper()}{meaning[1:]}.") for code, meaning in EXITS.items())
        yield ".SH ENVIRONMENT"
        yield from _terms(_ENVIRONMENT.items())
        yield ".SH FILES"
        yield from _terms(_FILES.items())
    else:
        yield "0 if all is well; the others are in"
        yield ".BR surefoot (1)."
    yield ".SH EXAMPLES"
    yield ".EX"
    yield from (_text(line) for line in command.example.splitlines())
    yield ".EE"
    related = [_page(ctx.parent)] if ctx.parent else []
    related += [f"{_page(ctx)}-{one.name}" for one in below]
    if related:
        yield ".SH SEE ALSO"
        yield ".nh"
        yield ",\n".join(f".BR {_text(page)} (1)" for page in related)


def _page(ctx: click.Context) -> str:
    return ctx.command_path.replace(" ", "-")


def _terms(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield terms in bold, what stands for a value in italics, each with what it means below."""
    for term, meaning in pairs:
        yield ".TP"
        yield re.sub(r"(?<![\w-])(?!-)([A-Z]{2,}|\[[^\]]+\])", r"\\fI\1\\fB", rf"\fB{_text(term)}") + r"\fR"
        yield from _wrapped(meaning)


def _wrapped(text: str) -> Iterator[str]:
    """Yield a paragraph in lines that can be looked at and compared."""
    yield from (_text(line) for line in textwrap.wrap(" ".join(text.split()), 72, break_on_hyphens=False))


def _text(text: str) -> str:
    """Return text as roff takes it: nothing in it is a request, and a hyphen is one that can be copied."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga").replace("…", "...")
    return rf"\&{text}" if text.startswith(".") else text


def main() -> None:
    """Write all pages into the folder that is named, and remove those of commands that are gone."""
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    made = pages()
    for old in folder.glob("*.1"):
        if old.name not in made:
            old.unlink()
    for name, content in made.items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
