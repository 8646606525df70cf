# SPDX-License-Identifier: Apache-2.0
"""What all checks share: options, context, result."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from surefoot.config.expansion import fill_secrets
from surefoot.core.host import Host

#: A name in braces; `${name}` is a secret, or the shell's own.
_PLACEHOLDER = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_]*)\}")

#: Characters of an answer that a result quotes.
EXCERPT = 200


class CheckStatus(StrEnum):
    """How a check came out; names are part of the public contract."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    WARN = "warn"
    SKIP = "skip"


class CheckOptions(BaseModel):
    """Options of one kind of check, as the config gives them."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended: `status` is None if it was ended or could not be started, and `output` says more then."""

    status: int | None
    output: str


@dataclass(frozen=True)
class Context:
    """What a check may use. `run` runs a shell command in the deployment's folder, for at most so many seconds."""

    values: Mapping[str, str]  #: of placeholders: version, environment, agent, …
    hosts: tuple[Host, ...]
    secrets: Mapping[str, str] = field(repr=False)
    run: Callable[[str, float], Awaitable[CommandResult]]
    host: Host | None = None

    def fill(self, text: str) -> str:
        """Fill in `{placeholders}` that are known; other braces stay as they are."""
        known = dict(self.values)
        if self.host is not None:
            known |= {**self.host.variables, "host": self.host.address, "host_name": self.host.name}
        return _PLACEHOLDER.sub(lambda m: known.get(m[1], m[0]), text)

    def reveal(self, text: str) -> str:
        """Fill in `${SECRETS}` too: for what is sent, never for what is shown."""
        return fill_secrets(self.fill(text), self.secrets)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check came out, on one host where it is about hosts."""

    name: str
    status: CheckStatus
    message: str
    hint: str = ""
    duration_seconds: float = 0.0
    host: str | None = None


class CheckFailed(Exception):  # noqa: N818 - an outcome, not an error
    """The check did not pass; the sentence says what was expected and what came."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Take a sentence, and what to do."""
        super().__init__(message)
        self.hint = hint


class Kind:
    """One kind of check. `probe` returns a sentence if it passed, and raises CheckFailed if not."""

    name: ClassVar[str]
    options: ClassVar[type[CheckOptions]]
    #: Seconds after which a probe of this kind is given up, unless its options say otherwise.
    deadline: ClassVar[float] = 10.0

    async def probe(self, options: Any, context: Context) -> str:
        """Look once."""
        raise NotImplementedError


def excerpt(text: str) -> str:
    """Return the beginning of an answer on one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * EXCERPT]).split())
    return line[:EXCERPT] + ("…" if len(line) > EXCERPT else "")


def placeholders(options: Any) -> set[str]:
    """Return the names in braces anywhere in a check's options."""
    if isinstance(options, str):
        return set(_PLACEHOLDER.findall(options))
    if isinstance(options, Mapping):
        return set().union(*map(placeholders, options.values()))
    if isinstance(options, list | tuple):
        return set().union(*map(placeholders, options))
    return set()


async def within(seconds: float, work: Awaitable[str]) -> str:
    """Await a probe for at most so long."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise CheckFailed(f"no answer within {seconds:g} s") from None
