# SPDX-License-Identifier: Apache-2.0
"""Where things are: the config, and the store.

Guarantees: the precedence that the documentation promises; nothing is opened but folders. Light, so that a command that
only reads the store needs no validation of the config.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from surefoot.config.expansion import fill_secrets
from surefoot.core.errors import Code, ConfigError

NAME = "surefoot.yml"
#: What is meant for a server: a URL without its slashes, or libpq's `host=… dbname=…`. Taken for a path, it would be a
#: store of this machine alone.
_NO_PATH = re.compile(r"[a-z][a-z0-9+.-]*:(?!//)|\w+\s*=", re.IGNORECASE | re.ASCII)
NO_STORE = "names neither a server by a URL nor a file"
NAME_A_STORE = "use postgresql://user@host/database, or a path: ./NAME for a file whose name has a : or = in it"
#: What people call it by mistake.
_NEAR_NAMES = ("surefoot.yaml", "Surefoot.yml", ".surefoot.yml", "surefoot.json")


class HasStore(Protocol):
    """A config as far as finding the store goes; a `Config` and a `Peek` are both."""

    @property
    def folder(self) -> Path:
        """Return the project's root."""

    @property
    def store(self) -> str | None:
        """Return what `store:` says."""

    @property
    def secret_names(self) -> tuple[str, ...]:
        """Return the names of secrets."""


def find_config(given: str | None, environ: Mapping[str, str], cwd: Path | None = None) -> Path:
    """Return the config's path: `--config`, else `$SUREFOOT_CONFIG`, else the nearest `surefoot.yml` here or above."""
    here = cwd or this_folder()
    if given is not None:
        return _named(given, here, "--config")
    if named := environ.get("SUREFOOT_CONFIG"):
        return _named(named, here, "$SUREFOOT_CONFIG")
    for folder in (here, *here.parents):
        if _exists(folder / NAME):
            return folder / NAME
    hint = "surefoot init writes one; --config names one that is elsewhere"
    if near := next((name for name in _NEAR_NAMES if _exists(here / name)), None):
        hint = f"there is {near}: rename it to {NAME}, or give --config {near}"
    raise ConfigError(f"there is no {NAME} in {here} or any folder above it", code=Code.CONFIG_MISSING, hint=hint)


def store_url(config: HasStore | None, given: str | None, environ: Mapping[str, str], cwd: Path | None = None) -> str:
    """Return the store's URL, or the absolute path of an SQLite file.

    `--store`, else `$SUREFOOT_STORE` (both relative to this folder), else `store:` of the config (relative to the
    config), else `.surefoot/surefoot.db` beside the config. Secrets in `store:` are filled in here, and nowhere else.
    """
    if chosen := given or environ.get("SUREFOOT_STORE"):
        return store_place(chosen, cwd or this_folder())
    if config is None:
        raise ConfigError(
            "neither a config nor a store is named",
            code=Code.CONFIG_MISSING,
            hint="give --store URL, or set $SUREFOOT_STORE",
        )
    if config.store is None:
        return str(config.folder / ".surefoot" / "surefoot.db")
    missing = [name for name in config.secret_names if f"${{{name}}}" in config.store and not environ.get(name)]
    if missing:
        raise ConfigError(
            f"store: ${{{missing[0]}}} is not set",
            code=Code.CONFIG_VARIABLE,
            hint=f"set {missing[0]} in the environment, or give --store URL",
        )
    return store_place(
        fill_secrets(config.store, {n: environ[n] for n in config.secret_names if n in environ}), config.folder
    )


def store_place(url: str, base: Path) -> str:
    """Return an SQLite file's absolute path, or any other URL as it is. Paths are relative to `base`. ConfigError if it
    is neither.
    """
    if is_no_store(url):
        raise ConfigError(f"the store {NO_STORE}", code=Code.CONFIG_VALUE, hint=NAME_A_STORE)
    scheme, separator, rest = url.partition("://")
    if not separator:
        return str(base / _expanded(url))
    return str(base / _expanded(unquote(rest))) if scheme == "sqlite" else url


def is_no_store(url: str) -> bool:
    """Whether what should name a store was meant for a server, and is no URL."""
    return _NO_PATH.match(url) is not None


def never_written(url: str) -> bool:
    """Whether a store is a file that is not there; one that can't be seen may be there."""
    if "://" in url:
        return False
    try:
        Path(url).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{path}: there is no such home folder", code=Code.CONFIG_MISSING, hint="give the whole path"
        ) from error


def _named(given: str, here: Path, by: str) -> Path:
    path = here / _expanded(given) if given else here
    if not given or not _exists(path):
        raise ConfigError(
            f"the config {given or '(empty)'} that {by} names does not exist",
            code=Code.CONFIG_MISSING,
            hint=f"check the path; from {here}, surefoot init writes a new one",
        )
    return path


def _exists(path: Path) -> bool:
    """Whether something is there, as far as can be seen."""
    try:
        return os.path.lexists(path)
    except (OSError, ValueError):
        return False


def this_folder() -> Path:
    """Return the folder that this program was started in."""
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(
            "this folder has been removed", code=Code.CONFIG_MISSING, hint="change to a folder that exists"
        ) from error
