# SPDX-License-Identifier: Apache-2.0
"""Who we are to a registry of images: what options say, else what Docker's own config and helpers know.

Guarantees: a password goes to the registry that it is for and to where that registry sends its users for a token; in no
message, no argument. A helper that hangs is ended with the check.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.checks.model import CheckFailed, excerpt
from surefoot.checks.programs import asked_program

#: What Docker Hub is called in Docker's config.
_HUB = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")
#: The user by whose name a helper says that the secret is a token to get tokens by.
_TOKEN_USER = "<token>"  # noqa: S105 - a name


@dataclass(frozen=True, slots=True)
class Login:
    """A user and password, or a token to get tokens by; nothing of it where nobody is known."""

    username: str = ""
    password: str = ""
    refresh_token: str = ""


async def known_to_docker(registry: str, environ: Mapping[str, str] = os.environ) -> Login:
    """Return what `docker login` has left for a registry, if anything."""
    file = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME") or "/root") / ".docker") / "config.json"
    try:
        config: Any = json.loads(await asyncio.to_thread(file.read_bytes))
    except FileNotFoundError:
        return Login()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no JSON"
        raise CheckFailed(f"{file} can't be read: {why}", "repair it, or log in anew: docker login") from None
    config = config if isinstance(config, dict) else {}
    names = _HUB if registry in _HUB else (registry,)
    helpers, entries = _mapping(config.get("credHelpers")), _mapping(config.get("auths"))
    helper = next((helpers[name] for name in names if name in helpers), config.get("credsStore"))
    if isinstance(helper, str) and helper:
        found = await _helped(helper, names[0])
        if found is not None:
            return found
    for key, entry in entries.items():
        if key in names or re.sub(r"^https?://|/.*$", "", key) in names:
            return _entry(_mapping(entry), file)
    return Login()


def _entry(entry: Mapping[str, Any], file: Path) -> Login:
    if token := entry.get("identitytoken"):
        return Login(refresh_token=str(token))
    if not (both := entry.get("auth")):
        return Login(str(entry.get("username", "")), str(entry.get("password", "")))
    try:
        username, _, password = base64.b64decode(both, validate=True).decode().partition(":")
    except (ValueError, TypeError):
        raise CheckFailed(f"{file} holds a login that can't be read", "log in anew: docker login") from None
    return Login(username, password.rstrip("\0"))


async def _helped(helper: str, registry: str) -> Login | None:
    """Ask a credential helper; None if it knows nobody."""
    program = f"docker-credential-{helper}"
    try_it = f"on the agent: echo {registry} | {program} get"
    if not re.fullmatch(r"[\w.-]+", helper, re.ASCII):
        raise CheckFailed(f"Docker's config names a helper that can't be one: {excerpt(helper)}")
    try:
        answer = await asked_program(program, "get", stdin=registry.encode())
    except OSError as error:
        raise CheckFailed(
            f"Docker's config asks for {program}, which can't be run: {error.strerror}",
            f"install {program} on the agent, or take it out of Docker's config there",
        ) from None
    if answer.status != 0:
        if b"not found" in answer.stdout:
            return None
        raise CheckFailed(f"{program} ended with status {answer.status}", try_it)
    try:
        told = json.loads(answer.stdout)
        username, password = str(told["Username"]), str(told["Secret"])
    except (ValueError, KeyError, TypeError):
        raise CheckFailed(f"{program} does not answer as it should", try_it) from None
    return Login(refresh_token=password) if username == _TOKEN_USER else Login(username, password)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
