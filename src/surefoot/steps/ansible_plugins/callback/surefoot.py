# SPDX-License-Identifier: Apache-2.0
"""Runs inside ansible-playbook: tells Surefoot what happens, and puts every command behind the hosts' fence.

Ansible loads callbacks in its main process before it forks workers, so what is patched here holds in all of them, and
for every way of naming the builtin connections (`ssh`, `local`, their full names, the default, delegation, implicit
localhost). Outside of a Surefoot step it does nothing. Must not import surefoot: the user's Ansible may live in
another Python environment.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import re
import sys
import time
import uuid
from pathlib import Path
from shlex import quote

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import add_all_plugin_dirs, connection_loader
from ansible.template import Templar
from ansible.utils.display import Display

from ansible import constants

DOCUMENTATION = """
name: surefoot
type: notification
short_description: reports progress to Surefoot and fences the hosts
description: Active only in steps that Surefoot runs.
"""

#: Bytes that a pipe takes whole: what workers tell must not mix with what the main process tells.
PIPE_BUF = 4096
SHORT = 1500
FENCED = ("ansible.builtin.ssh", "ansible.builtin.local")
#: A dead host must be noticed, whatever the user's configuration leaves open; options given first win, so the user's
#: do.
KEEPALIVE = (b"-o", b"ServerAliveInterval=2", b"-o", b"ServerAliveCountMax=2", b"-o", b"ConnectTimeout=10")
#: A channel is used when the run, and the folder of its control sockets, are gone.
UNSHARED = ("-o", "ControlMaster=no", "-o", "ControlPath=none")
#: With one of these, ssh gets in by what only Ansible holds.
HELD_BY_ANSIBLE = ("password", "private_key", "pkcs11_provider")
#: Where Ansible puts what it is about to run: made by a command, run by a command, both behind the fence.
TEMPORARY = "/ansible-tmp-"
#: How it makes them, with what a shell has to make of their names.
MAKES = re.compile(r"mkdir \W{1,2} echo (.*?/ansible-tmp-[\w.-]+)")
#: Objects after which Ansible's main process looks for garbage. Python's default has it look through all modules and
#: the whole inventory again and again.
GARBAGE = (100_000, 50, 50)
#: What a command comes to that would only raise a fence, where there can be none and that is said.
NOTHING_TO_RAISE = (0, b"surefoot-held: \n", b"")
REFUSALS = (96, 97, 98)
REFUSAL = re.compile(rb"surefoot-fence: [^\r\n]*")
#: See fence.sh on what the guard tells, and fence.py on how it is written.
RAISED, HELD = re.compile(rb"surefoot-raised: [^\r\n]*\r?\n?"), re.compile(r"surefoot-held: [^\r\n]*\r?\n?")
ODD = str.maketrans({sign: f"\\0{ord(sign):03o}" for sign in "'\\!\n"})
SH = """sh -c 'eval "$(printf %b "$1")"' surefoot-fence """
MAGIC = (
    "ansible_",
    "surefoot_",
    "inventory_",
    "playbook_",
    "role_",
    "group",
    "omit",
    "environment",
    "play_",
    "hostvars",
)
#: Checks that run Python on a host take the one that Ansible takes.
TOLD = ("ansible_python_interpreter",)
SECRET = re.compile("pass|secret|token|key", re.IGNORECASE)
MARK = re.compile(r"SUREFOOT_FENCE=\S+?:\d+:([0-9a-f]{32})")


class Settings:
    """What Surefoot told this run, by its environment."""

    def __init__(self) -> None:
        env = os.environ
        self.progress = int(env.get("SUREFOOT_PROGRESS_FD", "-1"))
        self.go = int(env.get("SUREFOOT_GO_FD", "-1"))  #: what comes out of it lets the user's playbook begin
        self.name = env.get("SUREFOOT_FENCE_NAME", "")
        self.folder = env.get("SUREFOOT_FENCE_FOLDER", "")
        self.token = env.get("SUREFOOT_FENCE_TOKEN", "")
        self.internal = env.get("SUREFOOT_PLAYBOOK", "")
        self.hosts = env.get("SUREFOOT_HOSTS", "")  #: a file with those that the inventory has to name
        self.own = False  #: our own playbook is running
        if self.name:
            lines = Path(env["SUREFOOT_FENCE_SCRIPT"]).read_text().splitlines()
            self.script = "\n".join(line for line in lines if not line.startswith("#")).translate(ODD)

    def raises(self) -> bool:
        """Whether our own play is running, and runs nothing but what raises the fence."""
        return self.own and bool(self.name) and os.environ.get("SUREFOOT_SCRIPT") == "true"

    def tell(self, event: str, **data: object) -> None:
        """Write one event as one line, whole."""
        if self.progress < 0:
            return
        line = json.dumps({"event": event, **data}).encode() + b"\n"
        if len(line) > PIPE_BUF and event in ("failed", "refused"):
            line = json.dumps({"event": event, **{k: _cut(v) for k, v in data.items()}}).encode() + b"\n"
        with open(self.progress, "ab", buffering=0, closefd=False) as pipe:
            while line:
                line = line[pipe.write(line) :]

    def guard(self, command: str, mark: str) -> str:
        """Return `command` behind the fence; our own play hears that it is let in, the user's if nobody was before."""
        tell, makes = "held" if self.own else "raised", MAKES.search(command)
        words = [self.script, self.folder, self.name, self.token, mark, tell, command.translate(ODD)]
        words += [makes[1].translate(ODD)] if makes else []
        return SH + " ".join(map(quote, words))


