# SPDX-License-Identifier: Apache-2.0
"""Every code is explained, in the terminal and on its page, and what is advised exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from surefoot.cli.main import cli
from surefoot.core.codes import ADVICE, page
from surefoot.core.errors import Code

ROOT = Path(__file__).parents[2]


def test_every_code_has_an_entry() -> None:
    missing = [code for code in Code if code not in ADVICE]
    assert not missing, f"say in core/codes.py what they mean: {missing}"
    for code, advice in ADVICE.items():
        assert advice.means.endswith("."), code
        assert advice.causes and advice.mend, code


def test_the_page_of_codes_is_current() -> None:
    assert (ROOT / "docs" / "codes.md").read_text() == page(), "python -m surefoot.core.codes > docs/codes.md"


@pytest.mark.parametrize("code", [code for code in Code if ADVICE[code].runbook])
def test_runbooks_that_codes_name_exist(code: Code) -> None:
    assert (ROOT / "docs" / "runbooks" / f"{ADVICE[code].runbook}.md").is_file()


def test_explain_tells_meaning_causes_and_what_to_do() -> None:
    for spelling in ("SF-HOST-AUTH", "host-auth", "sf_host_auth"):
        done = CliRunner().invoke(cli, ["explain", spelling])
        assert done.exit_code == 0
        assert "SF-HOST-AUTH: The host does not let the agent in." in done.stdout
        assert "usual causes:" in done.stdout and "what to do:" in done.stdout
        assert "docs/runbooks/secret-rotation.md" in done.stdout


def test_explain_list_names_all_as_text_and_json() -> None:
    text = CliRunner().invoke(cli, ["explain", "--list"]).stdout
    found = json.loads(CliRunner().invoke(cli, ["explain", "--list", "--output", "json"]).stdout)
    assert [entry["code"] for entry in found["codes"]] == [str(code) for code in Code]
    assert all(str(code) in text for code in Code)


def test_a_code_that_does_not_exist_is_told_with_what_was_meant() -> None:
    done = CliRunner().invoke(cli, ["explain", "SF-HOST-AUHT"])
    assert done.exit_code == 7
    assert "error[SF-CODE-UNKNOWN]" in done.stderr
    assert "SF-HOST-AUTH" in done.stderr


def test_explain_without_a_code_is_a_usage_error() -> None:
    assert CliRunner().invoke(cli, ["explain"]).exit_code == 2
    assert CliRunner().invoke(cli, ["explain", "SF-LOCKED", "--list"]).exit_code == 2


def test_runbooks_hold_what_a_tired_person_looks_for() -> None:
    pages = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
    index = (ROOT / "docs" / "runbooks" / "index.md").read_text()
    for one in pages:
        if one.name == "index.md":
            continue
        assert f"({one.name})" in index, f"the quick reference does not name {one.name}"
        text = one.read_text()
        if one.stem in {advice.runbook for advice in ADVICE.values()}:
            for heading in ("## Find out", "## In an emergency", "## Whom to call"):
                assert heading in text, f"{one.name} has no {heading}"


def test_codes_that_runbooks_name_exist() -> None:
    known = {str(code) for code in Code}
    for one in (ROOT / "docs" / "runbooks").glob("*.md"):
        found = set(re.findall(r"SF-[A-Z]+(?:-[A-Z]+)*(?![A-Z…-])", one.read_text()))
        assert found <= known, f"{one.name}: {found - known}"
