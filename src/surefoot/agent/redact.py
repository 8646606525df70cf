# SPDX-License-Identifier: Apache-2.0
"""Takes secrets out of streams of bytes, in every form in which tools print them.

Guarantees: a value, or one of its lines, does not get through as it is, base64 (at any alignment), URL-encoded, hex, JSON-escaped (twice too),
or with its newlines spelled out, however the stream is cut. Values of fewer than `SHORTEST` characters are left alone: they would blacken every
other word, and hide nothing.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from urllib.parse import quote, quote_plus

SHORTEST = 4
MASK = b"***"


class Redactor:
    """One stream's redactor."""

    def __init__(self, values: Mapping[str, str]) -> None:
        """Take the secrets by name."""
        forms = {form for value in values.values() for form in _forms(value)}
        ordered = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, ordered))) if ordered else None
        self._longest = len(ordered[0]) if ordered else 0
        self._forms = ordered
        self._held = b""
        # Where output must be held back: at any place where a form could still begin.
        self._first = frozenset(form[:1] for form in ordered)

    def __repr__(self) -> str:
        return "Redactor(***)"

    def feed(self, data: bytes) -> bytes:
        """Return what is certain by now; holds back what might be the beginning of a secret."""
        if self._pattern is None:
            return data
        clean = self._pattern.sub(MASK, self._held + data)
        keep = self._undecided(clean)
        self._held = clean[len(clean) - keep :] if keep else b""
        return clean[: len(clean) - keep] if keep else clean

    def flush(self) -> bytes:
        """Return what was held back."""
        held, self._held = self._held, b""
        return held

    def text(self, text: str) -> str:
        """Return a whole text without secrets."""
        if self._pattern is None:
            return text
        return self._pattern.sub(MASK, text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def _undecided(self, data: bytes) -> int:
        """Return how many bytes at the end may be the beginning of a form."""
        start = max(0, len(data) - self._longest + 1)
        for i in range(start, len(data)):
            if data[i : i + 1] in self._first and self._begins(data[i:]):
                return len(data) - i
        return 0

    def _begins(self, tail: bytes) -> bool:
        return any(form.startswith(tail) for form in self._forms)


def _forms(value: str) -> set[bytes]:
    """Return all forms of a value that are long enough to be told from other text."""
    parts = {value, value.strip(), *value.splitlines()}
    forms: set[bytes] = set()
    for part in parts:
        if len(part.strip()) < SHORTEST:
            continue
        raw = part.encode("utf-8", "surrogateescape")
        once = json.dumps(part)[1:-1]
        texts = {
            part,
            quote(part, safe="", errors="replace"),
            quote(part, errors="replace"),
            quote_plus(part, errors="replace"),
            once,
            json.dumps(once)[1:-1],
            json.dumps(part, ensure_ascii=False)[1:-1],
            repr(part)[1:-1],
            part.replace("'", "'\\''"),
        }
        forms.update(text.encode("utf-8", "surrogateescape") for text in texts)
        forms.update((raw.hex().encode(), raw.hex().upper().encode()))
        forms.update(_base64(raw))
    return {form for form in forms if len(form) >= SHORTEST}


def _base64(raw: bytes) -> set[bytes]:
    """Return what a value looks like inside base64, for each of the three places where it may begin."""
    forms: set[bytes] = set()
    for skip in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * skip + raw).rstrip(b"=")
            # The first and last characters depend on the neighbours: what is left in between does not.
            whole = encoded[(skip * 8 + 5) // 6 :]
            forms.add(whole[:-1] if (skip + len(raw)) % 3 else whole)
    return {form for form in forms if len(form) >= 2 * SHORTEST}