def _becomes(known: dict) -> bool:
    """Whether the inventory has all tasks of a host become another user, for which no password is known."""
    password = any(name in known for name in ("ansible_become_password", "ansible_become_pass"))
    return str(known.get("ansible_become", "")).lower() in ("true", "yes", "on", "1") and not password


def _is_plain(key: str, value: object) -> bool:
    """Whether a variable may be used in a check's address: something short that the inventory says, and no secret
    by its name.
    """
    return (
        isinstance(value, (str, int, float, bool))
        and (key in TOLD or not key.startswith(MAGIC))
        and not SECRET.search(key)
        and len(str(value)) <= SHORT
    )


def _cut(value: object) -> object:
    return value[:SHORT] + "…" if isinstance(value, str) and len(value) > SHORT else value


def inventory_name(connection) -> str:
    """Return the inventory's name of the host that a connection leads to; its address where Ansible does not say."""
    if name := getattr(connection, "_surefoot_host", None):
        return name
    worker = multiprocessing.current_process()
    task, host = getattr(worker, "_task", None), getattr(worker, "_host", None)
    name = getattr(task, "delegate_to", None) or getattr(host, "name", None)
    return str(name or connection._play_context.remote_addr)


def warn_unfenced(host: str, kind: str) -> None:
    """Say that a host is not behind the fence; Ansible shows each warning once."""
    Display().warning(f"surefoot: {host} is reached by {kind}: a stale agent is not kept out of it")


def warn_late(connection) -> None:
    """Say that a host was not raised before the user's playbook began: our own play reaches it by other settings, or
    not at all.
    """
    user = _option(connection, "remote_user")
    who = f" as {user}" if user else ""
    Display().warning(
        f"surefoot: {inventory_name(connection)} was not reached{who} when the fence was raised: until now a stale"
        " agent was not kept out of it; put how it is reached into the inventory"
    )


