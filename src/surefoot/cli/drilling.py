# SPDX-License-Identifier: Apache-2.0
"""Playing drills from the command line: in the lab, or against an environment that is there already; and reports."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from surefoot.cli.console import Console
from surefoot.cli.errors import write_error
from surefoot.cli.settings import Settings
from surefoot.cli.text import clean
from surefoot.core.errors import Code, Exit, UsageError
from surefoot.demo.interrupts import Interrupts
from surefoot.drills import report as reports
from surefoot.drills.drill import Drill
from surefoot.drills.lab import LabError, missing
from surefoot.drills.project import CONFIG, load
from surefoot.drills.report import Outcome
from surefoot.drills.runner import Say
from surefoot.drills.runner import play as play_in_lab
from surefoot.drills.staging import locks
from surefoot.drills.staging.environment import Staging
from surefoot.drills.staging.play import play as play_against
from surefoot.drills.staging.settings import Settings as Ground


@dataclass(frozen=True)
class Wishes:
    """What the call says of how drills are played, and where it is told what came of them."""

    chosen: Sequence[Drill]
    names: Sequence[str]
    repeat: int
    folder: Path | None
    report: Path | None
    junit: Path | None
    keep: Path | None


def in_the_lab(console: Console, settings: Settings, wishes: Wishes) -> int:
    """Play drills in the lab; return the exit code."""
    project = load(wishes.folder.absolute()) if wishes.folder is not None else None
    if reason := missing():
        raise LabError("drills can't be played here: NOTHING was tested", hint=reason)
    place = _place(wishes)
    with Interrupts():
        drills = [one for one in wishes.chosen for _ in range(wishes.repeat)]
        results = play_in_lab(drills, project, place, _say(console), verbose=settings.verbose)
    name = project.folder.name if project is not None else "the built-in project"
    return _tell(console, wishes, place, Outcome(results, name))


def against(console: Console, settings: Settings, wishes: Wishes, environment: str, confirmed: str | None) -> int:
    """Play drills against an environment that is there already, if both locks are open; return the exit code."""
    folder = (wishes.folder or Path()).absolute()
    if settings.config is not None and Path(settings.config).absolute() != folder / CONFIG:
        raise UsageError(
            f"--config names another file than {folder / CONFIG}, by which drills deploy",
            hint="give the folder of the config by --project, and no --config",
        )
    ask = _typed if sys.stdin.isatty() and sys.stderr.isatty() else None
    ground = locks.unlock(folder, environment, confirmed, ask)
    chosen, left_out = locks.chosen(wishes.chosen, wishes.names, ground)
    for one in left_out:
        console.note(f"left out: {clean(f'{one.name} {one.reason}')}")
    place, say = _place(wishes), _say(console)
    with Interrupts() as interrupts:
        staging = Staging(ground, place, say, interrupts.held, settings.store)
        drills = [one for one in chosen for _ in range(wishes.repeat)]
        try:
            played = play_against(drills, staging, say, verbose=settings.verbose)
        except BaseException:  # refused, before anything was touched
            if wishes.keep is None:
                shutil.rmtree(place, ignore_errors=True)
            raise
        outcome = Outcome(
            played.results,
            folder.name,
            f"Played against {environment}, with its own agents and hosts. Judged by the versions that hosts say, by "
            "what customers saw, and for who did it by Surefoot's journal. One at a time was not judged here: hosts "
            "have no black box.",
            environment,
            [(one.name, one.reason) for one in left_out],
            played.left,
        )
        if played.left:  # before all else: nobody may read the rest
            what = f"{environment} is NOT as it was before the drill"
            write_error(Code.DRILL, "\n".join((what, *played.left)), f"surefoot status {environment}")
        code = _tell(console, wishes, place, outcome)
    if played.left:
        return Exit.STRANDED
    if played.interrupted:
        raise KeyboardInterrupt
    return code


def _typed(ground: Ground) -> str:
    """Have a person at the terminal type the environment's name."""
    where = clean(f"{ground.environment}, as {ground.folder / CONFIG} has it")
    click.echo(f"Drills deploy to {where}: {', '.join(ground.versions)}, and make faults there.", err=True)
    text: str = click.prompt("Type the environment's name to go on", err=True, default="", show_default=False)
    return text.strip()


def _place(wishes: Wishes) -> Path:
    """Return where logs are kept."""
    place = wishes.keep.absolute() if wishes.keep is not None else Path(tempfile.mkdtemp(prefix="surefoot-drills-"))
    place.mkdir(parents=True, exist_ok=True)
    return place


def _say(console: Console) -> Say:
    return lambda line: console.note(clean(line))


def _tell(console: Console, wishes: Wishes, place: Path, outcome: Outcome) -> int:
    """Write the reports, and say what came of it; return the exit code."""
    for path, text in ((wishes.report, reports.markdown), (wishes.junit, reports.junit)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text(outcome), encoding="utf-8")
    if wishes.keep is None and outcome.passed:
        shutil.rmtree(place, ignore_errors=True)
    elif outcome.environment is not None:
        console.note(clean(f"what was said is kept in {place}"))
    if console.json:
        console.document(reports.document(outcome))
    else:
        for spread in reports.spreads(outcome.results):
            console.print(str(spread))
        failed = [result.drill.name for result in outcome.results if not result.passed]
        console.print(f"{len(outcome.results) - len(failed)} of {len(outcome.results)} drills passed")
        for one in failed:
            console.print(f"failed: {one}")
    return Exit.DONE if outcome.passed else Exit.INTERNAL
