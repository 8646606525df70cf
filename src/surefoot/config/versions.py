# SPDX-License-Identifier: Apache-2.0
"""What may be a version: image tags, git refs, semantic versions; nothing that a shell, a path or a template could read
otherwise.

Guarantees: a version that passes is inert in a shell word, in a file name below a folder, in a URL's path and in a
template. Steps put it there, and not all of them quote it.
"""

from __future__ import annotations

import re
import unicodedata

from surefoot.core.errors import Code, UsageError

#: A container image's tag may be as long as this.
MAX_LENGTH = 128
ALLOWED = "letters, digits and . _ + / @ : = ~ - after a letter or digit"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/@:=~-]*", re.ASCII)
_OUTSIDE = re.compile(r"[^A-Za-z0-9._+/@:=~-]", re.ASCII)


def validate_version(text: str) -> str:
    """Return the version as it is, or refuse it."""
    if why := _why_not(text):
        message, hint = why
        raise UsageError(message, code=Code.VERSION_INVALID, hint=hint)
    return text


def _why_not(text: str) -> tuple[str, str] | None:
    """Return what is wrong, and what to do."""
    if not text.strip():
        return "the version is empty", "give the version to deploy, such as 1.4.2"
    if len(text) > MAX_LENGTH:
        return f"the version is {len(text)} characters long; {MAX_LENGTH} are allowed", "deploy by a tag or a commit"
    if outside := _OUTSIDE.search(text):
        return f"the version {text!r} holds {_named(outside.group())}", f"allowed are {ALLOWED}"
    if not _VERSION.fullmatch(text):
        return f"the version {text!r} begins with {text[0]!r}", f"allowed are {ALLOWED}"
    if ".." in text or any(part in ("", ".") for part in text.split("/")):
        return f"the version {text!r} could lead out of a folder", "no '..', no '//', no '/' at the end"
    return None


def _named(character: str) -> str:
    """Name a character so that it can be found, invisible ones too."""
    if character == " ":
        return "a space"
    if character == "\n":
        return "a line break"
    if character.isascii() and character.isprintable():
        return repr(character)
    name = unicodedata.name(character, "a control character" if ord(character) < 0xA0 else "no letter")
    return f"U+{ord(character):04X} ({name.lower()})"
