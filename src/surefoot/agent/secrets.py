# SPDX-License-Identifier: Apache-2.0
"""The agent's secrets: values from its environment, files, commands and vaults, for the processes that need them and
for nothing else.

Guarantees: a value never leaves this module but in the environment of a step, in a check's options, in what is told to
a service, or into a redactor, which knows every value that this process has ever read: an old one after a rotation,
too. A file that others may read is refused. The store's password counts as a secret too. What it can't know is a value
that was rotated before it was read the first time, or one that only another agent has read.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from surefoot.agent.redact import Redactor
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Plan, SecretSource
from surefoot.core.targets import references
from surefoot.steps import VAULTED, vaulted
from surefoot.store import passwords

#: Bytes that a secret may have: the kernel takes no longer variable.
LONGEST = 128 * 1024 - 256
#: Bytes of a command's output that are read.
LONGEST_OUTPUT = 256 * 1024
#: Characters that a value must have to be looked for in the project's files, and bytes of these that are looked into.
TELLING = 8
LOOKED_INTO = 256 * 1024 * 1024
#: Bits of a file's mode that let others in.
OTHERS = stat.S_IRWXG | stat.S_IRWXO
#: How the program that opens vaults says what is wrong.
_VAULT_TROUBLES = {
    vaulted.WRONG_PASSWORD: (
        "the vault's password does not open {file}",
        "see that the password is the one it was encrypted with",
    ),
    vaulted.NO_KEY: ("{file} has no {key}", "see what it holds: ansible-vault view {file}"),
    vaulted.UNREADABLE: (
        "{file} can't be read",
        "see that it is in the project, and tracked by git where that is used",
    ),
    vaulted.NOT_ENCRYPTED: ("{file} is not encrypted", "encrypt it: ansible-vault encrypt {file}"),
    vaulted.NO_ANSIBLE: (
        "the Python of the agent has no ansible-core",
        "where the agent runs: pip install ansible-core",
    ),
}


@dataclass(frozen=True, slots=True)
class Printed:
    """What a command has printed; `status` is None if it was ended."""

    status: int | None
    stdout: bytes = field(repr=False)
    stderr: str = field(repr=False)


@dataclass(frozen=True)
class Reach:
    """How secrets are reached: by commands `run(argv, stdin, environ, timeout)`, started in `folder()`, where the
    project's files are.
    """

    agent: str
    run: Callable[[Sequence[str], bytes, Mapping[str, str], float], Awaitable[Printed]]
    folder: Callable[[], Awaitable[Path]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read, and why the rest could not be."""

    values: Mapping[str, str] = field(repr=False)
    failures: tuple[Failure, ...] = ()


