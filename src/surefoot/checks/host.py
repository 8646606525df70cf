# SPDX-License-Identifier: Apache-2.0
"""`host`: each host can be reached and deployed to: Python, disk, clock, the fence's folder, sudo where it is wanted.

Guarantees: it only looks; nothing is made on a host. It looks as the user that Ansible connects as.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from shlex import quote
from typing import Any, ClassVar

from pydantic import Field

from surefoot.checks.model import CheckFailed, CheckOptions, Context, Kind, excerpt
from surefoot.checks.remote import python_of
from surefoot.checks.values import Size, size
from surefoot.config.fields import Duration, Truth

#: Programs that the fence needs; see steps/fence.sh.
_FENCE_NEEDS = "flock awk grep sed tr"
#: Tells one `name=value` a line. $1: Python; $2: the fence's folder, or nothing; $3: yes if sudo is wanted.
_LOOK = """
say() { echo "$1=$2"; }
say now "$(date +%s.%N)"
say user "$(id -un)"
say python "$("$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)"
if [ "$3" = yes ]; then
  if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then say sudo yes; else say sudo no; fi
fi
above() { d=$1; until [ -e "$d" ] || [ -z "$d" ]; do d=${d%/*}; done; echo "${d:-/}"; }
f=${2:-/var/lib/surefoot/fence}
[ -n "$2" ] || [ -w "$(above "$f")" ] || f=$HOME/.surefoot/fence
say fence "$f"
[ -w "$(above "$f")" ] && say fence_writable yes
say free "$(df -Pk "$(above "$f")" 2>/dev/null | awk 'NR > 1 { print $4 }')"
for p in PROGRAMS; do command -v $p >/dev/null || say missing $p; done
say end .
""".replace("PROGRAMS", _FENCE_NEEDS)


class HostOptions(CheckOptions):
    """Options of `host`."""

    sudo: Truth = Field(default=False, description="Whether the user must be able to become root without a password.")
    python: Truth = Field(default=True, description="Whether there must be a Python 3, as playbooks need.")
    free: Size = Field(default=100e6, description="What must be free on the disk that the fence's folder is on.")
    clock_skew: Duration = Field(default=30.0, description="By how much its clock may differ from the agent's.")
    timeout: Duration = Field(default=20.0, description="For the answer.")

    @classmethod
    def needs_hosts(cls, options: Mapping[str, Any]) -> bool:
        """There is nothing else to look at."""
        return True


class Host(Kind):
    """See the module's docstring."""

    name: ClassVar = "host"
    options: ClassVar = HostOptions

    async def probe(self, options: HostOptions, context: Context) -> str:
        """Ask it all at once."""
        python, sudo = python_of(context), "yes" if options.sudo else "no"
        call = f"sh -c {quote(_LOOK)} look {python} {quote(context.fence_folder)} {sudo}"
        before = time.time()
        result = await context.on_host(call, options.timeout)
        after = time.time()
        told = [line.partition("=")[::2] for line in result.output.splitlines() if "=" in line]
        found = dict(told)
        name = context.place
        if "end" not in found:
            said = f": {excerpt(result.output)}" if result.output.strip() else ""
            raise CheckFailed(
                f"{name} does not answer as it should (status {result.status}){said}",
                f"try it by hand: ansible {name} -m raw -a id",
            )
        skew = _skew(found.get("now", ""), before, after)
        _judge(options, name, found, skew, [value for key, value in told if key == "missing"])
        python_said = f", Python {found['python']}" if found["python"] else ""
        return (
            f"{name}: reached as {found['user']}{python_said}, {size(int(found['free'] or 0) * 1024)} free, "
            f"clock within {max(skew, 0.1):.1f} s"
        )


def _judge(options: HostOptions, name: str, found: Mapping[str, str], skew: float, missing: list[str]) -> None:
    """CheckFailed for the first thing that would be in a deployment's way."""
    user, fence = found["user"], found["fence"]
    if options.python and not found["python"].startswith("3."):
        raise CheckFailed(
            f"{name} has no Python 3 where Ansible looks for it",
            f"on {name}: apt-get install python3; or set ansible_python_interpreter in the inventory",
        )
    if options.sudo and found.get("sudo") != "yes":
        raise CheckFailed(
            f"{name}: {user} can't become root without a password",
            f"on {name}: echo '{user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{user}",
        )
    if missing:
        raise CheckFailed(f"{name} has no {', '.join(missing)}, which the fence needs", f"on {name}: install it")
    if found.get("fence_writable") != "yes":
        raise CheckFailed(
            f"{name}: {user} can't write the fence's folder {fence}",
            f"on {name}: sudo sh -c 'mkdir -p {fence} && chown -R {user} {fence}'; or set fence: {{path: …}}",
        )
    free = int(found["free"]) * 1024 if found["free"].isdigit() else 0
    if free < options.free:
        raise CheckFailed(
            f"{name} has {size(free)} free on the disk of {fence}, and must have {size(options.free)}",
            f"free some space on {name}: df -h {fence}",
        )
    if skew > options.clock_skew:
        raise CheckFailed(
            f"the clock of {name} differs from the agent's by {skew:.0f} s",
            f"on {name}, and on the agent: timedatectl; see that both are synchronized",
        )


def _skew(now: str, before: float, after: float) -> float:
    """Return by how much a clock differs at least, for all that is known of when it was read."""
    whole, _, part = now.partition(".")
    try:
        there = float(f"{whole}.{part}" if part.isdigit() else whole)
    except ValueError:
        return 0.0
    return max(before - there, there - after, 0.0) if part.isdigit() else max(before - there - 1, there - after, 0.0)
