# SPDX-License-Identifier: Apache-2.0
"""Takes secrets out of streams of bytes, in every form in which tools print them.

Guarantees: a value, or one of its lines, does not get through as it is, in base64 (at any alignment; wrapped), in
hex, URL-encoded, or escaped as JSON (twice too), Python, XML and shells do, however the stream is cut. Where values
overlap, all of them are masked. At most as much is held back as could be the beginning of a form.

It does not find a value that was changed otherwise (reversed, encrypted, cut in two), and leaves values and lines of
fewer than `SHORTEST` characters alone: they would blacken every other word, and hide nothing. `unprotected` names them.
"""

from __future__ import annotations

import base64
import html
import json
import re
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

SHORTEST = 4
MASK = b"***"

#: Columns at which base64 is wrapped: by coreutils and MIME, and in PEM files.
_WRAPPED_AT = (76, 64)


class Redactor:
    """One stream's redactor."""

    def __init__(self, values: Mapping[str, str]) -> None:
        """Take the secrets by name."""
        self.unprotected = tuple(name for name, value in values.items() if 0 < len(value.strip()) < SHORTEST)
        self._forms = sorted({form for value in values.values() for form in _forms(value)})
        self._sieve = _Sieve(self._forms)
        self._prefixes = {form[:SHORTEST] for form in self._forms}
        self._longest = max(map(len, self._forms), default=0)
        self._held = b""
        self._covered = 0  # how much of what is held belongs to a mask that was let out already

    def __repr__(self) -> str:
        return "Redactor(***)"

    def feed(self, data: bytes) -> bytes:
        """Return what is certain by now; holds back what might be the beginning of a secret."""
        if not self._forms:
            return data
        data = self._held + data
        suspicious = self._sieve.catches(data)
        spans = self._spans(data) if suspicious or self._covered else []
        return self._let_out(data, spans, self._decided(data, self._longest if suspicious else self._sieve.misses))

    def flush(self) -> bytes:
        """Return what was held back: nothing follows."""
        data = self._held
        return self._let_out(data, self._spans(data), len(data))

    def text(self, text: str) -> str:
        """Return a whole text without secrets; what is held back of a stream does not matter to it."""
        if not self._forms:
            return text
        try:
            data, errors = text.encode("utf-8", "surrogateescape"), "surrogateescape"
        except UnicodeEncodeError:  # half a pair, as JSON may hold it
            data, errors = text.encode("utf-8", "surrogatepass"), "surrogatepass"
        if not self._sieve.catches(data):
            return text
        spans = _merged(self._found(data))
        return b"".join(_masked(data, spans, len(data), begun=False)).decode("utf-8", errors)

    def _let_out(self, data: bytes, spans: list[tuple[int, int]], end: int) -> bytes:
        """Return the data up to an end, masked, and keep the rest."""
        begun = self._covered > 0
        out = b"".join(_masked(data, spans, end, begun=begun))
        self._covered = max((b - end for a, b in spans if (a < end or (begun and a == 0)) and end < b), default=0)
        self._held = data[end:]
        return out

    def _spans(self, data: bytes) -> list[tuple[int, int]]:
        """Return where secrets are, without overlaps, and first what is left of the mask that was let out last."""
        begun = [(0, self._covered)] if self._covered else []
        return _merged([*begun, *self._found(data)])

    def _found(self, data: bytes) -> Iterator[tuple[int, int]]:
        for form in self._forms:
            start = data.find(form)
            while start >= 0:
                yield start, start + len(form)
                start = data.find(form, start + 1)

    def _decided(self, data: bytes, most: int) -> int:
        """Return where the data's end begins that may be the beginning of a form; looks at its last `most` - 1
        bytes.
        """
        forms, prefixes, size = self._forms, self._prefixes, len(data)
        for start in range(max(0, size - most + 1), size):
            if start + SHORTEST <= size and data[start : start + SHORTEST] not in prefixes:
                continue
            tail = data[start:]
            place = bisect_left(forms, tail)
            if place < len(forms) and forms[place].startswith(tail) and (forms[place] != tail or self._goes_on(place)):
                return start
        return size

    def _goes_on(self, place: int) -> bool:
        """Whether a longer form begins with this one."""
        following = self._forms[place + 1 : place + 2]
        return bool(following) and following[0].startswith(self._forms[place])


