# SPDX-License-Identifier: Apache-2.0
"""The project that is drilled: any with a surefoot.yml, and beside it a drill.yml which says how its hosts are made
ready in the lab and how to look at them from outside.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import yaml

from surefoot.core.errors import Code, ConfigError

CONFIG, DRILL = "surefoot.yml", "drill.yml"
_KEYS = {
    "environment": str,
    "provision": str,
    "customer": str,
    "runs": dict,
    "break": str,
    "mend": str,
    "domain": str,
    "variables": dict,
    "agent_variables": dict,
    "databases": list,
    "redis": bool,
    "config": dict,
    "staging": dict,  # see drills.staging.settings
}
_NEEDED = ("environment", "customer", "runs", "break", "mend")


@dataclass(frozen=True)
class Project:
    """What drill.yml says; `{address}`, `{host}` and `{version}` in it are filled in."""

    folder: Path
    environment: str
    customer: str  #: the URL that is asked 50 times a second, on each host in turn
    version_url: str  #: where a host says which version it runs
    version_key: str  #: under which key of its JSON
    break_version: str  #: a command on a host: a version that is not well there
    mend: str  #: and is well again
    provision: str | None = None  #: the playbook that makes hosts ready
    domain: str = ""  #: what follows a host's name where the inventory names it in full
    variables: dict[str, str] = field(default_factory=dict)  #: of the playbook that makes hosts ready
    agent_variables: dict[str, str] = field(default_factory=dict)  #: in the agents' environment
    databases: tuple[str, ...] = ()  #: made on db-01, each with a user of its name
    redis: bool = False  #: whether there is a Redis on db-01
    config: dict[str, Any] = field(default_factory=dict)  #: what is otherwise in the lab than in surefoot.yml


def read(folder: Path) -> dict[str, Any]:
    """Read a project's drill.yml as far as all agree on it: its keys. ConfigError if it is missing or wrong."""
    path = folder / DRILL
    if not path.exists() or not (folder / CONFIG).exists():
        raise ConfigError(
            f"{folder} has no {DRILL if (folder / CONFIG).exists() else CONFIG}: it can't be drilled",
            code=Code.CONFIG_MISSING,
            hint="see docs/drills.md for what stands in it",
        )
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}", code=Code.CONFIG_SYNTAX) from error
    if not isinstance(said, dict):
        raise ConfigError(f"{path} must be a mapping", hint="see docs/drills.md")
    for key, value in said.items():
        kind = _KEYS.get(key)
        if kind is None:
            raise ConfigError(f"{path}: {key}: there is no such key", code=Code.CONFIG_KEY, hint=", ".join(_KEYS))
        if not isinstance(value, kind):
            raise ConfigError(f"{path}: {key}: must be a {kind.__name__}", hint="see docs/drills.md")
    return said


def load(folder: Path) -> Project:
    """Return what drill.yml says of the lab. ConfigError if it is missing or wrong."""
    path, said = folder / DRILL, read(folder)
    if lacking := [key for key in _NEEDED if key not in said]:
        raise ConfigError(f"{path} lacks {', '.join(lacking)}", code=Code.CONFIG_KEY, hint="see docs/drills.md")
    runs = said["runs"]
    if not isinstance(runs.get("url"), str) or not isinstance(runs.get("key"), str):
        raise ConfigError(
            f"{path}: runs: needs url and key", hint='as in runs: {url: "http://{address}/", key: version}'
        )
    return Project(
        folder=folder,
        environment=said["environment"],
        customer=said["customer"],
        version_url=runs["url"],
        version_key=runs["key"],
        break_version=said["break"],
        mend=said["mend"],
        provision=said.get("provision"),
        domain=said.get("domain", ""),
        variables=_texts(said.get("variables")),
        agent_variables=_texts(said.get("agent_variables")),
        databases=tuple(map(str, said.get("databases", ()))),
        redis=said.get("redis", False),
        config=said.get("config", {}),
    )


def stage(project: Project | None, target: Path) -> Project:
    """Copy a project, the built-in one if none is given, with what is otherwise in the lab; return the copy's."""
    if project is None:
        with as_file(files("surefoot.drills") / "project") as source:
            return stage(load(source), target)
    skip = shutil.ignore_patterns(".git", ".surefoot", "__pycache__", ".venv", "tests")
    shutil.copytree(project.folder, target, ignore=skip)
    if project.config:
        path = target / CONFIG
        merged = _merged(yaml.safe_load(path.read_text(encoding="utf-8")), project.config)
        path.write_text(yaml.safe_dump(merged, sort_keys=False), encoding="utf-8")
    return load(target)


def _merged(old: Any, new: Any) -> Any:
    """Return a mapping with another's values put over it; what is null there is taken out."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    both = {key: _merged(old.get(key), value) for key, value in new.items() if value is not None}
    return {key: value for key, value in old.items() if key not in new} | both


def _texts(values: dict[str, object] | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in (values or {}).items()}
