# SPDX-License-Identifier: Apache-2.0
"""Makes faults, asks doctor, does what he says, and asks again.

`python -m tests.lab.examine [WORDS…]` prints the table of docs/doctor.md: of all faults, or of those that have one of
the words in their names. What doctor said of each goes to stderr.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from surefoot.drills.lab import Host, Lab
from tests.lab.clinic import Clinic, Report
from tests.lab.faults import FAULTS, Fault

#: Seconds within which what was mended must be seen to be: an agent that was started reports after some.
SEEN_WITHIN = 120.0


@dataclass
class Result:
    """What came of a fault."""

    fault: Fault
    report: Report
    mended: bool = False
    by_hand: bool = False
    after: list[str] = field(default_factory=list)  #: rules that are left

    @property
    def place(self) -> int | None:
        return self.report.place(self.fault.rule, self.fault.words)

    @property
    def finding(self) -> dict[str, Any]:
        assert self.place is not None, (self.fault.name, self.report)
        return self.report.findings[self.place - 1]

    @property
    def row(self) -> str:
        place = self.place
        found = f"`{self.fault.rule}`" if place else "no"
        first = "yes" if place == 1 else f"number {place}" if place else "no"
        how = "no" if not self.mended else "a person does" if self.by_hand else "yes"
        return f"| {self.fault.name} | {found} | {first} | {self.report.seconds:.1f} | {how} |"


HEAD = "| fault | found | first? | seconds | its command mends it? |\n|---|---|---|---|---|"


def examine(clinic: Clinic, fault: Fault) -> Result:
    """Make a fault, ask doctor, do what he says, and ask again."""
    fault.make(clinic)
    try:
        on = clinic.lab[fault.on]
        result = Result(fault, clinic.doctor(on=on, prefix=fault.prefix))
        if result.place is None:
            return result
        if fault.by_hand is not None:
            fault.by_hand(clinic)
            result.by_hand = True
        else:
            do(clinic, str(result.finding["fix"]), on)
        result.mended = gone(clinic, result)
        return result
    finally:
        fault.heal(clinic)
        clinic.settle()


def gone(clinic: Clinic, result: Result) -> bool:
    """Whether doctor says no more of it, within a while; what else he says then is kept."""
    end = time.monotonic() + SEEN_WITHIN
    while time.monotonic() < end:
        report = clinic.doctor(on=clinic.lab[result.fault.on])
        result.after = report.rules
        if not any(_same(finding, result.finding) for finding in report.findings):
            return True
        time.sleep(1)
    return False


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("rule", "severity", "agent", "host", "environment"))


def do(clinic: Clinic, fix: str, on: Host) -> None:
    """Do what doctor has said, to the letter: here, or on the host that he names."""
    there = re.match(r"on ([\w-]+): (.*)", fix)
    if there and there[1] in clinic.lab.hosts:
        clinic.lab[there[1]].sh(there[2], timeout=120)
    else:
        clinic.run(fix, on=on)


# -- the table -----------------------------------------------------------------------------------------------------


def main(words: list[str]) -> None:
    """Print the table, row by row."""
    with Lab() as lab:
        clinic = Clinic(lab)
        print(HEAD, flush=True)
        for fault in FAULTS:
            if words and not any(word in fault.name for word in words):
                continue
            try:
                result = examine(clinic, fault)
            except Exception as error:
                print(f"{fault.name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                continue
            print(result.row, flush=True)
            said = {"fault": fault.name, **vars(result.report), "after": result.after}
            print(json.dumps(said, indent=1), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
