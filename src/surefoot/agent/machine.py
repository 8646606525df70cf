# SPDX-License-Identifier: Apache-2.0
"""How the machine fares that an agent runs on: CPU, memory, disk, and whether that is good enough to deploy from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Above these an agent calls itself degraded: what a deploy needs (unpacking, Ansible's forks) may fail.
MEMORY_LIMIT = 95.0
DISK_LIMIT = 95.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """Percentages in use; `degraded` says why the machine is not fit, empty when it is."""

    cpu_percent: float = 0.0
    memory_percent: float = 0.0
    disk_percent: float = 0.0
    degraded: str = ""


def vitals_of(folder: Path) -> Callable[[], Vitals]:
    """Return what measures this machine, with the disk that holds `folder`."""
    import psutil

    psutil.cpu_percent()  # the first call only starts the measurement

    def measure() -> Vitals:
        memory, disk = psutil.virtual_memory().percent, psutil.disk_usage(str(folder)).percent
        reasons = [
            f"{name} {value:.0f} % > {limit:.0f} %"
            for name, value, limit in (("memory", memory, MEMORY_LIMIT), ("disk", disk, DISK_LIMIT))
            if value > limit
        ]
        return Vitals(psutil.cpu_percent(), memory, disk, ", ".join(reasons))

    return measure
