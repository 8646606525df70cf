# SPDX-License-Identifier: Apache-2.0
"""Watches the runner: its machine, the CI runner's own service, and what it can reach. All in the background.

Guarantees: a scrape never waits for a disk, a host, a process or a name server; what was not found out yet is not
said. `runner_status` is 1 only if the service was seen up at the last look.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from surefoot.checks.programs import asked_program
from surefoot.core.notes import Level, Note, Tell

#: Seconds between two looks.
MACHINE_EVERY = 5.0
HOSTS_EVERY = 15.0
SECRETS_EVERY = 60.0
#: Seconds that the CPU's use is first measured over; then it is measured from look to look.
FIRST_CPU = 0.1
#: Seconds that a host has to accept a connection, and how many are asked at once.
CONNECT = 3.0
AT_ONCE = 50
#: Seconds that systemd has to say how a service is.
ASK = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """A host of an environment, and where its SSH listens."""

    environment: str
    host: str
    address: str
    port: int = 22


@dataclass(frozen=True, slots=True)
class Service:
    """The CI runner's own service: systemd units (patterns are allowed), processes by a regular expression over their
    command lines, or both. All must be up.
    """

    units: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()

    @property
    def named(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.units or self.processes)


@dataclass(slots=True)
class Machine:
    """How the machine was at the last look."""

    cpu: float | None = None
    memory: float | None = None
    disk: float | None = None
    service_up: bool | None = None
    looked_at: float | None = None


@dataclass(frozen=True, slots=True)
class Secret:
    """How a secret was at the last look."""

    valid: bool
    expires_at: float | None = None


@dataclass(slots=True)
class Watched:
    """All that was found out."""

    machine: Machine = field(default_factory=Machine)
    hosts: dict[tuple[str, str], bool] = field(default_factory=dict)
    secrets: dict[str, Secret] = field(default_factory=dict)


Judge = Callable[[], Awaitable[Mapping[str, Secret]]]


class Watch:
    """See the module's docstring."""

    def __init__(
        self,
        *,
        service: Service = Service(),
        disk: Path = Path("/"),
        targets: Callable[[], Awaitable[Sequence[Target]]] | None = None,
        judge: Judge | None = None,
        note: Tell = lambda _: None,
        every: float = 1.0,
    ) -> None:
        """`targets` and `judge` say which hosts there are, and how secrets are; `every` scales all pauses."""
        self.found = Watched()
        self._service = service
        self._disk = disk
        self._targets = targets
        self._judge = judge
        self._note = note
        self._scale = every
        self._trouble: dict[str, str] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again("machine", self._look_at_machine, MACHINE_EVERY))
            if self._targets is not None:
                group.create_task(self._again("hosts", self._look_at_hosts, HOSTS_EVERY))
            if self._judge is not None:
                group.create_task(self._again("secrets", self._look_at_secrets, SECRETS_EVERY))

    async def _again(self, what: str, look: Callable[[], Awaitable[None]], pause: float) -> None:
        while True:
            trouble = ""
            try:
                await look()
            except Exception as error:  # one that can't be looked at must not end the others
                trouble = f"{what}: {error}" if str(error) else f"{what}: {type(error).__name__}"
            if trouble and trouble != self._trouble.get(what):
                self._note(Note(trouble, f"{what}_unknown", Level.WARNING))
            self._trouble[what] = trouble
            await asyncio.sleep(pause * self._scale)

    async def _look_at_machine(self) -> None:
        import psutil

        machine = self.found.machine
        if machine.looked_at is None:
            psutil.cpu_percent()  # what it says is the use since it was last asked
            await asyncio.sleep(FIRST_CPU)
        machine.cpu = psutil.cpu_percent()
        machine.memory = psutil.virtual_memory().percent
        machine.service_up = await self._service_up()
        machine.looked_at = time.time()
        try:
            # A network disk that hangs keeps its thread, and nobody else.
            async with asyncio.timeout(ASK):
                machine.disk = await asyncio.to_thread(_disk_usage, str(self._disk))
        except TimeoutError:
            machine.disk = None

    async def _service_up(self) -> bool:
        try:
            units = all([await _unit_up(unit) for unit in self._service.units])
            return units and (
                not self._service.processes or await asyncio.to_thread(processes_up, self._service.processes)
            )
        except (OSError, TimeoutError) as error:
            # A service that nobody can ask after is not known to be up.
            self._note(Note(f"service: {error or type(error).__name__}", "service_unknown", Level.WARNING))
            return False

    async def _look_at_hosts(self) -> None:
        assert self._targets is not None
        gate = asyncio.Semaphore(AT_ONCE)
        targets = await self._targets()
        found = await asyncio.gather(*(_reachable(target, gate) for target in targets))
        self.found.hosts = {(t.environment, t.host): up for t, up in zip(targets, found, strict=True)}

    async def _look_at_secrets(self) -> None:
        assert self._judge is not None
        self.found.secrets = dict(await self._judge())


def _disk_usage(path: str) -> float:
    import psutil

    return psutil.disk_usage(path).percent


async def _unit_up(pattern: str) -> bool:
    """Whether systemd calls all units of that name active; False if there is none."""
    async with asyncio.timeout(ASK):
        told = await asked_program("systemctl", "show", "--property=LoadState,ActiveState", "--", pattern)
    return active(told.stdout.decode("utf-8", "replace"))


def active(said: str) -> bool:
    """Read what `systemctl show` says of units: whether there are any, and all are active."""
    units = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in said.split("\n\n")]
    known = [unit for unit in units if unit.get("LoadState") not in (None, "not-found")]
    return bool(known) and all(unit.get("ActiveState") in ("active", "reloading") for unit in known)


def processes_up(patterns: Sequence[str]) -> bool:
    """Whether each pattern is found in the command line of a process that is no zombie."""
    import psutil

    lines = []
    for process in psutil.process_iter(["cmdline", "status"]):
        with suppress(psutil.Error):
            if process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != psutil.Process().pid:
                lines.append(" ".join(process.info["cmdline"] or ()))
    return all(any(re.search(pattern, line) for line in lines) for pattern in patterns)


async def _reachable(target: Target, gate: asyncio.Semaphore) -> bool:
    async with gate:
        try:
            async with asyncio.timeout(CONNECT):
                _, writer = await asyncio.open_connection(target.address.strip("[]"), target.port)
        except (OSError, TimeoutError, ValueError):  # ValueError: a name that can't be one
            return False
        writer.transport.abort()
        return True