class Secrets:
    """Looks secrets up each time they are asked for, so that a rotated one is used at the next attempt."""

    def __init__(self, environ: Mapping[str, str], store_url: str = "") -> None:
        """Take the agent's environment, and the store's URL for the passwords that it is reached with."""
        self._environ = environ
        self._store_passwords = passwords(store_url)
        self._seen: dict[tuple[str, str], None] = {}  # every value that was read, by name

    async def read(self, plan: Plan, names: Iterable[str], reach: Reach) -> Reading:
        """Read secrets anew; commands and vaults are asked with what the others were in their environment."""
        wanted = list(dict.fromkeys(names))
        found: dict[str, str] = {}
        failures: list[Failure] = []
        absent: list[str] = []
        logins = references(plan.ssh.user) if plan.ssh is not None else ()

        def take(name: str, outcome: str | Failure | None) -> None:
            if isinstance(outcome, Failure):
                failures.append(outcome)
            elif not outcome:
                absent.append(name)
            else:
                found[name] = outcome
                if name in plan.hidden or name not in logins:
                    self._seen[name, outcome] = None

        sources = [plan.source(name) for name in wanted]
        passwords = {s.vault.password for s in sources if s.vault is not None and s.vault.password} - set(wanted)
        sources += [plan.source(name) for name in sorted(passwords)]
        simple = [source for source in sources if not source.command and source.vault is None]
        for source, outcome in zip(
            simple, await asyncio.gather(*(self._simple(source, reach) for source in simple)), strict=True
        ):
            take(source.name, outcome)
        # Those that open others come first.
        for stage in (
            [source for source in sources if source.command],
            [source for source in sources if source.vault is not None],
        ):
            known = dict(found)
            asked = (self._asked(source, known, reach) for source in stage)
            for source, outcome in zip(stage, await asyncio.gather(*asked), strict=True):
                take(source.name, outcome)
        if absent:
            failures.append(_missing([plan.source(name) for name in absent], reach.agent))
        return Reading({name: value for name, value in found.items() if name in wanted}, tuple(failures))

    async def _simple(self, source: SecretSource, reach: Reach) -> str | Failure | None:
        if not source.file:
            return self._environ.get(source.env)
        try:
            async with asyncio.timeout(source.timeout):
                data = await asyncio.to_thread(_in_file, source, source.file, reach.agent)
        except TimeoutError:
            return _unreadable(source, f"{source.file} could not be read within {source.timeout:g} s", reach.agent)
        return data if isinstance(data, Failure) else _text(source, data, reach.agent)

    async def _asked(self, source: SecretSource, known: Mapping[str, str], reach: Reach) -> str | Failure:
        if source.vault is not None:
            return await self._in_vault(source, known, reach)
        printed = await reach.run(source.command, b"", known, source.timeout)
        if printed.status == 0:
            return _text(source, printed.stdout, reach.agent) or Failure(
                Code.SECRET_COMMAND,
                f"{source.name}: its command printed nothing",
                hint="run it where the agent runs, as the agent's user",
                agent=reach.agent,
            )
        # What it printed may be the secret, or half of it.
        shown = Redactor([*self._seen, (source.name, printed.stdout.decode(errors="surrogateescape").strip())])
        said = shown.text(printed.stderr).strip().rpartition("\n")[2]
        status = f"ended with status {printed.status}"
        ended = status if printed.status is not None else f"was still running after {source.timeout:g} s and was ended"
        return Failure(
            Code.SECRET_COMMAND,
            f"{source.name}: its command {ended}" + (f": {_short(said)}" if said else ""),
            hint="run it where the agent runs, as the agent's user: it may want to log in anew",
            agent=reach.agent,
        )

    async def _in_vault(self, source: SecretSource, known: Mapping[str, str], reach: Reach) -> str | Failure:
        import msgspec

        vault = source.vault
        assert vault is not None
        password = known.get(vault.password, "")
        if vault.password_file:
            data = await asyncio.to_thread(_in_file, source, vault.password_file, reach.agent)
            if isinstance(data, Failure):
                return data
            password = data.decode(errors="surrogateescape").strip()
            self._seen[f"the password of {vault.file}", password] = None
        if not password:
            return _vault_trouble(source, f"the password of its vault, {vault.password}, is not there", "", reach.agent)
        file = str(await reach.folder() / vault.file)
        asked = msgspec.json.encode({"file": file, "key": vault.key, "password": password})
        printed = await reach.run((sys.executable, "-I", str(VAULTED)), asked, {}, source.timeout)
        if printed.status == 0:
            return _text(source, printed.stdout, reach.agent) or _vault_trouble(source, "is empty", "", reach.agent)
        message, hint = _VAULT_TROUBLES.get(printed.status or 0, ("{file} could not be opened", ""))
        filled = {"file": vault.file, "key": vault.key}
        return _vault_trouble(source, message.format(**filled), hint.format(**filled), reach.agent)

    def redactor(self, names: Sequence[str]) -> Redactor:
        """Return a fresh redactor of these secrets, and of all that were ever read."""
        values = [(name, value) for name in names if (value := self._environ.get(name))]
        values += [("the store's password", password) for password in self._store_passwords]
        return Redactor(list(dict.fromkeys([*values, *self._seen])))

    def at_hand(self, plan: Plan) -> Redactor:
        """Return a redactor of those secrets of a plan that this process can read without asking anybody: of its
        environment and of files. For whoever writes down what somebody says, without having to work with secrets.
        """
        for source in map(plan.source, plan.hidden):
            found: str | bytes | Failure | None = self._environ.get(source.env)
            if source.file:
                found = _in_file(source, source.file, "")
            if isinstance(found, bytes):
                found = _text(source, found, "")
            if isinstance(found, str) and found:
                self._seen[source.name, found] = None
        return self.redactor(plan.hidden)


