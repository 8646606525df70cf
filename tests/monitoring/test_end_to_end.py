# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus scrapes real exporters, a real Alertmanager delivers: durations are scaled to a hundredth."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from surefoot.checks.model import CheckStatus
from surefoot.core import events as ev
from surefoot.core.errors import Code, Failure
from surefoot.core.lease import Role
from surefoot.core.plan import Direction
from surefoot.core.status import Status
from surefoot.monitoring import rendering
from surefoot.monitoring.alerts import Named, Scale
from surefoot.monitoring.rendering import DASHBOARDS, Options
from surefoot.store import open_store
from surefoot.store.protocol import AgentReport, Store
from tests.monitoring.servers import Page, Webhook, alertmanager
from tests.monitoring.support import Exporter, exporter, until
from tests.store import journal as j
from tests.support.looking import context, look
from tests.support.prometheus import Prometheus, prometheus

CONFIG = """\
project: p
agents: {r1: {role: primary}, r2: {role: secondary}}
environments:
  prod: {steps: [{name: only, run: "true"}]}
  stage: {steps: [{name: only, run: "true"}]}
"""
IN_NEED = """\
runner_cpu_usage_percent{runner="r3",role="secondary"} 97
runner_memory_usage_percent{runner="r3",role="secondary"} 97
"""


@dataclass
class Scene:
    folder: Path
    store: Store
    prometheus: Prometheus
    hook: Webhook
    second: Exporter
    listener: subprocess.Popen[bytes]