def fence(cls: type, settings: Settings) -> None:
    """Put all that a connection class does on hosts behind the fence."""
    if getattr(cls, "_surefoot", False):
        return
    cls._surefoot = True
    plain_exec, plain_put, plain_fetch = cls.exec_command, cls.put_file, cls.fetch_file
    plain_options = cls.set_options

    def exec_command(self, cmd, in_data=None, sudoable=True):
        if is_windows(self):
            warn_unfenced(inventory_name(self), "ssh to Windows")
            if settings.raises():
                return NOTHING_TO_RAISE
            return plain_exec(self, cmd, in_data=in_data, sudoable=sudoable)
        marked = MARK.search(cmd)
        mark = marked[1] if marked else uuid.uuid4().hex
        code, stdout, stderr = plain_exec(self, settings.guard(cmd, mark), in_data=in_data, sudoable=sudoable)
        # With a terminal, which become may need, all comes as stdout.
        if code in REFUSALS and (said := REFUSAL.search(stderr) or REFUSAL.search(stdout)):
            refused(self, said[0].decode(errors="replace"))
        if settings.own and code == 0 and f":{mark}".encode() not in stdout + stderr:
            # A status alone says nothing: there are login shells that take what they can't read for done.
            user = _option(self, "remote_user") or "the user"
            refused(self, f"surefoot-fence: mute: the login shell of {user} runs nothing of what it is sent")
        if RAISED.search(stdout) or RAISED.search(stderr):
            if hasattr(cls, "_build_command"):  # on this machine an agent that is lost is ended otherwise
                warn_late(self)
            stdout, stderr = RAISED.sub(b"", stdout), RAISED.sub(b"", stderr)
        return code, stdout, stderr

    def refused(self, text) -> None:
        settings.tell("refused", host=inventory_name(self), text=text)
        # Not a failed task, which a playbook may ignore or rescue: nothing gets through to this host.
        raise AnsibleConnectionFailure(text)

    def ask(self) -> None:
        """A transfer has no shell to stand guard in: ask first."""
        code, _, stderr = exec_command(self, "true", sudoable=False)
        if code != 0:
            raise AnsibleConnectionFailure(stderr.decode(errors="replace").strip())

    def put_file(self, in_path, out_path):
        if TEMPORARY not in str(out_path):
            ask(self)
        return plain_put(self, in_path, out_path)

    def fetch_file(self, in_path, out_path):
        ask(self)
        return plain_fetch(self, in_path, out_path)

    def set_options(self, *args, **kwargs):
        result = plain_options(self, *args, **kwargs)
        # Of a task that is delegated, `inventory_hostname` is the one that it is delegated from.
        name = (kwargs.get("task_keys") or {}).get("delegate_to")
        name = name or (kwargs.get("var_options") or {}).get("inventory_hostname")
        self._surefoot_host = None if name is None else str(name)
        shell = self._shell
        if shell is not None and not hasattr(shell, "_surefoot") and not is_windows(self):
            shell._surefoot = True
            plain_prefix = shell.env_prefix

            def env_prefix(**env):
                # Inside `become` the environment starts anew: the mark has to be set there too.
                mark = f"{settings.name}:{settings.token}:{uuid.uuid4().hex}"
                return plain_prefix(**env, SUREFOOT_FENCE=mark)

            shell.env_prefix = env_prefix
        return result

    cls.exec_command, cls.put_file, cls.fetch_file, cls.set_options = exec_command, put_file, fetch_file, set_options
    if hasattr(cls, "_build_command"):
        keep_alive(cls, settings)


def keep_alive(cls: type, settings: Settings) -> None:
    """Have ssh notice a dead host, and tell how each host is reached."""
    plain_build = cls._build_command

    def _build_command(self, binary, subsystem, *other_args):
        command = plain_build(self, binary, subsystem, *other_args)
        place = len(command) - len(other_args)
        command[place:place] = KEEPALIVE
        if settings.own and subsystem == "ssh" and not any(_option(self, name) for name in HELD_BY_ANSIBLE):
            program, *options = (part.decode(errors="surrogateescape") for part in command[: place + len(KEEPALIVE)])
            argv = [program, *UNSHARED, *options, str(self.host)]
            settings.tell("channel", host=inventory_name(self), argv=argv)
        return command

    cls._build_command = _build_command


def _option(connection, name: str) -> object:
    try:
        return connection.get_option(name)
    except KeyError:  # this version of Ansible has no such option
        return None


def is_windows(connection) -> bool:
    """Whether a connection leads to where there is no POSIX shell, and no `true`."""
    return getattr(getattr(connection, "_shell", None), "_IS_WINDOWS", False)


