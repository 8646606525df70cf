# SPDX-License-Identifier: Apache-2.0
"""Replays one schedule, and tells its story: `python -m tests.simulation.replay SEED --shrink`.

A seed (or a file with a script) is played to its last event, the same each time. With `--shrink` a script that breaks
a promise is made as small as it can be; `--out FILE` keeps that for another replay. Exits 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from tests.simulation.draw import draw
from tests.simulation.judge import PromiseBrokenError
from tests.simulation.schedule import Schedule
from tests.simulation.script import Script
from tests.simulation.shrink import shrink


def load(what: str) -> Script:
    """Return the script of a seed, or of a file."""
    if what.isdigit():
        return draw(int(what))
    return msgspec.json.decode(Path(what).read_bytes(), type=Script)


def told(script: Script) -> tuple[list[str], str | None]:
    """Play a script; return its story, and the promise that it broke."""
    schedule = Schedule(script)
    try:
        schedule.run()
    except PromiseBrokenError as error:
        return schedule.story, error.promise
    return schedule.story, None


def main() -> int:
    """Replay; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", help="a seed, or a file that --out has written")
    parser.add_argument("--shrink", action="store_true", help="make what breaks a promise as small as it can be")
    parser.add_argument("--out", type=Path, help="keep the script here")
    chosen = parser.parse_args()
    script = load(chosen.what)
    story, broken = told(script)
    if broken is not None and chosen.shrink:
        script = shrink(script, broken)
        story, broken = told(script)
    print(msgspec.json.format(msgspec.json.encode(script)).decode())
    print("\n".join(story))
    print(f"BROKEN: {broken}" if broken else "all promises held")
    if chosen.out is not None:
        chosen.out.write_bytes(msgspec.json.encode(script))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