class Captured:
    """Takes what a command prints, up to `LONGEST_OUTPUT` of each stream."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._parts = {"stdout": bytearray(), "stderr": bytearray()}

    def feed(self, stream: str, data: bytes) -> None:
        """Take bytes as they come."""
        part = self._parts[stream]
        part += data[: LONGEST_OUTPUT - len(part)]

    def close(self) -> None:
        """Nothing is held back."""

    def bytes(self, stream: str) -> bytes:
        """Return what came."""
        return bytes(self._parts[stream])

    def text(self, stream: str) -> str:
        """Return what came, as text."""
        return self._parts[stream].decode("utf-8", "replace")


def too_short(values: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of those whose values are too short to be kept out of output."""
    return Redactor(values).unprotected


def in_project(folder: Path, values: Mapping[str, str]) -> list[str]:
    """Say which values stand in which of the project's files: whoever has the repository or the store has them too.

    Of a value with several lines, the longest is looked for.
    """
    lines = {name: max(value.splitlines() or [""], key=len).strip() for name, value in values.items()}
    needles = {name: line.encode("utf-8", "surrogateescape") for name, line in lines.items() if len(line) >= TELLING}
    found: dict[str, list[str]] = {}
    left = LOOKED_INTO
    for path in sorted(folder.rglob("*")) if needles else ():
        try:
            if path.is_symlink() or not path.is_file() or (left := left - path.stat().st_size) < 0:
                continue
            data = path.read_bytes()
        except OSError:
            continue
        for name, needle in needles.items():
            if needle in data:
                found.setdefault(name, []).append(str(path.relative_to(folder)))
    return [
        f"the value of {name} is in {files[0]}{f' and {len(files) - 1} more files' if files[1:] else ''}, which "
        "everybody has who has the repository or the store"
        for name, files in found.items()
    ]


def _in_file(source: SecretSource, path: str, agent: str) -> bytes | Failure:
    """Return what a file holds that nobody else may read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        return _unreadable(source, f"{path}: {error.strerror}", agent)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return _unreadable(source, f"{path} is no file", agent)
        if exposed := _exposed(found, path):
            problem, hint = exposed
            return Failure(Code.SECRET_EXPOSED, f"{source.name}: {problem}", hint=hint, agent=agent)
        return file.read(LONGEST + 1)


def _exposed(found: os.stat_result, path: str) -> tuple[str, str] | None:
    """Return what is wrong with a file's mode or owner, and what to do. What systemd hands its service is closed by
    systemd, whatever the mode seems to say.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and Path(path).resolve().is_relative_to(credentials):
        return None
    if found.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to user {found.st_uid}, not to the agent's", f"chown {os.geteuid()} {path}"
    if found.st_mode & OTHERS:
        mode = stat.filemode(found.st_mode)
        return f"{path} can be read or written by others ({mode})", f"on the agent's machine: chmod 600 {path}"
    return None


def _text(source: SecretSource, data: bytes, agent: str) -> str | Failure:
    """Return the value without line ends at its end, as a shell's `$(…)` has it."""
    problem = ""
    if len(data) > LONGEST:
        problem = f"is longer than {LONGEST} bytes, which no program can be given"
    elif b"\0" in data:
        problem = "holds a zero byte, which no program can be given"
    if problem:
        hint = "see what is really stored there"
        return Failure(Code.SECRET_INVALID, f"{source.name} {problem}", hint=hint, agent=agent)
    return data.decode("utf-8", "surrogateescape").rstrip("\r\n")


def _unreadable(source: SecretSource, why: str, agent: str) -> Failure:
    hint = f"on the agent's machine, as the agent's user: ls -lL {source.file or '.'}"
    return Failure(Code.SECRET_UNREADABLE, f"{source.name}: {why}", hint=hint, agent=agent)


def _vault_trouble(source: SecretSource, message: str, hint: str, agent: str) -> Failure:
    return Failure(Code.SECRET_VAULT, f"{source.name}: {message}", hint=hint, agent=agent)


def _missing(sources: Sequence[SecretSource], agent: str) -> Failure:
    names = [source.env or source.name for source in sources if not source.file]
    empty = [source for source in sources if source.file]
    if not names:
        files = ", ".join(source.file for source in empty)
        return Failure(Code.SECRET_MISSING, f"{files} is empty", hint=f"write {empty[0].name} into it", agent=agent)
    return Failure(
        Code.SECRET_MISSING,
        f"{', '.join(names)} not set in the environment of agent {agent}",
        hint=f"set {names[0]} where the agent is started, and start it again",
        agent=agent,
    )


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:299] + "…"
