# SPDX-License-Identifier: Apache-2.0
"""What came of drills, as Markdown for people and as JUnit for a CI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET

from surefoot.drills.drill import Result
from surefoot.reports.levels import quantile
from surefoot.reports.markdown import block, inline, table

#: Where drills are played, and what they are judged by there.
LAB = (
    "Played in the lab: hosts on one machine with their own address, disk, sshd and systemd; Ansible over SSH. Judged"
    " by what hosts and customers saw."
)


@dataclass(frozen=True, slots=True)
class Spread:
    """How a drill's measure spread over its repetitions, in seconds."""

    drill: str
    measure: str
    runs: int
    p50: float
    p99: float
    most: float

    def __str__(self) -> str:
        """Return it as a line."""
        figures = f"p50 {self.p50:.2f}, p99 {self.p99:.2f}, max {self.most:.2f}"
        return f"{self.drill}: {self.measure}: {figures} s ({self.runs} runs)"


def spreads(results: Sequence[Result]) -> list[Spread]:
    """Return how measures of time spread, of each drill that was played more than once."""
    values: dict[tuple[str, str], list[float]] = {}
    for result in results:
        for measure in result.measures:
            if measure.unit == "s":
                values.setdefault((result.drill.name, measure.name), []).append(measure.value)
    return [
        Spread(*key, len(found), quantile(found, 0.5) or 0.0, quantile(found, 0.99) or 0.0, max(found))
        for key, found in values.items()
        if len(found) > 1
    ]


@dataclass(frozen=True)
class Outcome:
    """All that came of a call."""

    results: Sequence[Result]
    project: str
    place: str = LAB
    environment: str | None = None  #: the one that is there already, where that was drilled
    left_out: Sequence[tuple[str, str]] = ()  #: drills that were meant and not played, and why
    left: Sequence[str] = ()  #: what is not as it was before

    @property
    def passed(self) -> bool:
        """Whether every drill was, and all is as it was before."""
        return bool(self.results) and all(result.passed for result in self.results) and not self.left


def markdown(outcome: Outcome) -> str:
    """Return the report for people."""
    results = outcome.results
    passed = sum(result.passed for result in results)
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        f"# Drills of {inline(outcome.project)}: {passed} of {len(results)} passed",
        f"{when}. {inline(outcome.place)}",
        *(
            ("**Not as it was before:**", "\n".join(f"- {inline(line)}" for line in outcome.left))
            if outcome.left
            else ()
        ),
        table(
            ("drill", "", "seconds", "what was measured"),
            [
                (
                    inline(result.drill.name),
                    "✅" if result.passed else "❌",
                    f"{result.seconds:.0f}",
                    "; ".join(inline(f"{measure.name}: {measure}") for measure in result.measures),
                )
                for result in results
            ],
        ),
        *_repeated(results),
        *(_chapter(result) for result in results),
    ]
    if outcome.left_out:
        parts += ["## Left out", "\n".join(f"- {inline(f'{name} {why}')}" for name, why in outcome.left_out)]
    return "\n\n".join(parts) + "\n"


def _repeated(results: Sequence[Result]) -> list[str]:
    found = spreads(results)
    if not found:
        return []
    rows = [
        (inline(s.drill), inline(s.measure), str(s.runs), *(f"{v:.2f} s" for v in (s.p50, s.p99, s.most)))
        for s in found
    ]
    return ["What was measured more than once:", table(("drill", "measure", "runs", "p50", "p99", "max"), rows)]


_SIGNS = {True: "✅", False: "❌", None: "not judged"}


def _chapter(result: Result) -> str:
    parts = [
        f"## {'✅' if result.passed else '❌'} {inline(result.drill.name)}",
        inline(result.drill.title),
        "\n".join(f"- {inline(line)}" for line in result.drill.will),
    ]
    if result.story:
        parts.append(block(result.story))
    if result.findings:
        rows = [(inline(f.promise), _SIGNS[f.kept], inline(f.evidence)) for f in result.findings]
        parts.append(table(("promise", "", "what shows it"), rows))
    if result.error:
        parts += ["It could not be played to its end:", block(result.error.splitlines())]
    return "\n\n".join(parts)


def junit(outcome: Outcome) -> str:
    """Return the report for a CI."""
    results = outcome.results
    failed = [result for result in results if not result.passed]
    suite = ET.Element(
        "testsuite",
        name=f"surefoot drill {outcome.project}",
        tests=str(len(results)),
        failures=str(sum(not r.error for r in failed)),
        errors=str(sum(bool(r.error) for r in failed)),
        skipped="0",
        time=f"{sum(result.seconds for result in results):.3f}",
    )
    for result in results:
        case = ET.SubElement(
            suite,
            "testcase",
            name=result.drill.name,
            classname=f"drills.{result.drill.group}",
            time=f"{result.seconds:.3f}",
        )
        properties = ET.SubElement(case, "properties")
        for measure in result.measures:
            ET.SubElement(properties, "property", name=measure.name, value=str(measure))
        wrong = [f"{f.promise}: {f.evidence}" for f in result.findings if f.kept is False]
        wrong += [f"{m.name}: {m}" for m in result.measures if not m.good]
        if result.error:
            ET.SubElement(case, "error", message=_printable(result.error.splitlines()[0])).text = _printable(
                result.error
            )
        elif not result.passed:
            text = "\n".join(wrong) or "nothing was judged"
            ET.SubElement(case, "failure", message=_printable(text.splitlines()[0])).text = _printable(text)
        out = [*result.story, *(f"{f.promise}: {f.evidence}" for f in result.findings if f.kept is not False)]
        ET.SubElement(case, "system-out").text = _printable("\n".join(out))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def document(outcome: Outcome) -> dict[str, Any]:
    """Return the report for programs."""
    return {
        "passed": outcome.passed,
        "environment": outcome.environment,
        "left_out": [{"name": name, "reason": why} for name, why in outcome.left_out],
        "left": list(outcome.left),
        "drills": [
            {
                "name": result.drill.name,
                "group": result.drill.group,
                "passed": result.passed,
                "duration_seconds": round(result.seconds, 3),
                "error": result.error or None,
                "findings": [{"promise": f.promise, "kept": f.kept, "evidence": f.evidence} for f in result.findings],
                "measures": [
                    {"name": m.name, "value": m.value, "unit": m.unit, "at_most": m.at_most} for m in result.measures
                ],
            }
            for result in outcome.results
        ],
        "repeated": [
            {
                "drill": s.drill,
                "measure": s.measure,
                "unit": "s",
                "runs": s.runs,
                "p50": round(s.p50, 3),
                "p99": round(s.p99, 3),
                "max": round(s.most, 3),
            }
            for s in spreads(outcome.results)
        ],
    }


def _printable(text: str) -> str:
    """Return text without what XML can't hold."""
    return "".join(c if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" else "\ufffd" for c in text)
