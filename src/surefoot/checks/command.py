# SPDX-License-Identifier: Apache-2.0
"""`command`: a shell command on the agent, or on each host, ends with status 0.

On the agent it has the environment of a step, secrets too: so `$NAME` is the shell's, and no secret gets into its
arguments from here. On hosts it has what a login has there, and no secrets.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from surefoot.checks.model import CheckFailed, CheckOptions, Context, Kind, Where, ending, excerpt
from surefoot.config.fields import Command as ShellCommand
from surefoot.config.fields import Duration, one_of


class CommandOptions(CheckOptions):
    """Options of `command`."""

    run: ShellCommand = Field(description="A shell command; on the agent it runs in the deployment's folder.")
    on: Annotated[Where, BeforeValidator(one_of(Where))] = Field(
        default=Where.AGENT, description="Where it runs: on the `agent`, or on each of the `hosts`."
    )
    timeout: Duration = Field(default=30.0, description="After which it is ended, and has failed.")


class Command(Kind):
    """See the module's docstring."""

    name: ClassVar = "command"
    options: ClassVar = CommandOptions

    async def probe(self, options: CommandOptions, context: Context) -> str:
        """Run it; the shell, not we, fills in variables, but `{host}` and the like are ours."""
        command = context.fill(options.run)
        run = context.on_host if options.on is Where.HOSTS else context.run
        result = await run(command, options.timeout)
        if result.status == 0:
            return f"`{excerpt(command)}` ended with status 0"
        ended = "did not end by itself" if result.status is None else f"ended with status {result.status}"
        said = f": {ending(result.output)}" if result.output.strip() else ""
        raise CheckFailed(f"`{excerpt(command)}` {ended}{said}")
