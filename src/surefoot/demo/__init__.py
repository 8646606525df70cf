# SPDX-License-Identifier: Apache-2.0
"""`surefoot demo`: the whole story on one machine, with nothing to configure.

Guarantees: exit 0 only if every promise that the story tells of was kept, as the hosts themselves show; every process
that it started is gone when it returns (without `keep`), on errors and Ctrl-C too; nothing is written outside its
folder but what Ansible and the agents keep in their own.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
import time
from pathlib import Path

from surefoot.core.errors import Exit, SurefootError, UsageError
from surefoot.demo.interrupts import Interrupts
from surefoot.demo.scene import AGENTS, Scene
from surefoot.demo.story import Broken, Story
from surefoot.demo.teller import Teller, Tone

INTERRUPTED = 130


def run(keep: bool = False, folder: Path | None = None, color: bool = False) -> int:
    """Tell the story, and return 0 if every promise was kept, 1 if not. UsageError if `folder` can't be used.

    `keep` leaves hosts and agents up in the folder, to play with; `folder` must be new or empty.
    """
    place = _place(folder)
    teller = Teller(color=color)
    kept = False
    began = time.monotonic()
    try:
        with Interrupts() as interrupts:
            scene = Scene(place, interrupts.held)
            try:
                code = _tell(scene, teller, began)
                if keep and code == Exit.DONE:
                    _how_to_go_on(scene, teller)
                    kept = True
            finally:
                if not kept:
                    with interrupts.held():
                        scene.end()
    except KeyboardInterrupt:
        teller.line()
        teller.line("Interrupted; everything that the demo started is gone.", Tone.BAD)
        return INTERRUPTED
    finally:
        if not kept:
            shutil.rmtree(place, ignore_errors=True)
    return code


def _tell(scene: Scene, teller: Teller, began: float) -> int:
    teller.line("Surefoot: deployments that finish or put things back, whatever dies on the way", Tone.BOLD)
    story = Story(scene, teller)
    try:
        findings = story.tell()
    except (Broken, SurefootError, OSError) as error:
        teller.line()
        teller.line(f"✗ The demo failed: {error}", Tone.BAD)
        for name in AGENTS:
            teller.line(f"   {name} said last:", Tone.DIM)
            teller.quote(scene.said(name))
        return Exit.INTERNAL
    finally:
        story.close()
    teller.act(7, "The verdict, as the hosts show it")
    teller.verdict(findings)
    teller.line()
    broken = sum(not finding.kept for finding in findings)
    took = f"{time.monotonic() - began:.0f} s"
    if broken:
        teller.line(f"✗ {broken} of {len(findings)} promises broken ({took}).", Tone.BAD)
        return Exit.INTERNAL
    teller.line(f"✓ Every promise kept: one kill, one freeze, one bad release, one Ctrl-C, {took}.", Tone.GOOD)
    return Exit.DONE


def _how_to_go_on(scene: Scene, teller: Teller) -> None:
    stop = scene.write_stop()
    teller.line()
    teller.line("Hosts and agents are still up. To play on:", Tone.BOLD)
    teller.line(f"   cd {shlex.quote(str(scene.project))}")
    for command in ("surefoot status", "surefoot events production-2", "surefoot rollback production"):
        teller.line(f"   {command}")
    teller.line(f"   curl http://127.0.0.1:{scene.hosts[0].port}/version")
    teller.line(f"To end it, and remove the folder:  sh {shlex.quote(str(stop))}")


def _place(folder: Path | None) -> Path:
    """Return the empty folder that the demo happens in."""
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="surefoot-demo-")).resolve()
    place = folder.absolute()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(
            f"{folder} is there already and not empty", hint="name a new folder: surefoot demo --folder NEW"
        )
    if any((parent / ".git").exists() for parent in (place, *place.parents)):
        raise UsageError(
            f"{folder} is in a git work tree, of which a deploy takes the tracked files only",
            hint="name a folder outside of it, or none: surefoot demo --keep",
        )
    place.mkdir(parents=True, exist_ok=True)
    return place.resolve()
