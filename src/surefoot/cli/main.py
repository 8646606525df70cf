# SPDX-License-Identifier: Apache-2.0
"""The door of the command line: which commands there are, and how every error is told.

Guarantees: each error is one `error[CODE]: sentence` with a hint on stderr and the exit code of its kind; no
traceback without `-v`; nothing but click is imported before a command is known. It does not catch what a deployment
does: that is in the journal.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from surefoot import __version__
from surefoot.cli.lazy import LazyGroup
from surefoot.cli.settings import settings
from surefoot.cli.start import put_in_order

#: As a program says that was ended by SIGINT, or by a reader that went away.
INTERRUPTED = 128 + 2
READER_GONE = 128 + 13

COMMANDS = {
    "init": "surefoot.cli.commands.project:init",
    "check": "surefoot.cli.commands.project:check",
    "plan": "surefoot.cli.commands.plan:plan",
    "preflight": "surefoot.cli.commands.preflight:preflight",
    "deploy": "surefoot.cli.commands.deploy:deploy",
    "rollback": "surefoot.cli.commands.deploy:rollback",
    "cancel": "surefoot.cli.commands.deploy:cancel",
    "resolve": "surefoot.cli.commands.deploy:resolve",
    "approve": "surefoot.cli.commands.gates:approve",
    "reject": "surefoot.cli.commands.gates:reject",
    "freeze": "surefoot.cli.commands.gates:freeze",
    "unfreeze": "surefoot.cli.commands.gates:unfreeze",
    "status": "surefoot.cli.commands.reading:status",
    "show": "surefoot.cli.commands.reading:show",
    "history": "surefoot.cli.commands.reading:history",
    "events": "surefoot.cli.commands.streams:events",
    "logs": "surefoot.cli.commands.streams:logs",
    "agents": "surefoot.cli.commands.agents:agents",
    "agent": "surefoot.cli.commands.agents:agent",
    "report": "surefoot.cli.commands.report:report",
    "monitoring": "surefoot.cli.commands.monitoring:monitoring",
    "exporter": "surefoot.cli.commands.monitoring:exporter",
    "doctor": "surefoot.cli.commands.doctor:doctor",
    "explain": "surefoot.cli.commands.explain:explain",
    "drill": "surefoot.cli.commands.drill:drill",
    "demo": "surefoot.cli.commands.demo:demo",
    "completion": "surefoot.cli.commands.completion:completion",
}


class Root(LazyGroup):
    """The program. Its `main` tells every error in the one form."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run a command and exit with its code."""
        extra["standalone_mode"] = False
        code = _told(lambda: super(Root, self).main(args, prog_name or "surefoot", **extra))
        code = _flushed(code)
        gc.freeze()  # of what a process leaves at its end nothing is looked through: a fifth of a short command's time
        sys.exit(code)


def _told(call: Any) -> int:
    """Return the exit code of a call; whatever it raises is told on stderr."""
    try:
        return int(call() or 0)
    except click.UsageError as error:
        from surefoot.cli.errors import tell_usage

        return tell_usage(error)
    except (KeyboardInterrupt, click.Abort):
        from surefoot.cli.console import to_nowhere

        to_nowhere(sys.stdout)  # a reader that does not read would keep us, for the rest of what nobody wants
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # click makes the one of the other
        return READER_GONE
    except Exception as error:
        from surefoot.cli.errors import tell

        return tell(error)


def _flushed(code: int) -> int:
    """Return the exit code once all output is out, or its reader gone; that of results alone may change the code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            from surefoot.cli.console import to_nowhere

            code = code or (READER_GONE if stream is sys.stdout else 0)
            to_nowhere(stream)
    return code


@click.command(
    "surefoot",
    cls=Root,
    commands_at=COMMANDS,
    example="surefoot demo\nsurefoot init && surefoot deploy production 1.0",
)
@click.version_option(__version__, message="surefoot %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Deployments that finish or put things back, whatever dies on the way."""
    settings(ctx)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> NoReturn:
    """Run the program."""
    put_in_order()
    cli.main()
    raise AssertionError("main exits")
