# SPDX-License-Identifier: Apache-2.0
"""`disk`: file systems are not too full, on each host or on the agent.

How full is what `df` says: of what those who are not root may use. Guarantees: a path that is not there fails; a file
system that hangs is given up with the check.
"""

from __future__ import annotations

import re
from shlex import quote
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from surefoot.checks.model import CheckFailed, Context, Kind, excerpt
from surefoot.checks.usage import UsageOptions, judged, unreadable
from surefoot.checks.values import Size, size
from surefoot.config.fields import Percent, Text, filled, refuse

_LINE = re.compile(r"(\d+) +(\d+) +(-?\d+) +(?:\d+|-)%? +(/.*)")


def _absolute(value: str) -> str:
    if not value.startswith(("/", "{", "${")):
        raise refuse("must be an absolute path", hint="as in /var/lib")
    return value


Path = Annotated[Text, AfterValidator(_absolute)]


class DiskOptions(UsageOptions):
    """Options of `disk`."""

    path: Path | Annotated[list[Path], BeforeValidator(filled)] = Field(
        default="/", description="A path on the file system to look at, or several."
    )
    free: Size | None = Field(default=None, description="At least so much must be free, whatever the percentage.")
    inodes_below: Percent | None = Field(default=None, description="Less than this of the inodes may be used.")


class Disk(Kind):
    """See the module's docstring."""

    name: ClassVar = "disk"
    options: ClassVar = DiskOptions

    async def probe(self, options: DiskOptions, context: Context) -> str:
        """Ask df."""
        paths = options.path if isinstance(options.path, list) else [options.path]
        named = [context.address(path) for path in paths]
        fix = f"free some space: df -h {' '.join(map(quote, named))}; du -xh {quote(named[0])} | sort -h | tail"
        found = await _df("-Pk", named, options, context)
        full = {f"{path} is": _percent(used, free) for path, (used, free) in zip(named, found, strict=True)}
        for path, (_, free) in zip(named, found, strict=True):
            if options.free is not None and free * 1024 < options.free:
                raise CheckFailed(
                    f"{context.place}: {path} has {size(free * 1024)} free, and must have {size(options.free)}", fix
                )
        said = judged(options, context, full, fix)
        if options.inodes_below is not None:
            limits = options.model_copy(update={"below": options.inodes_below, "warn_above": None})
            counts = await _df("-Pi", named, options, context)
            inodes = {f"inodes of {path} are": _percent(*one) for path, one in zip(named, counts, strict=True)}
            many = f"remove files that nobody needs: df -i {' '.join(map(quote, named))}"
            said = f"{said}; {judged(limits, context, inodes, many).partition(': ')[2]}"
        return said


async def _df(flags: str, paths: list[str], options: DiskOptions, context: Context) -> list[tuple[int, int]]:
    """Return what is used and what is free, in kB or in inodes, for each path."""
    call = f"df {flags} -- {' '.join(map(quote, paths))}"
    missing = "; ".join(f"[ -e {quote(path)} ] || echo {quote('missing: ' + path)}" for path in paths)
    result = await context.sh(f"LC_ALL=C; export LC_ALL; {missing}; {call}", options.timeout)
    if gone := [line[9:] for line in result.output.splitlines() if line.startswith("missing: ")]:
        raise CheckFailed(f"{context.place}: there is no {excerpt(gone[0])}", "correct the path in surefoot.yml")
    rows = [match for line in result.output.splitlines() if (match := _LINE.search(line))]
    if result.status != 0 or len(rows) != len(paths):
        raise unreadable(context, "how full its disks are", result.output)
    return [(int(row[2]), int(row[3])) for row in rows]


def _percent(used: int, free: int) -> float:
    return 100.0 * used / (used + free) if used + free > 0 else 0.0
