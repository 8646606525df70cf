# SPDX-License-Identifier: Apache-2.0
"""A host of the lab: a name, an address, a disk, processes of its own under its own systemd, and its switches.

Guarantees: when `power_off` returns, not one process of the host runs, and no packet tells others that it went; when
`freeze` returns, all of its processes stand still. Every call may be repeated.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import surefoot
from surefoot.drills.lab import blackbox
from surefoot.drills.lab.blackbox import Command
from surefoot.drills.lab.disk import Disk
from surefoot.drills.lab.errors import LabError
from surefoot.drills.lab.ground import Ground, environ
from surefoot.drills.lab.network import Direction, Network, Plug

BOOT = Path(__file__).with_name("boot.sh")
SSH_UNIT = "lab-ssh.service"
AUTHORIZED = "etc/ssh/lab_authorized"
#: Where libfaketime is for this machine's kind of processor, if anywhere.
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
#: Seconds that a host has for what it is told, on a machine that is busy.
PATIENCE = 60.0
LOOK_EVERY = 0.02

_TARGET = """[Unit]
Description=A host of a Surefoot lab
DefaultDependencies=no
AllowIsolate=yes
Wants=systemd-journald.service systemd-journal-flush.service systemd-tmpfiles-setup.service dbus.socket lab-ssh.service
"""
_SSH_UNIT = """[Unit]
Description=The host's sshd
DefaultDependencies=no
[Service]
RuntimeDirectory=sshd
ExecStart=/usr/sbin/sshd -D -e -f /etc/ssh/lab_config
Restart=always
RestartSec=200ms
"""
# The default key exchange holds out against quantum computers, at ten times the processor time of this one: it would be
# most of what a connection costs.
_SSH_CONFIG = """Port 22
KexAlgorithms curve25519-sha256
HostKey /etc/ssh/lab_hostkey
AuthorizedKeysFile /etc/ssh/lab_authorized
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
UseDNS no
Subsystem sftp internal-sftp
MaxStartups 200
MaxSessions 100
SetEnv SHLVL=2
ForceCommand /usr/local/sbin/surefoot-lab-blackbox
"""


class Host:
    """See the module's docstring."""

    def __init__(self, ground: Ground, network: Network, name: str, number: int, keys: Path) -> None:
        """Lay its disk out; it is off."""
        self.name = name
        self.number = number
        self.plug = Plug(f"port{number}", f"{ground.subnet}.{10 + number}")
        self.disk = Disk(ground, name)
        self._ground = ground
        self._network = network
        self._cgroup = ground.cgroup / name
        self._process: subprocess.Popen[bytes] | None = None
        self._lay_out(keys)

    def __repr__(self) -> str:
        return f"Host({self.name!r}, {self.address!r})"

    @property
    def address(self) -> str:
        """Its address."""
        return self.plug.address

    def _lay_out(self, keys: Path) -> None:
        write = self.disk.write
        write("etc/hostname", f"{self.name}\n")
        write("etc/machine-id", f"5f{self.number:030x}\n")
        write("etc/surefoot-lab-host", f"{self.name}\n")
        write("etc/resolv.conf", "")
        write("etc/systemd/system/multi-user.target", _TARGET)
        write(f"etc/systemd/system/{SSH_UNIT}", _SSH_UNIT)
        write(
            "etc/systemd/journald.conf.d/lab.conf",
            "[Journal]\nStorage=persistent\nRateLimitBurst=0\nSyncIntervalSec=1s\n",
        )
        write("etc/ssh/lab_config", _SSH_CONFIG)
        write(AUTHORIZED, (keys / "id.pub").read_text())
        write("etc/ssh/lab_hostkey", (keys / "hostkey").read_text(), mode=0o600)
        write("usr/local/sbin/surefoot-lab-blackbox", blackbox.SCRIPT.read_text(), mode=0o755)
        write(blackbox.LOG, "", mode=0o666)
        write("root/.profile", "")  # root's own start-up files cost more than most tasks
        write("root/.bashrc", "")

    # -- power -----------------------------------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        """Whether it has power."""
        return self._process is not None and self._process.poll() is None

    def power_on(self) -> None:
        """Start it, and wait until it takes connections."""
        self.switch_on()
        self.wait_up()

    def switch_on(self) -> None:
        """Start it."""
        if self.is_on:
            return
        self.power_off()
        self._network.plug_in(self.plug, self.number)
        self._cgroup.mkdir()
        space, procs = self._network.space(self.plug), self._cgroup / "cgroup.procs"
        script = (
            f"echo 0 >{procs}; exec nsenter --net={space} unshare --mount --pid --uts --ipc --cgroup"
            ' --fork --kill-child sh "$0" "$@"'
        )
        command = ["sh", "-ec", script, str(BOOT), self.disk.folder, self.name, *_bound()]
        console = self.disk.at("/").parent / "console"
        with console.open("ab") as out:
            self._process = subprocess.Popen(
                self._ground.enter(*command, pid=True),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environ(),
                cwd="/",
                start_new_session=True,
            )

    def wait_up(self) -> None:
        """Wait until it takes connections."""
        self.until(self._listens, "takes connections")

    def power_off(self) -> None:
        """Take its power away: every process is gone at once, and nobody on the network hears of it."""
        self._network.pull(self.plug)
        if self._cgroup.exists():
            (self._cgroup / "cgroup.kill").write_text("1")
            self.until(lambda: not _populated(self._cgroup), "has no process any more", lives=False)
            self._remove_cgroup()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._network.unplug(self.plug)

    def _remove_cgroup(self) -> None:
        def removed() -> bool:
            for folder, _, _ in os.walk(self._cgroup, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            return not self._cgroup.exists()

        self.until(removed, "has no cgroup any more", lives=False)

    def freeze(self) -> None:
        """Stop all of its processes in their tracks; the kernel still answers for its network."""
        (self._cgroup / "cgroup.freeze").write_text("1")
        self.until(lambda: "frozen 1" in (self._cgroup / "cgroup.events").read_text(), "stands still")

    def thaw(self) -> None:
        """Let it go on as if nothing had been."""
        with contextlib.suppress(FileNotFoundError):
            (self._cgroup / "cgroup.freeze").write_text("0")

    @contextlib.contextmanager
    def starved(self, share: float, period: float = 1.0) -> Iterator[None]:
        """Give all of its processes only this share of the time, a slice in each period, as a machine does whose owner
        has sold its processors many times over.
        """
        fed = threading.Event()

        def starve() -> None:
            switch = self._cgroup / "cgroup.freeze"
            while not fed.wait(period * share):
                with contextlib.suppress(OSError):  # it is off
                    switch.write_text("1")
                fed.wait(period * (1 - share))
                with contextlib.suppress(OSError):
                    switch.write_text("0")

        thread = threading.Thread(target=starve, name=f"starve {self.name}")
        thread.start()
        try:
            yield
        finally:
            fed.set()
            thread.join()

    # -- its lines -------------------------------------------------------------------------------------------------

    def cut(self, peer: Host | Plug | None = None, direction: Direction = Direction.BOTH) -> None:
        """Cut it off from everybody, or from one other; in one direction, or both."""
        self._network.cut(self.plug, plug_of(peer), direction)

    def heal(self, peer: Host | Plug | None = None) -> None:
        """Mend all of its lines, or that to one other."""
        self._network.heal(self.plug, plug_of(peer))

    # -- what it does ----------------------------------------------------------------------------------------------

    def inside(self, *command: str) -> list[str]:
        """Return the command line that runs something in the host, as if typed at its console: without its network."""
        enter = f"echo 0 >{self._cgroup / 'cgroup.procs'}; exec nsenter --all --target {self.pid()}"
        return ["sh", "-c", f'{enter} -- "$@"', "console", *command]

    def sh(self, script: str, *args: str, check: bool = True, timeout: float = PATIENCE) -> str:
        """Run a shell script at its console, and return what it prints. LabError if it fails."""
        try:
            done = subprocess.run(
                self.inside("/bin/sh", "-c", script, "sh", *args),
                check=False,
                capture_output=True,
                text=True,
                timeout=timeout,
                env=environ(),
                cwd="/",
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name}: {script!r} did not end in {timeout:g} s") from error
        if check and done.returncode != 0:
            raise LabError(f"{self.name}: {script!r} ended with {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout

    def start(
        self, command: Sequence[str], output: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program at its console; its output goes to a file of the machine's."""
        words = ["env", *(f"{k}={v}" for k, v in (env or {}).items()), *command]
        with output.open("ab") as out:
            return subprocess.Popen(
                self.inside(*words), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environ(), cwd="/"
            )

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file, whether it is on or off."""
        if not self.is_on:
            self.disk.write(path, text, mode)
            return
        place = Path(f"/proc/{self.pid()}/root", path.lstrip("/"))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        place.chmod(mode)

    def unit(self, name: str, text: str, *, enabled: bool = True) -> None:
        """Give it a service, which also starts whenever the host is powered on if it is `enabled`."""
        self.write(f"/etc/systemd/system/{name}.service", text)
        if enabled:
            wants = f"etc/systemd/system/multi-user.target.wants/{name}.service"
            place = Path(f"/proc/{self.pid()}/root", wants) if self.is_on else self.disk.at(wants)
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.is_symlink():
                place.symlink_to(f"/etc/systemd/system/{name}.service")
        if self.is_on:
            self.systemctl("daemon-reload")

    def systemctl(self, *words: str) -> str:
        """Tell its systemd something."""
        return self.sh('exec systemctl "$@"', *words)

    def active(self, unit: str) -> bool:
        """Return whether a service runs."""
        return self.sh(f"systemctl is-active {shlex.quote(unit)}", check=False).strip() == "active"

    def main_pid(self, unit: str) -> int:
        """Return a service's main process, as the host numbers it; 0 if there is none."""
        return int(self.systemctl("show", "--value", "--property=MainPID", unit))

    def kill(self, unit: str, signal: str = "KILL", who: str = "main") -> None:
        """Send a signal to a service's main process, or to `all` of its processes."""
        self.systemctl("kill", f"--kill-whom={who}", f"--signal={signal}", unit)

    def accept(self, public_key: str) -> None:
        """Be opened by this key, and no other, from now on; who is in is put out. By none if it is empty."""
        self.write(f"/{AUTHORIZED}", public_key)
        self.stop_sshd()
        self.start_sshd()

    def stop_sshd(self) -> None:
        """End its sshd, with all connections and what runs in them."""
        self.systemctl("stop", SSH_UNIT)
        # Nothing is left of its cgroup; a command that was ended in its very first moments has not said so itself.
        ends = blackbox.ends(self.disk.read(blackbox.LOG).splitlines(), time.time())
        self.sh(f'printf %s "$1" >>{blackbox.LOG}', ends)

    def start_sshd(self) -> None:
        """Start its sshd."""
        self.systemctl("start", SSH_UNIT)
        self.until(self._listens, "takes connections")

    def skew(self, by: str, *units: str) -> None:
        """Set the clock that services see forward or back, such as `+5m`, `-1h`; `0` sets it right. Restarts them."""
        if not FAKETIME:
            raise LabError("a clock can't be skewed here", hint="apt-get install faketime")
        if by == "0":
            self.systemctl("unset-environment", "LD_PRELOAD", "FAKETIME", "DONT_FAKE_MONOTONIC")
        else:
            self.systemctl("set-environment", f"LD_PRELOAD={FAKETIME[0]}", f"FAKETIME={by}", "DONT_FAKE_MONOTONIC=1")
        if units:
            self.systemctl("restart", *units)

    def journal(self, unit: str = "") -> str:
        """Return what its services said."""
        return self.sh(
            f"journalctl --no-pager -o short-precise {f'-u {shlex.quote(unit)}' if unit else ''}", check=False
        )

    def commands(self) -> list[Command]:
        """Return all commands that came to it over SSH, as its black box has them."""
        return blackbox.parse(self.name, self.disk.read(blackbox.LOG).splitlines())

    # -- looking ---------------------------------------------------------------------------------------------------

    def pid(self) -> int:
        """Return its first process, as the machine numbers it. LabError if it has none."""
        if self._process is not None:
            with contextlib.suppress(OSError, IndexError):
                pid = self._process.pid
                for _ in range(2):  # nsenter, unshare
                    pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
                return pid
        raise LabError(f"{self.name} is off{self._said()}")

    def _listens(self) -> bool:
        """Whether its sshd listens, seen from within: the line may be cut."""
        try:
            sockets = Path(f"/proc/{self.pid()}/net/tcp").read_text().splitlines()[1:]
            there = Path(f"/proc/{self.pid()}/root/run/sshd").exists()
        except (OSError, LabError):
            return False
        return there and any(fields[1].endswith(":0016") and fields[3] == "0A" for fields in map(str.split, sockets))

    def until(self, holds: Callable[[], bool], what: str, *, lives: bool = True) -> None:
        """Wait until something holds of it."""
        end = time.monotonic() + PATIENCE
        while not holds():
            if lives and not self.is_on:
                raise LabError(f"{self.name} went down before it {what}{self._said()}")
            if time.monotonic() > end:
                raise LabError(f"{self.name}: not within {PATIENCE:g} s: {what}{self._said()}")
            time.sleep(LOOK_EVERY)

    def _said(self) -> str:
        console = self.disk.at("/").parent / "console"
        lines = console.read_text(errors="replace").splitlines()[-5:] if console.exists() else []
        return ": " + " / ".join(lines) if lines else ""


def plug_of(peer: Host | Plug | None) -> Plug | None:
    """Return a host's plug."""
    return peer.plug if isinstance(peer, Host) else peer


def _populated(cgroup: Path) -> bool:
    return "populated 1" in (cgroup / "cgroup.events").read_text()


def _bound() -> list[str]:
    """Return the folders that Surefoot and its Python are in, unless the machine's root file system has them."""
    needed = {
        sys.prefix,
        sys.base_prefix,
        str(Path(surefoot.__file__).parent),
        *(p for p in sys.path if Path(p).is_dir()),
    }
    root = Path("/").stat().st_dev
    hidden = ("/tmp/", "/run/", "/dev/")
    return sorted(p for p in needed if Path(p).stat().st_dev != root or p.startswith(hidden))
