# SPDX-License-Identifier: Apache-2.0
"""How a playbook is run: ansible-playbook's command line and environment, and what our callback plugin says while it
runs.

Guarantees: the user's playbooks and inventories are run as they are; what the user's ansible.cfg or environment sets
is left as set. What Ansible leaves open we fill in: pipelining, more forks, a control path of its own for each
attempt, keepalive on every connection.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surefoot.core.errors import Code, Failure
from surefoot.core.host import Host
from surefoot.steps.fence import SCRIPT, Fence, refusal

PLUGINS = Path(__file__).with_name("ansible_plugins")
HOSTS_PLAYBOOK = PLUGINS / "hosts.yml"
#: What our callback prints between our own play and the user's playbook.
BEGIN = b"\x1esurefoot: the playbook begins\n"
#: Environment variable, section and key in ansible.cfg, and our value where neither is set.
DEFAULTS = (
    ("ANSIBLE_PIPELINING", "ssh_connection", "pipelining", "True"),
    ("ANSIBLE_FORKS", "defaults", "forks", "20"),
)


@dataclass(frozen=True)
class AnsibleRun:
    """One run of ansible-playbook. Without a playbook it only runs `on_hosts` on every host, which raises the fence."""

    folder: Path
    inventory: str
    fence: Fence
    control_path: Path
    playbook: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    on_hosts: str = "true"
    raises: bool = True  #: begins with the play that raises the fence

    def argv(self) -> tuple[str, ...]:
        """Return the command line. Raises FileNotFoundError if there is no ansible-playbook."""
        extra = ("--extra-vars", json.dumps(dict(self.variables))) if self.variables else ()
        playbooks = (*((str(HOSTS_PLAYBOOK),) if self.raises else ()), *((self.playbook,) if self.playbook else ()))
        return (executable("ansible-playbook"), "-i", self.inventory, *extra, *playbooks)

    def environment(self, environ: Mapping[str, str], progress_fd: int) -> dict[str, str]:
        """Return what to add to the agent's environment."""
        config = _user_config(self.folder, environ)
        env = {
            "ANSIBLE_CALLBACK_PLUGINS": _joined(
                PLUGINS / "callback",
                environ.get("ANSIBLE_CALLBACK_PLUGINS"),
                config.get("defaults", "callback_plugins"),
            ),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.control_path),
            "ANSIBLE_NOCOLOR": "1",
            "PYTHONUNBUFFERED": "1",
            "SUREFOOT_PROGRESS_FD": str(progress_fd),
            "SUREFOOT_PLAYBOOK": str(HOSTS_PLAYBOOK),
            "SUREFOOT_FENCE_SCRIPT": str(SCRIPT),
            "SUREFOOT_FENCE_NAME": self.fence.name,
            "SUREFOOT_FENCE_FOLDER": self.fence.folder,
            "SUREFOOT_ON_HOSTS": self.on_hosts,
        }
        for name, section, key, value in DEFAULTS:
            if name not in environ and not config.has(section, key):
                env[name] = value
        return env


