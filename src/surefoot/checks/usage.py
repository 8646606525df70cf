# SPDX-License-Identifier: Apache-2.0
"""What `disk` and `memory` share: how full something is, on each host or on the agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from surefoot.checks.model import CheckFailed, CheckWarned, Context, HostsFirst, Where, excerpt
from surefoot.config.fields import Duration, Percent, one_of, refuse


class UsageOptions(HostsFirst):
    """Options of `disk` and `memory`."""

    below: Percent = Field(default=90.0, description="Less than this may be used.")
    warn_above: Percent | None = Field(default=None, description="Warns when this much is used, or more.")
    on: Annotated[Where, BeforeValidator(one_of(Where))] | None = Field(
        default=None, description="Whose: each of the `hosts`, or the `agent`'s. Default: the hosts, if there are any."
    )
    timeout: Duration = Field(default=10.0, description="For the answer.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.warn_above is not None and self.warn_above >= self.below:
            raise refuse("warn_above must be less than below", hint="as in warn_above: 80%")
        return self


def judged(options: UsageOptions, context: Context, full: Mapping[str, float], fix: str) -> str:
    """Return how full each thing is; CheckFailed or CheckWarned if one is too full."""
    told = ", ".join(f"{what} {percent:.3g} % used" for what, percent in full.items())
    worst = max(full, key=lambda what: full[what])
    said = f"{context.place}: {worst} {full[worst]:.3g} % used"
    if full[worst] >= options.below:
        raise CheckFailed(f"{said}, and must be below {options.below:g} %", fix)
    if options.warn_above is not None and full[worst] >= options.warn_above:
        raise CheckWarned(f"{said} ({options.below:g} % would be too much)", fix)
    return f"{context.place}: {told}"


def unreadable(context: Context, what: str, said: str) -> CheckFailed:
    """Return that a place did not tell what it was asked."""
    return CheckFailed(f"{context.place} does not tell {what}{f': {excerpt(said)}' if said.strip() else ''}")
