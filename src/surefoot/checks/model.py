# SPDX-License-Identifier: Apache-2.0
"""What all checks share: options, what they may use, placeholders, result.

Guarantees: a placeholder is replaced once, by its value as it is, and what it was replaced with is not looked at again;
the names of Surefoot win over a host's variables. Secrets come only into what is sent (`reveal`), never into what is
shown (`fill`).
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from surefoot.config.expansion import fill_secrets
from surefoot.config.fields import Section
from surefoot.core.host import Host

#: A name in braces; `${name}` is a secret, or the shell's own.
_PLACEHOLDER = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_]*)\}")

SET_SECRET = "set {name} where the agent is started, and start it again"  # noqa: S105 - words
NO_HOSTS_HINT = "see that the inventory names some: surefoot plan"
#: Characters of an answer that a result quotes, and among which secrets are looked for before.
EXCERPT, LONGEST_SAID = 200, 16 * 1024

T = TypeVar("T")


class CheckStatus(StrEnum):
    """How a check came out; names are part of the public contract."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    WARN = "warn"
    SKIP = "skip"


class Where(StrEnum):
    """From where a check looks."""

    AGENT = "agent"
    HOSTS = "hosts"


class CheckOptions(Section):
    """Options of one kind of check, as the config gives them."""

    @classmethod
    def needs_hosts(cls, options: Mapping[str, Any]) -> bool:
        """Whether a check with these options, as `on: hosts` says, has nothing to look at where there are no hosts."""
        return options.get("on") == Where.HOSTS

    @classmethod
    def about_hosts(cls, options: Mapping[str, Any]) -> bool:
        """Whether it looks at each host, if there are any, even where no option speaks of `{host}`."""
        return cls.needs_hosts(options)

    @classmethod
    def pinned(cls, options: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return the variable that a check with these options pins something in, and what it pins, as far as the
        config tells: two things can't be pinned in one variable.
        """
        return None


class HostsFirst(CheckOptions):
    """Options of a check that looks at each host, if there are any, unless it says `on: agent`."""

    @classmethod
    def about_hosts(cls, options: Mapping[str, Any]) -> bool:
        """Unless it says otherwise."""
        return options.get("on") != Where.AGENT


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended: `status` is None if it was ended or could not be started, and `output` says more then."""

    status: int | None
    output: str


async def _nowhere(*_: Any) -> Any:
    raise CheckFailed("this can't be looked at from here")


@dataclass(frozen=True)
class Context:
    """What a check may use. `run` runs a shell command in the deployment's folder, for at most so many seconds, and
    what it prints is logged; `here` does so in silence. `reach` runs sh on a host as Ansible would reach it, and raises
    CheckFailed where it can't be reached. `folder` returns where the deployment's files are on the agent.
    """

    values: Mapping[str, str]  #: of placeholders: version, environment, agent, …
    hosts: tuple[Host, ...]
    secrets: Mapping[str, str] = field(repr=False)
    run: Callable[[str, float], Awaitable[CommandResult]]
    host: Host | None = None
    reach: Callable[[Host, str, float], Awaitable[CommandResult]] = _nowhere
    fence_folder: str = ""  #: where hosts keep their fence; empty for their default
    here: Callable[[str, float], Awaitable[CommandResult]] = _nowhere
    folder: Callable[[], Awaitable[Path]] = _nowhere
    named: Mapping[str, str] = field(default_factory=dict, repr=False)  #: secrets that fill no text, by name
    redact: Callable[[str], str] = str  #: takes secrets out of a text
    started: float | None = None  #: when the deployment began, in seconds since 1970; None before it did

    async def on_host(self, script: str, timeout: float) -> CommandResult:
        """Run sh on the host that this check is about, as the user that Ansible connects as; it must change nothing.

        `output` is its stdout. CheckFailed if the host can't be reached.
        """
        if self.host is None:
            raise CheckFailed("it is about hosts, and none are known", NO_HOSTS_HINT)
        return await self.reach(self.host, script, timeout)

    async def sh(self, script: str, timeout: float) -> CommandResult:
        """Run sh on the host that this check is about, or on the agent if it is about none; it must change nothing."""
        return await (self.here(script, timeout) if self.host is None else self.on_host(script, timeout))

    @property
    def place(self) -> str:
        """Where `sh` runs, as it is told."""
        return self.host.name if self.host else self.values.get("agent", "the agent")

    async def file(self, path: str) -> Path:
        """Return a file on the agent: in the deployment's folder unless its path is absolute."""
        wanted = Path(self.fill(path))
        return wanted if wanted.is_absolute() else await self.folder() / wanted

    def secret(self, reference: str) -> str:
        """Return the value behind an option that is `${NAME}`, or nothing where it is not given."""
        if not reference:
            return ""
        name = reference[2:-1]
        if not (value := self.value_of(name)):
            where = self.values.get("agent", "the agent")
            raise CheckFailed(f"{name} is not set in the environment of {where}", SET_SECRET.format(name=name))
        return value.strip("\r\n")

    def value_of(self, name: str) -> str:
        """Return a secret's value, or nothing where it is not set."""
        return self.named.get(name) or self.secrets.get(name, "")

    def fill(self, text: str, escaped: Callable[[str], str] = str) -> str:
        """Fill in `{placeholders}` that are known, each `escaped`; other braces stay as they are."""
        known = self._known()
        return _PLACEHOLDER.sub(lambda m: escaped(known[m[1]]) if m[1] in known else m[0], text)

    def reveal(self, text: str) -> str:
        """Fill in `${SECRETS}` too: for what is sent, never for what is shown."""
        return self._revealed(text, self._known())

    def address(self, text: str) -> str:
        """Fill in an address that is shown. CheckFailed if it speaks of something unknown."""
        return _PLACEHOLDER.sub(self._in_address, text)

    def reveal_address(self, text: str) -> str:
        """Fill in an address that is connected to, secrets too."""
        known = self._known()
        return self._revealed(text, known | {"host": _bracketed(known["host"])} if "host" in known else known)

    def expected(self, value: T) -> T:
        """Fill in all texts of a value that an answer is compared with; the result may be a secret."""
        filled: Any = value
        match value:
            case str():
                filled = self.reveal(value)
            case list():
                filled = [self.expected(item) for item in value]
            case dict():
                filled = {key: self.expected(item) for key, item in value.items()}
        return filled  # type: ignore[no-any-return]

    def _known(self) -> dict[str, str]:
        if self.host is None:
            return dict(self.values)
        return {**self.host.variables, **self.values, "host": self.host.address, "host_name": self.host.name}

    def _in_address(self, match: re.Match[str]) -> str:
        known = self._known()
        if (name := match[1]) not in known:
            where = f"host {self.host.name} has no variable of that name" if self.host else "there is no such value"
            raise CheckFailed(f"{match.string} speaks of {{{name}}}: {where}", f"known are: {', '.join(sorted(known))}")
        return _bracketed(known[name]) if name == "host" else known[name]

    def _revealed(self, text: str, known: Mapping[str, str]) -> str:
        """Fill in secrets between placeholders, so that a value can't smuggle a secret's name in."""
        pieces: list[str] = []
        end = 0
        for match in _PLACEHOLDER.finditer(text):
            pieces += [fill_secrets(text[end : match.start()], self.secrets), known.get(match[1], match[0])]
            end = match.end()
        return "".join(pieces) + fill_secrets(text[end:], self.secrets)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check came out, on one host where it is about hosts."""

    name: str
    status: CheckStatus
    message: str
    hint: str = ""
    duration_seconds: float = 0.0
    host: str | None = None
    pins: Mapping[str, str] = field(default_factory=dict)  #: what the rest of the deployment is held to, by variable
    given_up: bool = False  #: because the time of all was over, and not its own


@dataclass(frozen=True, slots=True)
class Found:
    """What a probe that passed has found: a sentence, and what the rest of the deployment is held to, by variable."""

    message: str
    pins: Mapping[str, str]


class Outcome(Exception):  # noqa: N818 - an outcome, not an error
    """How a probe ends that did not simply pass."""

    status: ClassVar[CheckStatus] = CheckStatus.FAIL

    def __init__(self, message: str, hint: str = "") -> None:
        """Take a sentence, and what to do."""
        super().__init__(message)
        self.hint = hint


class CheckFailed(Outcome):
    """The check did not pass; the sentence says what was expected and what came."""


class CheckWarned(Outcome):
    """The check passed, but something will soon be wrong, or could not be told for certain."""

    status = CheckStatus.WARN


class CheckSkipped(Outcome):
    """There is nothing for this check to look at; the sentence says why."""

    status = CheckStatus.SKIP


class Kind:
    """One kind of check. `probe` returns what it found if it passed, and raises another Outcome if not."""

    name: ClassVar[str]
    options: ClassVar[type[CheckOptions]]
    #: Seconds after which a probe of this kind is given up, unless its options say otherwise.
    deadline: ClassVar[float] = 10.0

    async def probe(self, options: Any, context: Context) -> str | Found:
        """Look once. It must not block the loop; CancelledError must end it."""
        raise NotImplementedError

    def seconds(self, options: Any) -> float:
        """Return after how long a probe with these options is given up."""
        return float(getattr(options, "timeout", self.deadline))

    def secrets(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the secrets that these options name otherwise than by `${NAME}`."""
        return ()


#: What takes secrets out of what a check says; set while it looks. Only here is what is said still whole: of a secret
#: that was cut in two, nobody would know the pieces.
REDACT: ContextVar[Callable[[str], str]] = ContextVar("REDACT", default=str)


def excerpt(text: str) -> str:
    """Return the beginning of an answer on one line."""
    text = REDACT.get()(text[:LONGEST_SAID])
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * EXCERPT]).split())
    return line[: EXCERPT - 1] + "…" if len(line) > EXCERPT else line


