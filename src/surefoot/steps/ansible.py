# SPDX-License-Identifier: Apache-2.0
"""How a playbook is run: ansible-playbook's command line and environment, and what our callback plugin says while it
runs.

Guarantees: the user's playbooks and inventories are run as they are; what the user's ansible.cfg or environment sets
is left as set; a variable's value arrives as it is, never as a template. What Ansible leaves open we fill in:
pipelining, more forks, keepalive on every connection. Of each attempt's own are the sockets of its connections: a
master that an earlier one left may belong to a host that is dead.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surefoot.core import events as ev
from surefoot.core.errors import Code, Failure
from surefoot.core.host import Host
from surefoot.steps.fence import SCRIPT, Fence, refusal

PLUGINS = Path(__file__).with_name("ansible_plugins")
HOSTS_PLAYBOOK = PLUGINS / "hosts.yml"
LOOK_PLAYBOOK = PLUGINS / "look.yml"
GATE_PLAYBOOK = PLUGINS / "gate.yml"
#: What our callback prints between our own play and the user's playbook.
BEGIN = b"\x1esurefoot: the playbook begins\n"
#: What our own play prints on hosts where our callback is not there to put anything behind the fence.
UNFENCED = "surefoot: not fenced"
#: Hosts of which the journal keeps what a playbook came to.
HOSTS_KEPT = 100
LEFT_OUT = "Ansible's settings kept Surefoot's callback, or its play, from fencing the hosts; nothing was run on them"
LEFT_OUT_HINT = "see its warnings: no callback of your own may be called surefoot.py, nor the tag `always` be skipped"
#: Where Ansible looks for callbacks if nobody says where, below its home and on the machine.
CALLBACKS = ("plugins/callback", "/usr/share/ansible/plugins/callback")


@dataclass(frozen=True, slots=True)
class _Default:
    """Our value of a setting, for where neither the environment nor ansible.cfg has one."""

    value: str
    variables: tuple[str, ...]  #: the first is the one that we set
    keys: tuple[tuple[str, str], ...]  #: section and key in ansible.cfg


DEFAULTS = (
    _Default(
        "True",
        ("ANSIBLE_PIPELINING", "ANSIBLE_SSH_PIPELINING"),
        (("defaults", "pipelining"), ("connection", "pipelining"), ("ssh_connection", "pipelining")),
    ),
    _Default("20", ("ANSIBLE_FORKS",), (("defaults", "forks"),)),
)


@dataclass(frozen=True)
class AnsibleRun:
    """One run of ansible-playbook. Without a playbook it only runs `on_hosts` on every host, which raises the fence;
    without a fence too it only looks, and a host that can't be reached keeps nobody from looking at the others.
    """

    folder: Path
    inventory: str
    fence: Fence | None
    control_path: Path
    playbook: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    on_hosts: str = "true"
    raises: bool = True  #: begins with the play that raises the fence, else with one that only sees that it is there
    limit: str = ""  #: one host, if not all
    hosts: Path | None = None  #: which hosts the inventory has to name, see `name_hosts`; if None, any
    beside: str | None = None  #: whose neighbours (group_vars, plugins) count for our own play; None: the playbook's
    temporary: str = ""  #: where Ansible puts its temporary files on this machine, if the user does not say

    def argv(self) -> tuple[str, ...]:
        """Return the command line. Raises FileNotFoundError if there is no ansible-playbook."""
        extra = ("--extra-vars", _literal(self.variables)) if self.variables else ()
        playbooks = (str(self._own), *((self.playbook,) if self.playbook else ()))
        limit = ("--limit", self.limit) if self.limit else ()
        return (executable("ansible-playbook"), "-i", self.inventory, *limit, *extra, *playbooks)

    @property
    def _own(self) -> Path:
        if self.fence is None:
            return LOOK_PLAYBOOK
        return HOSTS_PLAYBOOK if self.raises else GATE_PLAYBOOK

    def environment(self, environ: Mapping[str, str], progress_fd: int, go_fd: int | None = None) -> dict[str, str]:
        """Return what to add to the agent's environment. A byte from `go_fd` lets the user's playbook begin."""
        config = _user_config(self.folder, environ)
        env = {
            "ANSIBLE_CALLBACK_PLUGINS": ":".join((str(PLUGINS / "callback"), _callbacks(environ, config))),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.control_path),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
            "PYTHONUNBUFFERED": "1",
            "SUREFOOT_PROGRESS_FD": str(progress_fd),
            "SUREFOOT_PLAYBOOK": str(self._own),
            "SUREFOOT_SCRIPT": self.on_hosts,
            "SUREFOOT_ON_HOSTS": "",  # ours may run below another one
        }
        if self.fence is not None:
            env |= {
                "SUREFOOT_FENCE_SCRIPT": str(SCRIPT),
                "SUREFOOT_FENCE_NAME": self.fence.name,
                "SUREFOOT_FENCE_TOKEN": str(self.fence.token),
                "SUREFOOT_FENCE_FOLDER": self.fence.folder,
            }
        if go_fd is not None:
            env["SUREFOOT_GO_FD"] = str(go_fd)
        if self.hosts is not None:
            env["SUREFOOT_HOSTS"] = str(self.hosts)
        if beside := self.beside or self.playbook:
            env["SUREFOOT_BESIDE"] = str((self.folder / beside).parent)
        temporary = _Default(self.temporary, ("ANSIBLE_LOCAL_TEMP",), (("defaults", "local_tmp"),))
        for default in (*DEFAULTS, *([temporary] if self.temporary else [])):
            if not any(name in environ for name in default.variables) and not any(map(config.has, default.keys)):
                env[default.variables[0]] = default.value
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

    def __init__(self, inventory: str) -> None:
        """Nothing yet; hints name the inventory."""
        self._inventory = inventory
        self._others: tuple[list[str], list[str]] | None = None  #: what it leaves out, and what it names instead
        self.hosts: dict[str, Host] = {}
        self.channels: dict[str, Channel] = {}
        self.answers: dict[str, Answer] = {}
        self.failures: list[dict[str, Any]] = []
        self.refused: list[tuple[str, str]] = []
        self.told = False  #: Ansible has read all that it is to run, and began with it
        self.begun = False  #: every host was raised, and the user's playbook has begun
        self.changed: int | None = None
        self.times: dict[str, dict[str, Any]] = {}  #: of each host that had a task: `begun`, `ended`, `changed`
        self._raising = False
        self._lost: frozenset[str] | None = None
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
                self._ssh[event["host"]] = tuple(event["argv"])
            case "output":
                self.answers[event["host"]] = Answer(event["code"], event["stdout"], event["stderr"])
            case "others":
                self._others = event["without"], event["new"]
            case "refused":
                self.refused.append((event["host"], event["text"]))
            case "playbook":
                self.told = True
                self._begins(own=event["own"])
            case "failed":
                self.failures.append(event)
            case "stats":
                self._lost = frozenset(event["failed"])
                if not event["own"]:
                    self.changed = event["changed"]
                    self.times = event["hosts"]

    def _begins(self, *, own: bool) -> None:
        self.begun = self.begun or not own
        self._raising = own

    def _take_host(self, event: Mapping[str, Any]) -> None:
        name = event["name"]
        self.hosts[name] = Host(
            name,
            event["address"],
            event["variables"],
            int(event["port"]),
            event["connection"] == "local",
            bool(event.get("becomes")),
        )
        self._kinds[name] = event["connection"]

    def host_runs(self, begun: float) -> tuple[ev.HostRun, ...]:
        """Return what it came to on each host, in an attempt that began at `begun` on this machine's monotonic clock;
        of many hosts those that failed, then the slowest.
        """
        lost = self._lost or frozenset()
        runs = [
            ev.HostRun(
                host,
                after=round(max(0.0, at["begun"] - begun), 3),
                seconds=round(at["ended"] - at["begun"], 3),
                changed=at["changed"],
                failed=host in lost,
            )
            for host, at in self.times.items()
        ]
        return tuple(sorted(runs, key=lambda run: (not run.failed, -run.seconds))[:HOSTS_KEPT])

    def reachable(self) -> dict[str, Channel]:
        """Return the channels that are known: of ssh hosts that needed no password, and of this machine."""
        found: dict[str, Channel] = {}
        for name, host in self.hosts.items():
            if self._kinds[name] == "local":
                found[name] = Channel(host)
            elif self._kinds[name] in ("ssh", "smart") and name in self._ssh:
                found[name] = Channel(host, self._ssh[name])
        return found

    def failure(self, step: str | None, agent: str, output: str) -> Failure | None:
        """Return what the run failed of, as far as the callback knows."""
        if self._others is not None:
            return _other_hosts(self._inventory, *self._others)
        if UNFENCED in output and not self.begun:
            return Failure(Code.FENCE_FAILED, LEFT_OUT, hint=LEFT_OUT_HINT, agent=agent, step=step)
        for host, text in self.refused:
            if (refused := refusal(text, host)) is not None:
                return refused
        if self._raising and self.failures and not self.hosts:
            return no_hosts(self._inventory)
        final = self._final_failures()
        if not final:
            return None
        first = final[0]
        unreachable = first["status"] == "unreachable"
        message = first["message"] or "failed; its result is not shown"
        host = first["host"]
        if unreachable:
            code, hint = unreached(host, self._inventory, message, output)
        else:
            said = explain(message, host=host, inventory=self._inventory)
            code, hint = said if said and said[0] not in _CONNECTION else (Code.STEP_FAILED, "")
        others = {f["host"] for f in final[1:]}
        more = f" (and on {', '.join(sorted(others))})" if others else ""
        return Failure(
            code,
            f"{first['task']} on {host}{more}: {_short(message)}",
            hint=hint,
            agent=agent,
            host=host,
            step=step,
        )

    @property
    def raised(self) -> bool:
        """Whether all hosts have answered our own play, and nothing failed."""
        return bool(self.hosts) and not self.silent() and not self.failures

    def silent(self) -> tuple[str, ...]:
        """Return the hosts that have not answered what runs on all of them."""
        return tuple(name for name in self.hosts if name not in self.answers)

    def _final_failures(self) -> list[dict[str, Any]]:
        """Return of each host that was lost what it was lost to; not what the playbook itself has rescued."""
        last = {f["host"]: f for f in self.failures if self._lost is None or f["host"] in self._lost}
        return [f for f in self.failures if last.get(f["host"]) is f]


_PING = "from the agent: ansible {host} -i {inventory} -m ping -vvv"
#: What ssh, sudo and shells say, what it means, and what to do; a hint may quote what its pattern has found.
_MEANINGS = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED(?:.*?Host key for (?P<known>\S+) has changed)?", Code.HOST_KEY_CHANGED,
     "if the host was really set up anew, on the agent: ssh-keygen -R '{known}', then connect once by hand"),
    (r"host key is known for (?P<known>\S+)|Host key verification failed", Code.HOST_KEY_UNKNOWN,
     "on the agent: ssh-keyscan {scanned} >> ~/.ssh/known_hosts, and compare with the host's own key"),
    (r"Permission denied \((publickey|password|keyboard|gssapi|hostbased)", Code.HOST_AUTH,
     "check the user and the key that the inventory names; " + _PING),
    (r"sudo: a password is required|Missing sudo password|Incorrect sudo password|not in the sudoers file"
     r"|waiting for privilege escalation prompt|sudo: (command )?not found", Code.HOST_SUDO,
     "let the user sudo without a password (on the host: sudo visudo), or set ansible_become_password"),
    (r"python\S*: (command )?not found|No such file or directory.*python|discovered_interpreter_python.*not found",
     Code.HOST_PYTHON, "on the host: apt-get install python3 (or dnf); or set ansible_python_interpreter"),
    (r"No space left on device", Code.HOST_DISK_FULL, "free some space on the host: df -h"),
)  # fmt: skip
#: What only a connection can fail of: a task that says the like speaks of something else.
_CONNECTION = frozenset({Code.HOST_KEY_CHANGED, Code.HOST_KEY_UNKNOWN, Code.HOST_AUTH})


def explain(*texts: str, host: str, inventory: str) -> tuple[Code, str] | None:
    """Return what is behind the words of ssh, sudo or the host's shell, and what to do, where they are well known."""
    for pattern, code, hint in _MEANINGS:
        for text in texts:
            if found := re.search(pattern, text, re.DOTALL):
                known = found.groupdict().get("known") or host
                return code, hint.format(host=host, inventory=inventory, known=known, scanned=_scanned(known))
    return None


