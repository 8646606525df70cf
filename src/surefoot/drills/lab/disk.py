# SPDX-License-Identifier: Apache-2.0
"""A host's disk: what of it differs from the machine's, kept over power off and on, and of a size that can be filled.

Files can be written before the host is started and read at any time; what is not a host's own, such as the machine's
keys, services and fences, is hidden from it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from surefoot.drills.lab.errors import LabError
from surefoot.drills.lab.ground import Ground

#: Bytes of a disk; what a host does not use costs nothing.
SIZE = "1g"
#: Folders of the machine that a host sees empty.
HIDDEN = (
    *("etc/systemd/system", "root/.ssh", "root/.ansible", "root/.surefoot", "root/.config", "root/.cache"),
    *("var/lib/surefoot", "var/log/journal", "var/lib/systemd", "etc/cron.d", "etc/ssh/sshd_config.d"),
)
#: What the machine's own systemd would want at its start, and a host's must not.
NOT_WANTED = (
    *("usr/lib/systemd/system/sysinit.target.wants", "usr/lib/systemd/system/multi-user.target.wants"),
    *("usr/lib/systemd/system/timers.target.wants", "usr/lib/systemd/system/local-fs.target.wants"),
)
FILLER = "var/surefoot-lab-filler"
_CHUNK = 1 << 20


class Disk:
    """See the module's docstring. Paths are the host's."""

    def __init__(self, ground: Ground, name: str) -> None:
        """Make an empty one."""
        self._ground = ground
        self.folder = f"{ground.folder}/hosts/{name}"
        ground.run(
            "sh",
            "-ec",
            f"mkdir -p {self.folder}; mount -t tmpfs -o mode=0755,size={SIZE} disk {self.folder};"
            f" mkdir {self.folder}/up {self.folder}/work {self.folder}/root",
        )
        for hidden in HIDDEN:
            path = self.at(hidden)
            path.mkdir(parents=True, exist_ok=True)
            os.setxattr(path, "trusted.overlay.opaque", b"y")
        self.at("root").chmod(0o700)
        for unwanted in NOT_WANTED:
            path = self.at(unwanted)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.mknod(path, stat.S_IFCHR | 0o000, os.makedev(0, 0))  # how an overlay says that a file is gone

    def at(self, path: str) -> Path:
        """Return where this process finds a file that the host has written."""
        return self._ground.path(
            *self.folder.removeprefix(f"{self._ground.folder}/").split("/"), "up", path.lstrip("/")
        )

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file. The host must be off, or never have looked at it."""
        place = self.at(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        place.chmod(mode)

    def read(self, path: str) -> str:
        """Return a file that the host has written; empty if it has not."""
        try:
            return self.at(path).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def fill(self) -> None:
        """Leave not one byte free."""
        filler = self.at(FILLER)
        filler.parent.mkdir(parents=True, exist_ok=True)
        block = bytes(_CHUNK)
        with filler.open("ab", buffering=0) as file:
            for size in (_CHUNK, 4096):
                with contextlib.suppress(OSError):
                    while file.write(block[:size]):
                        pass
        if self.free_bytes() > 0:
            raise LabError(f"{self.folder} can't be filled")

    def free(self) -> None:
        """Give back what `fill` took."""
        self.at(FILLER).unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Return how much is left."""
        found = os.statvfs(self.at("/"))
        return found.f_bavail * found.f_frsize
