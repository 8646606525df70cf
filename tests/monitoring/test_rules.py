# SPDX-License-Identifier: Apache-2.0
"""Each alert fires at its second and not just below it, resolves, and survives what is missing: told by promtool.

All cases run in one call of `promtool test rules`, each with those of our rules that its alert is made of: promtool
evaluates all that it is given, every 15 seconds of each case. What is expected is asked of `ALERTS`, the series that
Prometheus keeps of its own alerts.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from surefoot.monitoring import rendering
from surefoot.monitoring.alerts import Alert, Named, Scale, alerts, groups, records
from surefoot.monitoring.catalogue import METRICS
from surefoot.monitoring.rendering import Options

RUNNERS = (Named("r1", "primary"), Named("r2", "secondary"))
OPTIONS = Options(RUNNERS)
RULES = "prometheus/surefoot.rules.yml"
STEP = 15
ENV = {"environment": "prod"}
R1 = {"runner": "r1", "role": "primary"}
R2 = {"runner": "r2", "role": "secondary"}
UP2 = {'runner_status{runner="r2",role="secondary",instance="b"}': "1x400"}
UP1 = {'runner_status{runner="r1",role="primary",instance="a"}': "1x400"}


@dataclass(frozen=True)
class Case:
    """Series that make an alert fire at `at` seconds, and (unless None) resolve at `until`; and others that do not."""

    alert: str
    series: dict[str, str]
    at: int
    until: int | None
    labels: dict[str, str]
    below: dict[str, str]


def status(values: str, who: str = "r1") -> dict[str, str]:
    role = "primary" if who == "r1" else "secondary"
    return {f'runner_status{{runner="{who}",role="{role}",instance="{who}"}}': values}


def gauge(name: str, values: str, **labels: str) -> dict[str, str]:
    told = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {f"{name}{{{told}}}": values}


def total(outcome: str, values: str) -> dict[str, str]:
    """A counter as two exporters serve it: it must be counted once."""
    return {
        f'surefoot_deployments_total{{environment="prod",outcome="{outcome}",instance="{instance}"}}': values
        for instance in ("a", "b")
    }


def health(result: str, values: str) -> dict[str, str]:
    return gauge("surefoot_health_checks_total", values, environment="prod", result=result, instance="a")


def usage(name: str, high: str, limit: float = 90) -> Case:
    """Above the limit from 75 s for 10 minutes; below: at the limit for ever, and above it for a moment too short."""
    metric = f"runner_{name}_usage_percent"
    shown = {"cpu": "HighCPU", "memory": "HighMemory", "disk": "DiskFull"}[name]
    return Case(
        f"RunnerDegraded{shown}",
        gauge(metric, f"50x4 {high}x40 50x60", **R1, instance="a"),
        75 + 300,
        75 + 41 * STEP,
        R1,
        gauge(metric, f"50x4 {high}x19 {limit}x200", **R1, instance="a"),
    )


CASES = [
    Case("RunnerOfflinePrimary", status("1x4 0x40 1x60") | UP2, 375, 690, R1, status("1x4 0x19 1x200") | UP2),
    Case("RunnerOfflinePrimary", status("1x4 stale") | UP2, 375, None, R1, status("1x4 _x18 1x200") | UP2),
    Case(
        "RunnerOfflineSecondary", status("1x4 0x60 1x60", "r2") | UP1, 675, 990, R2,
        status("1x4 0x39 1x200", "r2") | UP1,
    ),
    Case(
        "BothRunnersOffline", status("1x4 0x20 1x60") | status("0x400", "r2"), 75 + 60, 75 + 21 * STEP, {},
        status("0x400") | status("1x400", "r2"),
    ),
    Case(
        "BothRunnersOffline", status("1x4 stale") | status("1x4 stale", "r2"), 135, None, {},
        status("1x4 0x3 1x400") | status("0x400", "r2"),
    ),
    usage("cpu", "91"), usage("memory", "90.1"), usage("disk", "99"),
    Case(
        "RunnerClockSkew", gauge("surefoot_clock_skew_seconds", "0x4 -2.5x40 0x60", **R1), 375, 690, R1,
        gauge("surefoot_clock_skew_seconds", "0x4 2x100", **R1),
    ),
    Case(
        "HostUnreachable", gauge("surefoot_host_reachable", "1x4 0x20 1x60", **R1, host="web", environment="prod"),
        75 + 120, 75 + 21 * STEP, {"runner": "r1", "host": "web", "environment": "prod"},
        gauge("surefoot_host_reachable", "1x4 0x7 1x60", **R1, host="web", environment="prod"),
    ),
    Case(
        "SecretInvalid", gauge("surefoot_secret_valid", "1x4 0x40 1x60", **R1, secret="S"), 375, 690,
        {"runner": "r1", "secret": "S"}, gauge("surefoot_secret_valid", "1x4 0x19 1x60", **R1, secret="S"),
    ),
    Case(
        "SecretExpiresIn14Days", gauge("surefoot_secret_expires_in_days", "14x4 13.9x20 365x60", **R1, secret="S"), 75,
        75 + 21 * STEP, {"runner": "r1", "secret": "S"},
        gauge("surefoot_secret_expires_in_days", "14x100", **R1, secret="S"),
    ),
    Case(
        "SecretExpiresIn2Days", gauge("surefoot_secret_expires_in_days", "2x4 1.9x20 365x60", **R1, secret="S"), 75,
        75 + 21 * STEP, {"runner": "r1", "secret": "S"},
        gauge("surefoot_secret_expires_in_days", "2x100", **R1, secret="S"),
    ),
    Case(
        "SurefootExporterDown", gauge("up", "1x4 0x40 1x60", job="surefoot", instance="a"), 375, 690, {"instance": "a"},
        gauge("up", "1x4 0x19 1x60", job="surefoot", instance="a") | gauge("up", "0x100", job="node", instance="n"),
    ),
    Case(
        "SurefootStoreDown",
        gauge("surefoot_store_up", "1x4 0x20 1x60", instance="a") | gauge("surefoot_store_up", "0x200", instance="b"),
        75 + 60, 75 + 21 * STEP, {},
        gauge("surefoot_store_up", "1x100", instance="a") | gauge("surefoot_store_up", "0x100", instance="b"),
    ),
    Case(
        "SurefootStoreUnreachable",
        gauge("surefoot_store_up", "1x4 0x20 1x60", instance="a") | gauge("surefoot_store_up", "1x200", instance="b"),
        75 + 120, 75 + 21 * STEP, {"instance": "a"},
        gauge("surefoot_store_up", "1x4 0x7 1x60", instance="a") | gauge("surefoot_store_up", "1x200", instance="b"),
    ),
    # The fourth failure comes at 300 s; the first leaves the hour at 60 + 3600 s. A refusal is a failure too.
    Case(
        "DeploymentFailureRateHigh", total("rolled_back", "7x3 8x3 9x400") | total("failed", "0x9 1x9 2x400"), 300,
        60 + 3600, ENV, total("rolled_back", "7x3 8x3 9x3 10x400") | total("cancelled", "0x3 9x400"),
    ),
    Case(
        "DeploymentFailureRateHigh", total("stranded", "0x3 4x400"), 60, 60 + 3600, ENV, total("stranded", "0x3 3x400"),
    ),
    Case(
        "DeploymentDurationHigh", gauge("surefoot_deployment_started_timestamp_seconds", "_x4 75x80 stale", **ENV), 690,
        60 + 81 * STEP, ENV, gauge("surefoot_deployment_started_timestamp_seconds", "75x40 700x40 1290x40", **ENV),
    ),
    Case(
        "DeploymentDurationHigh",
        gauge("surefoot_deployment_duration_seconds_count", "3x4 4x400", **ENV, outcome="succeeded")
        | gauge("surefoot_deployment_duration_seconds_bucket", "3x400", **ENV, outcome="succeeded", le="600.0"),
        75, 75 + 900, ENV,
        gauge("surefoot_deployment_duration_seconds_count", "3x4 4x400", **ENV, outcome="succeeded")
        | gauge("surefoot_deployment_duration_seconds_bucket", "3x4 4x400", **ENV, outcome="succeeded", le="600.0"),
    ),
    Case(
        "DeploymentStranded", gauge("surefoot_environment_stranded", "0x4 1x20 0x60", **ENV, instance="a"), 75,
        75 + 21 * STEP, ENV, gauge("surefoot_environment_stranded", "0x100", **ENV, instance="a"),
    ),
    Case("RollbackHappened", total("rolled_back", "5x4 6x400"), 75, 75 + 900, ENV, total("rolled_back", "5x400")),
    Case(
        "TakeoversTooMany", gauge("surefoot_takeovers_total", "0x4 2x9 4x400", **ENV), 225, 75 + 3600, ENV,
        gauge("surefoot_takeovers_total", "1x4 4x400", **ENV),
    ),
    Case(
        "LeaseStale",
        gauge("surefoot_lease_age_seconds", "1x4 16x20 1x60", **ENV)
        | gauge("surefoot_lease_ttl_seconds", "5x90", **ENV)
        | gauge("surefoot_deployment_in_progress", "1x90", **ENV),
        75 + 60, 75 + 21 * STEP, ENV,
        gauge("surefoot_lease_age_seconds", "1x4 15x90", **ENV) | gauge("surefoot_lease_ttl_seconds", "5x90", **ENV)
        | gauge("surefoot_deployment_in_progress", "1x90", **ENV),
    ),
    Case(
        "LeaseStale",
        gauge("surefoot_lease_age_seconds", "90x90", **ENV) | gauge("surefoot_lease_ttl_seconds", "5x90", **ENV)
        | gauge("surefoot_deployment_in_progress", "1x40 0x90", **ENV),
        60, 41 * STEP, ENV,
        gauge("surefoot_lease_age_seconds", "90x90", **ENV) | gauge("surefoot_lease_ttl_seconds", "5x90", **ENV)
        | gauge("surefoot_deployment_in_progress", "0x90", **ENV),
    ),
    Case(
        "QueueGrowing", gauge("surefoot_queue_depth", "0x19 6x80 0x60", **ENV), 300 + 600, 300 + 81 * STEP, ENV,
        gauge("surefoot_queue_depth", "20-1x14 5x200", **ENV),
    ),
    Case(
        "BackupAgentMissing",
        gauge("surefoot_agent_online", "1x200", agent="a", role="primary")
        | gauge("surefoot_agent_online", "1x4 0x60 1x60", agent="b", role="secondary")
        | gauge("surefoot_agent_online", "1x200", agent="c", role="emergency"),
        75 + 600, 75 + 61 * STEP, {},
        gauge("surefoot_agent_online", "1x200", agent="a", role="primary")
        | gauge("surefoot_agent_online", "1x4 0x39 1x60", agent="b", role="secondary"),
    ),
    Case(
        "HealthFlapping", health("failed", "0x4 1x4 2x400") | health("passed", "3x4 5x400"), 150, 75 + 3600, ENV,
        health("failed", "0x4 1x400") | health("passed", "3x4 9x400"),
    ),
    # Two of two within an hour and within five minutes; the five minutes are over at 150 + 300 s.
    Case(
        "DeploymentBudgetBurnsFast", total("rolled_back", "0x4 1x4 2x400") | total("succeeded", "9x400"), 150, 450, ENV,
        total("rolled_back", "0x4 1x400") | total("succeeded", "9x4 10x400"),
    ),
    Case(
        "DeploymentBudgetBurnsFast", total("rolled_back", "0x40 3x400") | total("succeeded", "0x9 7x400"), 615,
        615 + 1800, ENV, total("rolled_back", "0x4 2x400") | total("succeeded", "0x4 9x400"),
    ),
    Case(
        "DeploymentBudgetBurnsSlowly", total("rolled_back", "0x4 3x900") | total("succeeded", "0x4 17x900"), 75,
        75 + 7200, ENV, total("rolled_back", "0x4 3x900") | total("succeeded", "0x4 18x900"),
    ),
    Case(
        "DeploymentBudgetBurnsSlowly", total("rolled_back", "0x4 4x900") | total("succeeded", "0x4 76x900"), 75,
        None, ENV, total("rolled_back", "0x4 4x900") | total("succeeded", "0x4 77x900"),
    ),
]  # fmt: skip


def firing(name: str, at: int, labels: dict[str, str] | None) -> dict[str, Any]:
    """An expectation: what `ALERTS` says of an alert at that second."""
    alert = next(one for one in alerts() if one.name == name)
    own = {"severity": alert.severity, **({"page": "true"} if alert.page else {})}
    told = {"alertname": name, "alertstate": "firing", **own, **(labels or {})}
    shown = ",".join(f'{key}="{value}"' for key, value in sorted(told.items()))
    samples = [] if labels is None else [{"labels": f"ALERTS{{{shown}}}", "value": 1}]
    return {"expr": f'ALERTS{{alertname="{name}",alertstate="firing"}}', "eval_time": f"{at}s", "exp_samples": samples}


def unit(series: dict[str, str], expected: list[dict[str, Any]]) -> dict[str, Any]:
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    return {"interval": f"{STEP}s", "input_series": inputs, "promql_expr_test": expected}


def written(path: Path, rules: Path, units: list[dict[str, Any]]) -> Path:
    test = {"rule_files": [str(rules)], "evaluation_interval": f"{STEP}s", "tests": units}
    path.write_text(yaml.safe_dump(test))
    return path


def promtool(*tests: Path) -> None:
    done = subprocess.run(["promtool", "test", "rules", *map(str, tests)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == len(tests), done.stdout


def run(folder: Path, units: list[dict[str, Any]], options: Options = OPTIONS) -> None:
    rendering.write(options, folder)
    promtool(written(folder / "test.yml", folder / RULES, units))


def run_cases(folder: Path, units: list[tuple[str, dict[str, Any]]]) -> None:
    """Run units, each of an alert, with the rules of that alert alone."""
    rendering.write(OPTIONS, folder)
    text = (folder / RULES).read_text()
    files = []
    for alert in dict.fromkeys(name for name, _ in units):
        rules = folder / f"{alert}.rules.yml"
        rules.write_text(yaml.safe_dump(made_of(yaml.safe_load(text), alert)))
        own = [one for name, one in units if name == alert]
        files.append(written(folder / f"{alert}.yml", rules, own))
    promtool(*files)


def made_of(rules: dict[str, Any], alert: str) -> dict[str, Any]:
    """Return of a file of rules an alert's, and the records that it is made of, as they are and where they are."""
    every = [rule for group in rules["groups"] for rule in group["rules"]]
    kept = [rule for rule in every if rule.get("alert") == alert]
    assert kept
    for rule in kept:  # which grows meanwhile
        named = set(re.findall(r"surefoot:[\w:]+", rule["expr"]))
        kept += [one for one in every if one.get("record") in named and one not in kept]
    for group in rules["groups"]:
        group["rules"] = [rule for rule in group["rules"] if rule in kept]
    return {**rules, "groups": [group for group in rules["groups"] if group["rules"]]}