def unreached(host: str, inventory: str, *texts: str) -> tuple[Code, str]:
    """Return why a host can't be reached, and what to do."""
    said = explain(*texts, host=host, inventory=inventory)
    return said or (Code.HOST_UNREACHABLE, _PING.format(host=host, inventory=inventory))


def _short(message: str) -> str:
    """Return the beginning of a message on one line; an ellipsis marks what was cut off."""
    line = " ".join(message.split())
    return line if len(line) <= 600 else line[:599] + "…"


def _scanned(known: str) -> str:
    """Return what ssh-keyscan wants for what ssh calls `[ADDRESS]:PORT`."""
    address, _, port = known.removeprefix("[").partition("]:")
    return f"-p {port} {address}" if port else address


def no_hosts(inventory: str) -> Failure:
    """Return that nobody is there to deploy to."""
    return Failure(Code.NO_HOSTS, f"{inventory} holds no hosts", hint=f"ansible-inventory -i {inventory} --list")


def name_hosts(folder: Path, hosts: Sequence[str], *, or_more: bool) -> Path:
    """Write down which hosts an inventory has to name, these alone or with others; return the file."""
    file = folder / "hosts.json"
    file.write_text(json.dumps({"hosts": hosts, "or_more": or_more}))
    return file


def _other_hosts(inventory: str, without: Sequence[str], new: Sequence[str]) -> Failure:
    """Return that an inventory names other hosts than it has to."""
    how = [f"without {', '.join(without)}"] if without else []
    how += [f"with {', '.join(new)}"] if new else []
    return Failure(
        Code.HOSTS_CHANGED,
        f"{inventory} names other hosts than when the deployment began: {'; '.join(how)}",
        hint=f"ansible-inventory -i {inventory} --list",
    )


