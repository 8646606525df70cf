# SPDX-License-Identifier: Apache-2.0
"""What drill.yml says in its section `staging`: which environment may be drilled, with which versions and faults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from surefoot.config.durations import DurationError, parse_duration
from surefoot.config.versions import validate_version
from surefoot.core.errors import Code, ConfigError, UsageError
from surefoot.drills.project import DRILL, read
from surefoot.drills.stage import REQUIRED

#: Faults that a command can make; drills go by these names.
FAULTS = ("stop", "kill", "freeze", "power-off", "cut-off", "partition")
#: Seconds for whatever is waited for: a deployment, an agent that comes back.
PATIENCE = 1800.0
SECTION = """staging: {environment: ENV, versions: ["1.4.1", "1.4.2"]}"""
_KEYS = (
    "environment", "versions", "hosts", "customer", "runs", "middle", "takeover_within", "patience", "break", "mend",
    "faults",
)  # fmt: skip
_HOST = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:%\]-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fault:
    """Commands of a shell here: one that makes it, and one that mends it."""

    make: str
    mend: str


@dataclass(frozen=True)
class Settings:
    """What the section says."""

    folder: Path  #: of the project
    environment: str
    versions: tuple[str, ...]  #: which are well, and may be deployed there
    version_url: str
    version_key: str
    customer: str | None = None
    hosts: Mapping[str, str] = field(default_factory=dict)  #: addresses, of hosts that their names do not lead to
    middle: str | None = None  #: the step in which a fault is made; else it is when one host runs the new version
    takeover_within: float = REQUIRED  #: more where a lease is longer than ours by default
    patience: float = PATIENCE
    sick: Fault | None = None  #: `{version}` is not well on `{host}`, and every version is again
    faults: Mapping[str, Fault] = field(default_factory=dict)


def load(folder: Path) -> Settings | None:
    """Read drill.yml; None if it names no environment to be drilled. ConfigError if it is wrong."""
    whole = read(folder)
    if "staging" not in whole:
        return None
    path, said = f"{folder / DRILL}: staging", whole["staging"]
    for key in said:
        if key not in _KEYS:
            raise ConfigError(f"{path}.{key}: there is no such key", code=Code.CONFIG_KEY, hint=", ".join(_KEYS))
    runs = said.get("runs", whole.get("runs"))
    if not isinstance(runs, dict) or not all(isinstance(runs.get(key), str) for key in ("url", "key")):
        _wrong(f"{path}.runs: needs url and key", 'as in runs: {url: "http://{address}/", key: version}')
    return Settings(
        folder=folder,
        environment=_text(path, said, "environment") or _wrong(f"{path} lacks environment", SECTION),
        versions=_versions(path, said.get("versions")),
        version_url=runs["url"],
        version_key=runs["key"],
        customer=_text(path, said, "customer") if "customer" in said else whole.get("customer"),
        hosts=_hosts(path, said.get("hosts")),
        middle=_text(path, said, "middle"),
        takeover_within=_seconds(path, said, "takeover_within", REQUIRED),
        patience=_seconds(path, said, "patience", PATIENCE),
        sick=_sick(path, said),
        faults=_faults(path, said.get("faults")),
    )


def _wrong(message: str, hint: str) -> NoReturn:
    raise ConfigError(message, hint=hint)


def _text(path: str, said: Mapping[str, Any], key: str) -> str | None:
    value = said.get(key)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        _wrong(f"{path}.{key}: must be text", "quote it")
    return value


def _versions(path: str, said: object) -> tuple[str, ...]:
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
        _wrong(f"{path}.versions: must be a list of texts", 'quote them, as in versions: ["1.4.1", "1.4.2"]')
    for version in said:
        try:
            validate_version(version)
        except UsageError as error:
            raise ConfigError(f"{path}.versions: {error.message}", code=error.code, hint=error.hint) from error
    if len(set(said)) < 2:
        _wrong(
            f"{path}.versions: at least two different ones are needed",
            "name versions that are well and may be deployed there: they are deployed in turn",
        )
    return tuple(dict.fromkeys(said))


def _hosts(path: str, said: object) -> dict[str, str]:
    if said is None:
        return {}
    if not isinstance(said, dict) or not said:
        _wrong(f"{path}.hosts: must map names of the inventory to addresses", "as in hosts: {web-01: 10.2.0.11}")
    for text in (*said, *said.values()):
        if not isinstance(text, str) or not _HOST.fullmatch(text):
            _wrong(f"{path}.hosts: {text!r} is no name or address", "letters, digits and . - _ : only")
    return dict(said)


def _seconds(path: str, said: Mapping[str, Any], key: str, default: float) -> float:
    if key not in said:
        return default
    try:
        return parse_duration(said[key]) or _wrong(f"{path}.{key}: must be more than nothing", "as in 45s")
    except DurationError as error:
        raise ConfigError(f"{path}.{key}: {error}", hint=error.hint) from error


def _sick(path: str, said: Mapping[str, Any]) -> Fault | None:
    if "break" not in said and "mend" not in said:
        return None
    return Fault(_command(f"{path}.break", said.get("break")), _command(f"{path}.mend", said.get("mend")))


def _faults(path: str, said: object) -> dict[str, Fault]:
    if said is None:
        return {}
    if not isinstance(said, dict):
        _wrong(f"{path}.faults: must be a mapping", f"of {', '.join(FAULTS)} to {{make: COMMAND, mend: COMMAND}}")
    found = {}
    for name, one in said.items():
        where = f"{path}.faults.{name}"
        if name not in FAULTS:
            raise ConfigError(f"{where}: there is no such fault", code=Code.CONFIG_KEY, hint=", ".join(FAULTS))
        if not isinstance(one, dict) or set(one) - {"make", "mend"}:
            _wrong(f"{where}: must have make and mend, and nothing else", f"{name}: {{make: COMMAND, mend: COMMAND}}")
        found[name] = Fault(_command(f"{where}.make", one.get("make")), _command(f"{where}.mend", one.get("mend")))
    return found


def _command(path: str, said: object) -> str:
    if not isinstance(said, str) or not said.strip() or "\0" in said:
        _wrong(f"{path}: must be a command for a shell", 'such as "ssh {agent} sudo systemctl start surefoot-agent"')
    return said
