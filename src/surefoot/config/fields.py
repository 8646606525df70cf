# SPDX-License-Identifier: Apache-2.0
"""Types of config values, and the one way for a validator to refuse one. For the models here, and for the options of
checks.

Guarantees: what these types refuse, they refuse with a sentence, a hint and a code; files are looked at only when
`Files` says where.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from surefoot.config.discovery import NAME_A_STORE, NO_STORE, is_no_store
from surefoot.config.durations import PATTERN, DurationError, parse_duration
from surefoot.config.expansion import NAME
from surefoot.config.problems import did_you_mean, nearest, shown
from surefoot.core.errors import Code
from surefoot.core.gates import MINUTES_OF_A_DAY
from surefoot.core.windows import DAYS

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_REFERENCE = re.compile(r"(?<!\$)\$\{[A-Za-z_][A-Za-z0-9_]*\}", re.ASCII)
_ONE_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}", re.ASCII)
_NO_HOSTS_HERE = re.compile(r"\s*([#;].*|\[[^\]]*\]\s*([#;].*)?|---\s*)?", re.ASCII)


class Section(BaseModel):
    """Base of all parts of the config: unknown keys are errors, nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Files:
    """The project's root, for validators that look whether a file exists."""

    folder: Path


def refuse(
    reason: str, *, hint: str = "", code: Code = Code.CONFIG_VALUE, allowed: tuple[str, ...] = ()
) -> PydanticCustomError:
    """Return the error for a validator to raise."""
    context = {"reason": reason, "hint": hint, "code": code, "allowed": allowed}
    return PydanticCustomError("surefoot", "{reason}", context)


def one_of(choices: type[StrEnum], some: tuple[StrEnum, ...] | None = None) -> Callable[[Any], StrEnum]:
    """Return a validator that takes the enum's values (or some of them), and says which they are."""

    def check(value: Any) -> StrEnum:
        allowed = tuple(choice.value for choice in some or choices)
        if value in allowed:
            return choices(value)
        what = f"must be one of the allowed, not {_kind(value)}"
        if isinstance(value, str):
            what = f"{shown(value)} is not allowed{did_you_mean(value, allowed)}"
        raise refuse(what, allowed=allowed)

    return check


def filled(value: Any) -> Any:
    """Refuse an empty list or mapping."""
    if value in ([], (), {}):
        raise refuse("must have at least one entry", code=Code.CONFIG_KEY)
    return value


def text_only(value: Any) -> Any:
    """Refuse what YAML did not read as text, and say so."""
    if isinstance(value, str):
        return value
    raise refuse(f"must be text, not {_kind(value)}", hint="put the value in quotes")


def whole_number(value: Any) -> Any:
    """Take 3 and "3" (as a variable gives it), not true, not 3.5."""
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value, re.ASCII):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise refuse(f"must be a whole number, not {_kind(value)}")


