# SPDX-License-Identifier: Apache-2.0
"""`command`: a shell command on the agent ends with status 0.

It has the environment of a step, secrets too: so `$NAME` is the shell's, and no secret gets into its arguments from
here.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from surefoot.checks.model import CheckFailed, CheckOptions, Context, Kind, excerpt
from surefoot.config.fields import Command as ShellCommand
from surefoot.config.fields import Duration


class CommandOptions(CheckOptions):
    """Options of `command`."""

    run: ShellCommand = Field(description="A shell command; runs on the agent, in the deployment's folder.")
    timeout: Duration = Field(default=30.0, description="After which it is ended, and has failed.")


class Command(Kind):
    """See the module's docstring."""

    name: ClassVar = "command"
    options: ClassVar = CommandOptions

    async def probe(self, options: CommandOptions, context: Context) -> str:
        """Run it; the shell, not we, fills in variables, but `{host}` and the like are ours."""
        command = context.fill(options.run)
        result = await context.run(command, options.timeout)
        if result.status == 0:
            return f"`{excerpt(command)}` ended with status 0"
        ended = "did not end by itself" if result.status is None else f"ended with status {result.status}"
        said = f": {excerpt(result.output[-800:])}" if result.output.strip() else ""
        raise CheckFailed(f"`{excerpt(command)}` {ended}{said}")
