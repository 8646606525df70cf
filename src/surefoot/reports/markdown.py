# SPDX-License-Identifier: Apache-2.0
"""Markdown made of text from anywhere: logs, versions, commit messages.

Guarantees: what has passed `inline`, `code` or `block` shows as it is, ends no table, opens no tag, and calls nobody
by an `@`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")
_SPACE = re.compile(r"[\x00-\x1f\x7f]+")


def inline(text: str) -> str:
    """Return text that stands for itself within a line or a cell."""
    return _SPECIAL.sub(r"\\\1", _SPACE.sub(" ", text)).replace("@", "@\u200b")


def code(text: str) -> str:
    """Return text as code within a line or a cell."""
    text = _SPACE.sub(" ", text).replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}" if text else ""


def block(lines: Sequence[str]) -> str:
    """Return lines as a block of code."""
    text = "\n".join(lines)
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}text\n{text}\n{fence}"


def link(text: str, url: str) -> str:
    """Return a link; the text alone where the address is none that a browser opens."""
    if not re.fullmatch(r"https?://[^\s<>()\\]+", url):
        return inline(text)
    return f"[{inline(text)}]({url})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
