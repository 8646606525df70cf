# SPDX-License-Identifier: Apache-2.0
"""The redactor: forms as real programs print them, streams cut anywhere, and what it costs."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable

import pytest

from surefoot.agent.redact import MASK, Redactor

TOKEN = "ghp_aB3/x+9~Zq&<7$'\"\\!k w=="
KEY = """-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACDOqkR0iX5mVb2kzO0vD0WYIu2FYIv+H1kbYhNYlyxFdQAAAJgP2yXaD9sl
AAAEBH3r5u+0p4jv0k1zH
-----END OPENSSH PRIVATE KEY-----
"""
UMLAUTS = "pässwörd-日本-🦶"


def redact(text: str, *secrets: str) -> str:
    redactor = Redactor({f"S{number}": secret for number, secret in enumerate(secrets)})
    whole = redactor.feed(text.encode()) + redactor.flush()
    assert redactor.text(text).encode() == whole
    return whole.decode()


def in_pieces(text: bytes, size: int, *secrets: str) -> bytes:
    redactor = Redactor({f"S{number}": secret for number, secret in enumerate(secrets)})
    pieces = [redactor.feed(text[start : start + size]) for start in range(0, len(text), size)]
    return b"".join(pieces) + redactor.flush()


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "base64 without padding": lambda s: base64.b64encode(s.encode()).decode().rstrip("="),
    "hex": lambda s: s.encode().hex(),
    "HEX": lambda s: s.encode().hex().upper(),
    "in a URL": lambda s: urllib.parse.quote(s, safe=""),
    "in a URL's path": urllib.parse.quote,
    "in a query": urllib.parse.quote_plus,
    "in a URL, small letters": lambda s: (
        "".join(c if c.isalnum() and c.isascii() else "".join(f"%{b:02x}" for b in c.encode()) for c in s)
        .replace("%5f", "_")
        .replace("%7e", "~")
        .replace("%2d", "-")
    ),
    "JSON": json.dumps,
    "JSON in UTF-8": lambda s: json.dumps(s, ensure_ascii=False),
    "JSON in JSON": lambda s: json.dumps(json.dumps({"a": s})),
    "JSON by PHP": lambda s: json.dumps(s).replace("/", "\\/"),
    "JSON by Go": lambda s: json.dumps(s).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
    "repr": repr,
    "repr of bytes": lambda s: repr(s.encode()),
    "repr in JSON": lambda s: json.dumps(repr(s)),
    "quoted for a shell": shlex.quote,
    "in double quotes": lambda s: '"' + "".join("\\" + c if c in '"\\$`' else c for c in s) + '"',
    "XML": html.escape,
    "newlines spelled out": lambda s: s.replace("\n", "\\n"),
    "lines of Windows": lambda s: s.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", [TOKEN, KEY, UMLAUTS, "four", "plain-token-1234567890"])
def test_form_does_not_get_through(form: str, secret: str) -> None:
    printed = FORMS[form](secret)
    out = redact(f"before {printed} after", secret)
    assert "***" in out
    assert out.startswith("before ")
    assert out.endswith(" after")
    left = out.removeprefix("before ").removesuffix(" after").replace("***", "")
    # Quotes around it, line ends and a newline after it are all that may be left of it.
    assert set(left) <= set("'\"\\{}:ab nr=%0dD\n\rAx&#quot;"), left
    assert len(left) < 40


@pytest.mark.parametrize("before", ["", "u", "us", "user:", "a longer name:"])
@pytest.mark.parametrize("after", ["", "x", "xy", "xyz"])
@pytest.mark.parametrize("secret", ["four", "fives", "sixsix", TOKEN, "plain-token-1234567890"])
def test_value_inside_of_base64_does_not_get_through(before: str, after: str, secret: str) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode((before + secret + after).encode()).decode()
        out = redact(f"Authorization: Basic {encoded}\n", secret)
        left = out.removeprefix("Authorization: Basic ").strip().replace("***", "")
        assert out != f"Authorization: Basic {encoded}\n"
        # At each end a character tells up to four bits of the value; the rest is the neighbours'.
        assert len(left) <= (len(before) * 8 + 5) // 6 + (len(after) * 8 + 5) // 6 + 4


SHELLS = {
    "base64": 'printf %s "$SECRET" | base64',
    "base64 -w0": 'printf %s "$SECRET" | base64 -w0',
    "base64 with a newline": 'echo "$SECRET" | base64',
    "od": "printf %s \"$SECRET\" | od -An -v -tx1 | tr -d ' \\n'",
    "bash -x": "bash -xc ': \"$SECRET\"'",
    "sh -x": "sh -xc ': \"$SECRET\"'",
    "printf %q": "bash -c 'printf %q \"$SECRET\"'",
    "declare -p": "bash -c 'declare -p SECRET'",
    "env": "env | grep -A 20 ^SECRET=",
    "export -p": "sh -c 'export -p' | grep -A 20 'SECRET='",
}


@pytest.mark.parametrize("command", SHELLS)
@pytest.mark.parametrize("secret", [TOKEN, KEY.strip(), "plain-token-1234567890" * 5])
def test_what_real_programs_print_does_not_get_through(command: str, secret: str) -> None:
    if command == "printf %q" and "\n" in secret:
        return  # as $'…', which "newlines spelled out" covers
    done = subprocess.run(
        ["sh", "-c", SHELLS[command]],
        env={"PATH": os.environ["PATH"], "SECRET": secret},
        capture_output=True,
        check=True,
    )
    out = in_pieces(done.stdout + done.stderr, 7, secret)
    assert MASK in out
    programs = rb"declare -x |export |SECRET=|\b(OLD)?PWD=.*|\bPATH=.*|\b_=.*|\bSHLVL=.*|^\+ : "
    left = re.sub(rb"[^A-Za-z0-9]", b"", re.sub(programs, b"", out, flags=re.MULTILINE))
    assert len(left) <= 2, out


def test_each_line_of_a_key_is_a_secret() -> None:
    lines = KEY.strip().splitlines()
    out = redact("\n".join(f"2026-01-01 host | {line}" for line in reversed(lines)), KEY)
    assert out == "\n".join(["2026-01-01 host | ***"] * len(lines))


def test_key_of_which_the_newlines_became_spaces_does_not_get_through() -> None:
    assert redact(" ".join(KEY.split("\n")), KEY).replace("***", "").strip() == ""


def test_longer_secret_that_begins_like_a_shorter_one_is_masked_whole() -> None:
    assert redact("x abcdefgh y", "abcd", "abcdefgh") == "x *** y"
    assert in_pieces(b"x abcdefgh y", 1, "abcd", "abcdefgh") == b"x *** y"
    assert in_pieces(b"x abcd y abcdef", 1, "abcd", "abcdefgh") == b"x *** y ***ef"


def test_secrets_that_overlap_are_masked_together() -> None:
    for size in (1, 2, 3, 100):
        assert in_pieces(b"x 12345678 y", size, "123456", "345678") == b"x *** y"


def test_secret_at_the_very_end_is_masked() -> None:
    for size in range(1, 12):
        assert in_pieces(b"the end: abcdef", size, "abcdef", "abcdefgh") == b"the end: ***"


def test_beginning_of_a_secret_that_does_not_go_on_is_let_out() -> None:
    redactor = Redactor({"S": "abcdefgh"})
    assert redactor.feed(b"x abcd") == b"x "
    assert redactor.feed(b"efg") == b""
    assert redactor.feed(b"x abc") == b"abcdefgx "
    assert redactor.flush() == b"abc"
    assert redactor.flush() == b""


def test_stream_of_nothing_but_beginnings_is_not_held_for_ever() -> None:
    redactor = Redactor({"S": "aaaa"})
    for _ in range(100):
        redactor.feed(b"a" * 1000)
        assert len(redactor._held) <= redactor._known.longest - 1
    assert redactor.feed(b"b") + redactor.flush() == b"b"


def test_what_is_not_utf8_comes_through(tmp_path: object) -> None:
    noise = bytes(range(256)) * 3
    assert in_pieces(noise, 5, TOKEN) == noise


def test_secret_that_is_not_utf8_is_masked() -> None:
    value = os.fsdecode(b"pass\xff\xfeword")
    redactor = Redactor({"S": value})
    assert redactor.feed(b"x pass\xff\xfeword y") + redactor.flush() == b"x *** y"
    assert redactor.text(f"x {value} y") == "x *** y"


def test_text_with_half_a_pair_is_no_error() -> None:
    assert Redactor({"S": TOKEN}).text(f"\ud83d {TOKEN}") == "\ud83d ***"


@pytest.mark.parametrize("value", ["", "a", "abc", " ab ", "\n\n"])
def test_value_that_is_too_short_is_left_alone_and_named(value: str) -> None:
    redactor = Redactor({"SHORT": value, "LONG": TOKEN})
    assert redactor.feed(b"a abc  ab ") + redactor.flush() == b"a abc  ab "
    assert redactor.unprotected == (("SHORT",) if value.strip() else ())


def test_short_lines_and_rulers_of_a_long_secret_do_not_blacken_the_rest() -> None:
    value = '{\n  "id": "abc",\n-----\n}\n'
    assert redact("{ } ----- x", value) == "{ } ----- x"
    assert '"id"' not in redact('  "id": "abc",', value)


def test_without_secrets_nothing_is_held_back() -> None:
    redactor = Redactor({})
    assert redactor.feed(b"abc") == b"abc"
    assert redactor.flush() == b""
    assert redactor.text("abc") == "abc"


def test_no_secret_in_a_repr() -> None:
    redactor = Redactor({"S": TOKEN})
    redactor.feed(TOKEN[:10].encode())
    assert TOKEN[:4] not in repr(redactor)


def test_it_keeps_up_with_a_step_that_prints_a_lot() -> None:
    """It does ten times as well on a slow machine; to look for each form in turn would be far below."""
    redactor = Redactor({"KEY": KEY, "TOKEN": TOKEN, "SHORT": "hunter2!"})
    line = b"TASK [restart the service] changed: [web-01] => 2026-01-01T10:00:00 started in 12.3 seconds\n"
    data = line * (30_000_000 // len(line))
    start = time.process_time()
    size = sum(len(redactor.feed(data[place : place + 65536])) for place in range(0, len(data), 65536))
    assert size + len(redactor.flush()) == len(data)
    assert time.process_time() - start < 6.0


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_ansible_s_way_to_show_a_variable_does_not_let_it_through() -> None:
    shown = json.dumps({"msg": f"key={KEY}", "nested": json.dumps({"k": KEY})}, indent=4)
    assert "BlbnNza" not in redact(shown, KEY)
    yaml_like = subprocess.run(
        [sys.executable, "-c", "import sys, yaml; print(yaml.safe_dump({'k': sys.argv[1]}))", KEY],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert "BlbnNza" not in redact(yaml_like, KEY)