def truth(value: Any) -> Any:
    """Take true and false, and their texts (as a variable gives them)."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise refuse(f"must be true or false, not {_kind(value)}")


def _duration(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise refuse(f"must be a duration, not {_kind(value)}", hint="write a number and a unit, such as 5s")
    try:
        return parse_duration(value)
    except DurationError as error:
        raise refuse(str(error), hint=error.hint) from error


def _positive(value: Any) -> float:
    seconds = _duration(value)
    if seconds <= 0:
        raise refuse("must be longer than zero", hint="write a duration such as 5s", code=Code.CONFIG_TIMING)
    return seconds


def _safe_name(limit: int) -> Any:
    def check(value: Any) -> str:
        name = text_only(value)
        if len(name) > limit:
            raise refuse(f"is {len(name)} characters long; {limit} are allowed", hint="shorten the name")
        if not _SAFE_NAME.fullmatch(name):
            raise refuse(
                f"{shown(name)} can't be a name",
                hint="names are letters, digits and . _ - after a letter or digit, in ASCII",
            )
        return str(name)

    return check


def _step_name(value: Any) -> str:
    name = text_only(value)
    if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > 100:
        raise refuse(
            f"{shown(name)} can't be a step's name",
            hint="a step's name is one line of at most 100 printable characters, without spaces at its ends",
        )
    return str(name)


def _secret_name(value: Any) -> str:
    name = text_only(value)
    if not NAME.fullmatch(name):
        raise refuse(f"{shown(name)} can't be the name of an environment variable", hint="as in SSH_PRIVATE_KEY")
    return str(name)


def _store_place(value: Any) -> str:
    """Check where the store is; which file or server that is, is seen when it is opened."""
    text = text_only(value)
    if is_no_store(text):
        raise refuse(NO_STORE, hint=NAME_A_STORE)
    return str(text)


def _command(value: Any) -> str:
    text = text_only(value)
    if not text.strip():
        raise refuse("is empty", hint="give a command, such as ./scripts/migrate.sh")
    return str(text)


def _host_path(value: Any) -> str:
    text = text_only(value)
    if not text.startswith("/") or not text.isprintable() or ".." in PurePosixPath(text).parts:
        raise refuse(f"{shown(text)} is not an absolute path on the hosts", hint="as in /var/lib/app-state.json")
    return str(text)


def _agent_path(value: Any) -> str:
    text = text_only(value)
    if not text.startswith("/") or not text.isprintable() or ".." in PurePosixPath(text).parts:
        hint = "as in /etc/surefoot/db-password; a file of the project would be in everybody's copy of it"
        raise refuse(f"{shown(text)} is not an absolute path on the agents", hint=hint)
    return str(text)


def _vault_path(value: Any, info: ValidationInfo) -> str:
    text = text_only(value)
    return _agent_path(text) if text.startswith("/") else _project_path(text, info, "file")


def _program(value: Any) -> str | tuple[str, ...]:
    """Take a shell command, or a program with its arguments."""
    if isinstance(value, str):
        return _command(value)
    if not isinstance(value, list | tuple) or not value or not all(isinstance(word, str) for word in value):
        raise refuse(
            "must be a shell command, or a list of a program and its arguments",
            hint="as in [vault, kv, get, -field=password, secret/shop]",
        )
    if any(_REFERENCE.search(word) for word in value):
        raise refuse(
            "an argument can't be a secret: everybody on the machine could read it",
            hint="let the program take it from its environment",
        )
    return tuple(value)


def _login(value: Any) -> str:
    text = text_only(value)
    if not _ONE_REFERENCE.fullmatch(text) and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.@\\-]*\$?", text, re.ASCII):
        raise refuse(f"{shown(text)} is no user's name", hint='as in deploy, or "${PRODUCTION_SSH_USER}"')
    return str(text)


def _playbook(value: Any, info: ValidationInfo) -> str:
    path = _project_path(text_only(value), info, "playbook")
    if isinstance(info.context, Files) and not (info.context.folder / path).is_file():
        raise refuse(f"the playbook {shown(path)} is a folder", hint="name a file", code=Code.CONFIG_FILE)
    return path


def _inventory(value: Any, info: ValidationInfo) -> str:
    text = text_only(value)
    if "," in text:
        hosts = [host.strip() for host in text.split(",")]
        if not any(hosts):
            raise refuse("the inventory names no hosts", hint="as in web1,web2,", code=Code.NO_HOSTS)
        if text.startswith("-") or not text.isprintable():
            raise refuse(f"{shown(text)} is not a list of hosts", hint="as in web1,web2,")
        return str(text)
    path = _project_path(text, info, "inventory")
    if isinstance(info.context, Files):
        _look_for_hosts(info.context.folder / path, path)
    return path


def _secret_reference(value: Any) -> str:
    text = text_only(value)
    if not _ONE_REFERENCE.fullmatch(text):
        raise refuse(
            "must name a variable of the agent's environment, not hold the value itself",
            hint='as in "${GITHUB_TOKEN}"',
        )
    return str(text)


def _repository(value: Any) -> str:
    text = text_only(value)
    if not re.fullmatch(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+", text, re.ASCII):
        raise refuse(f"{shown(text)} is not a repository", hint="as in owner/name")
    return str(text)


def _web_address(value: Any) -> str:
    text = text_only(value)
    if not re.fullmatch(r"https?://[^\s<>]+", text):
        raise refuse(f"{shown(text)} is not a web address", hint="as in https://example.com/runbook")
    return str(text)


def _address(value: Any) -> str:
    text = text_only(value)
    if not _ONE_REFERENCE.fullmatch(text) and not re.match(r"[a-z][a-z0-9]*://", text):
        raise refuse("is not an address", hint='as in slack://…, https://…, or "${NAME}"')
    password = text.partition("://")[2].partition("/")[0].rpartition("@")[0].partition(":")[2]
    if password and not _ONE_REFERENCE.search(password):
        raise refuse("holds a password", hint="write ${NAME} in its place, and set NAME where the agent runs")
    return str(text)


def _percent(value: Any) -> float:
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,3})?) ?%", value, re.ASCII) if isinstance(value, str) else None
    if match is None or not 0 < float(match[1]) <= 100:
        raise refuse("must be a percentage up to 100%", hint="as in 90%")
    return float(match[1])


def _time_of_day(value: Any) -> int:
    if not isinstance(value, str):
        raise refuse(f"must be a time of day, not {_kind(value)}", hint='put it in quotes, as in "17:00"')
    match = re.fullmatch(r"(\d{1,2}):(\d{2})", value, re.ASCII)
    minutes = int(match[1]) * 60 + int(match[2]) if match is not None and int(match[2]) < 60 else -1
    if not 0 <= minutes <= MINUTES_OF_A_DAY:
        raise refuse(f"{shown(value)} is not a time of day", hint='as in "09:00"; "24:00" is the end of the day')
    return minutes


def _time_zone(value: Any) -> str:
    from zoneinfo import ZoneInfo, available_timezones

    name = text_only(value)
    if name in {"localtime", "posixrules"}:  # files of a machine, beside those of the zones
        raise refuse(f"{name} is another time zone on each machine", hint="as in Europe/Zurich, or UTC")
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        meant = did_you_mean(name, available_timezones())
        raise refuse(f"there is no time zone {shown(name)}{meant}", hint="as in Europe/Zurich, or UTC") from error
    return str(name)


def _day(value: Any) -> str:
    name = text_only(value).lower()[:3]
    if name not in DAYS:
        raise refuse(f"{shown(value)} is not a day", allowed=DAYS)
    return str(name)


def _look_for_hosts(file: Path, name: str) -> None:
    """Refuse a static inventory that is empty but for comments and headings; Ansible itself reads all others."""
    if not file.is_file() or os.access(file, os.X_OK):
        return
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            empty = all(_NO_HOSTS_HERE.fullmatch(line.rstrip("\n")) for line in lines)
    except OSError as error:
        raise refuse(
            f"the inventory {shown(name)} can't be read", hint="chmod u+r it", code=Code.CONFIG_FILE
        ) from error
    if empty:
        raise refuse(f"the inventory {shown(name)} names no hosts", hint="add a host to it", code=Code.NO_HOSTS)


def _project_path(text: str, info: ValidationInfo, what: str) -> str:
    """Return a path below the config's folder, after looking that it is there."""
    inside = "name a file in the folder of surefoot.yml: a deployment runs from a copy of that folder"
    if not text.strip() or not text.isprintable() or text.startswith("-"):
        raise refuse(f"{shown(text)} can't be the path of a file", hint=inside)
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or text.startswith("~"):
        raise refuse(f"the {what} {shown(text)} is outside the project", hint=inside, code=Code.CONFIG_FILE)
    if path.parts[:1] == (".surefoot",):
        why = f"the {what} {shown(text)} is in .surefoot/, which is never deployed from"
        raise refuse(why, hint=inside, code=Code.CONFIG_FILE)
    if isinstance(info.context, Files):
        _look_for(info.context.folder, text, what, inside)
    return text