def a_listener(marker: str) -> subprocess.Popen[bytes]:
    """A process that stands for the CI runner's own service."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)", marker])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scene")
    (folder / "surefoot.yml").write_text(CONFIG)
    store = open_store(str(folder / ".surefoot" / "surefoot.db"))
    j.deployed(store, "1.0")
    hook, page = Webhook(), Page(IN_NEED)
    options = Options(
        (Named("r1", "primary"), Named("r2", "secondary")),
        Scale(0.01),
        team=f"{hook.url}/team",
        pager=f"{hook.url}/page",
    )
    rendering.write(options, folder / "out")
    marker = f"listener-{uuid.uuid4()}"
    with contextlib.ExitStack() as stack:
        stack.callback(hook.close)
        stack.callback(page.close)
        stack.callback(store.close)
        listener = a_listener(marker)
        stack.callback(lambda: (listener.kill(), listener.wait()))
        watched = ("--process", marker, "--host", "web-1=127.0.0.1:1", "--secret", "TOKEN")
        token = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDB9.c2ln"
        first = stack.enter_context(exporter(folder, "--runner", "r1", *watched, TOKEN=token))
        second = stack.enter_context(exporter(folder, "--runner", "r2"))
        am = stack.enter_context(alertmanager(folder, folder / "out" / "alertmanager" / "alertmanager.yml"))
        targets = [re.sub(r"https?://|/metrics", "", one.url) for one in (first, second)]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["out/prometheus/surefoot.rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [am]}]}]},
            "scrape_configs": [
                {"job_name": "surefoot", "static_configs": [{"targets": targets}]},
                {"job_name": "in-need", "static_configs": [{"targets": [page.address]}]},
            ],
        }
        found = stack.enter_context(prometheus(folder, config))
        until(lambda: found.targets().count("up") == 3, "all targets are scraped")
        until(lambda: found.query('surefoot_deployments_total{outcome="succeeded"} == 1'), "deployments are known")
        yield Scene(folder, store, found, hook, second, listener)


def a_story(store: Store) -> None:
    """What a fair of everything leaves behind: a takeover in the midst of a step, a failure, an undo, a success."""
    failure = Failure(Code.HEALTH_FAILED, "not healthy")
    id_ = j.submit(store, "2.0")
    first = j.claim(store, id_, "r1")
    j.append(store, id_, first, ev.StepStarted("only", Direction.FORWARD, 1))
    taken = j.a_claim(store, id_, "r2")
    granted = ev.LeaseGranted("r2", first.token + 1, ("chosen",), "1.0", "r1", 3.2)
    grant = store.claim(type(taken)(**{**_fields(taken), "append": _with_events(taken.append, granted)}))
    assert grant is not None
    j.append(store, id_, grant, ev.StepStarted("only", Direction.FORWARD, 2))
    j.append(store, id_, grant, ev.StepSucceeded("only", Direction.FORWARD, 2))
    j.append(store, id_, grant, ev.HealthFailed(Direction.FORWARD, failure), ev.UndoStarted(failure))
    j.append(store, id_, grant, ev.HealthPassed(Direction.UNDO), ev.Finished(Status.ROLLED_BACK, failure), release=True)
    j.deployed(store, "3.0")
    running = j.submit(store, "4.0")
    j.claim(store, running, "r1")
    j.submit(store, "5.0")
    for name, role in (("r1", Role.PRIMARY), ("r2", Role.SECONDARY)):
        store.report(AgentReport(name, role, f"{name}-1"))


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _with_events(append: Any, *events: ev.Event) -> Any:
    return type(append)(**{**_fields(append), "events": events})


def queries() -> list[tuple[str, str]]:
    """Every query of every dashboard: of panels, annotations and variables."""
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        data = json.loads(path.read_text())
        for panel in data["panels"]:
            found += [(f"{path.stem}: {panel['title']}", one["expr"]) for one in panel.get("targets", ())]
        found += [(f"{path.stem}: {one['name']}", one["expr"]) for one in data["annotations"]["list"]]
    return found


def test_every_query_of_the_dashboards_returns_data(scene: Scene) -> None:
    a_story(scene.store)
    end = (
        'surefoot_environment_version_info{version="3.0"} and on (environment) surefoot_queue_depth == 1 '
        "and on (environment) surefoot_deployment_in_progress == 1"
    )
    until(lambda: scene.prometheus.query(end), "the story's end is known")
    until(lambda: scene.prometheus.query("surefoot_agent_online"), "agents are known")
    until(lambda: scene.prometheus.query("surefoot_host_reachable"), "hosts were looked at")
    asked = queries()
    assert len(asked) > 30
    given = {
        "$__range_s": "3600", "$__range": "1h", "$__interval": "1h", "$runner": ".*", "$environment": ".*",
    }  # fmt: skip
    empty = []
    for where, expr in asked:
        filled = expr
        for name, value in given.items():
            filled = filled.replace(name, value)
        assert "$" not in filled, expr
        values = [one["value"][1] for one in scene.prometheus.query(filled)]
        if not values or all(value == "NaN" for value in values):
            empty.append(f"{where}: {filled}")
    assert empty == []


async def test_the_runner_gate_reads_the_same_prometheus(scene: Scene) -> None:
    gate = {"url": scene.prometheus.url, "query": 'runner_status{runner="{agent}"}', "equals": 1}
    assert (await look("prometheus", context(agent="r1"), **gate)).status is CheckStatus.PASS
    assert (await look("prometheus", context(agent="r9"), **gate)).status is CheckStatus.FAIL


def test_the_seven_alerts_and_the_page_reach_who_must_know(scene: Scene) -> None:
    hook, store = scene.hook, scene.store

    def arrives(path: str, name: str, status: str = "firing") -> dict[str, Any]:
        alert = until(lambda: hook.alerts(path, name, status), f"{name} is {status} at {path}", 90)[0]
        told = alert["annotations"]
        assert told["runbook_url"].startswith("docs/runbooks/") and told["dashboard_url"].startswith("/d/surefoot-")
        assert "<" not in told["summary"] + told["description"], told
        return alert

    # The machine of r3 is in need; the failures of a bad hour come one after the other, and a deployment takes long.
    for name in ("RunnerDegradedHighCPU", "RunnerDegradedHighMemory"):
        arrives("/team", name)  # of r1 and r2 too, where this machine is busy
        until(lambda: "r3" in {one["labels"]["runner"] for one in hook.alerts("/team", name)}, f"{name} of r3")  # noqa: B023
    for _ in range(4):
        j.deployed(store, "6.0", "stage", Status.ROLLED_BACK)
    assert arrives("/team", "DeploymentFailureRateHigh")["labels"]["environment"] == "stage"
    late = j.submit(store, "9.0", "late")
    j.claim(store, late)
    assert arrives("/team", "DeploymentDurationHigh")["labels"]["severity"] == "warning"
    # The host of r1 is up, its CI runner's service is gone.
    scene.listener.kill()
    scene.listener.wait()
    assert (
        arrives("/team", "RunnerOfflinePrimary")["labels"] | {"runner": "r1", "severity": "critical"}
        == (hook.alerts("/team", "RunnerOfflinePrimary")[0]["labels"])
    )
    assert not hook.alerts("/page", "BothRunnersOffline")
    # The other one is powered off: now it pages, and the single ones are muted.
    scene.second.process.kill()
    scene.second.process.wait()
    assert arrives("/page", "BothRunnersOffline")["labels"]["page"] == "true"
    assert scene.prometheus.query('ALERTS{alertname="RunnerOfflineSecondary"}')
    assert not hook.alerts("/page", "RunnerOfflinePrimary")
    # The secondary's own alert comes when the primary is back and it is not.
    again = a_listener(str(scene.listener.args[3]))  # type: ignore[index]
    try:
        arrives("/page", "BothRunnersOffline", "resolved")
        arrives("/team", "RunnerOfflineSecondary")
    finally:
        again.kill()
        again.wait()
