# SPDX-License-Identifier: Apache-2.0
"""Takes secrets out of streams of bytes, in every form in which tools print them.

Guarantees: a value, one of its lines, the password in it if it is a URL, and what a JSON document in it keeps under
names such as `private_key`, do not get through as they are, in base64 (at any alignment; wrapped; twice; of UTF-16), in
hex, URL-encoded, or escaped as JSON (twice too), Python, HTML, XML and shells do, with colours in their midst or
without, however the stream is cut. Where values overlap, all of them are masked. At most as much is held back as could
be the beginning of a form.

It does not find a value that was changed otherwise (reversed, encrypted, cut in two), and leaves values and lines of
fewer than `SHORTEST` characters alone: they would blacken every other word, and hide nothing. `unprotected` names them.
"""

from __future__ import annotations

import base64
import html
import json
import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

SHORTEST = 4
MASK = b"***"

#: Columns at which base64 is wrapped: by coreutils and MIME, and in PEM files.
_WRAPPED_AT = (76, 64)


#: What colours and moves on terminals; one that is not whole yet ends the data.
_CONTROL = re.compile(rb"\x1b(?:\[[0-9;:?]{0,32}(?:[ -/]{0,2}[@-~]|$)|$)")
#: Bytes of colours that are held back with the beginning of a secret.
_MOST_COLOUR = 4096
#: What was cut off by whoever quoted it ends, or begins, with this.
ELLIPSIS = "…"


class _Known:
    """All forms of some values, in the order in which they are looked up. Made once for all streams."""

    def __init__(self, values: Iterable[str]) -> None:
        self.forms = sorted({form for value in values for form in _forms(value)})
        self.sieve = _Sieve(self.forms)
        self.prefixes = {form[:SHORTEST] for form in self.forms}
        self.longest = max(map(len, self.forms), default=0)

    def __repr__(self) -> str:
        return "_Known(***)"

    @cached_property
    def backwards(self) -> list[bytes]:
        """The forms from their ends, for what was cut off at its beginning."""
        return sorted(form[::-1] for form in self.forms)


@lru_cache(maxsize=16)
def _known(values: frozenset[str]) -> _Known:
    return _Known(values)


