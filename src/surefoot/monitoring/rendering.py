# SPDX-License-Identifier: Apache-2.0
"""Writes what Prometheus, Alertmanager and Grafana read: rules, scrape job, routes, dashboards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from surefoot.monitoring.alerts import MINUTE, Alert, Named, Record, Scale, groups

DASHBOARDS = Path(__file__).parent / "dashboards"
#: How often rules are evaluated: the seconds that an alert may be late.
EVERY = 15.0
_HEAD = "# Written by `surefoot monitoring render`: change its options, not this file.\n"
_PROVIDER = {
    "apiVersion": 1,
    "providers": [
        {
            "name": "surefoot",
            "folder": "Surefoot",
            "type": "file",
            "allowUiUpdates": False,
            "options": {"path": "/var/lib/grafana/dashboards/surefoot"},
        }
    ],
}


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for."""

    runners: tuple[Named, ...] = ()
    scale: Scale = Scale()  # noqa: RUF009 - frozen
    job: str = "surefoot"
    port: int = 9100
    runbooks: str = "docs/runbooks"
    grafana: str = ""
    team: str = ""
    pager: str = ""


def files(options: Options) -> Iterator[tuple[str, str]]:
    """Yield each file's path below the folder, and its text."""
    yield "prometheus/surefoot.rules.yml", _HEAD + _yaml(rules(options))
    yield "prometheus/scrape.yml", _HEAD + _yaml(scrape(options))
    yield "alertmanager/alertmanager.yml", _HEAD + _yaml(routes(options))
    yield "grafana/provisioning/surefoot.yml", _HEAD + _yaml(_PROVIDER)
    for path in sorted(DASHBOARDS.glob("*.json")):
        yield f"grafana/dashboards/{path.name}", path.read_text(encoding="utf-8")


def rules(options: Options) -> dict[str, Any]:
    """Return a file of rules."""
    found = groups(options.runners, options.scale, options.job)
    return {
        "groups": [
            {
                "name": group.name,
                "interval": options.scale(EVERY),
                "rules": [_rule(rule, options) for rule in group.rules],
            }
            for group in found
        ]
    }


def _rule(rule: Record | Alert, options: Options) -> dict[str, Any]:
    match rule:
        case Record():
            return {"record": rule.name, "expr": rule.expr, **({"labels": dict(rule.labels)} if rule.labels else {})}
        case Alert():
            return {
                "alert": rule.name,
                "expr": rule.expr,
                **({"for": options.scale(rule.wait)} if rule.wait else {}),
                "labels": {"severity": rule.severity, **({"page": "true"} if rule.page else {})},
                "annotations": {
                    "summary": rule.summary,
                    "description": rule.description,
                    "runbook_url": runbook(options.runbooks, rule.runbook),
                    "dashboard_url": _dashboard(options.grafana, rule),
                },
            }


def runbook(base: str, name: str) -> str:
    """Return a page's address: `{name}` in the base is filled in, else the page is a file below it."""
    return base.replace("{name}", name) if "{name}" in base else f"{base.rstrip('/')}/{name}.md"


def _dashboard(base: str, alert: Alert) -> str:
    """Return a link to the alert's dashboard, at the runner or environment that it is about."""
    said = alert.summary + alert.description
    known = [name for name in ("runner", "environment") if f"$labels.{name}" in said]
    variables = "&".join(f"var-{name}={{{{ $labels.{name} }}}}" for name in known)
    return f"{base.rstrip('/')}/d/{alert.dashboard}" + (f"?{variables}" if variables else "")


def scrape(options: Options) -> dict[str, Any]:
    """Return a file for Prometheus's `scrape_config_files`; the runners' names must be known to the resolver."""
    targets = [f"{runner.name}:{options.port}" for runner in options.runners]
    job = {
        "job_name": options.job,
        "scrape_interval": options.scale(EVERY),
        "static_configs": [{"targets": targets}],
    }
    return {"scrape_configs": [job]}


def routes(options: Options) -> dict[str, Any]:
    """Return Alertmanager's config: `page="true"` goes to the pager, the rest to the team."""
    d = options.scale
    both = 'alertname="BothRunnersOffline"'

    def mutes(source: str, target: str, *equal: str) -> dict[str, Any]:
        return {"source_matchers": [source], "target_matchers": [target], **({"equal": list(equal)} if equal else {})}

    return {
        "route": {
            "receiver": "team",
            "group_by": ["alertname", "environment", "runner"],
            "group_wait": d(30),
            "group_interval": d(5 * MINUTE),
            "repeat_interval": d(4 * 60 * MINUTE),
            "routes": [
                {
                    "receiver": "pager",
                    "matchers": ['page="true"'],
                    "group_wait": d(5),
                    "group_interval": d(MINUTE),
                    "repeat_interval": d(30 * MINUTE),
                }
            ],
        },
        "inhibit_rules": [
            mutes(both, 'alertname=~"RunnerOffline(Primary|Secondary)|BackupAgentMissing|SurefootExporterDown"'),
            mutes('alertname="SurefootStoreDown"', 'alertname="SurefootStoreUnreachable"'),
            mutes('alertname="SecretExpiresIn2Days"', 'alertname="SecretExpiresIn14Days"', "runner", "secret"),
            mutes('alertname="SecretInvalid"', 'alertname=~"SecretExpires.*"', "runner", "secret"),
            mutes('alertname="DeploymentStranded"', 'alertname=~"RollbackHappened|HealthFlapping"', "environment"),
            mutes('alertname="DeploymentBudgetBurnsFast"', 'alertname="DeploymentBudgetBurnsSlowly"', "environment"),
        ],
        "receivers": [_receiver("team", options.team), _receiver("pager", options.pager)],
    }


def _receiver(name: str, url: str) -> dict[str, Any]:
    return {"name": name, **({"webhook_configs": [{"url": url, "send_resolved": True}]} if url else {})}


def write(options: Options, folder: Path) -> list[Path]:
    """Write all files; return their paths."""
    written = []
    for name, text in files(options):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


class _Dumper(yaml.SafeDumper):
    """Writes long texts as blocks, as people would."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _yaml(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def named(agents: Sequence[tuple[str, str]]) -> tuple[Named, ...]:
    """Return the runners whose silence counts: emergency agents are there only when they are needed."""
    return tuple(Named(name, role) for name, role in agents if role != "emergency")