class _Sieve:
    """Tells quickly that data holds no form, nor the beginning of one of `misses` bytes or more at its end.

    Data is looked at in words of 8 or 4 bytes. A form as long as two words less a byte, wherever it lies, covers one
    of them whole: so if no word of the data is in any form, the form is not in the data. What is caught is looked at
    closely.
    """

    def __init__(self, forms: Iterable[bytes]) -> None:
        self._words: dict[int, set[int]] = {8: set(), 4: set()}
        self._short: list[bytes] = []
        for form in forms:
            size = next((size for size in self._words if len(form) >= 2 * size - 1), 0)
            if size == 0:
                self._short.append(form)
            for start in range(size):
                self._words[size].add(int.from_bytes(form[start : start + size], sys.byteorder))
        self.misses = 2 * 8 - 1

    def catches(self, data: bytes) -> bool:
        """Whether there may be something."""
        view = memoryview(data)
        for size, words in self._words.items():
            if words and not words.isdisjoint(view[: len(data) // size * size].cast("Q" if size == 8 else "I")):
                return True
        return any(form in data for form in self._short)


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans in order, overlapping ones as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _masked(data: bytes, spans: list[tuple[int, int]], end: int, *, begun: bool) -> Iterator[bytes]:
    """Yield the data up to an end with spans masked; `begun`: the mask of the first is out already."""
    place = 0
    for start, stop in spans:
        if start >= end:
            break
        yield data[place:start]
        if not (begun and start == 0):
            yield MASK
        place = stop
    yield data[place:end]


# -- forms ---------------------------------------------------------------------------------------------


def _forms(value: str) -> set[bytes]:
    """Return all forms of a value that are long enough to be told from other text."""
    lines = {line.strip() for line in value.splitlines()}
    # A ruler of dashes is no secret, though a line of one.
    parts = {value, value.strip(), *(line for line in lines if len(set(line)) > 1)}
    forms: set[bytes] = set()
    for part in parts:
        if len(part.strip()) < SHORTEST:
            continue
        raw = _bytes(part)
        forms.update(map(_bytes, _escaped(part)))
        forms.update((raw, raw.hex().encode(), raw.hex().upper().encode(), _bytes(repr(raw)[2:-1])))
        forms.update(_base64(raw))
    return {form for form in forms if len(form) >= SHORTEST}


def _escaped(part: str) -> Iterator[str]:
    """Yield a text as programs write it inside of something else."""
    for encoded in (quote(_bytes(part), safe=""), quote(_bytes(part)), quote_plus(_bytes(part))):
        yield encoded
        yield re.sub("%..", lambda code: code.group().lower(), encoded)
    yield html.escape(part)
    yield html.escape(part, quote=False)
    for ascii_only in (True, False):
        once = json.dumps(part, ensure_ascii=ascii_only)[1:-1]
        # As PHP has it, and as Go does.
        for text in (once, once.replace("/", "\\/"), re.sub("[<>&]", lambda c: f"\\u{ord(c.group()):04x}", once)):
            yield text
            yield json.dumps(text, ensure_ascii=ascii_only)[1:-1]
    yield repr(part)[1:-1]
    yield json.dumps(repr(part)[1:-1])[1:-1]
    yield part.replace("\n", "\\n")
    yield part.replace("\n", "\r\n")
    for quoted in ("'\\''", "'\"'\"'", "''", "\\'"):
        yield part.replace("'", quoted)
    yield re.sub(r'(["\\$`])', r"\\\1", part)
    yield re.sub(r"""([\s'"\\|&;()<>!{}*\[?\]^$`,])""", r"\\\1", part)  # as bash's `printf %q`


def _base64(raw: bytes) -> Iterator[bytes]:
    """Yield what a value looks like in base64: alone, wrapped, and inside of more, for each of the three places
    where it may begin.
    """
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        alone = encode(raw)
        yield from (alone, alone.rstrip(b"="))
        for skip in range(3):
            encoded = encode(b"\0" * skip + raw).rstrip(b"=")
            # The first and last characters depend on the neighbours: what is left in between does not.
            whole = encoded[(skip * 8 + 5) // 6 :]
            yield whole[:-1] if (skip + len(raw)) % 3 else whole
        for width in _WRAPPED_AT:
            rows = [alone[start : start + width] for start in range(0, len(alone), width)]
            if len(rows) > 1:
                yield from (b"\n".join(rows), b"\r\n".join(rows))
                yield from rows[:-1]
                yield b"\n".join(rows).rstrip(b"=")[:-1]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
