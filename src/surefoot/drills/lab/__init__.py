# SPDX-License-Identifier: Apache-2.0
"""A lab: several hosts on one machine, each with its own address, disk, processes, sshd and systemd, and faults by the
call.

    with Lab() as lab:
        web = lab.add("web-01")
        lab.power_on()
        web.power_off()             # its disk is kept
        web.power_on()
        lab.network.cut(web)        # in both directions, from everybody
        web.freeze(); web.thaw()

Guarantees: whatever becomes of the process that holds it (an error, Ctrl-C, SIGKILL), a lab is gone soon after, without
a process, mount, interface, cgroup or file left behind; labs side by side share no name, address or file; hosts read
the machine's installed programs, and change nothing of the machine's.

Does not guarantee: isolation from a hostile host (its root is the machine's), limits of memory and CPU, or that a power
off loses what a disk had not yet synced.
"""

from surefoot.drills.lab.blackbox import Command
from surefoot.drills.lab.errors import LabError
from surefoot.drills.lab.host import Host
from surefoot.drills.lab.lab import Lab
from surefoot.drills.lab.need import missing
from surefoot.drills.lab.network import Direction
from surefoot.drills.lab.postgres import PostgresPair, Server

__all__ = ["Command", "Direction", "Host", "Lab", "LabError", "PostgresPair", "Server", "missing"]
