# SPDX-License-Identifier: Apache-2.0
"""Plays drills one after the other, in one lab as long as it can be put in order, and says what comes of each.

Guarantees: nothing of a lab is left when `play` returns, on errors and Ctrl-C too; a drill that could not be played to
its end has failed; what processes said is kept for each drill that failed.
"""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from surefoot.core.errors import SurefootError
from surefoot.drills.drill import Drill, Result
from surefoot.drills.errors import DrillError
from surefoot.drills.lab import blackbox
from surefoot.drills.lab_stage import LabStage
from surefoot.drills.project import Project
from surefoot.drills.site import AGENT, RUNNERS, WEB, Site
from surefoot.drills.stage import Stage

Say = Callable[[str], None]


def play(
    drills: Sequence[Drill], project: Project | None, folder: Path, say: Say, *, verbose: bool = False
) -> list[Result]:
    """Play drills, and return what came of them. LabError if there can be no lab here."""
    results: list[Result] = []
    site: Site | None = None
    try:
        for number, drill in enumerate(drills, 1):
            if site is None:
                say("setting up the lab")
                began = time.monotonic()
                site = Site(project, Path(tempfile.mkdtemp(prefix=f"lab-{number:02d}-", dir=folder)))
                say(f"the lab is up after {time.monotonic() - began:.1f} s")
            result = _play_one(drill, site, folder, say, verbose=verbose)
            results.append(result)
            if drill.spoils or not result.passed:
                site.close()
                site = None
    finally:
        if site is not None:
            site.close()
    return results


def _play_one(drill: Drill, site: Site, folder: Path, say: Say, *, verbose: bool) -> Result:
    introduce(drill, say)
    result = Result(drill)
    site.reason = f"drill {drill.name}"
    perform(result, lambda say: LabStage(site, result, say), drill.play, say, verbose=verbose)
    conclude(result, say)
    if not result.passed:
        kept = keep(site, folder / "kept" / drill.name)
        say(f"  what was said is kept in {kept}")
    return result


S = TypeVar("S", bound=Stage)


def introduce(drill: Drill, say: Say) -> None:
    """Say what a drill is going to do."""
    say("")
    say(f"{drill.name}: {drill.title}")
    for line in drill.will:
        say(f"  it {line}")


def perform(result: Result, begin: Callable[[Say], S], play: Callable[[S], None], say: Say, *, verbose: bool) -> None:
    """Play a drill on the stage that `begin` makes; what keeps it from its end is an error of the result."""
    began = time.monotonic()
    stage: S | None = None
    try:
        stage = begin(lambda line: say(f"  {line}"))
        play(stage)
    except (SurefootError, OSError, AssertionError, ValueError, LookupError) as error:
        hint = error.hint if isinstance(error, SurefootError) else ""
        result.error = f"{type(error).__name__}: {error}" + (f"\nhint: {hint}" if hint else "")
        if verbose:
            say(traceback.format_exc())
    finally:
        if stage is not None and (tally := stage.end()) is not None:
            stage.measure("requests of customers", tally.requests, "requests")
            stage.measure("of these failed", tally.failed, "requests")
            for at, said in tally.failures[:3]:
                result.story.append(f"{at - stage.began:6.1f} s  a request failed: {said}")
        result.seconds = time.monotonic() - began


def conclude(result: Result, say: Say) -> None:
    """Say what came of a drill."""
    for finding in result.findings:
        say(f"  {finding.sign} {finding.promise}: {finding.evidence}")
    for measure in result.measures:
        say(f"  {'·' if measure.good else '✗'} {measure.name}: {measure}")
    for line in result.error.splitlines():
        say(f"  ✗ {line}")
    say(f"  {'passed' if result.passed else 'FAILED'} after {result.seconds:.0f} s")


def keep(site: Site, folder: Path) -> Path:
    """Write down what is needed to understand a failure: journals, logs, what hosts saw."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*RUNNERS, *WEB):
        host = site[name]
        try:
            host.thaw()
            (folder / f"{name}.commands").write_text(host.disk.read(blackbox.LOG))
            if host.is_on:
                (folder / f"{name}.journal").write_text(host.journal(AGENT if name in RUNNERS else ""))
        except (DrillError, OSError) as error:
            (folder / f"{name}.error").write_text(str(error))
    try:
        for row in site.ask("history", site.environment, "--limit", "25")["deployments"]:
            events = "".join(f"{event}\n" for event in site.events(row["id"]))
            (folder / f"{row['id']}.events").write_text(events)
    except (DrillError, OSError) as error:
        (folder / "store.error").write_text(str(error))
    return folder
