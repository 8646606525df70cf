# SPDX-License-Identifier: Apache-2.0
"""Whatever a config holds, reading it ends in a config or a ConfigError; durations come back; secrets stay out."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.checks.registry import KINDS
from surefoot.config.durations import DurationError, format_duration, parse_duration
from surefoot.config.expansion import expand, fill_secrets
from surefoot.config.freeze import freeze
from surefoot.config.loading import load, peek
from surefoot.config.problems import ConfigProblems
from surefoot.config.versions import validate_version
from surefoot.core.errors import ConfigError, UsageError
from surefoot.core.plan import Plan

CONFIG = """\
project: p
agents: {a: {role: primary}}
lease: {ttl: 5s}
secrets: [TOKEN]
environments:
  production: &e
    inventory: 'web1,'
    steps:
      - {name: one, run: 'true', undo: {run: 'false'}, retry: {attempts: 1, delay: 1s}}
    health: [{http: {url: "http://{host}/${TOKEN}", status: 200}}]
    health_policy: {within: 5s, interval: 1s}
    on_cancel: finish
  staging: {<<: *e, promote_from: production}
"""
STRUCTURE = [": ", "- ", "\n", "  ", "{", "}", "[", "]", "&a ", "*a", "<<", "|", ">", "'", '"', "#", "?", "---\n", ":"]
WORDS_IN_IT = ["project", "environments", "e", "steps", "name", "run", "no", "1", "5s", "${A}", "${", "2001-01-01", "é"]
ODDITIES = [
    "!!python/name:os",
    "!t ",
    "~",
    ".inf",
    "%YAML 9\n",
    "\t",
    "\0",
    "\x85",
    "\ufeff",
    "0x",
    "1_0",
    "0b",
    ",",
    "=",
]
PIECES = st.sampled_from([*STRUCTURE, *WORDS_IN_IT, *ODDITIES])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["5s", "${A}", "production", "rollback", "playbook.yml", "{host}", "/x"])
)
KNOWN = re.findall(
    r"\S+",
    """project agents role lease ttl secrets store environments inventory steps name run playbook undo retry attempts
    preflight health http url status health_policy within interval version_probe approvals from promote_from fence
    path x-y""",
)
KEYS = st.sampled_from(KNOWN) | st.text(max_size=4)
TREES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=5))
)


def read(data: bytes) -> None:
    """Read it in each way; nothing but a ConfigError may come of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "surefoot.yml"
        path.write_bytes(data)
        try:
            peek(path, environ={"A": "1"})
        except ConfigError as error:
            assert error.message.encode()
        try:
            config = load(path, kinds=KINDS, environ={"A": "1"})
        except ConfigProblems as error:
            assert error.problems
            assert error.message.encode()
            assert all("\n" not in str(problem) for problem in error.problems)
            return
        for name in config.environments:
            plan = freeze(config, name)
            assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_config_or_a_config_error(data: bytes) -> None:
    read(data)


@settings(deadline=None, max_examples=300)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_anything_like_yaml_is_a_config_or_a_config_error(text: str) -> None:
    read(text.encode())


@settings(deadline=None, max_examples=200)
@given(TREES)
def test_any_tree_is_a_config_or_a_config_error(tree: Any) -> None:
    read(yaml.safe_dump(tree, allow_unicode=False).encode())


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(CONFIG)), st.integers(0, 12), st.lists(PIECES, max_size=3).map("".join))
def test_any_slip_in_a_good_config_is_a_config_or_a_config_error(place: int, length: int, inserted: str) -> None:
    read((CONFIG[:place] + inserted + CONFIG[place + length :]).encode())


@settings(deadline=None, max_examples=150)
@given(TREES, st.sampled_from(["agents", "lease", "secrets", "store", "environments"]))
def test_any_value_of_a_section_is_a_config_or_a_config_error(tree: Any, key: str) -> None:
    read(yaml.safe_dump({**yaml.safe_load(CONFIG), key: tree}).encode())


@settings(deadline=None, max_examples=200)
@given(TREES, st.sampled_from(["inventory", "steps", "retry", "health", "health_policy", "version_probe", "approvals"]))
def test_any_value_in_an_environment_is_a_config_or_a_config_error(tree: Any, key: str) -> None:
    good = yaml.safe_load(CONFIG)
    good["environments"]["production"][key] = tree
    read(yaml.safe_dump(good).encode())


@given(st.integers(0, 366 * 24 * 3600 * 1000))
def test_a_duration_comes_back_to_the_millisecond(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.text(max_size=20) | st.from_regex(r"[0-9.]{1,14}[hms]{1,2}", fullmatch=True))
def test_any_text_is_a_duration_or_a_duration_error(text: str) -> None:
    try:
        assert 0 <= parse_duration(text) <= 366 * 24 * 3600
    except DurationError as error:
        assert error.hint


@given(st.text())
def test_any_text_is_an_inert_version_or_refused(text: str) -> None:
    try:
        assert re.fullmatch(r"[A-Za-z0-9][\w.+/@:=~-]*", validate_version(text), re.ASCII)
    except UsageError as error:
        assert error.hint
        assert error.message.encode()


WORDS = st.lists(
    st.sampled_from(["${A}", "${B}", "${TOKEN}", "$${TOKEN}", "$${A}", "$", "{", "}", "x", "TOKEN", "${DOLLAR}"]),
    max_size=8,
).map("".join)


@given(WORDS, st.dictionaries(st.sampled_from(["A", "B"]), WORDS), st.text(alphabet="¤§", min_size=3))
def test_expansion_never_yields_a_secret(text: str, environ: dict[str, str], secret: str) -> None:
    environ = {**environ, "TOKEN": secret, "DOLLAR": "$"}
    assert secret not in expand(text, environ, ("TOKEN",), lambda *_: None)


@given(WORDS, st.dictionaries(st.sampled_from(["A", "B"]), WORDS))
def test_only_references_in_the_config_itself_are_filled_with_a_secret(text: str, environ: dict[str, str]) -> None:
    result = fill_secrets(expand(text, {**environ, "DOLLAR": "$"}, ("TOKEN",), lambda *_: None), {"TOKEN": "§"})
    written = [escaped for escaped in re.findall(r"\$(\$?)\{TOKEN\}", text) if not escaped]
    assert result.count("§") <= len(written)
