# SPDX-License-Identifier: Apache-2.0
"""`${NAME}` in values: variables are replaced when the config is read, secrets when an agent uses them.

Guarantees: a name listed under `secrets` is never replaced here, whatever the environment holds; what a variable is
replaced with is never looked at again, so a variable can't smuggle a secret's name in. `$${…}` stands for `${…}`
itself.

What is left in a string after `expand` is written so that `fill_secrets` can tell: `${SECRET}` is to be filled in,
`$${SECRET}` stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_REFERENCE = re.compile(r"\$(\$?)\{([^{}]*)(\}?)")
_PLAIN_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


def expand(text: str, environ: Mapping[str, str], secrets: Collection[str], problem: Callable[[str, str], None]) -> str:
    """Return the text with variables replaced; tell `problem` (message, hint) what could not be."""
    if "${" not in text:
        return text
    pieces: list[str] = []  # plain text between references to secrets
    plain = ""
    end = 0
    for match in _REFERENCE.finditer(text):
        escaped, name, closed = match.groups()
        plain += text[end : match.start()]
        end = match.end()
        if escaped:
            plain += match.group()[1:]
        elif not closed or not NAME.fullmatch(name):
            problem(
                f"{_short(match.group())} is not a variable",
                "only ${NAME} is understood; write $${ where a literal ${ is meant",
            )
        elif name in secrets:
            pieces += [_inert(plain, secrets), match.group()]
            plain = ""
        elif name in environ:
            plain += environ[name]
        else:
            problem(
                f"the variable ${{{name}}} is not set",
                f"set {name} in the environment, list it under secrets, or write $${{{name}}} if the text is meant",
            )
    return "".join(pieces) + _inert(plain + text[end:], secrets)


def fill_secrets(text: str, values: Mapping[str, str]) -> str:
    """Return an expanded text with the secrets put in. The result is as secret as they are."""

    def replacement(match: re.Match[str]) -> str:
        escaped, name, closed = match.groups()
        if not closed or name not in values:
            return match.group()
        return match.group()[1:] if escaped else values[name]

    return _REFERENCE.sub(replacement, text)


def _inert(plain: str, secrets: Collection[str]) -> str:
    """Escape what looks like a reference to a secret but is none."""

    def escape(match: re.Match[str]) -> str:
        return f"${match.group()}" if match.group(1) in secrets else match.group()

    return _PLAIN_REFERENCE.sub(escape, plain) if secrets else plain


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
