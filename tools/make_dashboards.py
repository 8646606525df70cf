# SPDX-License-Identifier: Apache-2.0
"""Builds Grafana's dashboards: `python tools/make_dashboards.py` writes them, a test holds them equal to this.

Guarantees: each query stands in one table below, asks for metrics of the catalogue alone, and needs no recording rule,
so that a dashboard works wherever Prometheus scrapes an exporter; every panel takes its data source and its
environment or runner from the dashboard's variables. Every exporter serves the same deployment metrics: hence
`max by (…)`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from surefoot.monitoring.alerts import OBJECTIVE, PIPELINE_DASHBOARD, RUNNER_DASHBOARD
from surefoot.monitoring.catalogue import METRICS
from surefoot.monitoring.rendering import DASHBOARDS

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
UNIT_SHARE, UNIT_PERCENT, UNIT_SECONDS, UNIT_TIME = "percentunit", "percent", "s", "dateTimeFromNow"

R = 'runner=~"$runner"'
E = 'environment=~"$environment"'
FAILED = 'outcome=~"rolled_back|stranded"'
COUNTED = 'outcome=~"succeeded|rolled_back|stranded"'


def grown(series: str, by: str, window: str) -> str:
    """Return by how much counters have grown in a window, exactly: they never reset."""
    name = series.partition("{")[0]
    metric = METRICS[name.removesuffix("_bucket")]
    labels = ", ".join((*metric.labels, *(("le",) if metric.buckets else ())))
    each = f"max by ({labels}) ({series} - min_over_time({series}[{window}]))"
    return f"sum by ({by}) ({each})" if by else f"sum({each})"


def changes(results: str) -> str:
    """Return how many changes there were within the dashboard's time, as DORA counts them."""
    return grown(f'surefoot_changes_total{{{E},result=~"{results}"}}', "environment", "$__range")


def deployments(which: str, by: str, window: str) -> str:
    """Return how many deployments ended in a window."""
    return grown(f"surefoot_deployments_total{{{E},{which}}}", by, window)


def quantile(share: float, metric: str, labels: str, by: str = "environment") -> str:
    """Return a quantile of what was observed within the dashboard's time."""
    series = f"{metric}_bucket{{{labels}}}" if labels else f"{metric}_bucket"
    names = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, {grown(series, names, '$__range')})"


