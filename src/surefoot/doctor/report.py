# SPDX-License-Identifier: Apache-2.0
"""What the doctor says, for people and for programs; nothing of it shows a secret."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from surefoot.doctor.facts import Facts
from surefoot.doctor.findings import Severity
from surefoot.doctor.rules import diagnose
from surefoot.doctor.where import where


def document(facts: Facts, took: float, clean: Callable[[str], str]) -> dict[str, Any]:
    """Return all of it; `clean` takes secrets out of a text."""
    findings = diagnose(facts)
    found: dict[str, Any] = _cleaned(
        {
            "project": facts.project,
            "healthy": not any(finding.severity is Severity.BROKEN for finding in findings),
            "deployment": facts.focus.id if facts.focus is not None else None,
            "status": str(facts.focus.status) if facts.focus is not None else None,
            "where": where(facts),
            "findings": [finding.document() for finding in findings],
            "looked_at": list(_looked_at(facts)),
            "unchecked": [{"what": one.what, "why": one.why} for one in facts.unchecked],
            "looked_from": facts.here,
        },
        clean,
    )
    return {**found, "duration_seconds": round(took, 3)}


def _looked_at(facts: Facts) -> Iterator[str]:
    """Yield what was found in order or not, in few words: so that silence can be told from blindness."""
    if facts.store.trouble is None:
        yield f"the store {facts.store.where}"
    if facts.agents or facts.configured:
        yield f"{_count(len(facts.agents), 'agent')}, and {_count(len(facts.processes), 'process', 'es')} here"
    if facts.units:
        yield f"{_count(len(facts.units), 'service')} of this machine"
    if facts.secrets.names and (facts.secrets.certain or not facts.secrets.missing):
        yield f"{_count(len(facts.secrets.names), 'secret')} in {facts.secrets.seen_in}"
    for environment in facts.environments:
        if environment.looked:
            answered = sum(host.answered for host in environment.hosts)
            yield (
                f"{environment.row.name}: {answered} of {len(environment.hosts)} hosts answered, "
                f"{_count(len(environment.checks), 'check')}"
            )


def _count(number: int, what: str, plural: str = "s") -> str:
    return f"{number} {what}{'' if number == 1 else plural}"


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    match value:
        case str():
            return clean(value)
        case list():
            return [_cleaned(item, clean) for item in value]
        case dict():
            return {key: _cleaned(item, clean) for key, item in value.items()}
        case _:
            return value


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the report for people."""
    if report["deployment"]:
        yield from report["where"]
        yield ""
    findings = report["findings"]
    for number, finding in enumerate(findings, start=1):
        code = f" [{finding['code']}]" if finding["code"] else ""
        yield f"{number}. {finding['severity']}: {finding['title']}{code}"
        for evidence in finding["evidence"]:
            yield f"     {evidence}"
        yield f"   fix: {finding['fix']}"
        if finding["runbook"]:
            yield f"   more: {finding['runbook']}"
    if not findings:
        yield "nothing is wrong, as far as can be seen from here"
    yield ""
    yield "looked at: " + ("; ".join(report["looked_at"]) or "nothing")
    for one in report["unchecked"]:
        yield f"could not check {one['what']}: {one['why']}"
