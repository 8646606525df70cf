# SPDX-License-Identifier: Apache-2.0
"""Holds the ground that a lab stands on, and clears it when the lab's process is gone, however it went.

Run as `python -I -S guardian.py NAME FOLDER CGROUP LINK SUBNET`, with a pipe as standard input whose other end the
lab's process holds. Says `PID NUMBER` once the ground stands: the process that holds the lab's namespaces, and the
lab's number: of its link and subnet. The lab's end, its SIGKILL too, closes the pipe, and the guardian ends every
process of the lab and removes its link, cgroups and folder.

If the guardian itself is killed, the kernel ends the ground, and with it all processes, mounts and interfaces of the
lab; empty cgroups, an empty folder, and what a lab had started on the machine itself are left, which the next lab
sweeps away.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
#: The first process of the lab; the kernel buries orphans for who ignores their end.
GROUND = (
    'mount --make-rprivate /; mount -t tmpfs -o mode=0755,size=1m lab "$1";'
    " exec env --ignore-signal=CHLD sleep infinity"
)
#: Labs that fit side by side: one number, and so one subnet, each.
NUMBERS = 250
#: Seconds in which killed processes must be gone.
PATIENCE = 20.0


def main() -> int:
    """Stand until the pipe closes; return 0 if nothing was left behind."""
    _, folder, cgroup, link, subnet = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o022)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # to bury the lab's first process, when its parent was killed
    before = enter(Path(cgroup))
    Path(folder).mkdir()
    ground = subprocess.Popen(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", GROUND, "ground", folder],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - the guardian has one thread
    )
    taken = None
    try:
        first = first_process(ground)
        taken = take_number(first, link, subnet)
        print(first, taken, flush=True)
        select.select([0], [], [])
    finally:
        os.chdir("/")
        if taken is not None:
            subprocess.run(["ip", "link", "delete", f"{link}{taken}"], check=False, capture_output=True)
        clean = clear(ground, Path(cgroup), before)
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return 0 if clean and not Path(folder).exists() else 1


def end_with_parent() -> None:
    """Have the kernel kill this process when the guardian dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def enter(cgroup: Path) -> Path:
    """Go into a cgroup of the lab's own, so that nobody takes it for an abandoned one; return where we were."""
    mount = cgroup.parent
    own = next(line.split("::", 1)[1] for line in Path("/proc/self/cgroup").read_text().splitlines() if "::" in line)
    while True:
        cgroup.mkdir(exist_ok=True)
        try:
            (cgroup / "cgroup.procs").write_text("0")
        except FileNotFoundError:  # swept away before we were in it
            continue
        return mount / own.lstrip("/")


def first_process(unshare: "subprocess.Popen[bytes]") -> int:
    """Return the first process of the lab's namespace, once it stands on its own mounts."""
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and unshare.poll() is None:
        with contextlib.suppress(OSError, IndexError):
            pid = int(children.read_text().split()[0])
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"):
                return pid
        time.sleep(0.005)
    raise SystemExit("the lab's namespaces can't be made")


def take_number(ground: int, link: str, subnet: str) -> int:
    """Claim a number by making the link of that name, which only one can, between the machine and the lab."""
    for i in range(NUMBERS):
        number = (os.getpid() + i) % NUMBERS
        if f"{subnet}.{number}." in subprocess.run(["ip", "route"], check=True, capture_output=True, text=True).stdout:
            continue
        name = f"{link}{number}"
        made = subprocess.run(
            ["ip", "link", "add", name, "type", "veth", "peer", "name", "machine", "netns", str(ground)],
            check=False,
            capture_output=True,
        )
        if made.returncode == 0:
            subprocess.run(["ip", "address", "add", f"{subnet}.{number}.1/24", "dev", name], check=True)
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
            return number
    raise SystemExit(f"no subnet {subnet}.N.0/24 is free")


def clear(ground: "subprocess.Popen[bytes]", cgroup: Path, before: Path) -> bool:
    """End all processes of the lab, frozen ones too, and remove its cgroups."""
    end = time.monotonic() + PATIENCE
    inner = [child for child in cgroup.iterdir() if child.is_dir()]
    for child in inner:
        (child / "cgroup.kill").write_text("1")
    ground.kill()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    try:
        (before / "cgroup.procs").write_text("0")
    except OSError:
        (cgroup.parent / "cgroup.procs").write_text("0")
    while time.monotonic() < end:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if not cgroup.exists():
            return True
        time.sleep(0.01)
    return False


if __name__ == "__main__":
    sys.exit(main())
