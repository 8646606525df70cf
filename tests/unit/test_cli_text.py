# SPDX-License-Identifier: Apache-2.0
"""Text for people: nothing that users or hosts say reaches a terminal as anything but text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.cli.text import ago, clean, clean_lines, did_you_mean, duration, table


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b[2Jgone", "gone"),
        ("tab\tstays", "tab\tstays"),
        ("a\rb", "a\ufffdb"),
        ("bell\x07", "bell\ufffd"),
        ("evil\u202etxt", "evil\ufffdtxt"),
        ("half \ud800", "half \ufffd"),
        ("grün 漢字 🙂", "grün 漢字 🙂"),
        ("line\n", "line"),
    ],
)
def test_clean_keeps_text_and_takes_out_what_moves_the_cursor(given_text: str, shown: str) -> None:
    assert clean(given_text) == shown


@given(st.text())
def test_whatever_is_cleaned_has_no_control_characters_and_can_be_encoded(text: str) -> None:
    shown = clean(text)
    assert not any((ord(c) < 32 and c != "\t") or 127 <= ord(c) < 160 for c in shown)
    shown.encode()
    assert clean(shown) == shown


def test_clean_lines_keeps_the_lines_apart() -> None:
    assert clean_lines("a\r\nb\n\x1b[1mc") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("passed", "said"),
    [(-5, "just now"), (0, "just now"), (4.9, "just now"), (7, "7 s ago"), (125, "2 min ago"), (7300, "2 h ago")],
)
def test_times_are_said_as_people_say_them(passed: float, said: str) -> None:
    assert ago(1000.0, 1000.0 + passed) == said


def test_a_time_that_never_was_is_a_dash() -> None:
    assert ago(None, 1000.0) == "-"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0.0 s"),
        (0.42, "0.4 s"),
        (12.4, "12 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (3900, "1 h 5 min"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_table_is_aligned_and_has_no_trailing_spaces() -> None:
    assert table(("A", "LONG"), [("wide cell", "x")]) == ["A          LONG", "wide cell  x"]


def test_did_you_mean_names_near_words_only() -> None:
    assert did_you_mean("depoy", ["deploy", "logs"]) == "did you mean deploy?"
    assert did_you_mean("zzz", ["deploy", "logs"]) == ""