def unreadable(step: str, lines: Sequence[str]) -> Failure | None:
    """Return what Ansible says of a playbook that it can't begin with."""
    said = next((found[1] for line in lines if (found := re.match(r"(?:\[ERROR\]:|ERROR!) (.+)", line))), None)
    return None if said is None else Failure(Code.STEP_FAILED, f"{step}: {_short(said)}")


def hosts_in(listed: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the hosts' names in what `ansible-inventory --list` prints, in the inventory's order."""
    groups = (said for group, said in listed.items() if group != "_meta")
    return tuple(dict.fromkeys(host for said in groups for host in said.get("hosts", ())))


def executable(name: str) -> str:
    """Return the user's Ansible if there is one on the path, else the one installed beside us."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name) or (str(beside) if beside.exists() else None)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed on this machine")
    return found


def _literal(variables: Mapping[str, str]) -> str:
    """Return extra variables whose values Ansible takes as they are: `{{` in a version means nothing, `1.10` stays text
    (as YAML's `!unsafe` it would become a number).
    """
    return json.dumps({name: {"__ansible_unsafe": value} for name, value in variables.items()})


class _UserConfig:
    """The ansible.cfg that Ansible itself would read."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._parser = configparser.ConfigParser(interpolation=None, strict=False, inline_comment_prefixes=(";",))
        if path is not None:
            # Ansible itself will say what is wrong with it
            with contextlib.suppress(configparser.Error, UnicodeDecodeError):
                self._parser.read(path, encoding="utf-8")

    def has(self, key: tuple[str, str]) -> bool:
        return self._parser.has_option(*key)

    def paths(self, section: str, key: str) -> str | None:
        """Return a list of paths, made independent of where the file lies."""
        value = self._parser.get(section, key, fallback=None)
        if not value or self._path is None:
            return None
        base = self._path.parent
        # Ansible's own {{CWD}} and {{ANSIBLE_HOME}} stay for it to fill in.
        parts = (part if part.startswith("{{") else str(base / _expanded(part)) for part in value.split(":"))
        return ":".join(parts)


def _expanded(path: str) -> Path:
    """Return a path with `~` filled in where that is known, as Ansible does it."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises where it is not known


def _user_config(folder: Path, environ: Mapping[str, str]) -> _UserConfig:
    places = []
    if named := environ.get("ANSIBLE_CONFIG"):
        place = folder / _expanded(named)
        places.append(place / "ansible.cfg" if os.path.isdir(place) else place)  # noqa: PTH112 - as below
    # Ansible passes over the one in a folder that anyone may write to.
    if not folder.stat().st_mode & stat.S_IWOTH:
        places.append(folder / "ansible.cfg")
    places += [_home(environ) / ".ansible.cfg", Path("/etc/ansible/ansible.cfg")]
    return _UserConfig(next(filter(_readable, places), None))


def _readable(file: Path) -> bool:
    # In a home that is closed to us (`su` leaves the other's in $HOME) pathlib's would raise.
    return os.path.isfile(file) and os.access(file, os.R_OK)  # noqa: PTH113


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or _expanded("~"))


def _callbacks(environ: Mapping[str, str], config: _UserConfig) -> str:
    """Return where the user's callbacks are: the environment wins over the file, as Ansible has it."""
    if said := environ.get("ANSIBLE_CALLBACK_PLUGINS") or config.paths("defaults", "callback_plugins"):
        return said
    home = environ.get("ANSIBLE_HOME") or config.paths("defaults", "home") or str(_home(environ) / ".ansible")
    return ":".join(str(Path(home) / place) for place in CALLBACKS)
