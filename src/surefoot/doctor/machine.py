# SPDX-License-Identifier: Apache-2.0
"""This machine: which agents run on it, how their services are, and what is in an agent's own environment.

Guarantees: of a process's environment nothing is kept but the variables that are asked for. Processes of other users
that can't be looked into are left out.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from surefoot.checks.programs import asked_program
from surefoot.config.discovery import find_config, store_place
from surefoot.core.errors import ConfigError, SurefootError
from surefoot.doctor.facts import AgentProcess, Unit

#: systemd units of agents, and of the CI's own runners.
UNITS = ("surefoot*.service", "actions.runner.*.service", "gitlab-runner*.service", "act_runner*.service")
#: Seconds that systemd has to answer.
ASK = 3.0


def agent_processes(config: Path | None, store: str) -> list[AgentProcess]:
    """Return the processes of this machine that run an agent; `config` and `store` are those of this command."""
    return [
        AgentProcess(one.pid, one.name, one.frozen, _same(one, config, store) if one.cwd is not None else None)
        for one in sorted(running_agents(), key=lambda one: one.pid)
    ]


@dataclass(frozen=True, slots=True)
class Running:
    """A process of this machine that runs an agent."""

    pid: int
    name: str  #: of the agent
    words: Sequence[str]
    frozen: bool
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None  #: None: the process can't be looked into


def running_agents() -> Iterator[Running]:
    """Yield the processes of this machine that run an agent."""
    import psutil

    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        words = process.info["cmdline"] or []
        if (name := agent_of(words)) is None:
            continue
        one = Running(process.info["pid"], name, words, process.info["status"] == psutil.STATUS_STOPPED)
        try:
            yield replace(one, environ=process.environ(), cwd=Path(process.cwd()))
        except (psutil.Error, OSError):
            yield one


def environment_of(pid: int, names: Sequence[str]) -> dict[str, str]:
    """Return some variables of a process's environment; none if it can't be looked into."""
    import psutil

    try:
        environ = psutil.Process(pid).environ()
    except (psutil.Error, OSError):
        return {}
    return {name: environ[name] for name in names if environ.get(name)}


def readable(pid: int) -> bool:
    """Whether a process's environment can be looked into."""
    return os.access(f"/proc/{pid}/environ", os.R_OK)


def agent_of(words: Sequence[str]) -> str | None:
    """Return the name of the agent that a command line runs."""
    if not any(Path(word).name == "surefoot" or word.endswith("surefoot/__main__.py") for word in words[:4]):
        return None  # `python -m surefoot` shows as one of the two
    plain, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = word in ("--config", "--store", "--output", "--role")
        else:
            plain.append(word)
    for place in range(len(plain) - 2):
        if plain[place : place + 2] == ["agent", "run"]:
            return plain[place + 2]
    return None


def _same(one: Running, config: Path | None, store: str) -> bool | None:
    """Whether an agent works with the store of this command, as far as its command line and environment tell."""
    words, environ, cwd = one.words, one.environ, one.cwd
    assert cwd is not None
    named = option(words, "--store") or environ.get("SUREFOOT_STORE")
    if named is not None:
        return place_of(named, cwd) == place_of(store, Path.cwd())
    chosen = option(words, "--config") or environ.get("SUREFOOT_CONFIG")
    try:
        its = (cwd / chosen).resolve() if chosen else find_config(None, {}, cwd)
    except SurefootError:
        return None
    if config is not None and its.resolve() == config.resolve():
        return True
    own = its.parent.resolve() / ".surefoot" / "surefoot.db"
    return place_of(store, Path.cwd()) == str(own) or None


def option(words: Sequence[str], name: str) -> str | None:
    """Return the value of an option of a command line."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def place_of(store: str, cwd: Path) -> str:
    """Return a store's URL or path such that equal places are equal, wherever they are looked at from."""
    try:
        place = store_place(store, cwd)
    except ConfigError:  # somebody else's mistake, who has been told of it
        return store
    return place if "://" in place else str(Path(place).resolve())


async def units() -> list[Unit]:
    """Return the services of agents and CI runners on this machine. OSError if systemd can't be asked."""
    return [
        Unit(told["Id"], told["ActiveState"], told["SubState"], agent_of(command_of(told)) or "")
        for told in await shown_units()
    ]


_SHOWN = "Id,LoadState,ActiveState,SubState,ExecStart,WorkingDirectory,Environment,EnvironmentFiles"


async def shown_units() -> list[dict[str, str]]:
    """Return what systemd says of each of these services. OSError if it can't be asked."""
    shown = await _systemctl("show", "--all", f"--property={_SHOWN}", *UNITS)
    found = []
    for block in shown.split("\n\n"):
        told: dict[str, str] = {}
        for line in block.splitlines():
            name, _, value = line.partition("=")
            told[name] = f"{told[name]} {value}" if name in told else value
        if told.get("Id") and told.get("LoadState") != "not-found":
            found.append(told)
    return sorted(found, key=lambda told: told["Id"])


def command_of(told: dict[str, str]) -> list[str]:
    """Return the words that a service starts with."""
    return told.get("ExecStart", "").partition("argv[]=")[2].partition(" ;")[0].split()


async def _systemctl(*words: str) -> str:
    async with asyncio.timeout(ASK):
        told = await asked_program("systemctl", "--no-pager", *words)
    if told.status != 0:
        wrong = told.stderr.decode(errors="replace").strip()
        raise OSError(wrong.splitlines()[0] if wrong else "it does not run")
    return told.stdout.decode(errors="replace")


def disk_percent(folder: Path) -> tuple[float, str]:
    """Return how full the disk is that a folder is on, or will be, and where it is mounted."""
    import psutil

    there = next(path for path in (folder, *folder.parents) if os.path.exists(path)).resolve()  # noqa: PTH110
    mount = next(path for path in (there, *there.parents) if path.is_mount())
    return psutil.disk_usage(str(there)).percent, str(mount)
