# SPDX-License-Identifier: Apache-2.0
"""What a machine must have for a lab to be set up on it."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

SYSTEMD = Path("/lib/systemd/systemd")
#: Where programs are that an ordinary PATH does not name.
SBIN = ("/usr/sbin", "/sbin")
#: Programs, and the Debian packages that they come with.
PROGRAMS = {
    "ip": "iproute2",
    "nft": "nftables",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "pivot_root": "util-linux",
    "dbus-daemon": "dbus",
}


def program(name: str) -> str | None:
    """Return where a program is."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN)))


@cache
def missing() -> str | None:
    """Return why there can be no lab here, and how there could; None if there can."""
    if os.geteuid() != 0:
        return "a lab needs root: run the same with sudo"
    packages = {package for name, package in PROGRAMS.items() if program(name) is None}
    if not SYSTEMD.exists():
        packages.add("systemd")
    if not any(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        packages.add("postgresql")
    if packages:
        return f"a lab needs programs that are not there: apt-get install {' '.join(sorted(packages))}"
    if cgroups() is None:
        return "a lab needs cgroup v2, and none is mounted here"
    if "overlay" not in Path("/proc/filesystems").read_text() and _fails("modprobe", "overlay"):
        return "a lab needs overlayfs, which this kernel does not have"
    if _fails("unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "true"):
        return "a lab needs namespaces, which this machine does not let us make"
    return None


def cgroups() -> Path | None:
    """Return where cgroup v2 is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def _fails(*command: str) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode != 0
    except OSError:
        return True
