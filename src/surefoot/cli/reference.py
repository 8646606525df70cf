# SPDX-License-Identifier: Apache-2.0
"""The reference of the command line, made from the commands themselves.

`python -m surefoot.cli.reference > docs/cli.md` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from surefoot.core.errors import Exit

WIDTH = 100
EXITS = {
    Exit.DONE: "done; the deployment succeeded",
    Exit.INTERNAL: "internal error",
    Exit.USAGE: "usage or config error",
    Exit.REFUSED: "refused before anything was touched",
    Exit.PUT_BACK: "failed and put back",
    Exit.STRANDED: "stranded: could not be put back, needs a person",
    Exit.CANCELLED: "cancelled and put back",
    Exit.NOT_FOUND: "no such thing, or not allowed in its state",
    Exit.TIMED_OUT: "nobody waits any more; the deployment goes on",
    Exit.STORE: "store unreachable",
}
_HEAD = """\
# Command line

Made from the program by `python -m surefoot.cli.reference`; a test holds the two equal. The manual says the same:
`man surefoot-deploy`.

Results go to stdout, progress and errors to stderr. With `--output json` stdout takes one JSON document (JSON Lines for
`events` and `logs`) and nothing else. Global options may stand before or after the command. Every error is
`error[CODE]: sentence` and, below it, `hint: what to do`.

While `deploy` or `rollback` follows, SIGINT, SIGTERM and SIGHUP ask for a cancel, which is written to the store at
once; the program then follows the deployment to its safe end. With `--on-interrupt detach` they end the following
alone, with exit code 8: the deployment goes on. Where the config names no agents, an agent in the background takes
it over then, as it does with `--detach` and whenever else the following breaks off; it stands by while a cancel is
followed, in case the program is killed. What it says is in `.surefoot/background.log`. It ends with the container, or
the unit of systemd, whose one command this was; then the next command has another one go on.

A store that goes away while a deployment is followed is waited for: where the config names no agents, as long as the
program's own agent works; else for a minute, after which the following ends with exit code 9 while the deployment goes
on.
"""


def reference() -> str:
    """Return the whole page."""
    from surefoot.cli.main import cli

    return "\n".join([_HEAD, *_exit_codes(), *_pages(cli, "surefoot", None)])


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n"
    yield "| code | meaning |"
    yield "|---|---|"
    for code, meaning in EXITS.items():
        yield f"| {int(code)} | {meaning} |"
    yield ""


def _pages(command: click.Command, path: str, parent: click.Context | None) -> Iterator[str]:
    """Yield the help of a command, then of those below it."""
    ctx = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent, terminal_width=WIDTH)
    yield f"## {path}\n"
    yield f"```text\n{command.get_help(ctx).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            assert below is not None
            yield from _pages(below, f"{path} {name}", ctx)


if __name__ == "__main__":
    print(reference(), end="")
