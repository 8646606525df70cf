# SPDX-License-Identifier: Apache-2.0
"""Durations, versions and variables: what they mean, and what is told about those that mean nothing."""

from __future__ import annotations

import pytest

from surefoot.config.durations import DurationError, format_duration, parse_duration
from surefoot.config.expansion import expand, fill_secrets
from surefoot.config.versions import validate_version
from surefoot.core.errors import Code, Exit, UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("5s", 5),
        ("10m", 600),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1m30s500ms", 90.5),
        ("1.5s", 1.5),
        ("0s", 0),
        ("8784h", 8784 * 3600),
    ],
)
def test_a_duration_is_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (5, "write 5s"),
        (0.5, "write 0.5s"),
        ("5", "write 5s"),
        ("", "a number and a unit"),
        ("s", "a number and a unit"),
        ("5 s", "write 5s"),
        ("5S", "write 5s"),
        ("5sec", "write 5s"),
        ("5 minutes", "write 5m"),
        ("2 days", "write 2d"),
        ("-5s", "never negative"),
        ("30m1h", "a number and a unit"),
        ("5s5s", "a number and a unit"),
        ("5s\n", "write 5s"),
        ("\u0665s", "a number and a unit"),
        ("1e3s", "a number and a unit"),
        ("999999999999h", "shorter"),
        ("9" * 10_000 + "s", "a number and a unit"),
        (None, "a number and a unit"),
        (True, "a number and a unit"),
        ([], "a number and a unit"),
    ],
)
def test_what_is_no_duration_is_refused_with_what_to_write(text: object, hint: str) -> None:
    with pytest.raises(DurationError) as caught:
        parse_duration(text)
    assert hint in caught.value.hint
    assert len(str(caught.value)) < 100


def test_a_duration_is_written_with_its_largest_units() -> None:
    assert [format_duration(s) for s in (0, 0.5, 1.5, 60, 5400, 86400)] == [
        "0s",
        "500ms",
        "1s500ms",
        "1m",
        "1h30m",
        "1d",
    ]
    with pytest.raises(ValueError, match="negative"):
        format_duration(-1)


@pytest.mark.parametrize(
    "version",
    [
        "1",
        "1.4.2",
        "v2.0.0-rc.1+build.5",
        "release/1.2",
        "sha256:0a1b",
        "app@sha256:0a1b",
        "1.0~beta1",
        "a=b",
        "x" * 128,
    ],
)
def test_tags_refs_and_digests_are_versions(version: str) -> None:
    assert validate_version(version) == version


@pytest.mark.parametrize(
    ("version", "named"),
    [
        ("", "empty"),
        (" ", "empty"),
        ("\n", "empty"),
        ("1.0\n", "a line break"),
        ("1 0", "a space"),
        ("1\t0", "U+0009"),
        ("1\x000", "U+0000"),
        ("1\x7f", "U+007F"),
        ("-rf", "begins with '-'"),
        (".hidden", "begins with '.'"),
        ("/etc", "begins with '/'"),
        ("../1.0", "begins with '.'"),
        ("a/../b", "out of a folder"),
        ("a..b", "out of a folder"),
        ("a//b", "out of a folder"),
        ("a/./b", "out of a folder"),
        ("a/", "out of a folder"),
        ("v" * 129, "129 characters"),
        ("v" * 10_240, "10240 characters"),
        ("1'0", '"\'"'),
        ('1"0', "'\"'"),
        ("$(reboot)", "'$'"),
        ("1`id`", "'`'"),
        ("1\\0", "'\\\\'"),
        *((f"1{c}0", repr(c)) for c in ";|&<>*?!#%{}()[]^,"),
        ("1.0é", "U+00E9"),
        ("\uff11.0", "U+FF11"),
        ("1\u202e0", "RIGHT-TO-LEFT OVERRIDE".lower()),
        ("1\u00a00", "no-break space"),
        ("\ud800", "U+D800"),
    ],
)
def test_what_is_no_version_is_refused_and_the_reason_is_named(version: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        validate_version(version)
    assert caught.value.code is Code.VERSION_INVALID
    assert caught.value.exit_code is Exit.USAGE
    assert named in caught.value.message
    assert caught.value.hint
    assert len(caught.value.message) < 300
    caught.value.message.encode("utf-8")


def told(text: str, environ: dict[str, str], secrets: tuple[str, ...] = ()) -> list[str]:
    problems: list[str] = []
    expand(text, environ, secrets, lambda message, hint: problems.append(f"{message} | {hint}"))
    return problems


def expanded(text: str, environ: dict[str, str], secrets: tuple[str, ...] = ()) -> str:
    def fail(message: str, hint: str) -> None:
        raise AssertionError(message)

    return expand(text, environ, secrets, fail)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("", ""),
        ("plain $A {A} $", "plain $A {A} $"),
        ("${A}", "1"),
        ("${A}${B}", "1${A}"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$${not closed", "${not closed"),
        ("${EMPTY}", ""),
    ],
)
def test_a_variable_is_replaced_once(text: str, result: str) -> None:
    assert expanded(text, {"A": "1", "B": "${A}", "EMPTY": ""}) == result


@pytest.mark.parametrize("text", ["${}", "${a b}", "${A:-x}", "${1A}", "${A", "${A{B}}", "${"])
def test_what_looks_like_a_variable_and_is_none_is_told(text: str) -> None:
    (problem,) = told(text, {"A": "1"})
    assert "is not a variable" in problem
    assert "$${" in problem


def test_an_undefined_variable_is_named() -> None:
    (problem,) = told("a ${NOWHERE} b", {})
    assert "${NOWHERE} is not set" in problem
    assert "set NOWHERE" in problem


def test_a_variable_can_not_smuggle_a_secret_in() -> None:
    environ = {"BRANCH": "${TOKEN}", "DOLLAR": "$", "TOKEN": "s3cr3t"}
    for text in ("${BRANCH}", "${DOLLAR}{TOKEN}", "x${BRANCH}y", "$${TOKEN}"):
        once = expanded(text, environ, ("TOKEN",))
        assert "s3cr3t" not in fill_secrets(once, {"TOKEN": "s3cr3t"})
        assert "${TOKEN}" in fill_secrets(once, {"TOKEN": "s3cr3t"})


def test_a_secret_is_filled_in_at_use_and_is_not_looked_at_again() -> None:
    once = expanded("https://${USER}:${TOKEN}@x/$${TOKEN}", {"USER": "me"}, ("TOKEN", "OTHER"))
    assert fill_secrets(once, {"TOKEN": "${OTHER}", "OTHER": "no"}) == "https://me:${OTHER}@x/${TOKEN}"
    assert fill_secrets(once, {}) == once
