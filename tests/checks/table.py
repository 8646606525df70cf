# SPDX-License-Identifier: Apache-2.0
"""What every kind of check says when what it looks at is well, is not, hangs, or answers garbage.

Run as `make check-kinds`: it runs the tests of all kinds, writes down each result that they get from a check, and
prints them as a table. 1 if a test fails, or a kind was never seen in a way in which it can be seen.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from surefoot.checks import registry
from surefoot.checks.model import CheckResult, CheckStatus

ROOT = Path(__file__).parents[2]
#: What a test is about, by its name; all others are about answers that are right or wrong.
WAYS = {
    "hangs": re.compile("hang|time_out|does_not_end|for_ever|trickles|endless|takes_too_long"),
    "garbage": re.compile("garbage|damaged|is_none|_no_key|no_metadata|that_is_another|no_json|no_token"),
}
#: What there is not: a connection is all that `tcp` asks for, a status all that a command answers, and a clock is well.
NEVER = {("tcp", "garbage"), ("command", "garbage"), ("window", "hangs"), ("window", "garbage")}


class Recorder:
    """Writes down what checks say in tests."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.seen: dict[tuple[str, str], Counter[CheckStatus]] = defaultdict(Counter)
        self.longest: dict[str, float] = defaultdict(float)
        self._test = ""
        self._plain: Any = registry._run
        registry._run = self._run

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Know which test comes."""
        self._test = item.name

    async def _run(self, check: Any, *more: Any) -> CheckResult:
        result: CheckResult = await self._plain(check, *more)
        way = next((name for name, pattern in WAYS.items() if pattern.search(self._test)), "answers")
        self.seen[check.kind, way][result.status] += 1
        if way == "hangs":
            self.longest[check.kind] = max(self.longest[check.kind], result.duration_seconds)
        return result


def main() -> int:
    """Run the tests, and print the table."""
    recorder = Recorder()
    tests = [str(ROOT / "tests" / "checks"), str(ROOT / "tests" / "unit" / "test_checks.py")]
    code = pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests], plugins=[recorder])
    print("\n| kind | passes | fails | warns | hangs | garbage |\n|---|---|---|---|---|---|")
    never_seen = []
    for kind in sorted(registry.KINDS):
        answers, hangs, garbage = (recorder.seen[kind, way] for way in ("answers", "hangs", "garbage"))
        cells = [str(answers[status] or "—") for status in (CheckStatus.PASS, CheckStatus.FAIL, CheckStatus.WARN)]
        never_seen += [f"{kind}: {status}" for status in (CheckStatus.PASS, CheckStatus.FAIL) if not answers[status]]
        for way, found in (("hangs", hangs), ("garbage", garbage)):
            if (kind, way) in NEVER:
                cells.append("does not apply")
            else:
                never_seen += [] if found[CheckStatus.FAIL] else [f"{kind}: {way}"]
                within = f", {recorder.longest[kind]:.1f} s at most" if way == "hangs" else ""
                cells.append(f"{found[CheckStatus.FAIL]} fail{within}")
        print(f"| `{kind}` | {' | '.join(cells)} |")
    print(f"\nnever seen: {', '.join(never_seen) or 'nothing'}")
    return int(code != 0 or bool(never_seen))


if __name__ == "__main__":
    sys.exit(main())
