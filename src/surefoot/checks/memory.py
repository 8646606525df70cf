# SPDX-License-Identifier: Apache-2.0
"""`memory`: there is memory left, on each host or on the agent.

Used is what is not available in the kernel's own judgement (`MemAvailable`): what caches hold can be had.
"""

from __future__ import annotations

import re
from typing import ClassVar

from surefoot.checks.model import Context, Kind
from surefoot.checks.usage import UsageOptions, judged, unreadable


class MemoryOptions(UsageOptions):
    """Options of `memory`."""


class Memory(Kind):
    """See the module's docstring."""

    name: ClassVar = "memory"
    options: ClassVar = MemoryOptions

    async def probe(self, options: MemoryOptions, context: Context) -> str:
        """Ask the kernel."""
        result = await context.sh("cat /proc/meminfo", options.timeout)
        found = {name: int(kb) for name, kb in re.findall(r"^(\w+): +(\d+) kB$", result.output, re.MULTILINE)}
        total, left = found.get("MemTotal", 0), found.get("MemAvailable")
        if result.status != 0 or not total or left is None:
            raise unreadable(context, "how much memory it has left", result.output)
        full = {"memory is": 100.0 * (total - left) / total}
        return judged(options, context, full, "see what uses it: ps aux --sort=-rss | head")