def test_each_alert_fires_at_its_second_and_resolves(tmp_path: Path) -> None:
    units = []
    for case in CASES:
        expected = [firing(case.alert, case.at - STEP, None), firing(case.alert, case.at, case.labels)]
        if case.until is not None:
            expected += [firing(case.alert, case.until - STEP, case.labels), firing(case.alert, case.until, None)]
        units.append((case.alert, unit(case.series, expected)))
    run_cases(tmp_path, units)


def test_no_alert_fires_just_below(tmp_path: Path) -> None:
    def times(case: Case) -> list[int]:
        return sorted({75, 150, 375, case.at, case.at + 60})

    run_cases(
        tmp_path,
        [(case.alert, unit(case.below, [firing(case.alert, at, None) for at in times(case)])) for case in CASES],
    )


def test_every_alert_has_its_case() -> None:
    assert {case.alert for case in CASES} == {alert.name for alert in alerts()}


def test_missing_series_alarm_of_named_runners_alone(tmp_path: Path) -> None:
    offline = 'ALERTS{alertname!~"RunnerOffline.*|BothRunnersOffline"}'
    quiet = [{"expr": offline, "eval_time": f"{at}s", "exp_samples": []} for at in (0, 60, 900)]
    named = [firing("RunnerOfflinePrimary", 300, R1), firing("RunnerOfflineSecondary", 600, R2)]
    run(tmp_path / "named", [unit({"something_else": "1x400"}, [*quiet, *named])])
    none = [{"expr": "ALERTS", "eval_time": f"{at}s", "exp_samples": []} for at in (0, 900)]
    run(tmp_path / "nobody", [unit({"something_else": "1x400"}, none)], Options())