@dataclass(frozen=True, slots=True)
class Channel:
    """How a host is reached without Ansible: ssh's command line, or on this machine if there is none."""

    host: Host
    argv: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command on a host came to."""

    code: int
    stdout: str
    stderr: str = ""


class Progress:
    """What a run has told so far."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.hosts: dict[str, Host] = {}
        self.channels: dict[str, Channel] = {}
        self.answers: dict[str, Answer] = {}
        self.failures: list[dict[str, Any]] = []
        self.refused: list[tuple[str, str]] = []
        self.begun = False  #: every host was raised, and the user's playbook has begun
        self.changed: int | None = None
        self._ssh: dict[str, tuple[str, ...]] = {}
        self._kinds: dict[str, str] = {}

    def take(self, line: bytes) -> None:
        """Take one line of the callback's."""
        try:
            event = json.loads(line)
        except ValueError:
            return
        match event.pop("event", None):
            case "host":
                self._take_host(event)
            case "channel":
                self._ssh[event["address"]] = tuple(event["argv"])
            case "output":
                self.answers[event["host"]] = Answer(event["code"], event["stdout"], event["stderr"])
            case "refused":
                self.refused.append((event["address"], event["text"]))
            case "playbook":
                self.begun = self.begun or not event["own"]
            case "failed":
                self.failures.append(event)
            case "stats":
                self.changed = event["changed"]

    def _take_host(self, event: Mapping[str, Any]) -> None:
        name = event["name"]
        self.hosts[name] = Host(name, event["address"], event["variables"])
        self._kinds[name] = event["connection"]

    def reachable(self) -> dict[str, Channel]:
        """Return the channels that are known: of ssh hosts that needed no password, and of this machine."""
        found: dict[str, Channel] = {}
        for name, host in self.hosts.items():
            if self._kinds[name] == "local":
                found[name] = Channel(host)
            elif self._kinds[name] in ("ssh", "smart") and host.address in self._ssh:
                found[name] = Channel(host, self._ssh[host.address])
        return found

    def failure(self, step: str | None, agent: str, output: str) -> Failure | None:
        """Return what the run failed of, as far as the callback knows."""
        for address, text in self.refused:
            if (refused := refusal(text, self._name_of(address))) is not None:
                return refused
        if not self.failures:
            return None
        first = self.failures[0]
        message = first["message"] or "failed; its result is not shown"
        code, hint = explain(message if first["status"] == "unreachable" else "", output)
        if code is None:
            code = Code.HOST_UNREACHABLE if first["status"] == "unreachable" else Code.STEP_FAILED
        others = {f["host"] for f in self.failures[1:]} - {first["host"]}
        more = f" (and on {', '.join(sorted(others))})" if others else ""
        said = " ".join(message.split())[:600]
        return Failure(
            code,
            f"{first['task']} on {first['host']}{more}: {said}",
            hint=hint,
            agent=agent,
            host=first["host"],
            step=step,
        )

    def _name_of(self, address: str) -> str:
        return next((host.name for host in self.hosts.values() if host.address == address), address)


#: What ssh and sudo say, what it means, and what to do.
_MEANINGS = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed", Code.HOST_KEY_CHANGED,
     "if the host was really set up anew: ssh-keygen -R HOST on the agent, then connect once by hand"),
    (r"Permission denied \((publickey|password|keyboard)", Code.HOST_AUTH,
     "check the user and the key that the inventory names: ssh -v USER@HOST from the agent"),
    (r"sudo: a password is required|Missing sudo password|Incorrect sudo password", Code.HOST_SUDO,
     "let the user sudo without a password, or set ansible_become_password"),
    (r"python\S*: (command )?not found|No such file or directory.*python|discovered_interpreter_python.*not found",
     Code.HOST_PYTHON, "install python3 on the host, or set ansible_python_interpreter"),
    (r"No space left on device", Code.HOST_DISK_FULL, "free some space on the host: df -h"),
)  # fmt: skip


def explain(*texts: str) -> tuple[Code | None, str]:
    """Return what is behind the words of ssh, sudo or the host's shell, where they are well known."""
    for pattern, code, hint in _MEANINGS:
        if any(re.search(pattern, text) for text in texts):
            return code, hint
    return None, ""


def executable(name: str) -> str:
    """Return the user's Ansible if there is one on the path, else the one installed beside us."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name) or (str(beside) if beside.exists() else None)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed on this machine")
    return found


class _UserConfig:
    """The ansible.cfg that Ansible itself would read."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._parser = configparser.ConfigParser(interpolation=None, strict=False, inline_comment_prefixes=(";",))
        if path is not None:
            # Ansible itself will say what is wrong with it
            with contextlib.suppress(configparser.Error, UnicodeDecodeError):
                self._parser.read(path, encoding="utf-8")

    def has(self, section: str, key: str) -> bool:
        return self._parser.has_option(section, key)

    def get(self, section: str, key: str) -> str | None:
        """Return a list of paths, made independent of where the file lies."""
        value = self._parser.get(section, key, fallback=None)
        if value is None or self._path is None:
            return None
        base = self._path.parent
        return ":".join(str(base / Path(part).expanduser()) for part in value.split(":") if part)


def _user_config(folder: Path, environ: Mapping[str, str]) -> _UserConfig:
    named = environ.get("ANSIBLE_CONFIG")
    home = Path(environ.get("HOME", "/"))
    places = [Path(named)] if named else []
    places += [folder / "ansible.cfg", home / ".ansible.cfg", Path("/etc/ansible/ansible.cfg")]
    return _UserConfig(next((place for place in places if place.is_file() and os.access(place, os.R_OK)), None))


def _joined(ours: Path, *theirs: str | None) -> str:
    """Return our folder before the user's; the environment wins over the file, as Ansible has it."""
    first: Sequence[str] = [value for value in theirs if value][:1]
    return ":".join((str(ours), *first))