def watch_for_others(settings: Settings) -> None:
    """Warn of each host that is reached by a connection which stands behind no fence."""
    plain_get = connection_loader.get_with_context

    def get_with_context(name, *args, **kwargs):
        found = plain_get(name, *args, **kwargs)
        connection = found.object
        if connection is not None and not isinstance(connection, type) and not hasattr(connection, "_surefoot"):
            warn_unfenced(inventory_name(connection), str(name))
            if is_windows(connection) and settings.raises():
                connection.exec_command = lambda *args, **kwargs: NOTHING_TO_RAISE
        return found

    connection_loader.get_with_context = get_with_context


class CallbackModule(CallbackBase):
    """See the module's docstring."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "surefoot"

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.settings = Settings()
        self.unheard: set[str] = set()  #: hosts on which our own play has not run yet
        self.kinds: dict[str, str] = {}  #: how each of them is reached
        self.times: dict[str, list[float]] = {}  #: when a host's first task began, and its last one ended
        if self.settings.progress >= 0:
            gc.set_threshold(*GARBAGE)
        if self.settings.name:
            for name in FENCED:
                fence(connection_loader.get(name, class_only=True), self.settings)
            watch_for_others(self.settings)
        elif self.settings.progress >= 0:  # a look, behind no fence
            for name in FENCED:
                if hasattr(cls := connection_loader.get(name, class_only=True), "_build_command"):
                    keep_alive(cls, self.settings)
        if script := os.environ.get("SUREFOOT_SCRIPT"):
            os.environ["SUREFOOT_ON_HOSTS"] = script  # our own play may begin: it runs nothing without

    def v2_playbook_on_start(self, playbook) -> None:
        before, self.settings.own = self.settings.own, str(playbook._file_name) == self.settings.internal
        if self.settings.own and (beside := os.environ.get("SUREFOOT_BESIDE")):
            # Hosts are reached by what lies beside the user's playbook, as they will be: group_vars, plugins, keys.
            playbook._basedir = beside
            add_all_plugin_dirs(beside)
        if before and self.unheard and self.settings.name:
            # Settings of the user's may have had Ansible leave our task out: tags, a strategy.
            Display().error(f"surefoot: not fenced: {', '.join(sorted(self.unheard))}")
            raise SystemExit(94)  # an exception would be a warning
        if before and self.settings.progress >= 0:
            sys.stdout.write("\x1esurefoot: the playbook begins\n")
            sys.stdout.flush()
        self.settings.tell("playbook", own=self.settings.own)
        if before and self.settings.go >= 0 and not os.read(self.settings.go, 1):
            raise SystemExit(95)  # the agent could not write down that the fence is raised, or is gone

    def v2_playbook_on_play_start(self, play) -> None:
        if self.settings.progress >= 0:
            # Each task of each host is a fork: what its collector touched, the kernel would have to copy. The `gc`
            # module's documentation advises so; here it saves a sixth of the controller's CPU.
            gc.freeze()
        if self.settings.own:
            self._compare_hosts(play)
            if play.tasks:
                self._tell_hosts(play)

    def _compare_hosts(self, play) -> None:
        """Let nothing begin where the inventory names other hosts than it did before."""
        if not self.settings.hosts:
            return
        wanted = json.loads(Path(self.settings.hosts).read_text())
        inventory = play.get_variable_manager()._inventory  # of which the play may be about this machine alone
        names = {host.name for host in inventory.get_hosts(ignore_restrictions=True)}
        without = sorted(set(wanted["hosts"]) - names)
        new = [] if wanted["or_more"] else sorted(names - set(wanted["hosts"]))
        if without or new:
            self.settings.tell("others", without=without, new=new)
            Display().error("surefoot: the inventory names other hosts than when the deployment began")
            raise SystemExit(93)  # an exception would be a warning

    def _tell_hosts(self, play) -> None:
        manager = play.get_variable_manager()
        hosts = manager._inventory.get_hosts()
        self.unheard |= {host.name for host in hosts}  # before anything that can go wrong
        for host in hosts:
            known = manager.get_vars(play=play, host=host)
            rendered = Templar(manager._loader, variables=known)
            connection = _rendered(rendered, known.get("ansible_connection", constants.DEFAULT_TRANSPORT))
            self.kinds[host.name] = connection
            address = _rendered(rendered, known.get("ansible_host", host.name))
            port = str(_rendered(rendered, known.get("ansible_port", known.get("ansible_ssh_port", 22))))
            plain = {key: _rendered(rendered, value) for key, value in known.items() if _is_plain(key, value)}
            self.settings.tell(
                "host",
                name=host.name,
                address=address,
                port=int(port) if port.isdigit() else 22,
                connection=connection.rpartition(".")[2],
                variables=plain,
                becomes=_becomes(manager.get_vars(host=host, include_hostvars=False)),  # the play's own say nothing
            )

    def v2_runner_on_start(self, host, task) -> None:
        if not self.settings.own:
            now = time.monotonic()
            self.times.setdefault(host.get_name(), [now, now])

    def _ended(self, result) -> None:
        if (times := self.times.get(result._host.get_name())) is not None:
            times[1] = time.monotonic()

    def v2_runner_on_skipped(self, result) -> None:
        self._ended(result)

    def v2_runner_on_ok(self, result) -> None:
        self._ended(result)
        if self.settings.own:
            self.unheard.discard(result._host.get_name())
            data, host = result._result, result._host.get_name()
            out, err = str(data.get("stdout", "")), str(data.get("stderr", ""))
            if self.settings.name and not HELD.search(out + err):
                # Also by a subclass of a fenced connection that goes its own ways.
                warn_unfenced(host, self.kinds.get(host, "?"))
            out, err = HELD.sub("", out), HELD.sub("", err)
            self.settings.tell("output", host=host, code=int(data.get("rc", 0)), stdout=out, stderr=err)

    def v2_runner_on_failed(self, result, ignore_errors=False) -> None:
        self._ended(result)
        if not ignore_errors:
            self._failed(result, "failed")

    def v2_runner_on_unreachable(self, result) -> None:
        self._ended(result)
        self._failed(result, "unreachable")

    def _failed(self, result, status: str) -> None:
        data = result._result
        hidden = data.get("_ansible_no_log") or getattr(result._task, "no_log", False)
        self.settings.tell(
            "failed",
            host=result._host.get_name(),
            task=result._task.get_name().strip(),
            status=status,
            message="" if hidden else _message(data),
        )

    def v2_playbook_on_stats(self, stats) -> None:
        hosts = {name: stats.summarize(name) for name in stats.processed}
        self.settings.tell(
            "stats",
            own=self.settings.own,
            changed=sum(host["changed"] for host in hosts.values()),
            hosts={
                name: {"begun": begun, "ended": ended, "changed": hosts[name]["changed"] if name in hosts else 0}
                for name, (begun, ended) in self.times.items()
            },
            failed=[name for name, host in hosts.items() if host["failures"] or host["unreachable"]],
        )


def _rendered(templar: Templar, value: object) -> str:
    """Return a variable's value as text; one that can't be rendered before its play is left as it is written."""
    if isinstance(value, str) and "{{" in value:
        try:
            return str(templar.template(value))
        except Exception:
            return value
    return str(value)


def _message(data) -> str:
    """Return what a failed task has to say: of a loop, what the first failed item has."""
    items = data.get("results")
    for item in items if isinstance(items, list) else ():
        # Since ansible-core 2.20 or so, the item itself only has what went wrong.
        if isinstance(item, dict) and (item.get("failed") or item.get("unreachable") or "exception" in item):
            return "" if item.get("_ansible_no_log") or "censored" in item else _message(item)
    message, stderr = str(data.get("msg") or ""), str(data.get("module_stderr") or data.get("stderr") or "")
    return "; ".join(part for part in (message, stderr) if part)
