# SPDX-License-Identifier: Apache-2.0
"""The primary runs out of something in the middle of a deployment: its disk is full, its memory is used up, it hardly
gets a processor any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from surefoot.drills.drill import Drill
from surefoot.drills.lab_stage import LabStage
from surefoot.drills.site import AGENT, PRIMARY, Site

#: What is left to the agent's process, in bytes, and to its machine, as a share of the time.
MEMORY = 1 << 20
PROCESSOR = 0.05


@contextmanager
def _full_disk(site: Site) -> Iterator[None]:
    disk = site[PRIMARY].disk
    disk.fill()
    try:
        yield
    finally:
        disk.free()


@contextmanager
def _no_memory(site: Site) -> Iterator[None]:
    """Let the agent, and what it starts from now on, have no more memory than it has."""
    host = site[PRIMARY]
    pid = host.main_pid(AGENT)
    host.sh(
        f'kb=$(sed -n "s/^VmSize:[^0-9]*\\([0-9]*\\) kB/\\1/p" /proc/{pid}/status);'
        f" prlimit --pid {pid} --as=$((kb * 1024 + {MEMORY}))"
    )
    try:
        yield
    finally:
        host.systemctl("restart", AGENT)


def _no_processor(site: Site) -> AbstractContextManager[None]:
    return site[PRIMARY].starved(PROCESSOR)


def without(title: str, fault: Callable[[Site], AbstractContextManager[None]]) -> Callable[[LabStage], None]:
    """Return the play in which the primary lacks something from the middle of a deployment on."""

    def play(stage: LabStage) -> None:
        version, deploy = stage.in_the_middle()
        with fault(stage.site):
            stage.say(title)
            stage.ends_well(deploy, version)

    return play


def _drill(name: str, title: str, fault: Callable[[Site], AbstractContextManager[None]]) -> Drill:
    will = "deploys, and makes it so while one host runs the new version and the other not yet"
    return Drill(
        name,
        "exhaustion",
        f"In the middle of a deployment {title}.",
        (will, "expects exit 0 and the new version on both hosts"),
        without(title, fault),
    )


DRILLS = (
    _drill("disk-full", "the primary's disk is full", _full_disk),
    _drill("no-memory", "the primary's agent gets no more memory", _no_memory),
    _drill("no-processor", f"the primary's machine gets {PROCESSOR:.0%} of its processors", _no_processor),
)
