# SPDX-License-Identifier: Apache-2.0
"""What the rules find: a cause, what shows it, and the one command that mends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from surefoot.core.errors import Code


class Severity(StrEnum):
    """How bad it is; names are part of the public contract."""

    BROKEN = "broken"  #: deployments fail or stand still, or production is not as it should be
    WARNING = "warning"  #: something will be in the way soon, or is already slower than it should be
    NOTE = "note"  #: as somebody wanted it; worth knowing


class Depth(IntEnum):
    """How close to the root of things a cause lies: what hangs on the store is not looked for in a host."""

    STORE = 0
    CONFIG = 1
    AGENTS = 2
    SECRETS = 3
    HOSTS = 4
    SERVICES = 5
    VERSIONS = 6
    DEPLOYMENT = 7  #: what a deployment itself ran into
    GATES = 8
    SYMPTOM = 9  #: follows from something above


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause."""

    rule: str  #: a stable name
    severity: Severity
    depth: Depth
    title: str
    evidence: tuple[str, ...]
    fix: str  #: one command, or one thing to do
    environment: str | None = None
    code: Code | None = None
    runbook: str = ""
    agent: str | None = None
    host: str | None = None

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "rule": self.rule,
            "severity": str(self.severity),
            "title": self.title,
            "evidence": list(self.evidence),
            "fix": self.fix,
            "environment": self.environment,
            "code": str(self.code) if self.code else None,
            "runbook": f"docs/runbooks/{self.runbook}.md" if self.runbook else None,
            "agent": self.agent,
            "host": self.host,
        }


_SEVERITIES = tuple(Severity)


def ranked(findings: Iterable[Finding], environment: str | None = None) -> list[Finding]:
    """Return them in the order in which they are worth looking at.

    What is broken comes first, of that what belongs to the environment that was asked after (or to all), of that what
    lies closest to the root.
    """
    unique = list(dict.fromkeys(findings))
    return sorted(
        unique,
        key=lambda found: (
            _SEVERITIES.index(found.severity),
            environment is not None and found.environment not in (None, environment),
            found.depth,
        ),
    )
