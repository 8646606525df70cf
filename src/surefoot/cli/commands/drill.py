# SPDX-License-Identifier: Apache-2.0
"""Scenarios, played for real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from surefoot.cli.lazy import Misused, command
from surefoot.cli.params import TEXT

if TYPE_CHECKING:
    from surefoot.cli.console import Console
    from surefoot.drills.drill import Drill


@command(
    "drill",
    example="surefoot drill --list\nsurefoot drill healthy-primary failover\n"
    "surefoot drill --all --report build/drills.md --junit build/drills.xml",
)
@click.argument("names", metavar="NAME...", nargs=-1, type=TEXT)
@click.option("--all", "everything", is_flag=True, help="Play all drills.")
@click.option("--list", "listed", is_flag=True, help="Show all drills, and play none.")
@click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A folder with surefoot.yml and drill.yml. Default: a small project that comes with Surefoot.",
)
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write a report in Markdown.")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write a report in JUnit's XML.")
@click.option(
    "--repeat", type=click.IntRange(1, 1000), default=1, help="Play each so many times, and report p50, p99 and max."
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep logs and journals here; else only those of drills that failed, in a temporary folder.",
)
@click.pass_context
def drill(  # noqa: PLR0917 - click passes what is on the command line
    ctx: click.Context,
    names: tuple[str, ...],
    everything: bool,
    listed: bool,
    project: Path | None,
    report: Path | None,
    junit: Path | None,
    repeat: int,
    keep: Path | None,
) -> int:
    """Play scenarios for real, in a lab.

    They are judged by what hosts and customers saw. Everything happens on this machine: hosts with their own address,
    disk, sshd and systemd, which needs root. NAME is a drill or a group of them. Exit 0 only if every drill passed.
    """
    from surefoot.cli.console import Console
    from surefoot.cli.settings import settings
    from surefoot.drills.scenarios import DRILLS, find

    console = Console(settings(ctx))
    if listed:
        if console.json:
            console.document({"drills": [{"name": d.name, "group": d.group, "title": d.title} for d in DRILLS]})
        else:
            console.table(("NAME", "GROUP", "WHAT HAPPENS"), [(d.name, d.group, d.title) for d in DRILLS])
        return 0
    if everything == bool(names):
        raise Misused("name some drills, or give --all", "surefoot drill --list", ctx)
    chosen = [one for one in (list(DRILLS) if everything else find(names)) for _ in range(repeat)]
    return _play(console, chosen, project, report=report, junit=junit, keep=keep, verbose=settings(ctx).verbose)


def _play(
    console: Console,
    chosen: list[Drill],
    folder: Path | None,
    *,
    report: Path | None,
    junit: Path | None,
    keep: Path | None,
    verbose: bool,
) -> int:
    import shutil
    import tempfile

    from surefoot.cli.text import clean
    from surefoot.core.errors import Exit
    from surefoot.demo.interrupts import Interrupts
    from surefoot.drills import report as reports
    from surefoot.drills.lab import LabError, missing
    from surefoot.drills.project import load
    from surefoot.drills.runner import play

    project = load(folder.absolute()) if folder is not None else None
    if reason := missing():
        raise LabError("drills can't be played here: NOTHING was tested", hint=reason)
    place = keep.absolute() if keep is not None else Path(tempfile.mkdtemp(prefix="surefoot-drills-"))
    place.mkdir(parents=True, exist_ok=True)
    with Interrupts():
        results = play(chosen, project, place, lambda line: console.note(clean(line)), verbose=verbose)
    name = project.folder.name if project is not None else "the built-in project"
    for path, text in ((report, reports.markdown), (junit, reports.junit)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text(results, name), encoding="utf-8")
    failed = [result.drill.name for result in results if not result.passed]
    if keep is None and not failed:
        shutil.rmtree(place, ignore_errors=True)
    if console.json:
        console.document(reports.document(results))
    else:
        for spread in reports.spreads(results):
            console.print(str(spread))
        console.print(f"{len(results) - len(failed)} of {len(results)} drills passed")
        for one in failed:
            console.print(f"failed: {one}")
    return Exit.INTERNAL if failed else Exit.DONE
