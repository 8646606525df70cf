# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a drill."""

from __future__ import annotations

from surefoot.core.errors import Code, Exit, SurefootError


class DrillError(SurefootError):
    """A drill can't be played, or not to its end."""

    default_code = Code.DRILL


class CommandError(DrillError):
    """A command of Surefoot's failed that a drill needs; told with the command's own code, hint and exit code."""

    def __init__(self, message: str, *, code: Code | None, hint: str, exit_code: int) -> None:
        """Take what the command has said."""
        super().__init__(message, code=code, hint=hint)
        self.exit_code = Exit(exit_code) if exit_code in set(Exit) else Exit.INTERNAL
