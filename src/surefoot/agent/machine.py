# SPDX-License-Identifier: Apache-2.0
"""How the machine fares that an agent runs on: CPU, memory, disk, and whether that is good enough to deploy from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

#: Seconds over which the CPU's use is averaged before it is judged: a deploy itself makes it busy for moments.
CPU_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Percentages above which an agent calls itself degraded: what a deploy needs (unpacking, forks) may fail."""

    cpu: float | None = None
    memory: float = 95.0
    disk: float = 95.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """Percentages in use; `degraded` says why the machine is not fit, empty when it is."""

    cpu_percent: float = 0.0
    memory_percent: float = 0.0
    disk_percent: float = 0.0
    degraded: str = ""


def exceeded(found: Iterable[tuple[str, float | None, float | None]]) -> list[str]:
    """Say what of (name, value, limit) is above its limit."""
    return [
        f"{name} {value:.0f} % > {limit:.0f} %"
        for name, value, limit in found
        if value is not None and limit is not None and value > limit
    ]


class Average:
    """A mean in which the past fades."""

    def __init__(self, seconds: float) -> None:
        """What was `seconds` ago counts for a third."""
        self._seconds = seconds
        self._mean: float | None = None
        self._at = 0.0

    def after(self, value: float, at: float) -> float:
        """Return the mean once this value is in it."""
        if self._mean is None:
            self._mean = value
        else:
            self._mean += (1.0 - math.exp(-max(0.0, at - self._at) / self._seconds)) * (value - self._mean)
        self._at = at
        return self._mean


def vitals_of(
    folder: Path, limits: Limits | None = None, others: Callable[[], str] = lambda: ""
) -> Callable[[], Vitals]:
    """Return what measures this machine, with the disk that holds `folder`; `others` say what else makes it unfit."""
    import psutil

    psutil.cpu_percent()  # the first call only starts the measurement
    limits = limits or Limits()
    average = Average(CPU_SECONDS)

    def measure() -> Vitals:
        cpu, memory, disk, gone = psutil.cpu_percent(), psutil.virtual_memory().percent, 0.0, ""
        try:
            disk = psutil.disk_usage(str(folder)).percent
        except OSError as error:  # removed, or on a disk that went away: it may come back
            gone = f"{folder} can't be used: {error.strerror}"
        busy = average.after(cpu, time.monotonic())
        reasons = exceeded((("cpu", busy, limits.cpu), ("memory", memory, limits.memory), ("disk", disk, limits.disk)))
        return Vitals(cpu, memory, disk, ", ".join(filter(None, (gone, *reasons, others()))))

    return measure