def ending(text: str) -> str:
    """Return the end of what a command has printed, on one line."""
    text = REDACT.get()(text[-LONGEST_SAID:]).rstrip()
    return excerpt(text[-EXCERPT:]) if len(text) > EXCERPT else excerpt(text)


async def loaded(*modules: str) -> None:
    """Import what takes long in a thread: whoever else waits on the loop, such as a lease's renewal, goes on."""
    for module in modules:
        if module not in sys.modules:
            await asyncio.to_thread(importlib.import_module, module)


def placeholders(options: Any) -> set[str]:
    """Return the names in braces anywhere in a check's options."""
    if isinstance(options, str):
        return set(_PLACEHOLDER.findall(options))
    if isinstance(options, Mapping):
        return set().union(*map(placeholders, options.values()))
    if isinstance(options, list | tuple):
        return set().union(*map(placeholders, options))
    return set()


def trouble(error: BaseException) -> str:
    """Return what went wrong with a connection in few words."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if reason := getattr(cause, "verify_message", None):
        return f"its certificate is not trusted: {reason}"
    if (many := getattr(cause, "exceptions", None)) and all(isinstance(one, OSError) for one in many):
        cause = many[0]
    number = getattr(cause, "errno", None)
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and number and number > 0:
        return os.strerror(number)  # asyncio's own text says less
    if isinstance(cause, ConnectionError | EOFError) and not str(cause):
        return "the connection was closed"
    return str(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)


def _bracketed(address: str) -> str:
    """Return an address as it stands before a port: IPv6 in brackets."""
    return f"[{address}]" if ":" in address and not address.startswith("[") else address