@dataclass(frozen=True)
class Query:
    """What is asked, and how its answers are called."""

    expr: str
    legend: str = "__auto"
    exemplars: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel; `steps` colour its values: (from, colour)."""

    kind: str
    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    steps: tuple[tuple[float | None, str], ...] = ((None, GREEN),)
    width: int = 6
    height: int = 6
    stacked: bool = False
    words: tuple[tuple[str, str, str], ...] = ()  #: what values are called: (value, word, colour)


STATUS = (("1", "up", GREEN), ("0", "down", RED))
HIGH = ((None, GREEN), (75.0, YELLOW), (90.0, RED))

RUNNER_ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    ("Now", (
        Panel("stat", "Status", "Up: the machine and the CI runner's own service.", (
            Query(f"max by (runner, role) (runner_status{{{R}}})", "{{runner}} ({{role}})"),), words=STATUS, width=8),
        Panel("stat", "Agents", "Whether Surefoot's agents could take a deployment.", (
            Query("max by (agent, role) (surefoot_agent_online)", "{{agent}} ({{role}})"),), words=STATUS, width=8),
        Panel("stat", "Heartbeat", "The last sign of life.", (
            Query(f"max by (runner) (runner_last_heartbeat_timestamp_seconds{{{R}}}) * 1000", "{{runner}}"),),
            unit=UNIT_TIME, width=8),
        Panel("table", "Who leads", "Which agent holds which environment's lease, now or last within the time shown.", (
            Query("max by (environment, agent) (last_over_time(surefoot_lease_holder_info[$__range]))"),), width=12),
        Panel("stat", "Takeovers", "Within the time shown.", (
            Query(grown("surefoot_takeovers_total", "environment", "$__range"), "{{environment}}"),),
            steps=((None, GREEN), (1.0, YELLOW), (4.0, RED)), width=6),
        Panel("stat", "Longest takeover", "From the last sign of life of who was lost; the bound of its bucket.", (
            Query(quantile(1, "surefoot_takeover_duration_seconds", "", ""), "takeover"),), unit=UNIT_SECONDS,
            steps=((None, GREEN), (5.0, YELLOW), (30.0, RED)), width=6),
    )),
    ("The machine", (
        Panel("timeseries", "CPU", "All cores together.", (
            Query(f"max by (runner) (runner_cpu_usage_percent{{{R}}})", "{{runner}}"),), UNIT_PERCENT, HIGH, 8, 8),
        Panel("timeseries", "Memory", "In use.", (
            Query(f"max by (runner) (runner_memory_usage_percent{{{R}}})", "{{runner}}"),), UNIT_PERCENT, HIGH, 8, 8),
        Panel("timeseries", "Disk", "Of the disk that is watched.", (
            Query(f"max by (runner) (runner_disk_usage_percent{{{R}}})", "{{runner}}"),), UNIT_PERCENT, HIGH, 8, 8),
    )),
    ("Over time", (
        Panel("timeseries", "Status", "1 up, 0 not.", (
            Query(f"max by (runner) (runner_status{{{R}}})", "{{runner}}"),), width=12, height=7),
        Panel("timeseries", "Age of the heartbeat", "Seconds since the last sign of life.", (
            Query(f"time() - max by (runner) (runner_last_heartbeat_timestamp_seconds{{{R}}})", "{{runner}}"),),
            UNIT_SECONDS, ((None, GREEN), (60.0, RED)), 12, 7),
        Panel("timeseries", "Age of leases", "A holder unheard of for longer than the ttl has lost it.", (
            Query("max by (environment) (surefoot_lease_age_seconds)", "{{environment}}"),
            Query("max(surefoot_lease_ttl_seconds)", "ttl")), UNIT_SECONDS, width=12, height=7),
        Panel("timeseries", "Clock", "Ahead of the store's clock.", (
            Query(f"max by (runner) (surefoot_clock_skew_seconds{{{R}}})", "{{runner}}"),), UNIT_SECONDS, width=12,
            height=7),
    )),
    ("What it can reach", (
        Panel("table", "Hosts", "1: the SSH port accepts connections.", (
            Query(f"min by (runner, environment, host) (surefoot_host_reachable{{{R}}})"),), width=8, height=8),
        Panel("bargauge", "Secrets expire in days", "Of those that do.", (
            Query(f"min by (runner, secret) (surefoot_secret_expires_in_days{{{R}}})", "{{secret}} on {{runner}}"),),
            steps=((None, RED), (2.0, YELLOW), (14.0, GREEN)), width=8, height=8),
        Panel("timeseries", "Store", "How long the simplest question takes.", (
            Query(f"max by (runner) (surefoot_store_round_trip_seconds{{{R}}})", "{{runner}}"),), UNIT_SECONDS, width=8,
            height=8),
        Panel("stat", "Secrets", "Present, and what they should be.", (
            Query(f"min by (runner, secret) (surefoot_secret_valid{{{R}}})", "{{secret}} on {{runner}}"),),
            words=(("1", "valid", GREEN), ("0", "invalid", RED)), width=12),
        Panel("stat", "Store", "Whether any exporter reaches it.", (Query("max(surefoot_store_up)", "store"),),
            words=STATUS, width=4),
        Panel("table", "Runners", "What they are.", (
            Query(f"max by (runner, role, hostname, os, kernel, version, service) (runner_info{{{R}}})"),), width=8),
    )),
)  # fmt: skip

SHARE = f"{deployments(FAILED, 'environment', '30d')} / {deployments(COUNTED, 'environment', '30d')}"
PIPELINE_ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    ("Service level, 30 days", (
        Panel("stat", "Success", f"Of those that count: refused and cancelled ones do not. {OBJECTIVE:.0%} is promised.", (
            Query(f"1 - {SHARE}", "{{environment}}"),), UNIT_SHARE,
            ((None, RED), (OBJECTIVE, YELLOW), (0.98, GREEN))),
        Panel("stat", "Budget left", "Of the failures that the objective allows; below 0 it is overdrawn.", (
            Query(f"1 - ({SHARE}) / {1 - OBJECTIVE:.2f}", "{{environment}}"),), UNIT_SHARE,
            ((None, RED), (0.0, YELLOW), (0.25, GREEN))),
        Panel("stat", "Stranded", "Environments that could not be put back.", (
            Query(f"max by (environment) (surefoot_environment_stranded{{{E}}})", "{{environment}}"),),
            words=(("0", "no", GREEN), ("1", "STRANDED", RED))),
        Panel("table", "Versions", "What each environment runs.", (
            Query(f"max by (environment, version) (surefoot_environment_version_info{{{E}}})"),)),
    )),
    ("Deployments", (
        Panel("timeseries", "Outcomes", "Deployments that ended in each interval.", (
            Query(deployments('outcome=~".+"', "outcome", "$__interval"), "{{outcome}}"),), width=12, height=8,
            stacked=True),
        Panel("timeseries", "Duration", "Median and 95th percentile within the time shown.", (
            Query(quantile(0.5, "surefoot_deployment_duration_seconds", f'{E},outcome="succeeded"'),
                "median {{environment}}", exemplars=True),
            Query(quantile(0.95, "surefoot_deployment_duration_seconds", f'{E},outcome="succeeded"'),
                "95 % {{environment}}")), UNIT_SECONDS, ((None, GREEN), (600.0, RED)), 12, 8),
        Panel("bargauge", "Duration by step", "Median within the time shown.", (
            Query(quantile(0.5, "surefoot_step_duration_seconds", E, "environment, step"), "{{environment}}: {{step}}"),),
            UNIT_SECONDS, width=8, height=8),
        Panel("bargauge", "Reasons of failure", "By code, within the time shown.", (
            Query(f"sort_desc({grown(f'surefoot_deployment_failures_total{{{E}}}', 'code', '$__range')} > 0)", "{{code}}"),),
            steps=((None, YELLOW),), width=8, height=8),
        Panel("timeseries", "At work and waiting", "One at a time in each environment; the rest queues.", (
            Query(f"max by (environment) (surefoot_deployment_in_progress{{{E}}})", "at work in {{environment}}"),
            Query(f"max by (environment) (surefoot_queue_depth{{{E}}})", "waiting for {{environment}}")), width=8, height=8),
        Panel("timeseries", "Health checks", "Rounds that passed and failed, within the time shown.", (
            Query(grown(f"surefoot_health_checks_total{{{E}}}", "result", "$__range"), "{{result}}"),), width=12, height=7),
        Panel("timeseries", "Takeovers", "Within the time shown.", (
            Query(grown(f"surefoot_takeovers_total{{{E}}}", "environment", "$__range"), "{{environment}}"),), width=12,
            height=7),
        Panel("table", "Last deployments", "The last one with each outcome, and when it ended.", (
            Query("max by (environment, outcome, version, deployment) "
                f"(surefoot_last_deployment_timestamp_seconds{{{E}}}) * 1000"),), UNIT_TIME, width=24, height=8),
    )),
    ("DORA, within the time shown", (
        Panel("stat", "Deployments a day", "That succeeded, without rollbacks.", (
            Query(f"{changes('succeeded')} / ($__range_s / 86400)", "{{environment}}"),)),
        Panel("stat", "Lead time", "From commit to the end of its deployment, median.", (
            Query(quantile(0.5, "surefoot_lead_time_seconds", E), "{{environment}}"),), UNIT_SECONDS),
        Panel("stat", "Change failure rate", "Put back, stranded or taken back, of all changes.", (
            Query(f"{changes('failed|taken_back')} / {changes('succeeded|failed')}", "{{environment}}"),), UNIT_SHARE, ((None, GREEN), (0.05, YELLOW), (0.15, RED))),
        Panel("stat", "Time to restore", "How long failures lasted, median.", (
            Query(quantile(0.5, "surefoot_restore_duration_seconds", E), "{{environment}}"),), UNIT_SECONDS),
    )),
)  # fmt: skip

#: Name, colour and outcomes of what is marked in all panels of the pipeline.
MARKS = (("Deploys", GREEN, "succeeded"), ("Rollbacks", RED, "rolled_back|stranded"))


def build(panel: Panel) -> Any:
    """Return a panel's builder."""
    kinds: dict[str, Any] = {
        "stat": stat.Panel,
        "timeseries": timeseries.Panel,
        "table": table.Panel,
        "bargauge": bargauge.Panel,
    }
    made = kinds[panel.kind]().title(panel.title).description(panel.description).datasource(SOURCE)
    made.unit(panel.unit).span(panel.width).height(panel.height)
    steps = [models.Threshold(value=value, color=colour) for value, colour in panel.steps]
    made.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.words:
        words = {value: models.ValueMappingResult(text=word, color=colour) for value, word, colour in panel.words}
        made.mappings([models.ValueMap(options=words)])
    now = panel.kind != "timeseries"
    for place, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + place))
        if panel.kind == "table":
            target.format(PromQueryFormat.TABLE)
        made.with_target((target.instant() if now else target.range()).exemplar(query.exemplars))
    if panel.kind == "timeseries":
        made.fill_opacity(10).show_points(common_models.VisibilityMode.AUTO)
        if panel.stacked:
            made.draw_style(common_models.GraphDrawStyle.BARS).fill_opacity(60)
            made.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if panel.kind == "table":
        hidden = {"excludeByName": {"Time": True}}
        made.with_transformation(models.DataTransformerConfig(id_val="organize", options=hidden))
    return made


