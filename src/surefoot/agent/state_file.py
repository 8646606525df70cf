# SPDX-License-Identifier: Apache-2.0
"""The state file of a host, which says what version it runs: its text, and the sh that reads, writes and removes it.

Guarantees: it is written whole or not at all, and lasts; what cannot be read is told as that, never as a version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from shlex import quote

from surefoot.agent.performer import Job
from surefoot.agent.redact import ELLIPSIS
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Direction
from surefoot.core.views import rfc3339

#: sh that runs "$1" as we are, else as root where that needs no password.
AS_ROOT_IF_NEEDED = 'sh -c "$1" || { [ "$(id -u)" != 0 ] && sudo -n sh -c "$1"; }'


class Unreadable(str):
    """What stands for a version where a state file names none: nobody may take it for one."""

    __slots__ = ()


def version_in(text: str) -> str | None:
    """Return the version that a state file names; None if there is none, and `Unreadable`, with the text's beginning,
    if it is no state file.
    """
    if not text.strip():
        return None
    try:
        version = json.loads(text)["current_version"]
    except (ValueError, KeyError, TypeError):
        return Unreadable(f"unreadable: {text if len(text) <= 40 else text[:39] + ELLIPSIS!r}")
    return None if version is None else str(version)


def mixed(versions: Mapping[str, str | None], wanted: str | None, path: str) -> Failure:
    """Return that hosts run different versions, or all of them another."""
    each = ", ".join(f"{name} {version or 'none'}" for name, version in sorted(versions.items()))
    return Failure(
        Code.VERSIONS_MIXED,
        f"not every host runs {wanted or 'what it ran before (none)'}: {each}",
        hint=f"look at {path} on each host, bring all to one version, then: surefoot resolve ID --reason TEXT",
        host=next((name for name, version in versions.items() if version != wanted), None),
    )


# -- sh ----------------------------------------------------------------------------------------------


def read(path: str) -> str:
    """Return sh that prints the file; nothing where there is none, and no state file where it can't be read."""
    return f"if [ -e {quote(path)} ]; then cat {quote(path)} 2>&1 || true; fi"


def names(path: str, version: str | None) -> str:
    """Return sh that succeeds where the file names the version; of none it never does."""
    if version is None:
        return "false"
    literal = re.sub(r"[][\\.*^$+?(){}|]", r"\\\g<0>", json.dumps(version))
    said = f'"current_version"[[:space:]]*:[[:space:]]*{literal}'
    return f"grep -Eqs {quote(said)} {quote(path)}"


def put(path: str, job: Job, version: str | None) -> str:
    """Return sh that makes the file name the version, or be gone."""
    return _as_root_if_needed(f"rm -f {quote(path)}" if version is None else _write(path, _content(job, version)))


def _content(job: Job, version: str) -> str:
    state = job.state
    forward = state.direction is Direction.FORWARD
    return json.dumps(
        {
            "current_version": version,
            "previous_version": state.previous_version if forward else None,
            "last_deploy_timestamp": rfc3339(state.last_at),
            "deploy_start": rfc3339(state.started_at),
            "deploy_runner": job.agent,
            "deployed_by": state.requested_by,
            "deployment": state.id,
        },
        indent=2,
    )


def _write(path: str, text: str) -> str:
    """Return sh that writes a file whole and durably; two hosts of the inventory may be one machine, so each shell
    has a file of its own.
    """
    script = """
f=FILE d=FOLDER n=$f.$$
durable() { sync "$1" 2>/dev/null || sync; }
mkdir -p "$d" && printf '%s\\n' TEXT > "$n" && chmod 644 "$n" && durable "$n" && mv "$n" "$f" && durable "$d"
"""
    filled = {"FILE": quote(path), "FOLDER": quote(str(Path(path).parent)), "TEXT": quote(text)}
    return re.sub("FILE|FOLDER|TEXT", lambda m: filled[m[0]], script)


def _as_root_if_needed(script: str) -> str:
    return f"sh -c {quote(AS_ROOT_IF_NEEDED)} surefoot {quote(script)}"
