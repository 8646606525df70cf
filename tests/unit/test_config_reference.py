# SPDX-License-Identifier: Apache-2.0
"""The reference page and the JSON Schema say what the code says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from surefoot.checks.registry import KINDS
from surefoot.config import reference
from surefoot.config.models import Config

ROOT = Path(__file__).parents[2]
RENEW = "run: python -m surefoot.config.reference --kinds surefoot.checks.registry:KINDS"


def test_the_reference_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == reference.reference(KINDS), RENEW


def test_the_schema_is_up_to_date() -> None:
    assert reference.SCHEMA_FILE.read_text() == reference.schema_text(KINDS), RENEW


def test_every_key_has_a_row_with_a_meaning() -> None:
    page = reference.reference(KINDS)
    for row in re.findall(r"^\| `.*", page.partition("## Errors")[0], re.MULTILINE):
        assert row.rstrip("| ").count(" | ") >= 3, row
    for key in Config.model_fields:
        assert f"| `{key}` |" in page


def test_every_reference_in_the_schema_leads_somewhere() -> None:
    schema = reference.json_schema(KINDS)
    for target in set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(schema))):
        assert target in schema["$defs"]
    assert schema["additionalProperties"] is False
    assert set(schema["$defs"]["Check"]["properties"]) == {*KINDS, "name"}


def test_the_command_that_renews_them_works(tmp_path: Path) -> None:
    before = reference.SCHEMA_FILE.read_bytes()
    arguments = ["--docs", str(tmp_path / "page.md"), "--schema", str(tmp_path / "schema.json")]
    kinds = ["--kinds", "surefoot.checks.registry:KINDS"]
    subprocess.run([sys.executable, "-m", "surefoot.config.reference", *kinds, *arguments], check=True, timeout=60)
    assert (tmp_path / "page.md").read_text() == reference.reference(KINDS)
    assert (tmp_path / "schema.json").read_text() == reference.schema_text(KINDS)
    assert reference.SCHEMA_FILE.read_bytes() == before
