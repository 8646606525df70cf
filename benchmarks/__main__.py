# SPDX-License-Identifier: Apache-2.0
"""Measures all rows, or those that are named; exits 1 if a limit was missed.

python -m benchmarks                       all of them, some twenty minutes
python -m benchmarks takeover-kill --json  one, as JSON
"""

from __future__ import annotations

import sys

from benchmarks import cancel, checks, claim, playbook, scrape, startup, takeover_freeze, takeover_kill, throughput
from benchmarks.report import run

ROWS = {
    "takeover-kill": (takeover_kill.WHAT, takeover_kill.measure),
    "takeover-freeze": (takeover_freeze.WHAT, takeover_freeze.measure),
    "cancel": (cancel.WHAT, cancel.measure),
    "playbook": (playbook.WHAT, playbook.measure),
    "startup": (startup.WHAT, startup.measure),
    "claim": (claim.WHAT, claim.measure),
    "checks": (checks.WHAT, checks.measure),
    "scrape": (scrape.WHAT, scrape.measure),
    "throughput": (throughput.WHAT, throughput.measure),
}

if __name__ == "__main__":
    sys.exit(run(ROWS))
