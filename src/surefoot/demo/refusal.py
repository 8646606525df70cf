# SPDX-License-Identifier: Apache-2.0
"""Tries a command on a host just as an agent with a given token would: behind the host's fence.

The demo's hosts share one machine, and so one fence folder: commands differ by host, the token that they are held
against does not.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from shlex import quote

from surefoot.demo.hosts import DemoHost
from surefoot.steps.fence import STALE, Fence

__all__ = ["STALE", "try_command"]

#: Seconds for a command that takes none.
ANSWER_WITHIN = 20.0


def try_command(fences: Path, host: DemoHost, token: int) -> tuple[int, str]:
    """Run a command that records itself on the host, and return its exit code and what was said.

    Raises FileNotFoundError if no fence was ever raised in `fences`.
    """
    raised = sorted(fences.rglob("token"))
    if not raised:
        raise FileNotFoundError(f"no fence was raised in {fences}")
    name = str(raised[0].parent.relative_to(fences))
    record = [host.root / "bin" / "record", "production", token, "runner", "activate", "forward", "late"]
    guarded = Fence(name, token, str(fences)).guard(" ".join(quote(str(word)) for word in record))
    done = subprocess.run(
        ["/bin/sh", "-c", guarded], capture_output=True, text=True, timeout=ANSWER_WITHIN, check=False
    )
    return done.returncode, (done.stderr.strip() or done.stdout.strip())