class Redactor:
    """One stream's redactor."""

    def __init__(self, values: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        """Take the secrets by name; a name may have several values."""
        pairs = list(values.items() if isinstance(values, Mapping) else values)
        self.unprotected = tuple(dict.fromkeys(name for name, value in pairs if 0 < len(value.strip()) < SHORTEST))
        self._known = _known(frozenset(value for _, value in pairs))
        self._held = b""
        self._covered = 0  # how much of what is held belongs to a mask that was let out already

    def __repr__(self) -> str:
        return "Redactor(***)"

    def feed(self, data: bytes) -> bytes:
        """Return what is certain by now; holds back what might be the beginning of a secret."""
        known = self._known
        if not known.forms:
            return data
        data = self._held + data
        view = _View(data)
        suspicious = known.sieve.catches(view.plain)
        end = view.raw(self._decided(view.plain, known.longest if suspicious else known.sieve.misses))
        if len(data) - end > known.longest + _MOST_COLOUR:
            end = len(data)  # more colours than any program makes
        if end == 0:
            self._held = data
            return b""
        spans = self._spans(view) if suspicious or self._covered else []
        return self._let_out(data, spans, end)

    def flush(self) -> bytes:
        """Return what was held back: nothing follows."""
        data = self._held
        return self._let_out(data, self._spans(_View(data)), len(data))

    def text(self, text: str) -> str:
        """Return a whole text without secrets; what is held back of a stream does not matter to it."""
        if not self._known.forms:
            return text
        data, errors = _encoded(text)
        view = _View(data)
        if not self._known.sieve.catches(view.plain):
            return text
        spans = _merged(self._found(view))
        return b"".join(_masked(data, spans, len(data), begun=False)).decode("utf-8", errors)

    def quoted(self, text: str) -> str:
        """Return a whole text without secrets, of which parts may have been cut off where an ellipsis stands: what is
        left of a secret there is masked too.
        """
        if not self._known.forms:
            return text
        text = self.text(text)
        if ELLIPSIS not in text:
            return text
        pieces = text.split(ELLIPSIS)
        ended = [self._without_end(piece) for piece in pieces[:-1]] + pieces[-1:]
        return ELLIPSIS.join([*ended[:1], *map(self._without_beginning, ended[1:])])

    def _without_end(self, text: str) -> str:
        """Mask the beginning of a secret at the end of a text."""
        data, errors = _encoded(text.rstrip())
        length = _overhang(data, self._known.forms, self._known.longest)
        return data[: len(data) - length].decode("utf-8", errors) + MASK.decode() if length else text

    def _without_beginning(self, text: str) -> str:
        """Mask the end of a secret at the beginning of a text."""
        data, errors = _encoded(text.lstrip())
        length = _overhang(data[::-1], self._known.backwards, self._known.longest)
        return MASK.decode() + data[length:].decode("utf-8", errors) if length else text

    def _let_out(self, data: bytes, spans: list[tuple[int, int]], end: int) -> bytes:
        """Return the data up to an end, masked, and keep the rest."""
        begun = self._covered > 0
        out = b"".join(_masked(data, spans, end, begun=begun))
        self._covered = max((b - end for a, b in spans if (a < end or (begun and a == 0)) and end < b), default=0)
        self._held = data[end:]
        return out

    def _spans(self, view: _View) -> list[tuple[int, int]]:
        """Return where secrets are, without overlaps, and first what is left of the mask that was let out last."""
        begun = [(0, self._covered)] if self._covered else []
        return _merged([*begun, *self._found(view)])

    def _found(self, view: _View) -> Iterator[tuple[int, int]]:
        data = view.plain
        for form in self._known.forms:
            start = data.find(form)
            while start >= 0:
                yield view.raw(start), view.raw(start + len(form) - 1) + 1
                start = data.find(form, start + 1)

    def _decided(self, data: bytes, most: int) -> int:
        """Return where the data's end begins that may be the beginning of a form; looks at its last `most` - 1
        bytes.
        """
        forms, prefixes, size = self._known.forms, self._known.prefixes, len(data)
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
        following = self._known.forms[place + 1 : place + 2]
        return bool(following) and following[0].startswith(self._known.forms[place])


class _View:
    """Data as people see it: without colours. `raw` tells where a byte of it stands in the data."""

    def __init__(self, data: bytes) -> None:
        self.plain = data
        self._size = len(data)
        self._starts: list[int] = []  # of what is left, in `plain`
        self._shifts: list[int] = []
        if b"\x1b" not in data:
            return
        pieces, end, size = [], 0, 0
        for match in _CONTROL.finditer(data):
            piece = data[end : match.start()]
            pieces.append(piece)
            size += len(piece)
            end = match.end()
            if self._starts and self._starts[-1] == size:
                self._shifts[-1] = end - size
            else:
                self._starts.append(size)
                self._shifts.append(end - size)
        self.plain = b"".join((*pieces, data[end:]))

    def raw(self, place: int) -> int:
        """Return the place in the data; of the end, the data's end."""
        if not self._starts:
            return place
        if place >= len(self.plain):
            return self._size
        found = bisect_right(self._starts, place)
        return place + (self._shifts[found - 1] if found else 0)


def _encoded(text: str) -> tuple[bytes, str]:
    """Return a text's bytes, and how they become text again."""
    try:
        return text.encode("utf-8", "surrogateescape"), "surrogateescape"
    except UnicodeEncodeError:  # half a pair, as JSON may hold it
        return text.encode("utf-8", "surrogatepass"), "surrogatepass"


def _overhang(data: bytes, forms: list[bytes], longest: int) -> int:
    """Return how many bytes at the data's end are the beginning of a form; 0 if fewer than `SHORTEST`."""
    for start in range(max(0, len(data) - longest), len(data) - SHORTEST + 1):
        tail = data[start:]
        place = bisect_left(forms, tail)
        if place < len(forms) and forms[place].startswith(tail):
            return len(tail)
    return 0


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

#: Under such names, documents keep secrets.
_SECRET_NAME = re.compile("key|secret|token|pass|cred|auth", re.IGNORECASE)
#: A document or an address as long as this is looked into.
_LONGEST_DOCUMENT = 256 * 1024


def _forms(value: str) -> set[bytes]:
    """Return all forms of a value that are long enough to be told from other text."""
    forms: set[bytes] = set()
    for part in _parts(value):
        if len(part.strip()) < SHORTEST:
            continue
        raw = _bytes(part)
        forms.update(map(_bytes, _escaped(part)))
        forms.update((raw, _bytes(repr(raw)[2:-1])))
        forms.update(_numbers(raw))
        forms.update(_base64(raw))
        inside = _bytes(json.dumps(part)[1:-1])
        if inside != raw:
            forms.update(_inside(inside, base64.b64encode))
        wide = part.encode("utf-16-le", "surrogatepass")
        forms.update((wide, base64.b64encode(wide)))
    return {shown for form in forms if len(shown := _CONTROL.sub(b"", form)) >= SHORTEST}


def _parts(value: str) -> set[str]:
    """Return a value, and what of it may be printed without the rest."""
    found: set[str] = set()
    for text in (value, *_inner(value)):
        lines = {line.strip() for line in text.splitlines()}
        # A ruler of dashes is no secret, though a line of one.
        found |= {text, text.strip(), " ".join(text.split()), *(line for line in lines if len(set(line)) > 1)}
    return found


def _inner(value: str) -> Iterator[str]:
    """Yield the secrets inside of a value that is an address or a document."""
    text = value.strip()
    if len(text) > _LONGEST_DOCUMENT:
        return
    if text.startswith(("{", "[")):
        try:
            yield from _leaves(json.loads(text), secret=False)
        except (ValueError, RecursionError):
            return
    elif "://" in text and "\n" not in text:
        try:
            password = urlsplit(text).netloc.rpartition("@")[0].partition(":")[2]
        except ValueError:
            return
        yield from (password, unquote(password))


def _leaves(found: Any, *, secret: bool) -> Iterator[str]:
    """Yield the texts of a document that stand under a secret's name."""
    match found:
        case dict():
            for name, inner in found.items():
                yield from _leaves(inner, secret=secret or bool(_SECRET_NAME.search(name)))
        case list():
            for inner in found:
                yield from _leaves(inner, secret=secret)
        case str() if secret:
            yield found


def _escaped(part: str) -> Iterator[str]:
    """Yield a text as programs write it inside of something else."""
    for encoded in (quote(_bytes(part), safe=""), quote(_bytes(part)), quote_plus(_bytes(part))):
        yield encoded
        yield re.sub("%..", lambda code: code.group().lower(), encoded)
        yield quote(encoded, safe="")
    yield html.escape(part, quote=False)
    for single, double in (("&#x27;", "&quot;"), ("&#39;", "&#34;"), ("&#39;", "&quot;"), ("&apos;", "&quot;")):
        yield html.escape(part, quote=False).replace("'", single).replace('"', double)
    for ascii_only in (True, False):
        once = json.dumps(part, ensure_ascii=ascii_only)[1:-1]
        # As PHP has it, and as Go does, or Rails.
        for text in (
            once,
            once.replace("/", "\\/"),
            re.sub("[<>&]", lambda c: f"\\u{ord(c.group()):04x}", once),
            re.sub("[<>&']", lambda c: f"\\u{ord(c.group()):04x}", once),
        ):
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


def _numbers(raw: bytes) -> Iterator[bytes]:
    """Yield what a value looks like as numbers, each of its bytes or characters as one."""
    for digits in (raw.hex(), raw.hex().upper()):
        pairs = [digits[i : i + 2] for i in range(0, len(digits), 2)]
        for before, between in (("", ""), ("", " "), ("", ":"), ("\\x", ""), ("%", "")):
            yield between.join(before + pair for pair in pairs).encode()
    text = raw.decode("utf-8", "replace")
    units = text.encode("utf-16-be", "surrogatepass").hex()
    for digits in (units, units.upper()):
        yield "".join(f"\\u{digits[i : i + 4]}" for i in range(0, len(digits), 4)).encode()
    yield "".join(f"&#{ord(c)};" for c in text).encode()
    yield "".join(f"&#x{ord(c):x};" for c in text).encode()


def _base64(raw: bytes) -> Iterator[bytes]:
    """Yield what a value looks like in base64: alone, wrapped, twice, and inside of more, for each of the three places
    where it may begin.
    """
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        alone = encode(raw)
        yield from (alone, alone.rstrip(b"="))
        yield from _inside(raw, encode)
        for width in _WRAPPED_AT:
            rows = [alone[start : start + width] for start in range(0, len(alone), width)]
            if len(rows) > 1:
                yield from (b"\n".join(rows), b"\r\n".join(rows))
                yield from rows[:-1]
                yield b"\n".join(rows).rstrip(b"=")[:-1]
    yield from _inside(base64.b64encode(raw), base64.b64encode)


def _inside(raw: bytes, encode: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """Yield what bytes look like inside of something longer that is encoded."""
    for skip in range(3):
        encoded = encode(b"\0" * skip + raw).rstrip(b"=")
        # The first and last characters depend on the neighbours: what is left in between does not.
        whole = encoded[(skip * 8 + 5) // 6 :]
        yield whole[:-1] if (skip + len(raw)) % 3 else whole


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
