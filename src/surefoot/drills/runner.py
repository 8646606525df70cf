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

from surefoot.core.errors import SurefootError
from surefoot.drills.drill import Drill, Result, Stage
from surefoot.drills.lab import LabError
from surefoot.drills.project import Project
from surefoot.drills.site import AGENT, RUNNERS, WEB, Site

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
    say("")
    say(f"{drill.name}: {drill.title}")
    for line in drill.will:
        say(f"  it {line}")
    result = Result(drill)
    began = time.monotonic()
    stage: Stage | None = None
    try:
        stage = Stage(site, result, lambda line: say(f"  {line}"))
        drill.play(stage)
    except (SurefootError, OSError, AssertionError, ValueError, LookupError) as error:
        result.error = f"{type(error).__name__}: {error}"
        if verbose:
            say(traceback.format_exc())
    finally:
        if stage is not None:
            tally = stage.end()
            stage.measure("requests of customers", tally.requests, "requests")
            stage.measure("of these failed", tally.failed, "requests")
            for at, said in tally.failures[:3]:
                result.story.append(f"{at - stage.began:6.1f} s  a request failed: {said}")
    result.seconds = time.monotonic() - began
    for finding in result.findings:
        say(f"  {'✓' if finding.kept else '✗'} {finding.promise}: {finding.evidence}")
    for measure in result.measures:
        say(f"  {'·' if measure.good else '✗'} {measure.name}: {measure}")
    if result.error:
        say(f"  ✗ {result.error}")
    if not result.passed:
        kept = keep(site, folder / "kept" / drill.name)
        say(f"  what was said is kept in {kept}")
    say(f"  {'passed' if result.passed else 'FAILED'} after {result.seconds:.0f} s")
    return result


def keep(site: Site, folder: Path) -> Path:
    """Write down what is needed to understand a failure: journals, logs, what hosts saw."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*RUNNERS, *WEB):
        host = site[name]
        try:
            host.thaw()
            (folder / f"{name}.commands").write_text(host.disk.read("/var/log/surefoot-lab/commands"))
            if host.is_on:
                (folder / f"{name}.journal").write_text(host.journal(AGENT if name in RUNNERS else ""))
        except (LabError, OSError) as error:
            (folder / f"{name}.error").write_text(str(error))
    try:
        for row in site.ask("history", site.project.environment, "--limit", "25")["deployments"]:
            events = "".join(f"{event}\n" for event in site.events(row["id"]))
            (folder / f"{row['id']}.events").write_text(events)
    except (LabError, OSError) as error:
        (folder / "store.error").write_text(str(error))
    return folder
