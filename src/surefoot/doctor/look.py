# SPDX-License-Identifier: Apache-2.0
"""One look at a host: what it says of itself in one call, and, where it says nothing, how far the way to it goes.

Guarantees: it only reads; nothing is made on a host.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import socket
import time
from collections.abc import Mapping
from shlex import quote

from surefoot.core.errors import Code, Failure
from surefoot.core.host import Host
from surefoot.doctor.facts import HostFacts
from surefoot.steps.ansible import Answer

#: Seconds for a name server, and for a connection and the first words on it.
RESOLVE = 2.0
CONNECT = 2.0
#: Bytes of a state file that are read.
LARGEST = 65536
#: Programs that the fence needs; see steps/fence.sh.
_FENCE_NEEDS = "flock awk grep sed tr"
#: Tells one `name=value` a line, between two marks. $1: the fence's folder, or nothing; $2: the fence's name;
#: $3: the state file, or nothing.
_LOOK = """
say() { echo "$1=$2"; }
echo surefoot-look
say now "$(date +%s)"
say user "$(id -un)"
py=; for p in python3 /usr/bin/python3 /usr/libexec/platform-python; do
  [ -n "$py" ] || py=$("$p" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
done
say python "$py"
if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then say sudo yes; else say sudo no; fi
above() { d=$1; until [ -e "$d" ] || [ -z "$d" ]; do d=${d%/*}; done; echo "${d:-/}"; }
f=${1:-/var/lib/surefoot/fence}
h=$HOME/.surefoot/fence
[ -n "$1" ] || [ -e "$f/$2" ] || { [ ! -e "$h/$2" ] && [ -w "$(above "$f/$2")" ]; } || f=$h
say fence "$f"
say fence_of "$f/$2"
[ -w "$(above "$f/$2")" ] && say fence_writable yes
say free "$(df -Pk "$(above "$f")" 2>/dev/null | awk 'NR > 1 { print $4 }')"
for p in PROGRAMS; do command -v $p >/dev/null || say missing $p; done
[ ! -r "$f/$2/token" ] || say token "$(head -c 40 "$f/$2/token")"
if [ -n "$3" ]; then
  if [ -r "$3" ]; then say state "$(head -c LARGEST "$3" | base64 | tr -d '\\n')"
  elif [ -e "$3" ] || [ ! -x "$(above "$3")" ]; then say state_hidden yes; fi
fi
echo surefoot-end
""".replace("PROGRAMS", _FENCE_NEEDS).replace("LARGEST", str(LARGEST))


def script(fence_folder: str, fence_name: str, state_file: str | None) -> str:
    """Return what is run on every host."""
    words = (_LOOK, "look", fence_folder, fence_name, state_file or "")
    return "sh -c " + " ".join(map(quote, words))


def told_by(host: Host, answer: Answer, begun: float, ended: float) -> HostFacts:
    """Return what a host's answer says; `begun` and `ended` is when, by this machine's clock."""
    _, mark, rest = answer.stdout.replace("\r\n", "\n").partition("surefoot-look\n")
    told: dict[str, str] = {}
    for line in rest.partition("surefoot-end")[0].splitlines():
        name, _, value = line.partition("=")
        told[name] = f"{told[name]} {value}" if name == "missing" and name in told else value
    if not mark:
        return HostFacts(host.name, host.address)
    now = float(told["now"]) if told.get("now", "").isdigit() else None
    skew = None if now is None else max(begun - now - 1, now - ended - 1, 0.0)
    token = int(told["token"]) if told.get("token", "").strip().isdigit() else None
    return HostFacts(
        host.name,
        host.address,
        told=told,
        version=_version(told.pop("state", "")),
        token=token,
        skew=skew,
        becomes=host.becomes,
    )


def _version(state: str) -> str | None:
    if not state:
        return None
    try:
        version = json.loads(base64.b64decode(state))["current_version"]
    except (ValueError, KeyError, TypeError, binascii.Error):
        return "unreadable"
    return None if version is None else str(version)


async def lost(host: Host, failure: Failure | None) -> HostFacts:
    """Return a host that did not answer, with how far the way to it goes. Without a failure there was no time for its
    answer: it is lost only if the way to it is.
    """
    if host.local:
        return HostFacts(host.name, host.address, failure)
    network = await way(host.address, host.port, greeting=b"SSH-")
    if failure is None and network:
        failure = Failure(Code.HOST_UNREACHABLE, f"{host.name}: {network}", hint=f"ping {host.address}", host=host.name)
    return HostFacts(host.name, host.address, failure, network)


async def way(address: str, port: int, *, greeting: bytes = b"") -> str:
    """Return what is wrong with the way to a port: its name, the connection, the first words; empty if nothing is."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE):
            found = await loop.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        return f"no name server told the address of {address} within {RESOLVE:g} s"
    except OSError as error:
        return f"the name {address} can't be resolved: {error.strerror or error}"
    where = f"{found[0][4][0]} port {port}"
    try:
        async with asyncio.timeout(CONNECT):
            reader, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return f"{where} does not answer within {CONNECT:g} s: the host is off, or a firewall drops what is sent to it"
    except OSError as error:
        return f"{where}: {_reason(error)}"
    try:
        if greeting:
            async with asyncio.timeout(CONNECT):
                said = await reader.read(len(greeting))
            if not said.startswith(greeting):
                return f"{where} accepts the connection, but does not speak SSH"
    except (TimeoutError, OSError):
        return f"{where} accepts the connection, but says nothing: its sshd hangs, or the machine is frozen"
    finally:
        writer.close()
    return ""


def _reason(error: OSError) -> str:
    import os

    words = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    meanings = {"Connection refused": "the host is up, and nothing listens there: sshd is down, or on another port"}
    return f"{words} ({meanings[words]})" if words in meanings else words


def clock() -> float:
    """Return this machine's wall clock."""
    return time.time()


def environment_of(values: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a look: a host that is off may not take up all of the time."""
    return {"ANSIBLE_TIMEOUT": "4", **values}