def variable(name: str, metric: str) -> Any:
    """Return a variable with the values that a label has."""
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query({"query": f"label_values({metric}, {name})", "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .current(models.VariableOption(text="All", value="$__all", selected=True))
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def whole(
    uid: str, title: str, rows: Sequence[tuple[str, Sequence[Panel]]], variables: Sequence[Any], since: str
) -> Any:
    """Return a dashboard as data."""
    made = dashboard.Dashboard(title).uid(uid).tags(["surefoot"]).readonly().time(since, "now").refresh("30s")
    made.timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR)
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for one in variables:
        made.with_variable(one)
    for name, panels in rows:
        made.with_row(dashboard.Row(name))
        for panel in panels:
            made.with_panel(build(panel))
    other = {RUNNER_DASHBOARD: PIPELINE_DASHBOARD, PIPELINE_DASHBOARD: RUNNER_DASHBOARD}[uid]
    link = dashboard.DashboardLink("Deployments" if other == PIPELINE_DASHBOARD else "Runners")
    made.link(link.type(models.DashboardLinkType.LINK).url(f"/d/{other}").keep_time(True))
    return json.loads(JSONEncoder(sort_keys=True, indent=2).encode(made.build()))


def marks() -> list[dict[str, Any]]:
    """Return the annotations: Prometheus answers with when a deployment ended, which Grafana takes for their time."""
    return [
        {
            "name": name,
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "enable": True,
            "hide": False,
            "iconColor": colour,
            "expr": "max by (environment, outcome, version, deployment) "
            f'(surefoot_last_deployment_timestamp_seconds{{{E},outcome=~"{outcome}"}}) * 1000',
            "step": "60s",
            "useValueForTime": True,
            "titleFormat": "{{environment}}: {{version}} {{outcome}}",
            "textFormat": "{{deployment}}",
            "tagKeys": "environment,outcome",
        }
        for name, colour, outcome in MARKS
    ]


def dashboards() -> dict[str, str]:
    """Return each file's name and text."""
    runner = variable("runner", "runner_status")
    environment = variable("environment", "surefoot_deployment_in_progress")
    health = whole(RUNNER_DASHBOARD, "Surefoot: runner health", RUNNER_ROWS, [runner], "now-6h")
    pipeline = whole(PIPELINE_DASHBOARD, "Surefoot: deployment pipeline", PIPELINE_ROWS, [environment], "now-7d")
    health["annotations"], pipeline["annotations"] = {"list": []}, {"list": marks()}
    made = {"runner-health.json": health, "deployment-pipeline.json": pipeline}
    return {name: json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n" for name, data in made.items()}


def main(folder: Path = DASHBOARDS) -> int:
    """Write both."""
    for name, text in dashboards().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
