# SPDX-License-Identifier: Apache-2.0
"""The two locks before an environment is drilled that is no lab, and which drills can be played there.

Both must hold: drill.yml names the environment, and whoever calls names it once more. Neither is enough alone: a file
is copied from another project, a command line from another terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from surefoot.core.errors import ConfigError, UsageError
from surefoot.drills.drill import Drill, Portable
from surefoot.drills.project import DRILL
from surefoot.drills.staging.settings import SECTION, Settings, load

LAB_ONLY = "can be played in the lab only"


def unlock(folder: Path, against: str, confirmed: str | None, ask: Callable[[Settings], str] | None) -> Settings:
    """Return what drill.yml says of the environment, once both locks are open. `ask`: has a person type its name."""
    settings = load(folder)
    if settings is None:
        raise ConfigError(
            f"{folder / DRILL} names no environment that may be drilled",
            hint=f"add to it: {SECTION.replace('ENV', against)}",
        )
    if against != settings.environment:
        raise UsageError(
            f"{folder / DRILL} lets {settings.environment} be drilled, not {against}",
            hint=f"--against {settings.environment}",
        )
    typed = ask(settings) if confirmed is None and ask is not None else confirmed
    if typed is None:
        raise UsageError(
            f"a drill makes faults in {against} itself, so it must be confirmed", hint=f"add --confirm {against}"
        )
    if typed != against:
        raise UsageError(
            f"{typed!r} is not the environment that is to be drilled: nothing was touched",
            hint=f"--confirm {against}, if that is what you mean",
        )
    return settings


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A drill that was meant too, and is not played."""

    name: str
    reason: str


def chosen(drills: Sequence[Drill], names: Iterable[str], settings: Settings) -> tuple[list[Portable], list[LeftOut]]:
    """Return which of these can be played, and which can't. UsageError if one that can't was named itself."""
    named, playable, out = set(names), [], []
    for drill in drills:
        reason = _why_not(drill, settings, named)
        if reason is None:
            assert isinstance(drill, Portable)
            playable.append(drill)
        elif drill.name in named:
            raise UsageError(f"{drill.name} {reason}", hint=_hint(drill, settings))
        else:
            out.append(LeftOut(drill.name, reason))
    if not playable:
        raise UsageError(
            f"none of these drills can be played against {settings.environment}",
            hint="surefoot drill --list shows what each needs",
        )
    return playable, out


def lacking(drill: Portable, settings: Settings) -> list[str]:
    """Return which of the things that a drill needs drill.yml does not say."""
    given = {*settings.faults, *(("break",) if settings.sick else ())}
    return [need for need in drill.needs if need not in given]


def _why_not(drill: Drill, settings: Settings, named: set[str]) -> str | None:
    if not isinstance(drill, Portable):
        return LAB_ONLY
    if missing := lacking(drill, settings):
        keys = ", ".join("break and mend" if need == "break" else f"faults.{need}" for need in missing)
        return f"needs {keys} in the section staging of {DRILL}"
    if drill.heavy and drill.name not in named:
        return "is a load on it: it is played only if it is named itself"
    return None


def _hint(drill: Drill, settings: Settings) -> str:
    if not isinstance(drill, Portable):
        return f"sudo surefoot drill {drill.name}"
    missing = lacking(drill, settings)
    if "break" in missing:
        return 'staging: {break: "COMMAND with {version}, {host}", mend: "COMMAND with {host}"}'
    return f"staging: {{faults: {{{missing[0]}: {{make: COMMAND, mend: COMMAND}}}}}}"
