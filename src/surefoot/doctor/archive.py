# SPDX-License-Identifier: Apache-2.0
"""The support archive: what somebody else needs to understand what happened, without a secret in it.

Guarantees: every text passes the redactor with all the secrets that the config names; passwords in URLs are taken out
whoever wrote them; of the environment only names of variables are kept. The file is private to its user.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from surefoot.core import views
from surefoot.core.errors import Code, SurefootError
from surefoot.store.protocol import Store

#: Deployments of each environment whose journal and log are kept, and lines of each log.
NEWEST = 3
LOG_LINES = 2000
#: Services whose last lines are kept: an agent that does not come up says why there, and nowhere else.
SERVICES = "surefoot*"
#: Seconds that systemd has for them.
ASK = 5.0
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@\"']*):[^\s/@\"']+(?=@)")


def write(
    path: Path,
    *,
    report: Mapping[str, Any],
    text: str,
    config: Path | None,
    store: Store | None,
    deployment: str | None,
    clean: Callable[[str], str],
) -> None:
    """Write the archive, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with (
            os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
            tarfile.open(fileobj=file, mode="w:gz") as tar,
        ):
            for name, content in _contents(report, text, config, store, deployment):
                _add(tar, name, _URL_PASSWORD.sub(r"\1:***", clean(content)))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SurefootError(
            f"{path} can't be written: {error.strerror or error}", code=Code.USAGE, hint="name another file"
        ) from error


def _add(tar: tarfile.TarFile, name: str, content: str) -> None:
    data = content.encode("utf-8", "surrogateescape")
    info = tarfile.TarInfo(f"surefoot-doctor/{name}")
    info.size, info.mtime, info.mode = len(data), int(time.time()), 0o600
    tar.addfile(info, io.BytesIO(data))


def _contents(
    report: Mapping[str, Any], text: str, config: Path | None, store: Store | None, deployment: str | None
) -> Iterator[tuple[str, str]]:
    yield "report.txt", text
    yield "report.json", json.dumps(report, indent=2)
    yield "versions.txt", _versions()
    yield "environment.txt", "\n".join(sorted(os.environ)) + "\n"  # names alone
    if config is not None:
        yield "surefoot.yml", config.read_text(encoding="utf-8", errors="replace")
    if (said := _services()) is not None:
        yield "services.txt", said
    if store is not None:
        yield from _journals(store, deployment)


def _services() -> str | None:
    """Return what this machine's services have said lately; None where there are none to be asked."""
    ask = ("journalctl", "--quiet", "--no-pager", "--output=short-iso", f"--lines={LOG_LINES}", f"--unit={SERVICES}")
    try:
        told = subprocess.run(ask, check=False, capture_output=True, timeout=ASK, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.decode(errors="replace") or None


def _journals(store: Store, deployment: str | None) -> Iterator[tuple[str, str]]:
    ids = [s.id for row in store.environments() for s in store.history(row.name, limit=NEWEST)]
    for name in dict.fromkeys([*([deployment] if deployment is not None else []), *ids]):
        events = [json.dumps(views.event(entry)) for entry in store.journal(name)]
        yield f"{name}/events.jsonl", "\n".join(events) + "\n"
        lines = store.log(name, after=max(0, store.log_end(name) - LOG_LINES), limit=LOG_LINES)
        yield f"{name}/log.txt", "".join(f"{views.rfc3339(line.at)} {line.agent or ''} {line.text}\n" for line in lines)


def _versions() -> str:
    found = [f"python {platform.python_version()}", f"system {platform.platform()}"]
    for package in ("surefoot", "ansible-core", "psycopg", "aiohttp", "pydantic", "msgspec", "cryptography"):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"{package} is not installed")
    return "\n".join(found) + "\n"
