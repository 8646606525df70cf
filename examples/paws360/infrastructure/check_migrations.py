#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Refuses migrations that could not be lived with by the version before, unless a person has approved them.

A deployment may be put back at any moment, and the schema is not: so a migration only adds (expand), and takes away in
a later release what no version needs any more (contract). One that takes away, or rewrites, begins with a line that
says who has approved it and from which backup the database could be restored:

    -- irreversible: approved by ann; backup: pg_basebackup of 2026-01-31 04:00 in s3://backups/paws360

It reads SQL by its words, not as PostgreSQL does: what it does not know it lets pass.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

APPROVED = re.compile(r"^-- irreversible: approved by \S.*; backup: \S", re.MULTILINE)
#: A comment, or a text in quotes: no word in there is a statement's.
SILENT = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|(\$\w*\$).*?\1", re.DOTALL)
IRREVERSIBLE = {
    "drops": r"\bDROP\s+(TABLE|COLUMN|SCHEMA|TYPE|VIEW|MATERIALIZED|SEQUENCE|FUNCTION)\b"
    r"|\bALTER\s+TABLE\b[^;]*\bDROP\s+(?!CONSTRAINT|DEFAULT|NOT|IDENTITY|EXPRESSION)\w",
    "empties": r"\bTRUNCATE\b|\bDELETE\s+FROM\b",
    "renames": r"\bRENAME\s+(TO|COLUMN|\w+\s+TO)\b",
    "rewrites": r"\bALTER\s+(COLUMN\s+)?\w+\s+(SET\s+DATA\s+)?TYPE\b|\bUPDATE\s+\w+[^;]*\bSET\b",
    "demands what the version before does not give": r"\bSET\s+NOT\s+NULL\b"
    r"|\bADD\s+COLUMN\b(?![^;,]*\bDEFAULT\b)[^;,]*\bNOT\s+NULL\b",
}


def irreversible(text: str) -> list[str]:
    """Return what a migration does that can't be lived with, or taken back."""
    words = SILENT.sub(" ", text)
    return [what for what, pattern in IRREVERSIBLE.items() if re.search(pattern, words, re.IGNORECASE)]


def main(folder: str) -> None:
    """Look at all migrations of a folder."""
    refused = []
    for file in sorted(Path(folder).glob("*.sql")):
        text = file.read_text(encoding="utf-8")
        found = irreversible(text)
        if found and not APPROVED.search(text):
            refused.append(f"{file.name} {' and '.join(found)}")
    if refused:
        sys.exit(
            f"{'; '.join(refused)}: add only, or have it approved by a line -- irreversible: approved by …; backup: …"
        )
    print("all migrations add only, or are approved")


if __name__ == "__main__":
    main(*sys.argv[1:])
