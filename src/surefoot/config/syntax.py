# SPDX-License-Identifier: Apache-2.0
"""What the YAML parser and the file system complain of, in sentences that name the usual cause."""

from __future__ import annotations

import yaml

from surefoot.config.problems import Problem
from surefoot.core.errors import Code


def syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    """Return a YAML error as one sentence, with the usual causes by name."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:  # the reader's error about a character
        bad = next((i for i, c in enumerate(text) if not c.isprintable() and c not in "\t\r\n\u2028\u2029\ufeff"), 0)
        line = text.count("\n", 0, bad) + 1
        message = f"holds the character U+{ord(text[bad]):04X}, which YAML does not allow"
        return Problem(file, line, "", message, code=Code.CONFIG_SYNTAX, hint="remove it")
    line, column = mark.line + 1, mark.column + 1
    lines = text.splitlines()
    written = lines[mark.line] if mark.line < len(lines) else ""
    what = getattr(error, "problem", None) or "not YAML"
    context = getattr(error, "context", None) or ""
    message, hint = (
        f"not YAML: {context + ': ' if context else ''}{what} (column {column})",
        "check the line's indentation and quotes",
    )
    if "\t" in written[: len(written) - len(written.lstrip())]:
        message, hint = "a tab in the indentation, which YAML does not allow", "indent with spaces"
    elif "flow mapping" in context and "${" in written:
        message, hint = f"a '{{' inside of a mapping in braces (column {column})", "quote values with ${NAME} in them"
    elif "mapping values are not allowed" in what:
        message, hint = (
            f"a ':' that YAML takes for another key (column {column})",
            "quote the text, or check the indentation",
        )
    elif written.lstrip()[:1] in ("@", "`", "%") or written[column - 1 : column] in ("@", "`", "%"):
        message, hint = f"{written[column - 1 : column]} can't begin a value (column {column})", "quote the text"
    return Problem(file, line, "", message, code=Code.CONFIG_SYNTAX, hint=hint)


def reading_problem(label: str, error: Exception) -> Problem:
    """Return why a file can't be read, and what to do."""
    if isinstance(error, FileNotFoundError):
        hint = "surefoot init writes one to start from"
        return Problem(label, None, "", "does not exist", code=Code.CONFIG_MISSING, hint=hint)
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    hint = "chmod u+r it, or run as the user who owns it" if isinstance(error, PermissionError) else "check the path"
    return Problem(label, None, "", f"can't be read: {why[:1].lower()}{why[1:]}", code=Code.CONFIG_MISSING, hint=hint)
