# SPDX-License-Identifier: Apache-2.0
"""The manual's pages: one for each command, as the commands are, and as readers of such pages expect them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from surefoot.cli.main import COMMANDS, cli
from surefoot.cli.manual import pages

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "man"


def test_the_pages_are_current() -> None:
    assert {page.name: page.read_text() for page in FOLDER.iterdir()} == pages(), "make man"


def test_every_command_has_a_page() -> None:
    assert {f"surefoot-{name}.1" for name in COMMANDS} | {"surefoot-agent-run.1"} <= pages().keys()


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
def test_no_page_has_a_fault() -> None:
    done = subprocess.run(["mandoc", "-T", "lint", *sorted(FOLDER.glob("*.1"))], capture_output=True, text=True)
    # Without a date on purpose; a name in the example of a config may be long.
    assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
@pytest.mark.parametrize("command", [["deploy"], ["agent", "run"], ["monitoring", "render"]], ids=" ".join)
def test_a_reader_of_the_page_sees_what_the_help_says(command: list[str]) -> None:
    page = FOLDER / f"surefoot-{'-'.join(command)}.1"
    shown = subprocess.run(["mandoc", "-T", "ascii", page], capture_output=True, text=True, check=True).stdout
    read = " ".join(re.sub(".\x08", "", shown).split())
    told = CliRunner().invoke(cli, [*command, "--help"], terminal_width=300).stdout
    options = re.findall(r"^  (-\S.*?)  ", told, re.MULTILINE)
    examples = told.partition("Example:")[2].split("\n")
    assert len(options) > 5
    assert [text for text in (*options, *map(str.strip, examples)) if text not in read] == []
