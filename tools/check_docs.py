# SPDX-License-Identifier: Apache-2.0
"""Checks the documentation: every link leads somewhere, every page is reached, every command shown exists.

Guarantees nothing about what the pages say: that commands do what is said of them is for the tests, and that generated
pages are what the code says, for those of their generators. Headings that links name are for the site's strict build.
Reaches no network: links to other sites are not followed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from surefoot.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
#: Pages that readers come to by themselves.
DOORS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/index.md")

_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)|!\[[^\]\n]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^ *(```|~~~)")
_COMMAND = re.compile(r"^ *(?:\$ |# )?surefoot((?: +--?[a-z][\w-]*(?:[= ]\S+)?)*?) +([a-z]+)\b")


def main() -> int:
    """Print what is wrong; the status says whether anything is."""
    pages = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    wrong: list[str] = []
    reached = {ROOT / door for door in DOORS}
    leads: dict[Path, set[Path]] = {}
    for page in pages:
        name = page.relative_to(ROOT)
        for number, target in _links(page):
            file = target.partition("#")[0]
            aim = (page.parent / file).resolve() if file else page
            if not aim.exists():
                wrong.append(f"{name}:{number}: there is no {file}")
            elif aim.is_dir():
                wrong.append(f"{name}:{number}: {file} is a folder, and the site has no page for it")
            leads.setdefault(page, set()).add(aim)
        wrong += [f"{name}:{number}: there is no command {command!r}" for number, command in _unknown_commands(page)]
    while more := {aim for page in reached for aim in leads.get(page, ())} - reached:
        reached |= more
    wrong += [
        f"{page.relative_to(ROOT)}: no page leads here from docs/index.md" for page in pages if page not in reached
    ]
    wrong += [f"mkdocs.yml: the navigation lacks {page}" for page in _missing_in_navigation(pages)]
    print("\n".join(wrong) or f"docs: {len(pages)} pages, every link leads somewhere")
    return 1 if wrong else 0


def _prose(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines outside of code."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            yield number, line


def _links(page: Path) -> Iterator[tuple[int, str]]:
    for number, line in _prose(page):
        for match in _LINK.finditer(re.sub(r"`[^`]*`", "", line)):
            target = match[1] or match[2]
            if not re.match(r"[a-z]+:", target):
                yield number, target


def _missing_in_navigation(pages: list[Path]) -> Iterator[str]:
    """Yield pages that a visitor of the site would not find. Decisions are found by their index."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in pages:
        by_index = page.parent.name == "adr" and page.name != "index.md"
        name = str(page.relative_to(ROOT))
        if not by_index and not re.search(rf"[ :]{re.escape(name)}$", navigation, re.MULTILINE):
            yield name


def _unknown_commands(page: Path) -> Iterator[tuple[int, str]]:
    """Yield commands in blocks of code that the program does not have."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if _FENCE.match(line):
            fenced = not fenced
        elif fenced and (match := _COMMAND.match(line)) and match[2] not in COMMANDS:
            yield number, match[2]


if __name__ == "__main__":
    sys.exit(main())
