# SPDX-License-Identifier: Apache-2.0
"""The page on monitoring, its tables made from the catalogue and the rules.

`python -m surefoot.monitoring.reference > docs/monitoring.md` writes it; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from surefoot.monitoring.alerts import Alert, Scale, alerts, records
from surefoot.monitoring.catalogue import METRICS, Source

_HEAD = """\
# Monitoring

Made from the program by `python -m surefoot.monitoring.reference`; a test holds the two equal.

Prometheus scrapes an exporter on each runner; rules, routes and dashboards are rendered from the config.

```sh
surefoot exporter --service 'actions.runner.*.service'   # on each runner: /metrics on port 9100
surefoot monitoring render --out monitoring              # rules, routes, dashboards
```

## The exporter

`runner_status` is 1 only while the CI runner's own service is up: name its systemd unit with `--service` (a pattern will do) or its processes
with `--process`. Both may be given more than once; all must be up. Without either it is 1 while the exporter runs.

The config, where it finds one, tells it which hosts to try (each inventory's, as Ansible reads it, their SSH ports from this runner), which secrets to
watch (present, as their checks ask, not expired; set them where the exporter is started, as for the agent), and its role. Without a config:
`--store`, `--runner`, `--role`, `--host NAME=ADDR:PORT`, `--secret NAME`.

It has node_exporter's default port. Where both run: `--listen :9101`, and `--port 9101` for `monitoring render`.

- Everything is found out in the background; a scrape only reads memory.
- Figures of deployments are folded from the journal: they neither reset nor double when an exporter starts anew, and every exporter serves the same.
  Ask for them with `max by (…)`. They appear once the whole history has been read.
- While the store can't be read `surefoot_store_up` is 0, and its last figures stay: a stranded environment must not look repaired because the store is away.
- In OpenMetrics, buckets carry the last deployment's id as an exemplar (Prometheus: `--enable-feature=exemplar-storage`).
- SIGTERM ends it. It needs no rights but to read the store.

### Without an exporter

Where `deploy` runs its own agent in a CI job, nothing is there to be scraped. With `SUREFOOT_PUSHGATEWAY=http://pushgateway:9091` in its
environment, `deploy` and `rollback` push the metrics of all deployments in the store when they have followed one to its end (job `surefoot`, grouped
by `project`). A gateway that is away is warned of, and changes nothing. It reads the whole history each time: where that is long, run an exporter.

### TLS and basic auth

`--web-config FILE`, in the format that Prometheus's exporters share. Paths in it are relative to it; a change counts without a restart.

```yaml
tls_server_config:
  cert_file: exporter.crt
  key_file: exporter.key
  client_auth_type: RequireAndVerifyClientCert   # or VerifyClientCertIfGiven, NoClientCert
  client_ca_file: prometheus-ca.crt
  min_version: TLS12                             # or TLS13; max_version likewise
http_server_config:
  headers: {X-Content-Type-Options: nosniff}
basic_auth_users:
  prometheus: $2y$10$…                           # bcrypt: htpasswd -nBC 10 "" | tr -d ':\\n'
```

Cipher suites and curves can't be chosen; a file that asks for it is refused.

## Logs

`surefoot agent run` and `surefoot exporter` say on stderr what they do, one line an event. An agent's log has each entry of the journal that it writes, and what the
journal does not say: that the store is away, what a health check found, whom it gives way to. Secrets are taken out, as everywhere.

| `--log-format`, `$SUREFOOT_LOG_FORMAT` | a line is |
|---|---|
| `text` | for people: the time of day; of a deployment, its id and the fencing token that it is worked on with; a sentence |
| `json` | a document: `at`, `level` (`info`, `warning`, `error`, `critical`), `type`, `message`, and `agent` or `runner`; of a deployment also `deployment`, `environment`, `token`; of an entry of its journal `seq`; and what there is of `step`, `direction`, `attempt`, `status`, `code`, `host` |
| `journal` | an entry of systemd's journal with the same as fields: `SUREFOOT_DEPLOYMENT`, `SUREFOOT_TOKEN`, `SUREFOOT_TYPE`, …, and `PRIORITY` and `SYSLOG_IDENTIFIER` (`surefoot-agent`, `surefoot-exporter`). No library is needed for it |

Without either it is `journal` where systemd reads stderr (`$JOURNAL_STREAM`), else `text`. As JSON under systemd each line begins with its level (`<6>`), which
the journal takes off. `type` is the name of the journal's event (`step_failed`, `finished`, …), or one of the log's own: `agent_started`, `agent_ended`, `gives_way`,
`lease_lost`, `store_failed`, `store_back`, `runner_gate`, `outbox`, `exporter_started`, `web_config`, `machine_unknown`, `hosts_unknown`, `secrets_unknown`,
`service_unknown`, `trace`, `note`, `error`, and `library` for what libraries warn of. Read what you don't know of as a `note`: more may come.

```sh
journalctl -u surefoot-agent SUREFOOT_DEPLOYMENT=production-7          # all that this agent did of it
journalctl -u surefoot-agent -p warning                               # what went wrong
surefoot agent run production-runner-01 --log-format json 2>&1 | jq -r 'select(.deployment == "production-7") | .message'
```

In Loki the labels are `job`, `unit`, `host`, `level` and `environment`, which have few values each; the deployment and its token begin the line:
`{job="surefoot", environment="production", level="warning"} |= "production-7 token 3"`.

An error that ends a program is also written as every command does, `error[CODE]: sentence`, whatever the format.
What a deployment's steps print is not here but in the store: `surefoot logs ID` has it of all agents in order.

## Traces

With `pip install 'surefoot[otel]'` and OpenTelemetry's own variables in an agent's environment (and that of a `deploy` which runs its own), the agent that brings
a deployment to its end sends its trace by OTLP over HTTP:

```sh
OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 surefoot agent run production-runner-01
```

One trace a deployment: a span for all of it, one for its time in the queue, one for each agent that held it, and below these what they did: preflight and each check,
the fence, each attempt of each step and of each undo, each host of a playbook, health checks, versions, baking; later the repair of a stranded one. Each agent is an
instance (`service.instance.id`) of the service `surefoot`. An attempt that was lost with its agent ends when the next one takes over, as an error.

- Spans are derived from the journal, and their ids from the store's identity and the deployment's: after a takeover, too, it is one trace, and
  what is sent twice has the same ids. `surefoot report trace ID` shows it, `--send` sends it again.
- It is sent once, when all is written and the lease is given back. A receiver that is away is said in the log (`trace`), and changes nothing.
- `OTEL_EXPORTER_OTLP_HEADERS`, `_TIMEOUT`, `_CERTIFICATE`, `_COMPRESSION`, `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are as
  everywhere; `OTEL_SDK_DISABLED=true` or `OTEL_TRACES_EXPORTER=none` turns it off. Only `http/protobuf`, no gRPC.
- Steps get the agent's environment, these variables too: what they run may send traces of its own.
- A deployment that ended before an agent had begun it (rejected, expired) has no trace.

## By Ansible

The collection `surefoot.platform` (the folder `ansible/`) has roles for all of this: `exporter` and `agent` as systemd services that are confined to what
they need (exposure 1.2 and 1.7 by `systemd-analyze security`), `prometheus_rules`, `grafana_dashboards`, and `log_forwarding` to Loki by Grafana Alloy.
Each changes nothing in check mode or the second time, sees that what it did works, and takes it away again with `ROLE_state: absent`. Playbooks that use
them, and look at the result themselves, are in `examples/paws360/infrastructure/ansible/playbooks/`.

## Rules, routes, dashboards

`surefoot monitoring render --out DIR` writes

| file | for |
|---|---|
| `prometheus/surefoot.rules.yml` | `rule_files` of Prometheus |
| `prometheus/scrape.yml` | `scrape_config_files` (Prometheus 2.43 and later), or to copy from: the config's runners by name |
| `alertmanager/alertmanager.yml` | Alertmanager: `page="true"` to the receiver `pager`, the rest to `team`; what follows from another alert is muted |
| `grafana/dashboards/*.json` | Grafana, as they are: data source, environments and runners are variables |
| `grafana/provisioning/surefoot.yml` | Grafana's provisioning by file |

Runners whose silence counts are the config's primaries and secondaries; without agents in it, every runner that was seen within a day.
`--runbooks`, `--grafana`, `--team` and `--pager` fill in addresses, `--job` and `--port` say how exporters are scraped.

`--scale FACTOR` multiplies every duration in rules and routes, for drills and tests that can't wait: with 0.01 five minutes are 3 s. No duration
gets shorter than 1 s. Thresholds that are no durations stay.
"""
_SOURCES = {
    Source.RUNNER: "### Of the runner\n\nServed by the exporter on that runner.",
    Source.JOURNAL: "### From the journal\n\nThe same from every exporter, after every start.",
    Source.STORE: "### Of the store as it is\n\nThe same from every exporter.",
}


def reference() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *_alerts(), *_metrics()])


def _alerts() -> Iterator[str]:
    yield "## Alerts\n"
    yield from _table(("alert", "fires when", "severity", "runbook"), map(_alert_row, alerts()))
    yield ""
    yield "## Recorded figures\n"
    yield "Counting figures are exact (`x - min_over_time(x[…])`), since the journal's counters never reset.\n"
    yield from _table(("figure", "is"), ((f"`{one.name}`", one.help) for one in records()))
    yield ""


def _alert_row(alert: Alert) -> tuple[str, ...]:
    code = " ".join(alert.expr.split()).replace("|", "\\|")
    held = f" for {Scale()(alert.wait)}" if alert.wait else ""
    severity = f"{alert.severity}, pages" if alert.page else alert.severity
    return (f"`{alert.name}`", f"`{code}`{held}", severity, f"[{alert.runbook}](runbooks/{alert.runbook}.md)")


def _metrics() -> Iterator[str]:
    yield "## Metrics\n"
    for source, title in _SOURCES.items():
        yield title + "\n"
        found = (metric for metric in METRICS.values() if metric.source is source)
        rows = ((f"`{m.name}`", str(m.type), ", ".join(f"`{x}`" for x in m.labels) or "-", m.help) for m in found)
        yield from _table(("metric", "type", "labels", "is"), rows)
        yield ""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    print(reference(), end="")
