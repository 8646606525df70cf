# SPDX-License-Identifier: Apache-2.0
"""Real hosts for tests: each an sshd on an ephemeral port of 127.0.0.1, in mount and process namespaces of its own.

A host has its own /root, /home, /var/lib and /etc/{passwd,shadow,group,sudoers}, and its own of the folder that is
`shared`; the rest is the machine's.
All of its processes end with it, whatever a test left behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import compiled

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
PLAIN_USER = "worker"
SUDO_USER = "helper"
PATIENCE = 20.0

_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
sshd:x:105:65534::/run/sshd:/usr/sbin/nologin
worker:x:4101:4101::/home/worker:/bin/sh
helper:x:4102:4102::/home/helper:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUP = "root:x:0:\nworker:x:4101:\nhelper:x:4102:\nnogroup:x:65534:\n"
_SHADOW = "root:*:19000:0:99999:7:::\nworker:*:19000:0:99999:7:::\nhelper:*:19000:0:99999:7:::\n"
_SUDOERS = "Defaults !syslog\nroot ALL=(ALL) ALL\nhelper ALL=(ALL) NOPASSWD: ALL\n"
# The default key exchange would be most of what a connection costs the processor.
_SSHD_CONFIG = """\
KexAlgorithms curve25519-sha256
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv SHLVL=2 {compiled} {env}
Subsystem sftp internal-sftp
MaxStartups 200
MaxSessions 100
LogLevel ERROR
"""
#: Runs in the new namespaces; must not touch anything before its mounts are private.
_INIT = """
set -eu
mount --make-rprivate /
for d in root home var/lib; do mount --bind "$1/disk/$d" "/$d"; done
mount --bind "$1/disk/shared" "$2"
for f in passwd shadow group sudoers; do mount --bind "$1/$f" "/etc/$f"; done
mkdir -p /run/sshd
trap '' HUP
{run}
"""


def missing() -> str | None:
    """Return why there can be no such hosts here."""
    if os.geteuid() != 0:
        return "hosts need root: sudo make test"
    for program in ("sshd", "ssh", "ssh-keygen", "unshare", "flock", "sudo", "setpriv"):
        if not shutil.which(program) and not Path(f"/usr/sbin/{program}").exists():
            return f"{program} is not installed: make debian"
    if not Path("/usr/bin/python3").exists():
        return "hosts need /usr/bin/python3: theirs must be readable by every user"
    done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"], capture_output=True)
    return None if done.returncode == 0 else f"no namespaces here: {done.stderr.decode().strip()}"


def until(holds: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until something holds, or fail saying what did not come true."""
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end, f"did not come true in {patience:.0f} s: {what}"
        time.sleep(0.05)


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclass
class SshHost:
    """One host; `reaps` is whether its first process reaps orphans, which in many containers it does not."""

    name: str
    folder: Path
    key: Path
    reaps: bool = True
    env: str = ""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        f = self.folder
        for part in ("root", "home/worker", "home/helper", "var/lib", "shared"):
            (f / "disk" / part).mkdir(parents=True, exist_ok=True)
        self.shared.mkdir(exist_ok=True)
        (f / "disk/root").chmod(0o700)
        os.chown(f / "disk/home/worker", 4101, 4101)
        os.chown(f / "disk/home/helper", 4102, 4102)
        for name, text in (("passwd", _PASSWD), ("group", _GROUP), ("shadow", _SHADOW), ("sudoers", _SUDOERS)):
            (f / name).write_text(text)
        (f / "sudoers").chmod(0o440)
        (f / "shadow").chmod(0o600)
        shutil.copy(self.key.with_suffix(".pub"), f / "authorized_keys")
        if not (f / "host_key").exists():
            subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(f / "host_key")], check=True)
        (f / "sshd_config").write_text(
            _SSHD_CONFIG.format(port=self.port, folder=f, compiled=compiled.settings(), env=self.env)
        )
        sshd = f'{SSHD} -D -e -f "$1/sshd_config"'
        script = _INIT.replace("{run}", f"{sshd} & wait" if self.reaps else f"{sshd} & exec sleep infinity")
        with (f / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "unshare",
                    "--mount",
                    "--pid",
                    "--fork",
                    "--mount-proc",
                    "--kill-child",
                    "/bin/sh",
                    "-c",
                    script,
                    "init",
                    str(f),
                    str(self.shared),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._answers, f"sshd of {self.name} listens: {(f / 'sshd.log').read_text()}")

    @property
    def shared(self) -> Path:
        """Return a path at which every host, and the machine itself, has a folder of its own."""
        return self.folder.parent / "shared"

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as s:
                return s.recv(4) == b"SSH-"
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def init_pid(self) -> int:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def sh(self, script: str, *args: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run sh in the host, without ssh."""
        return subprocess.run(
            [*self.inside(user), "/bin/sh", "-c", script, "sh", *args], capture_output=True, text=True, timeout=90
        )

    def inside(self, user: str | None = None) -> list[str]:
        """Return what to put before a command that is to run in the host."""
        enter = ["nsenter", "--mount", "--pid", "--target", str(self.init_pid()), "--"]
        ids = {
            None: ("0", "/root"),
            PLAIN_USER: ("4101", f"/home/{PLAIN_USER}"),
            SUDO_USER: ("4102", f"/home/{SUDO_USER}"),
        }
        number, home = ids[user]
        who = [] if user is None else ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups"]
        return [*enter, "env", "-u", "SUREFOOT_FENCE", f"HOME={home}", *who]

    def disk(self, path: str) -> Path:
        """Return where a path under /root, /home or /var/lib of the host really lies."""
        return self.folder / "disk" / path.lstrip("/")

    def running(self, text: str) -> list[int]:
        """Return the processes (by their numbers outside) of this host whose command line begins with `text`."""
        return [pid for pid, words in self._processes() if " ".join(words).startswith(text)]

    def guards(self) -> list[int]:
        """Return the processes of this host that are guards."""
        return [pid for pid, words in self._processes() if words[3:4] == ["surefoot-fence"]]

    def everything(self) -> list[int]:
        """Return all processes of this host."""
        return [pid for pid, _ in self._processes()]

    def _processes(self) -> list[tuple[int, list[str]]]:
        space = Path(f"/proc/{self.init_pid()}/ns/pid").readlink()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit() or (entry / "ns/pid").readlink() != space:
                    continue
                words = (entry / "cmdline").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(") ")[2][0]
            except OSError:
                continue
            if state != "Z":
                found.append((int(entry.name), [word.decode(errors="replace") for word in words]))
        return found

    def line(self, user: str = "root") -> str:
        """Return the host's line of an inventory."""
        return f"{self.name} ansible_host=127.0.0.1 ansible_port={self.port} ansible_user={user}"

    def known(self) -> str:
        """Return the host's line of a known_hosts file."""
        kind, key, *_ = (self.folder / "host_key.pub").read_text().split()
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"


def inventory(hosts: list[SshHost], key: Path, known_hosts: Path, user: str = "root", more: str = "") -> str:
    """Return an inventory of hosts, whose keys are checked strictly."""
    known_hosts.write_text("".join(host.known() for host in hosts))
    lines = "\n".join(host.line(user) for host in hosts)
    options = f"-F /dev/null -o UserKnownHostsFile={known_hosts} -o GlobalKnownHostsFile=/dev/null"
    options += " -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    return f"""[all]
{lines}

[all:vars]
ansible_ssh_private_key_file={key}
ansible_ssh_common_args={options}
ansible_python_interpreter=/usr/bin/python3
{more}
"""


def kill_tree(pid: int) -> None:
    """Kill a process and all below it that are still its children."""
    try:
        children = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        children = []
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    for child in children:
        kill_tree(child)
