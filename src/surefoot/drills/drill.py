# SPDX-License-Identifier: Apache-2.0
"""What a drill is, and what comes of one: findings (promises, kept or not, with what shows it) and measures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surefoot.drills.lab_stage import LabStage
    from surefoot.drills.stage import Stage


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise, whether it was kept, and what shows it; or that it could not be judged, and why."""

    promise: str
    kept: bool | None  #: None: it was not judged
    evidence: str  #: on one line

    def __post_init__(self) -> None:
        object.__setattr__(self, "evidence", "; ".join(self.evidence.splitlines()))

    @property
    def sign(self) -> str:
        """How it is marked in a line of text."""
        return "-" if self.kept is None else "✓" if self.kept else "✗"


@dataclass(frozen=True, slots=True)
class Measure:
    """One number, and the greatest that is good enough, if it is judged."""

    name: str
    value: float
    unit: str
    at_most: float | None = None

    @property
    def good(self) -> bool:
        """Whether it is good enough."""
        return self.at_most is None or self.value <= self.at_most

    def __str__(self) -> str:
        limit = "" if self.at_most is None else f" (at most {self.at_most:g} {self.unit})"
        value = f"{self.value:.0f}" if float(self.value).is_integer() else f"{self.value:.2f}"
        return f"{value} {self.unit}{limit}"


@dataclass
class Result:
    """What came of one drill."""

    drill: Drill
    began: float = field(default_factory=time.time)
    seconds: float = 0.0
    story: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    error: str = ""  #: why it could not be played to its end

    @property
    def passed(self) -> bool:
        """Whether it was played to its end, something was judged, and all of that was good."""
        judged = [finding.kept for finding in self.findings if finding.kept is not None]
        return not self.error and bool(judged) and all(judged) and all(measure.good for measure in self.measures)


@dataclass(frozen=True)
class Drill:
    """One scenario, for the lab."""

    name: str
    group: str
    title: str  #: what happens, in one sentence
    will: tuple[str, ...]  #: what it will do and expect, a line each
    play: Callable[[LabStage], None] = field(repr=False)
    spoils: bool = False  #: whether the site can't be put in order after it


@dataclass(frozen=True)
class Portable(Drill):
    """One that can be played against an environment that is there already, too."""

    play: Callable[[Stage], None] = field(repr=False)
    #: What drill.yml must say for that: names of faults, and `break` for versions that are not well.
    needs: tuple[str, ...] = ()
    heavy: bool = False  #: whether it is played there only if it is named itself
