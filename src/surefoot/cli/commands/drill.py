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


@command(
    "drill",
    example="surefoot drill --list\nsurefoot drill healthy-primary failover\n"
    "surefoot drill --all --report build/drills.md --junit build/drills.xml\n"
    "surefoot drill healthy-primary cancel --project . --against staging --confirm staging",
)
@click.argument("names", metavar="NAME...", nargs=-1, type=TEXT)
@click.option("--all", "everything", is_flag=True, help="Play all drills.")
@click.option("--list", "listed", is_flag=True, help="Show all drills, and play none.")
@click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A folder with surefoot.yml and drill.yml. Default: a small project that comes with Surefoot; with --against "
    "this folder.",
)
@click.option(
    "--against",
    metavar="ENV",
    type=TEXT,
    help="Play against this environment, which is there already, instead of a lab. drill.yml must name it.",
)
@click.option("--confirm", metavar="ENV", type=TEXT, help="Its name once more; else it is asked for on a terminal.")
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
    against: str | None,
    confirm: str | None,
    report: Path | None,
    junit: Path | None,
    repeat: int,
    keep: Path | None,
) -> int:
    """Play scenarios for real, in a lab or against a staging.

    They are judged by what hosts and customers saw. In the lab everything happens on this machine: hosts with their own
    address, disk, sshd and systemd, which needs root. NAME is a drill or a group of them. Exit 0 only if every drill
    passed.

    With --against drills deploy to an environment with its own agents and hosts, make the faults that drill.yml gives
    commands for, and put everything back after each drill. Exit 3 if it is not idle and in order, 5 if it could not be
    put back.
    """
    from surefoot.cli.console import Console
    from surefoot.cli.settings import settings
    from surefoot.drills.scenarios import DRILLS, find

    console = Console(settings(ctx))
    if listed:
        _list(console)
        return 0
    if everything == bool(names):
        raise Misused("name some drills, or give --all", "surefoot drill --list", ctx)
    if confirm is not None and against is None:
        raise Misused("--confirm is for --against", f"--against {confirm} --confirm {confirm}", ctx)
    from surefoot.cli import drilling

    chosen = list(DRILLS) if everything else find(names)
    wishes = drilling.Wishes(chosen, names, repeat, project, report, junit, keep)
    if against is not None:
        return drilling.against(console, settings(ctx), wishes, against, confirm)
    return drilling.in_the_lab(console, settings(ctx), wishes)


def _list(console: Console) -> None:
    from surefoot.drills.drill import Drill, Portable
    from surefoot.drills.scenarios import DRILLS

    def needs(drill: Drill) -> list[str] | None:
        return list(drill.needs) if isinstance(drill, Portable) else None

    def words(drill: Drill) -> str:
        found = needs(drill)
        return "no" if found is None else f"needs {', '.join(found)}" if found else "yes"

    if console.json:
        drills = [
            {
                "name": d.name,
                "group": d.group,
                "title": d.title,
                "staging": needs(d) is not None,
                "staging_needs": needs(d) or [],
            }
            for d in DRILLS
        ]
        console.document({"drills": drills})
    else:
        rows = [(d.name, d.group, words(d), d.title) for d in DRILLS]
        console.table(("NAME", "GROUP", "STAGING", "WHAT HAPPENS"), rows)
