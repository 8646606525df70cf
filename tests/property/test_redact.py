# SPDX-License-Identifier: Apache-2.0
"""However a stream is cut, and whatever surrounds a secret, the redactor lets out what a slow and obvious one would."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.agent.redact import _CONTROL, Redactor, _forms

#: Few letters, so that values overlap, repeat and begin like each other.
narrow = st.text(alphabet="ab", min_size=4, max_size=12)
#: Colours are seen through, which the obvious way does not: those have tests of their own.
wide = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="*\x1b"), min_size=4, max_size=40)
noises = st.binary(max_size=20).map(lambda noise: noise.replace(b"\x1b", b""))
values = st.lists(st.one_of(narrow, wide), min_size=1, max_size=4)


def obvious(data: bytes, secrets: list[str]) -> bytes:
    """Mask by looking for every form at every place."""
    hidden = [0] * (len(data) + 1)  # 1: inside of a form; 2: where one begins that does not overlap what is before it
    reach = 0
    forms = {form for secret in secrets for form in _forms(secret)}
    for place in range(len(data)):
        ends = [place + len(form) for form in forms if data.startswith(form, place)]
        if ends:
            if place >= reach:
                hidden[place] = 2
            reach = max(reach, *ends)
        if place < reach and hidden[place] == 0:
            hidden[place] = 1
    return b"".join(
        b"***" if hidden[place] == 2 else b"" if hidden[place] else data[place : place + 1]
        for place in range(len(data))
    )


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[str], bytes, list[int]]:
    secrets = draw(values)
    ways = [
        str.encode,
        lambda s: s.encode()[: max(1, len(s) - 2)],
        lambda s: base64.b64encode(b"x" + s.encode()),
        lambda s: json.dumps(s).encode(),
        lambda s: quote(s).encode(),
        lambda s: s.encode().hex().encode(),
    ]
    noise = st.one_of(st.text(alphabet="ab ", max_size=10).map(str.encode), noises)
    parts = draw(
        st.lists(
            st.one_of(noise, st.builds(lambda s, way: way(s), st.sampled_from(secrets), st.sampled_from(ways))),
            max_size=12,
        )
    )
    data = b"".join(parts)
    cuts = draw(st.lists(st.integers(min_value=0, max_value=max(0, len(data))), max_size=12))
    return secrets, data, sorted(cuts)


@settings(max_examples=400, deadline=None)
@given(streams())
def test_however_it_is_cut_a_stream_comes_out_as_the_obvious_redactor_has_it(
    stream: tuple[list[str], bytes, list[int]],
) -> None:
    secrets, data, cuts = stream
    redactor = Redactor({str(number): secret for number, secret in enumerate(secrets)})
    out, place = b"", 0
    for cut in [*cuts, len(data)]:
        out += redactor.feed(data[place:cut])
        place = cut
        assert len(redactor._held) < max(1, redactor._known.longest)
    out += redactor.flush()
    assert out == obvious(data, secrets)


@settings(max_examples=200, deadline=None)
@given(wide, st.binary(max_size=10), st.binary(max_size=10))
def test_base64_around_a_secret_tells_at_most_its_edges(secret: str, before: bytes, after: bytes) -> None:
    raw = secret.encode()
    if len(secret.strip()) < 4:
        return
    encoded = base64.b64encode(before + raw + after)
    redactor = Redactor({"S": secret})
    left = (redactor.feed(encoded) + redactor.flush()).replace(b"***", b"")
    assert len(left) <= (len(before) * 8 + 5) // 6 + (len(after) * 8 + 5) // 6 + 4


@settings(max_examples=200, deadline=None)
@given(st.lists(narrow, min_size=1, max_size=3), st.text(alphabet="ab *", max_size=60))
def test_text_and_stream_agree(secrets: list[str], text: str) -> None:
    redactor = Redactor({str(number): secret for number, secret in enumerate(secrets)})
    assert redactor.text(text).encode() == redactor.feed(text.encode()) + redactor.flush()


colours = st.sampled_from([b"\x1b[0m", b"\x1b[1;31m", b"\x1b[K", b"\x1b[38;5;196m", b"\x1b[m"])


@settings(max_examples=300, deadline=None)
@given(streams(), st.lists(st.tuples(st.integers(min_value=0, max_value=400), colours), max_size=6))
def test_colours_hide_no_secret_wherever_they_stand_and_however_it_is_cut(
    stream: tuple[list[str], bytes, list[int]], painted: list[tuple[int, bytes]]
) -> None:
    """What is left, without its colours, is what would be left of a stream without any."""
    secrets, data, cuts = stream
    coloured = data
    for wanted, colour in sorted(painted, reverse=True):
        place = min(wanted, len(data))
        coloured = coloured[:place] + colour + coloured[place:]
    redactor = Redactor({str(number): secret for number, secret in enumerate(secrets)})
    out, place = b"", 0
    for cut in [*cuts, len(coloured)]:
        out += redactor.feed(coloured[place:cut])
        place = cut
    out += redactor.flush()
    assert _CONTROL.sub(b"", out) == obvious(data, secrets)


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="ABCÄ1<", min_size=4, max_size=40), st.text(alphabet="xyz ", max_size=30),
    st.integers(min_value=4), st.integers(min_value=4),
)  # fmt: skip
def test_of_a_secret_that_was_cut_off_at_an_ellipsis_nothing_is_left(
    secret: str, around: str, first: int, last: int
) -> None:
    first, last = 4 + first % (len(secret) - 3), 4 + last % (len(secret) - 3)
    quoted = Redactor({"S": secret}).quoted(f"{around}{secret[:first]}… and …{secret[-last:]}{around}")
    assert quoted == f"{around}***… and …***{around}"
