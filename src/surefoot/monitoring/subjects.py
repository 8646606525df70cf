# SPDX-License-Identifier: Apache-2.0
"""What a config gives a runner to watch: the hosts of its inventories, and its secrets."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from surefoot.checks import registry
from surefoot.checks.model import CheckFailed, CheckStatus, CommandResult, Context
from surefoot.checks.programs import asked_program
from surefoot.checks.secret import Format, expiry
from surefoot.config.models import Config
from surefoot.core import plan
from surefoot.monitoring.runner import Secret, Target
from surefoot.steps.ansible import executable, hosts_in

#: Seconds after which an inventory is read again; a dynamic one asks its source each time.
INVENTORY_EVERY = 600.0
#: Seconds for Ansible to read one.
READ = 60.0


class Hosts:
    """The hosts of all environments' inventories, as Ansible reads them, and those that were named beside."""

    def __init__(self, config: Config | None, named: Sequence[Target] = ()) -> None:
        """Take the config, if there is one."""
        self._config = config
        self._named = tuple(named)
        self._read: tuple[Target, ...] = ()
        self._read_at: float | None = None

    async def __call__(self) -> Sequence[Target]:
        """Return them; an inventory that can't be read leaves what was read before, and says so the next time."""
        if self._config is not None and (self._read_at is None or time.monotonic() - self._read_at > INVENTORY_EVERY):
            self._read_at = time.monotonic()
            found: list[Target] = []
            for name, environment in self._config.environments.items():
                if environment.inventory is not None:
                    found += targets(name, await _inventory(self._config.folder, environment.inventory))
            self._read = tuple(found)
        return (*self._read, *self._named)


def targets(environment: str, inventory: Mapping[str, Any]) -> list[Target]:
    """Return what `ansible-inventory --list` says can be reached by SSH."""
    variables = inventory.get("_meta", {}).get("hostvars", {})
    found = []
    for name in hosts_in(inventory):
        of_host = variables.get(name, {})
        address, port = str(of_host.get("ansible_host", name)), of_host.get("ansible_port", 22)
        local = of_host.get("ansible_connection") == "local"
        if not local and "{{" not in address and str(port).isdigit():
            found.append(Target(environment, name, address, int(port)))
    return found


async def _inventory(folder: Path, inventory: str) -> Mapping[str, Any]:
    program = executable("ansible-inventory")
    async with asyncio.timeout(READ):
        told = await asked_program(program, "-i", inventory, "--list", folder=folder)
    if told.status != 0:
        raise RuntimeError(f"Ansible can't read the inventory {inventory}")
    known = json.loads(told.stdout)
    return known if isinstance(known, dict) else {}


class Secrets:
    """How the secrets fare that a config names: present, what its checks ask of them, not expired."""

    def __init__(
        self, config: Config | None, names: Iterable[str] = (), environ: Mapping[str, str] = os.environ
    ) -> None:
        """Take the config, if there is one, and names beside it."""
        environments = config.environments.values() if config is not None else ()
        self._environ = environ
        self._checks = {
            str(check.options["name"]): plan.Check("secret", check.options, str(check.options["name"]))
            for environment in environments
            for check in environment.preflight
            if check.kind == "secret" and "name" in check.options
        }
        self._names = tuple(dict.fromkeys((*(config.secret_names if config else ()), *names, *self._checks)))

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self._names)

    async def __call__(self) -> Mapping[str, Secret]:
        """Look at all. No value leaves this method."""
        context = Context({}, (), self._environ, _no_commands)
        results = await registry.run_all(tuple(self._checks.values()), context)
        failed = {result.name for result in results if result.status is CheckStatus.FAIL}
        return {name: self._judged(name, failed) for name in self._names}

    def _judged(self, name: str, failed: set[str]) -> Secret:
        value = self._environ.get(name, "")
        if not value.strip():
            return Secret(valid=False)
        asked = self._checks[name].options.get("format") if name in self._checks else None
        try:
            end = expiry(name, value, Format(str(asked)) if asked is not None else None)
        except CheckFailed:
            return Secret(valid=False)
        return Secret(name not in failed and (end is None or end > time.time()), end)


async def _no_commands(command: str, timeout: float) -> CommandResult:
    return CommandResult(None, "nothing is run for a look at secrets")