def test_without_names_a_runner_that_was_seen_and_is_gone_is_offline(tmp_path: Path) -> None:
    series = status("1x4 stale") | status("1x400", "r2")
    expected = [firing("RunnerOfflinePrimary", 360, None), firing("RunnerOfflinePrimary", 375, R1)]
    run(tmp_path, [unit(series, expected)], Options())


def test_a_scale_makes_all_durations_shorter(tmp_path: Path) -> None:
    scaled = Options(RUNNERS, Scale(0.05))  # 15 s instead of 5 minutes
    series = status("1x4 0x60 1x60") | UP2
    test = unit(series, [firing("RunnerOfflinePrimary", 75 + 14, None), firing("RunnerOfflinePrimary", 75 + 15, R1)])
    started = unit(
        gauge("surefoot_deployment_started_timestamp_seconds", "75x80", **ENV),
        [firing("DeploymentDurationHigh", 105, None), firing("DeploymentDurationHigh", 106, ENV)],
    )
    rendering.write(scaled, tmp_path)
    path = tmp_path / "test.yml"
    found = {"rule_files": ["prometheus/surefoot.rules.yml"], "evaluation_interval": "1s", "tests": [test, started]}
    path.write_text(yaml.safe_dump(found))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_figures_of_the_service_level_are_what_the_report_says(tmp_path: Path) -> None:
    series = total("succeeded", "0x4 18x90") | total("rolled_back", "0x4 1x90") | total("stranded", "0x4 1x90")
    series |= total("failed", "0x4 50x90") | total("cancelled", "0x4 50x90")
    expected = [
        {"expr": expr, "eval_time": "90s", "exp_samples": [{"labels": f'{expr}{{environment="prod"}}', "value": value}]}
        for expr, value in {"surefoot:slo_errors:ratio_30d": 0.1, "surefoot:slo_budget_left:ratio": -1.0}.items()
    ]
    run(tmp_path, [unit(series, expected)])


