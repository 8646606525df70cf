# SPDX-License-Identifier: Apache-2.0
"""How errors are told: `error[CODE]: sentence`, then `hint: what to do`, both on stderr, and the exit code."""

from __future__ import annotations

import sys

import click

from surefoot.cli.settings import colors_wanted
from surefoot.cli.text import clean, did_you_mean
from surefoot.core.errors import Code, Exit, SurefootError


def tell(error: Exception) -> int:
    """Tell any error that a command raised; return the exit code."""
    if _verbose():
        import traceback

        _say("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, SurefootError):
        write_error(error.code, error.message, error.hint)
        return int(error.exit_code)
    write_error(
        Code.INTERNAL,
        f"{type(error).__name__}: {error}",
        "this is a defect; the same command with -v shows where",
    )
    return int(Exit.INTERNAL)


def tell_usage(error: click.UsageError) -> int:
    """Tell what was wrong with the call itself."""
    path = error.ctx.command_path if error.ctx else "surefoot"
    hint = getattr(error, "hint", "")
    if isinstance(error, click.NoSuchOption):
        known = [name for param in error.ctx.command.params for name in param.opts] if error.ctx else []
        message = f"there is no option {error.option_name}"
        hint = did_you_mean(error.option_name, known)
    else:
        message = _sentence(error.format_message())
    write_error(Code.USAGE, message, hint or f"{path} --help")
    return int(Exit.USAGE)


def write_error(code: str, message: str, hint: str) -> None:
    """Write the two lines."""
    first, *more = message.split("\n")
    _say(f"{_red(f'error[{code}]:')} {clean(first)}")
    for line in more:
        _say(f"  {clean(line)}")
    if hint:
        _say(f"hint: {clean(hint)}")


def _say(text: str) -> None:
    """Write to stderr, if anybody still listens."""
    try:
        click.echo(text, err=True)
    except (OSError, ValueError):
        return


def _sentence(message: str) -> str:
    """Return click's sentence in our form: no capital, no full stop."""
    message = message.strip().rstrip(".")
    return message[:1].lower() + message[1:]


def _settings() -> object:
    context = click.get_current_context(silent=True)
    return context.find_root().obj if context else None


def _verbose() -> bool:
    # The context is gone when an error has come this far up; the arguments are still there.
    arguments = sys.argv[1:]
    return "-v" in arguments or "--verbose" in arguments


def _red(text: str) -> str:
    colors = colors_wanted("--no-color" in sys.argv) and sys.stderr.isatty()
    return click.style(text, fg="red", bold=True) if colors else text
