# SPDX-License-Identifier: Apache-2.0
"""The tutorial, as a reader follows it: its commands in one shell, in order, in an empty folder; and what it says that
they print.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
_BLOCK = re.compile(r"(<!-- not run by the test -->\n)?```(sh|text)\n(.*?)```\n", re.DOTALL)
_FENCES = Path("/var/lib/surefoot/fence/my-site")
#: Far more than all of it takes, on a machine that does much else.
WITHIN = 900


@dataclass(frozen=True)
class Passage:
    """Commands, and what they are said to print."""

    commands: str
    printed: list[str]


def passages() -> list[Passage]:
    found: list[Passage] = []
    for skipped, kind, content in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if skipped:
            continue
        if kind == "sh":
            found.append(Passage(content, []))
        else:
            found[-1] = Passage(found[-1].commands, content.splitlines())
    return found


def plain(line: str) -> str:
    """A line without what differs from day to day and from machine to machine."""
    line = re.sub(r"\S*/my-site/", "/my-site/", line)
    line = re.sub(r"^\d\d:\d\d:\d\d", "00:00:00", line)
    line = re.sub(r"\b\d+(\.\d+)? (s|min)\b( ago)?|just now", "TIME", line)
    line = re.sub(r"\b[\w.-]+@[\w.-]+", "SOMEBODY", line)
    line = re.sub(rf"\b({re.escape(platform.node())}|laptop)-\d+-[0-9a-f]{{6}}", "ITSELF", line)
    line = re.sub(r"offline \(.*?\)", "offline", line)  # gone, or unheard of where the machine is slow to tell
    return " ".join(line.split())


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A shell as a new user's, at home in an empty folder. What it started and left is killed, by its process group."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SUREFOOT_", "GITHUB_", "ANSIBLE_"))
    }
    environ = {**kept, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    fences_were = _FENCES.exists()
    process = subprocess.Popen(
        ["bash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=home,
        env=environ,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        for left in psutil.process_iter(["cwd"]):
            if (left.info["cwd"] or "").startswith(str(home)):
                left.send_signal(signal.SIGKILL)
        if not fences_were:
            shutil.rmtree(_FENCES, ignore_errors=True)


def said(shell: subprocess.Popen[str], commands: str) -> list[str]:
    """What commands print."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f"{commands}\necho '-- that was it --'\n")
    shell.stdin.flush()
    lines: list[str] = []
    for line in shell.stdout:
        if line == "-- that was it --\n":
            return lines
        lines.append(line.rstrip("\n"))
    raise AssertionError(f"the shell has ended: {lines}")


def test_the_tutorial_does_what_it_says(shell: subprocess.Popen[str]) -> None:
    signal.signal(signal.SIGALRM, lambda *_: shell.kill())
    signal.alarm(WITHIN)
    try:
        for passage in passages():
            printed = said(shell, passage.commands)
            rest = iter([plain(line) for line in printed])
            for expected in passage.printed:
                if expected != "…":
                    assert plain(expected) in rest, (
                        f"{expected!r} is not among what {passage.commands!r} prints: {printed}"
                    )
    finally:
        signal.alarm(0)


def test_what_the_tutorial_shows_is_looked_at() -> None:
    assert sum(len(passage.printed) for passage in passages()) > 40
    assert PAGE.read_text(encoding="utf-8").count("<!-- not run") == 1
