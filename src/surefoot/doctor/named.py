# SPDX-License-Identifier: Apache-2.0
"""Which project and which store the agents of this machine work for, where a shell does not say: who is woken logs in
and stands in no project, and the store is often named in a service's environment file alone. A look at another store
would find nothing wrong but that nobody is there.

Guarantees: of an environment file nothing is kept but the store's address; no command that is told holds a password.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from surefoot.config.discovery import find_config
from surefoot.core.errors import SurefootError
from surefoot.doctor import machine

VARIABLE = "SUREFOOT_STORE"


@dataclass(frozen=True, slots=True)
class Named:
    """An agent of this machine: its project, and the store if it is named beside the config."""

    by: str  #: the service, or the process
    config: Path
    store: str = field(default="", repr=False)
    command: str = ""  #: makes a shell name that store
    service: bool = True  #: and no process that somebody may have started by hand


async def named() -> list[Named]:
    """Return what the agents of this machine work for, whether they run or not: services first."""
    try:
        async with asyncio.timeout(machine.ASK):
            told = await machine.shown_units()
    except (OSError, TimeoutError):
        told = []
    of_units = [found for one in told if (found := _of_unit(one)) is not None]
    return of_units + await asyncio.to_thread(lambda: list(_of_processes()))


def _of_unit(told: dict[str, str]) -> Named | None:
    words, unit = machine.command_of(told), told["Id"]
    folder = Path(told.get("WorkingDirectory", "").lstrip("!-") or "/")
    config = _config(words, {}, folder)
    if machine.agent_of(words) is None or config is None:
        return None
    if given := machine.option(words, "--store"):
        return Named(unit, config, machine.place_of(given, folder), f"systemctl cat {unit}")
    for path in re.findall(r"(/\S+) \(ignore_errors", told.get("EnvironmentFiles", "")):
        if store := next(filter(None, map(_value, _lines(Path(path)))), ""):
            command = f"set -a; . {shlex.quote(path)}; set +a"
            return Named(f"{path} of {unit}", config, machine.place_of(store, folder), command)
    if store := next(filter(None, map(_value, shlex.split(told.get("Environment", "")))), ""):
        return Named(unit, config, machine.place_of(store, folder), f"systemctl cat {unit}")
    return Named(unit, config)


def _of_processes() -> Iterator[Named]:
    for one in machine.running_agents():
        if one.cwd is None or (config := _config(one.words, one.environ, one.cwd)) is None:
            continue
        store = machine.option(one.words, "--store") or one.environ.get(VARIABLE, "")
        line = f"tr '\\0' '\\n' </proc/{one.pid}/environ | sed -n s/^{VARIABLE}=//p"
        command = f'export {VARIABLE}="$({line})"' if VARIABLE in one.environ else f"ps -wwp {one.pid}"
        place = machine.place_of(store, one.cwd) if store else ""
        yield Named(f"agent {one.name} (process {one.pid})", config, place, command, service=False)


def _config(words: Sequence[str], environ: Mapping[str, str], folder: Path) -> Path | None:
    chosen = machine.option(words, "--config") or environ.get("SUREFOOT_CONFIG")
    try:
        return find_config(str(folder / chosen) if chosen else None, {}, folder).resolve()
    except (SurefootError, OSError):
        return None


def _lines(path: Path) -> Iterator[str]:
    try:
        yield from path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return  # for root alone, perhaps


def _value(line: str) -> str:
    name, _, value = line.strip().partition("=")
    try:
        return " ".join(shlex.split(value)) if name == VARIABLE else ""
    except ValueError:
        return ""
