# SPDX-License-Identifier: Apache-2.0
"""The dashboards that are shipped are what their code makes, and nothing in them belongs to one site."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard

from surefoot.monitoring.alerts import alerts
from surefoot.monitoring.catalogue import METRICS
from surefoot.monitoring.reference import reference
from surefoot.monitoring.rendering import DASHBOARDS

ROOT = Path(__file__).parents[2]
FILES = sorted(DASHBOARDS.glob("*.json"))


def made() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("make_dashboards", ROOT / "tools" / "make_dashboards.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found: dict[str, str] = module.dashboards()
    return found


def test_they_are_what_their_code_makes() -> None:
    assert {path.name: path.read_text() for path in FILES} == made(), "run: python tools/make_dashboards.py"
    assert [path.name for path in FILES] == ["deployment-pipeline.json", "runner-health.json"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_grafanas_own_types_read_them(path: Path) -> None:
    data = json.loads(path.read_text())
    read = Dashboard.from_json(data)
    assert read.uid == data["uid"] and read.panels is not None
    assert len(read.panels) == len(data["panels"])


def panels(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in data["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_data_comes_from_the_dashboards_variables_alone(path: Path) -> None:
    data = json.loads(path.read_text())
    text = path.read_text()
    assert not re.search(r"https?://|localhost|\d+\.\d+\.\d+\.\d+|:9090|:9100", text)
    assert {panel["datasource"]["uid"] for panel in panels(data)} == {"${datasource}"}
    assert {one["name"] for one in data["templating"]["list"]} >= {"datasource"}
    assert data.get("id") is None
    for panel in panels(data):
        assert panel["title"] and panel["description"]
        for target in panel["targets"]:
            for name in re.findall(r"\b(?:surefoot|runner)_[a-z_]+(?=[{\[)]| )", target["expr"]):
                base = re.sub(r"_(bucket|sum|count)$", "", name)
                assert name in METRICS or base in METRICS or name == "runner_status", name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_do_not_cover_each_other(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(path.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_page_on_monitoring_is_what_the_code_says() -> None:
    again = "run: python -m surefoot.monitoring.reference > docs/monitoring.md"
    assert (ROOT / "docs" / "monitoring.md").read_text() == reference(), again


def test_every_alert_has_its_runbook() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert {alert.runbook for alert in alerts()} - pages == set()


def test_every_metric_has_a_sentence() -> None:
    for metric in METRICS.values():
        assert metric.help.endswith("."), metric.name