def _look_for(folder: Path, name: str, what: str, inside: str) -> None:
    try:
        real = (folder / name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        hint = _near_file(folder / name) or inside
        raise refuse(f"the {what} {shown(name)} does not exist", hint=hint, code=Code.CONFIG_FILE) from error
    if not real.is_relative_to(folder.resolve()):
        why = f"the {what} {shown(name)} is a link that leads outside the project"
        raise refuse(why, hint=inside, code=Code.CONFIG_FILE)
    if not os.access(real, os.R_OK):
        raise refuse(f"the {what} {shown(name)} can't be read", hint=f"chmod u+r {name}", code=Code.CONFIG_FILE)


def _near_file(missing: Path) -> str:
    """Name a file of nearly that name, if there is one."""
    try:
        near = nearest(missing.name, (entry.name for entry in missing.parent.iterdir()))
    except OSError:
        return ""
    return f"there is {near}" if near else ""


def _kind(value: Any) -> str:
    """Name what YAML has read."""
    match value:
        case None:
            return "empty"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case _:
            return "a mapping"


def _schema(label: str, **schema: Any) -> WithJsonSchema:
    """Describe a type to editors (`schema`) and to readers of the reference (`label`)."""
    return WithJsonSchema({**schema, "x-label": label})


_NAME_PATTERN = f"^{_SAFE_NAME.pattern}$"

Duration = Annotated[
    float,
    BeforeValidator(_positive),
    _schema("duration", type="string", pattern=f"^{PATTERN}$", examples=["500ms", "5s", "10m", "1h"]),
]
#: A duration that may be `0s`.
Pause = Annotated[
    float,
    BeforeValidator(_duration),
    _schema("duration", type="string", pattern=f"^{PATTERN}$", examples=["0s", "30s"]),
]
Text = Annotated[str, BeforeValidator(text_only), _schema("text", type="string")]
StorePlace = Annotated[str, BeforeValidator(_store_place), _schema("URL or path", type="string")]
Command = Annotated[str, BeforeValidator(_command), _schema("shell command", type="string", minLength=1)]
Truth = Annotated[bool, BeforeValidator(truth), _schema("`true` or `false`", type="boolean")]
Count = Annotated[
    int, BeforeValidator(whole_number), Field(ge=1, le=1000), _schema("number from 1", type="integer", minimum=1)
]
Name = Annotated[
    str, BeforeValidator(_safe_name(100)), _schema("name", type="string", pattern=_NAME_PATTERN, maxLength=100)
]
EnvironmentName = Annotated[
    str, BeforeValidator(_safe_name(64)), _schema("name", type="string", pattern=_NAME_PATTERN, maxLength=64)
]
StepName = Annotated[
    str, BeforeValidator(_step_name), _schema("one line of text", type="string", minLength=1, maxLength=100)
]
SecretName = Annotated[
    str,
    BeforeValidator(_secret_name),
    _schema("name of an environment variable", type="string", pattern=f"^{NAME.pattern}$"),
]
PlaybookPath = Annotated[str, BeforeValidator(_playbook), _schema("path in the project", type="string")]
InventoryPath = Annotated[
    str, BeforeValidator(_inventory), _schema("path in the project, or `host1,host2,`", type="string")
]
#: `${NAME}` and nothing else: its value is the agent's to know.
SecretReference = Annotated[
    str,
    BeforeValidator(_secret_reference),
    _schema("`${NAME}`", type="string", pattern=rf"^{_ONE_REFERENCE.pattern}$"),
]
Reference = Annotated[str, BeforeValidator(text_only), _schema("text, or `${NAME}`", type="string", minLength=1)]
Repository = Annotated[str, BeforeValidator(_repository), _schema("`owner/name`", type="string", pattern="/")]
WebAddress = Annotated[str, BeforeValidator(_web_address), _schema("web address", type="string", pattern="^https?://")]
#: An address whose secrets are `${NAME}`.
Address = Annotated[str, BeforeValidator(_address), _schema("address", type="string")]
Percent = Annotated[
    float,
    BeforeValidator(_percent),
    _schema("percentage", type="string", pattern=r"^\d+(\.\d+)? ?%$", examples=["90%"]),
]
#: Minutes since the day began.
TimeOfDay = Annotated[
    int,
    BeforeValidator(_time_of_day),
    _schema("time of day", type="string", pattern=r"^\d{1,2}:\d{2}$", examples=["09:00", "24:00"]),
]
TimeZone = Annotated[str, BeforeValidator(_time_zone), _schema("time zone", type="string", examples=["Europe/Zurich"])]
Day = Annotated[str, BeforeValidator(_day), _schema("day", type="string", enum=list(DAYS))]
AgentPath = Annotated[str, BeforeValidator(_agent_path), _schema("absolute path", type="string", pattern="^/")]
VaultPath = Annotated[
    str, BeforeValidator(_vault_path), _schema("path in the project, or absolute on the agent", type="string")
]
Login = Annotated[str, BeforeValidator(_login), _schema("name, or `${NAME}`", type="string", minLength=1)]
Program = Annotated[
    str | tuple[str, ...],
    BeforeValidator(_program),
    _schema(
        "shell command, or list of a program and its arguments",
        oneOf=[{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
    ),
]
HostPath = Annotated[str, BeforeValidator(_host_path), _schema("absolute path", type="string", pattern="^/")]
