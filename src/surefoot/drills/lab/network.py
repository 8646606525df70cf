# SPDX-License-Identifier: Apache-2.0
"""The lab's network: one switch that hosts and the machine are plugged into, and what is wrong with its lines.

Faults are the switch's: they stay while a host is powered off and on, and no host can tell them from a broken cable.
All rules are loaded at once, whenever one changes, so that what is in force is always one state of `faults`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum

from surefoot.drills.lab.ground import Ground

#: The switch's port to the machine.
MACHINE = "machine"
#: Without it a host says nothing that it was not told to say.
_NO_IPV6 = "/proc/sys/net/ipv6/conf/all/disable_ipv6"


class Direction(StrEnum):
    """Which packets a fault concerns, as the host that it is told of sees them."""

    BOTH = "both"
    TO = "to"  #: what the host would receive
    FROM = "from"  #: what it sends


@dataclass(frozen=True, slots=True)
class Plug:
    """One end of a line at the switch."""

    port: str
    address: str


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with the packets of a line."""

    plug: Plug
    peer: Plug | None  #: None: whoever is at the other end
    direction: Direction
    verdict: str  #: the rule's last words, as nftables has them

    def rules(self) -> list[str]:
        """Return the switch's rules for it."""
        here, there = f'"{self.plug.port}"', f'"{self.peer.port}"' if self.peer else None
        rules = []
        if self.direction in (Direction.BOTH, Direction.FROM):
            rules.append(f"iifname {here}{f' oifname {there}' if there else ''} {self.verdict}")
        if self.direction in (Direction.BOTH, Direction.TO):
            rules.append(f"{f'iifname {there} ' if there else ''}oifname {here} {self.verdict}")
        return rules


class Network:
    """See the module's docstring. Where hosts are asked for, the machine is `network.machine`."""

    def __init__(self, ground: Ground) -> None:
        """Set the switch up, and plug the machine in."""
        self._ground = ground
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self.machine = Plug(MACHINE, f"{ground.subnet}.1")
        ground.run(
            "sh",
            "-ec",
            "ip link set lo up; ip link add switch type bridge forward_delay 0 stp_state 0; ip link set switch up;"
            f" ip link set {MACHINE} master switch up",
        )

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is wrong now."""
        return tuple(self._faults)

    def cut(self, plug: Plug, peer: Plug | None = None, direction: Direction = Direction.BOTH) -> None:
        """Let nothing through any more: between a host and all others, or one of them; in one direction, or both."""
        self._change(Fault(plug, peer, direction, "drop"))

    def lossy(self, plug: Plug, percent: int, peer: Plug | None = None, direction: Direction = Direction.BOTH) -> None:
        """Lose some packets, at random."""
        self._change(Fault(plug, peer, direction, f"numgen random mod 100 < {percent} drop"))

    def slow(self, plug: Plug, kbytes: int, peer: Plug | None = None, direction: Direction = Direction.BOTH) -> None:
        """Let so many kilobytes a second through, and lose the rest."""
        self._change(Fault(plug, peer, direction, f"limit rate over {kbytes} kbytes/second burst {kbytes} kbytes drop"))

    def heal(self, plug: Plug | None = None, peer: Plug | None = None) -> None:
        """Mend what was done to a host's lines, to one of them, or to all lines."""
        with self._lock:
            kept = [f for f in self._faults if not _concerns(f, plug, peer)]
            self._load(kept)

    def _change(self, fault: Fault) -> None:
        with self._lock:
            self._load([*self._faults, fault])

    def _load(self, faults: list[Fault]) -> None:
        rules = "\n".join(rule for fault in faults for rule in fault.rules())
        chain = f"chain forward {{ type filter hook forward priority 0; policy accept;\n{rules}\n}}"
        text = f"table bridge faults {{}}\ndelete table bridge faults\ntable bridge faults {{\n{chain}\n}}\n"
        self._ground.run("nft", "-f", "-", stdin=text)
        self._faults = faults

    # -- plugs -----------------------------------------------------------------------------------------------------

    def plug_in(self, plug: Plug, number: int) -> None:
        """Give a host that is powered on a network namespace, and a line to the switch."""
        space = self.space(plug)
        mac = f"02:53:46:00:00:{number:02x}"  # the same after each start, or others would go on sending to the old one
        inner = (
            f"[ ! -e {_NO_IPV6} ] || echo 1 >{_NO_IPV6}; ip link set lo up;"
            f" ip link set eth0 address {mac}; ip address add {plug.address}/24 dev eth0;"
            " ip link set eth0 up"
        )
        script = (
            f"mkdir -p {space.rpartition('/')[0]}; : >{space}; unshare --net={space} true;"
            f" ip link add {plug.port} type veth peer name eth0 netns {space};"
            f" ip link set {plug.port} master switch up; nsenter --net={space} sh -ec '{inner}'"
        )
        self._ground.run("sh", "-ec", script)

    def pull(self, plug: Plug) -> None:
        """Take a host off the switch at once: not even the end of its connections gets out."""
        self._ground.run("sh", "-c", f"ip link set {plug.port} down 2>/dev/null || true")

    def unplug(self, plug: Plug) -> None:
        """Remove what a host that is off had of the network."""
        space = self.space(plug)
        self._ground.run("sh", "-c", f"ip link delete {plug.port}; umount -l {space}; rm -f {space}; true")

    def space(self, plug: Plug) -> str:
        """Return the file, in the lab, that holds a host's network namespace."""
        return f"{self._ground.folder}/net/{plug.port}"


def _concerns(fault: Fault, plug: Plug | None, peer: Plug | None) -> bool:
    ends = {fault.plug, fault.peer}
    return (plug is None or plug in ends) and (peer is None or peer in ends)