@pytest.mark.parametrize("options", [OPTIONS, Options(), Options(RUNNERS, Scale(0.01), job='q"', runbooks="{name}")])
def test_what_is_rendered_passes_the_tools_own_checks(tmp_path: Path, options: Options) -> None:
    rendering.write(options, tmp_path)
    for command in (
        ["promtool", "check", "rules", str(tmp_path / "prometheus" / "surefoot.rules.yml")],
        ["amtool", "check-config", str(tmp_path / "alertmanager" / "alertmanager.yml")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
    # Prometheus 2.42 has no scrape_config_files yet, which the file is for: it is checked as a config of its own.
    scrape = tmp_path / "prometheus" / "scrape.yml"
    done = subprocess.run(["promtool", "check", "config", str(scrape)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_seven_of_the_mission_are_as_it_says() -> None:
    found = {alert.name: alert for alert in alerts()}
    expected = {
        "RunnerOfflinePrimary": (300, "critical", False),
        "RunnerOfflineSecondary": (600, "warning", False),
        "RunnerDegradedHighCPU": (300, "warning", False),
        "RunnerDegradedHighMemory": (300, "warning", False),
        "DeploymentFailureRateHigh": (0, "critical", False),
        "DeploymentDurationHigh": (0, "warning", False),
        "BothRunnersOffline": (60, "critical", True),
    }
    for name, told in expected.items():
        alert = found[name]
        assert (alert.wait, alert.severity, alert.page) == told


def test_each_alert_says_what_to_do_and_where_to_look() -> None:
    rules = rendering.rules(Options(runbooks="https://wiki/{name}", grafana="https://g/"))
    for rule in (rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule):
        told = rule["annotations"]
        assert told["summary"]
        first = r"First, (on|there).*: (surefoot|systemctl|timedatectl) |and there: systemctl "
        assert re.search(first, told["description"]), rule["alert"]
        assert re.fullmatch(r"https://wiki/[a-z-]+", told["runbook_url"])
        assert re.match(r"https://g/d/surefoot-(runner-health|deployment-pipeline)", told["dashboard_url"])
        for label in re.findall(r"\$labels\.(\w+)", json.dumps(told)):
            assert label in rule["expr"] or label in ("runner", "role", "environment"), rule["alert"]


def test_rules_ask_for_metrics_that_there_are() -> None:
    recorded = {record.name for record in records()}
    suffixes = ("", "_bucket", "_count", "_sum")
    known = {f"{name}{suffix}" for name in METRICS for suffix in suffixes} | recorded
    for group in groups(RUNNERS, Scale(), "surefoot"):
        for rule in group.rules:
            for name in re.findall(r"\b(?:surefoot|runner)_[a-z_]+|surefoot:[a-z_0-9:]+", rule.expr):
                assert name in known, f"{rule.name}: {name}"
    for record in records():
        used = any(record.name in rule.expr for group in groups((), Scale(), "j") for rule in group.rules)
        assert used or record.name.startswith("surefoot:slo_"), record.name
    assert all(isinstance(alert, Alert) for alert in alerts())
