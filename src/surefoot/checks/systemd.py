# SPDX-License-Identifier: Apache-2.0
"""`systemd`: units are active, on each host or on the agent.

A unit that is still starting is not active: health checks run again until it is. Guarantees: a unit that there is not
fails, and so does a place without systemd.
"""

from __future__ import annotations

import re
from shlex import quote
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from surefoot.checks.model import CheckFailed, Context, HostsFirst, Kind, Where, excerpt
from surefoot.config.fields import Count, Duration, Text, filled, one_of, refuse

_SHOWN = ("LoadState", "ActiveState", "SubState", "Result", "NRestarts")


def _unit(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9:_.@\\{}-]+", value) or value.startswith("-"):
        raise refuse("can't be the name of a unit", hint="as in shop.service")
    return value


Unit = Annotated[Text, AfterValidator(_unit)]


class SystemdOptions(HostsFirst):
    """Options of `systemd`."""

    unit: Unit | Annotated[list[Unit], BeforeValidator(filled)] = Field(
        description="The unit that must be active, as in `shop.service`, or several."
    )
    restarts_below: Count | None = Field(
        default=None, description="It must have been restarted by systemd less often than this since it was started."
    )
    on: Annotated[Where, BeforeValidator(one_of(Where))] | None = Field(
        default=None, description="Where: on the `hosts`, or on the `agent`. Default: the hosts, if there are any."
    )
    timeout: Duration = Field(default=10.0, description="For the answer.")


class Systemd(Kind):
    """See the module's docstring."""

    name: ClassVar = "systemd"
    options: ClassVar = SystemdOptions

    async def probe(self, options: SystemdOptions, context: Context) -> str:
        """Ask systemd."""
        units = options.unit if isinstance(options.unit, list) else [options.unit]
        names = [name if "." in name else f"{name}.service" for name in map(context.address, units)]
        for name in names:
            await _look(name, options, context)
        return f"{context.place}: {', '.join(names)} {'is' if len(names) == 1 else 'are'} active"


async def _look(name: str, options: SystemdOptions, context: Context) -> None:
    properties = " ".join(f"-p {one}" for one in _SHOWN)
    last = f"journalctl -u {quote(name)} -n 1 -o cat --no-pager -q 2>/dev/null | tail -n 1"
    ask = f'systemctl show {properties} -- {quote(name)} 2>&1; echo "said=$({last})"'
    result = await context.sh(f"LC_ALL=C; export LC_ALL; {ask}", options.timeout)
    found = dict(line.partition("=")[::2] for line in result.output.splitlines() if "=" in line)
    where = f"{context.place}: {name}"
    if not set(_SHOWN[:3]) <= set(found):
        said = excerpt(result.output.partition("said=")[0])
        raise CheckFailed(f"{context.place}: systemd does not tell of {name}{f': {said}' if said else ''}")
    if found["LoadState"] == "not-found":
        raise CheckFailed(f"{where}: there is no such unit", f"see what there is: systemctl list-units {quote(name)}")
    said = f": {excerpt(found['said'])}" if found.get("said") else ""
    look = f"on {context.place}: systemctl status {quote(name)}; journalctl -u {quote(name)} -n 50"
    if found["ActiveState"] != "active":
        why = f", {found['Result']}" if found.get("Result", "success") != "success" else ""
        raise CheckFailed(f"{where} is {found['ActiveState']} ({found['SubState']}{why}){said}", look)
    restarts = int(found["NRestarts"]) if found.get("NRestarts", "").isdigit() else 0
    if options.restarts_below is not None and restarts >= options.restarts_below:
        raise CheckFailed(
            f"{where} was restarted {restarts} times, and must have been less than {options.restarts_below}{said}", look
        )
