# SPDX-License-Identifier: Apache-2.0
"""A program of this machine that is asked something: a helper, `systemctl`, `ansible-inventory`.

Guarantees: it does not outlive whoever waits for it: cancelled, or out of time, the wait ends with the program's end.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

_PIPE = asyncio.subprocess.PIPE


@dataclass(frozen=True, slots=True)
class Told:
    """How it ended, and what it said."""

    status: int
    stdout: bytes
    stderr: bytes


async def asked_program(*words: str, stdin: bytes | None = None, folder: Path | None = None) -> Told:
    """Run a program to its end; give it `stdin`, or none. OSError if it can't be run."""
    given = asyncio.subprocess.DEVNULL if stdin is None else _PIPE
    process = await asyncio.create_subprocess_exec(*words, cwd=folder, stdin=given, stdout=_PIPE, stderr=_PIPE)
    try:
        said, wrong = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None, "it has ended"
    return Told(process.returncode, said, wrong)
