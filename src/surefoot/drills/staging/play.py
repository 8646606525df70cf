# SPDX-License-Identifier: Apache-2.0
"""Plays drills against an environment that is there already, one after the other, and puts it back after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from surefoot.drills.drill import Portable, Result
from surefoot.drills.runner import Say, conclude, introduce, perform
from surefoot.drills.staging.environment import Staging
from surefoot.drills.staging.stage import StagingStage


@dataclass
class Played:
    """What came of it."""

    results: list[Result] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  #: what could not be put back
    interrupted: bool = False


def play(drills: Sequence[Portable], staging: Staging, say: Say, *, verbose: bool = False) -> Played:
    """Play drills until one leaves the environment otherwise than it was, or is interrupted. Raises, before anything
    is touched, what is in the way.
    """
    staging.examine(drills)
    played = Played()
    for drill in drills:
        result = Result(drill)
        played.results.append(result)
        try:
            _play_one(result, drill, staging, say, played.left, verbose=verbose)
        except KeyboardInterrupt:
            played.interrupted = True
            result.error = result.error or "interrupted"
        conclude(result, say)
        if played.interrupted or played.left:
            break
    return played


def _play_one(result: Result, drill: Portable, staging: Staging, say: Say, left: list[str], *, verbose: bool) -> None:
    introduce(drill, say)
    staging.reason = f"drill {drill.name}"
    staging.faults.say = lambda line: say(f"  {line}")
    begin: Callable[[Say], StagingStage] = lambda say: StagingStage(staging, result, say)  # noqa: E731
    restored = False

    def restore() -> None:
        nonlocal restored
        with staging.held():
            left.extend(staging.restore() if not restored else ())
            restored = True

    try:
        perform(result, begin, drill.play, say, verbose=verbose)
        restore()
    except BaseException:  # a signal counts once, so that it can't come here, too
        restore()
        raise
    if staging.strangers:
        names = ", ".join(staging.strangers)
        result.error = result.error or f"somebody else has deployed meanwhile: {names}; nothing can be told by that"
