# SPDX-License-Identifier: Apache-2.0
"""Every alert and recorded figure, once: what is rendered, documented and tested comes from here.

Counting expressions take `x - min_over_time(x[…])`: counters from the journal never reset, so this is exact, where
`increase` would make 3.05 of three. Every exporter serves the same deployment metrics, hence `max by (…)`. An alert
whose series are missing does not fire, but for runners that the config names: their silence is what they are there
for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from surefoot.monitoring.catalogue import DEPLOYMENT_BUCKETS

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
RUNNER_DASHBOARD, PIPELINE_DASHBOARD = "surefoot-runner-health", "surefoot-deployment-pipeline"
#: What the project promises of its deployments, and so the share that may fail.
OBJECTIVE = 0.95
#: Windows that the budget's burning is looked at in.
WINDOWS = (5 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 6 * HOUR, DAY, 3 * DAY, 30 * DAY)


@dataclass(frozen=True, slots=True)
class Scale:
    """How rules are fitted: all durations are multiplied by `factor`, for tests and drills that can't wait."""

    factor: float = 1.0

    def seconds(self, seconds: float) -> float:
        """Return a duration as it is in the rules: never less than a second, which is the shortest interval."""
        return seconds if self.factor == 1 else max(1.0, round(seconds * self.factor, 3))

    def __call__(self, seconds: float) -> str:
        """Return a duration as Prometheus writes it."""
        found = self.seconds(seconds)
        if found % 1:
            return f"{round(found * 1000)}ms"
        for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m")):
            if found >= unit and not found % unit:
                return f"{found / unit:.0f}{name}"
        return f"{found:.0f}s"

    @property
    def bucket(self) -> float:
        """Return the bound of the deployments' histogram up to which they count as fast: 10 minutes, unless scaled."""
        return max((b for b in DEPLOYMENT_BUCKETS if b <= self.seconds(10 * MINUTE)), default=DEPLOYMENT_BUCKETS[0])


@dataclass(frozen=True, slots=True)
class Record:
    """A recorded figure."""

    name: str
    expr: str
    help: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `wait` is how long its expression must hold; `runbook` names a page in docs/runbooks."""

    name: str
    expr: str
    wait: float
    severity: str
    summary: str
    description: str
    runbook: str
    dashboard: str
    page: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other, at one instant."""

    name: str
    rules: tuple[Record | Alert, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A runner that the config names."""

    name: str
    role: str


def groups(runners: Sequence[Named], scale: Scale, job: str) -> list[Group]:
    """Return all rules. `runners`: those whose silence counts; none: all that were seen within the last day."""
    return [
        Group("surefoot-runners", (*_runners_up(runners, scale), *_runner_alerts(scale, job))),
        Group("surefoot-deployments", (*_counts(scale), *_deployment_alerts(scale), *_burning(scale))),
    ]


def alerts(scale: Scale = Scale(), job: str = "surefoot") -> list[Alert]:
    """Return all alerts."""
    return [rule for group in groups((), scale, job) for rule in group.rules if isinstance(rule, Alert)]


def records(scale: Scale = Scale(), job: str = "surefoot") -> list[Record]:
    """Return all recorded figures, as they are where no runner is named."""
    return [rule for group in groups((), scale, job) for rule in group.rules if isinstance(rule, Record)]


# -- runners -------------------------------------------------------------------------------------------------

_UP = "1 if the runner can take work, 0 if it can't or is not heard of."


def _runners_up(runners: Sequence[Named], scale: Scale) -> Iterator[Record]:
    if not runners:
        seen = f"max by (runner, role) (last_over_time(runner_status[{scale(DAY)}]))"
        yield Record("surefoot:runner_up", f"max by (runner, role) (runner_status) or {seen} * 0", _UP)
    for runner in runners:
        expr = f"max(runner_status{{runner={_quoted(runner.name)}}}) or vector(0)"
        yield Record("surefoot:runner_up", expr, _UP, {"runner": runner.name, "role": runner.role})


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_RENEW = (
    "Get a new one, put it into /etc/surefoot-agent/environment and /etc/surefoot-exporter/environment of every runner, and "
    "there: systemctl restart surefoot-agent surefoot-exporter."
)


def _runner_alerts(d: Scale, job: str) -> tuple[Alert, ...]:
    def offline(name: str, role: str, wait: float, severity: str, what: str) -> Alert:
        return Alert(
            name, f'surefoot:runner_up{{role="{role}"}} == 0', wait, severity,
            "Runner {{ $labels.runner }} (" + role + ") is offline",
            f"For {d(wait)} the runner {{{{ $labels.runner }}}} has been down, or nothing has been heard of it. {what} "
            "First, on {{ $labels.runner }}: surefoot doctor. Where that does not answer, on another runner.",
            "runner-offline", RUNNER_DASHBOARD,
        )  # fmt: skip

    def high(name: str, metric: str, what: str) -> Alert:
        return Alert(
            name, f"max by (runner, role) ({metric}) > 90", 5 * MINUTE, "warning",
            "Runner {{ $labels.runner }} is short of " + what,
            f"{what} in use has been above 90 % for {d(5 * MINUTE)}: {{{{ $value | printf \"%.0f\" }}}} % on "
            "{{ $labels.runner }}. Deploys from there will be slow or fail. First, on {{ $labels.runner }}: surefoot doctor",
            "runner-degraded", RUNNER_DASHBOARD,
        )  # fmt: skip

    days = "min by (runner, secret) (surefoot_secret_expires_in_days)"
    expires = '{{ $labels.secret }} on {{ $labels.runner }} expires in {{ $value | printf "%.1f" }} days'
    return (
        offline("RunnerOfflinePrimary", "primary", 5 * MINUTE, "critical", "Deploys run on the secondary."),
        offline("RunnerOfflineSecondary", "secondary", 10 * MINUTE, "warning", "Nobody takes over if the primary dies."),
        Alert(
            "BothRunnersOffline", 'max(surefoot:runner_up{role=~"primary|secondary"}) == 0', MINUTE, "critical",
            "No runner is left: nothing can be deployed, or put back",
            "All primary and secondary runners have been offline for " + d(MINUTE) + ". First, on one of them: surefoot "
            "doctor. If none can be had, on any machine with the project that reaches the store and the hosts: surefoot "
            "agent run NAME --role emergency --once",
            "both-runners-offline", RUNNER_DASHBOARD, page=True,
        ),
        high("RunnerDegradedHighCPU", "runner_cpu_usage_percent", "CPU"),
        high("RunnerDegradedHighMemory", "runner_memory_usage_percent", "memory"),
        high("RunnerDegradedDiskFull", "runner_disk_usage_percent", "disk"),
        Alert(
            "RunnerClockSkew", "max by (runner, role) (abs(surefoot_clock_skew_seconds)) > 2", 5 * MINUTE, "warning",
            "The clock of {{ $labels.runner }} is {{ $value | printf \"%.1f\" }} s off",
            "It differs from the store's by more than 2 s. No decision rests on it, but times in logs do, and certificates "
            "and tokens are judged by it. First, on {{ $labels.runner }}: timedatectl set-ntp true",
            "clock-skew", RUNNER_DASHBOARD,
        ),
        Alert(
            "HostUnreachable", "max by (runner, environment, host) (surefoot_host_reachable) == 0", 2 * MINUTE, "critical",
            "{{ $labels.runner }} can't reach {{ $labels.host }}",
            "The SSH port of {{ $labels.host }} ({{ $labels.environment }}) has not accepted a connection from "
            "{{ $labels.runner }} for " + d(2 * MINUTE) + ". A deploy from there would be refused. First, on "
            "{{ $labels.runner }}: surefoot doctor, which says how far the way goes.",
            "network-unreachable", RUNNER_DASHBOARD,
        ),
        Alert(
            "SecretInvalid", "min by (runner, secret) (surefoot_secret_valid) == 0", 5 * MINUTE, "critical",
            "{{ $labels.secret }} on {{ $labels.runner }} is missing, expired or not what it should be",
            "Deploys that need {{ $labels.secret }} are refused on {{ $labels.runner }}, if its agent has the same as this "
            "exporter. First, on {{ $labels.runner }}: surefoot doctor, which looks into the agent's own environment.",
            "secrets-expired", RUNNER_DASHBOARD,
        ),
        Alert(
            "SecretExpiresIn14Days", f"{days} < 14", 0.0, "warning",
            expires, _RENEW + " There is time: it is valid still.",
            "secrets-expired", RUNNER_DASHBOARD,
        ),
        Alert(
            "SecretExpiresIn2Days", f"{days} < 2", 0.0, "critical",
            expires, _RENEW + " Once it has expired, deploys that need it are refused.",
            "secrets-expired", RUNNER_DASHBOARD,
        ),
        Alert(
            "SurefootExporterDown", f"max by (instance) (up{{job={_quoted(job)}}}) == 0", 5 * MINUTE, "warning",
            "The exporter at {{ $labels.instance }} does not answer",
            "Prometheus has not been able to scrape {{ $labels.instance }} for " + d(5 * MINUTE) + ": nobody sees how that "
            "runner fares. First, on it: systemctl status surefoot-exporter",
            "exporter-down", RUNNER_DASHBOARD,
        ),
        Alert(
            "SurefootStoreDown", "max(surefoot_store_up) == 0", MINUTE, "critical",
            "The store can't be reached from any runner",
            "No exporter has been able to read the store for " + d(MINUTE) + ". What runs stops by itself within the lease's "
            "ttl and goes on once the store is back; nothing new is accepted. First, on a runner: surefoot doctor",
            "store-down", PIPELINE_DASHBOARD, page=True,
        ),
        Alert(
            "SurefootStoreUnreachable",
            "min by (instance) (surefoot_store_up) == 0 and on () max(surefoot_store_up) == 1", 2 * MINUTE, "warning",
            "The store can't be reached from {{ $labels.instance }}",
            "Others reach it. An agent there takes no work, and loses what it runs. First, there: surefoot doctor",
            "store-down", PIPELINE_DASHBOARD,
        ),
    )  # fmt: skip


# -- deployments ---------------------------------------------------------------------------------------------

_TOTAL = "surefoot:deployments:total"
_SLOW = "surefoot:deployments_slow:total"
_FAILED = 'outcome=~"rolled_back|stranded"'
_COUNTED = 'outcome=~"succeeded|rolled_back|stranded"'


def _counts(d: Scale) -> tuple[Record, ...]:
    slow = (
        "max by (environment, outcome) (surefoot_deployment_duration_seconds_count) - "
        f'max by (environment, outcome) (surefoot_deployment_duration_seconds_bucket{{le="{d.bucket}"}})'
    )
    return (
        Record(
            _TOTAL, "max by (environment, outcome) (surefoot_deployments_total)",
            "Deployments that have ended, counted once, however many exporters serve the figure.",
        ),
        Record(
            "surefoot:takeovers:total", "max by (environment) (surefoot_takeovers_total)", "Takeovers, counted once.",
        ),
        Record(
            "surefoot:health_checks:total", "max by (environment, result) (surefoot_health_checks_total)",
            "Rounds of health checks, counted once.",
        ),
        Record(_SLOW, f"sum by (environment) ({slow})", "Deployments that took longer than 10 minutes."),
        Record(
            "surefoot:deployment_failures:count_1h", _grown(f'{_TOTAL}{{outcome=~"failed|rolled_back|stranded"}}', d, HOUR),
            "Deployments of the last hour that were refused, put back or stranded.",
        ),
    )  # fmt: skip


def _grown(series: str, d: Scale, window: float) -> str:
    """Return by how much counters have grown within a window, by environment."""
    return f"sum by (environment) ({series} - min_over_time({series}[{d(window)}]))"


def _deployment_alerts(d: Scale) -> tuple[Alert, ...]:
    failed, passed = (f'surefoot:health_checks:total{{result="{result}"}}' for result in ("failed", "passed"))
    in_progress = "max by (environment) (surefoot_deployment_in_progress)"
    depth = "max by (environment) (surefoot_queue_depth)"
    in_environment = " in {{ $labels.environment }}"
    return (
        Alert(
            "DeploymentFailureRateHigh", "surefoot:deployment_failures:count_1h > 3", 0.0, "critical",
            "{{ $value | printf \"%.0f\" }} deployments" + in_environment + " failed within " + d(HOUR),
            "More than 3 were refused, put back or stranded. First, on a runner: surefoot doctor, which says why.",
            "health-checks-failing", PIPELINE_DASHBOARD,
        ),
        Alert(
            "DeploymentDurationHigh",
            f"time() - max by (environment) (surefoot_deployment_started_timestamp_seconds) > {d.seconds(600):g}\n"
            f"or {_grown(_SLOW, d, 15 * MINUTE)} > 0",
            0.0, "warning",
            "A deployment" + in_environment + " takes longer than " + d(10 * MINUTE),
            "It is still at work, or ended within the last " + d(15 * MINUTE) + ". First, on a runner: surefoot status "
            "{{ $labels.environment }} names it; surefoot doctor ID says where the time goes.",
            "deployment-slow", PIPELINE_DASHBOARD,
        ),
        Alert(
            "DeploymentStranded", "max by (environment) (surefoot_environment_stranded) == 1", 0.0, "critical",
            "{{ $labels.environment }} is stranded: it could not be put back",
            "It is locked until a person has repaired it. First, on a runner: surefoot doctor, which says what each host "
            "runs and what to run. When it is repaired, surefoot resolve ID --reason TEXT unlocks it.",
            "stranded", PIPELINE_DASHBOARD, page=True,
        ),
        Alert(
            "RollbackHappened", _grown(f'{_TOTAL}{{outcome="rolled_back"}}', d, 15 * MINUTE) + " > 0", 0.0, "warning",
            "A deployment" + in_environment + " was rolled back",
            "All hosts run the version before it. First, on a runner: surefoot doctor, which says why.",
            "health-checks-failing", PIPELINE_DASHBOARD,
        ),
        Alert(
            "TakeoversTooMany", _grown("surefoot:takeovers:total", d, HOUR) + " > 3", 0.0, "warning",
            "{{ $value | printf \"%.0f\" }} takeovers" + in_environment + " within " + d(HOUR),
            "Agents are lost again and again, or lose their leases. First, on a runner: surefoot doctor",
            "runner-degraded", PIPELINE_DASHBOARD,
        ),
        Alert(
            "LeaseStale",
            f"max by (environment) (surefoot_lease_age_seconds) > 3 * max by (environment) (surefoot_lease_ttl_seconds)\n"
            f"and on (environment) {in_progress} == 1",
            MINUTE, "critical",
            "The deployment" + in_environment + " is at a standstill",
            "Its agent has not been heard of for 3 times the lease's ttl, and none has taken over: no other is eligible. "
            "First, on a runner: surefoot doctor, which says why; surefoot agent run NAME --role emergency starts one.",
            "both-runners-offline", PIPELINE_DASHBOARD,
        ),
        Alert(
            "QueueGrowing", f"{depth} > 5 and {depth} >= max by (environment) (surefoot_queue_depth offset "
            f"{d(5 * MINUTE)})", 10 * MINUTE, "warning",
            "{{ $value | printf \"%.0f\" }} deployments wait" + in_environment,
            "More than 5 have waited for " + d(10 * MINUTE) + ", and they do not get fewer. First, on a "
            "runner: surefoot doctor, which says what they wait for.",
            "queue-growing", PIPELINE_DASHBOARD,
        ),
        Alert(
            "BackupAgentMissing",
            'count(max by (agent) (surefoot_agent_online{role!="emergency"}) == 1) < 2', 10 * MINUTE, "warning",
            "Only one agent is left",
            "For " + d(10 * MINUTE) + " only one agent has been online. If it dies, nobody takes over. First, on the "
            "other's machine: surefoot doctor",
            "runner-offline", RUNNER_DASHBOARD,
        ),
        Alert(
            "HealthFlapping",
            f"{_grown(failed, d, HOUR)} >= 2\nand on (environment) {_grown(passed, d, HOUR)} >= 2", 0.0, "warning",
            "Health checks" + in_environment + " pass and fail by turns",
            "Within " + d(HOUR) + " at least 2 rounds passed and 2 failed: what they look at is not stable, or they are "
            "too strict. First, on a runner: surefoot doctor",
            "health-checks-failing", PIPELINE_DASHBOARD,
        ),
    )  # fmt: skip


# -- the service level ---------------------------------------------------------------------------------------


def window_name(seconds: float) -> str:
    """Return how a window is called in names of figures, whatever the scale."""
    return Scale()(seconds)


def _failures(window: float) -> str:
    return f"surefoot:slo_failures:count_{window_name(window)}"


def _ratio(window: float) -> str:
    return f"surefoot:slo_errors:ratio_{window_name(window)}"


def _burning(d: Scale) -> Iterator[Record | Alert]:
    for window in WINDOWS:
        shown = window_name(window)
        yield Record(
            _failures(window), _grown(f"{_TOTAL}{{{_FAILED}}}", d, window),
            f"Deployments that were put back or stranded within {shown}.",
        )  # fmt: skip
        yield Record(
            _ratio(window), f"{_failures(window)} / {_grown(f'{_TOTAL}{{{_COUNTED}}}', d, window)}",
            f"Their share of those that count: refused and cancelled ones do not. No value where none ended within {shown}.",
        )  # fmt: skip
    left = f"1 - {_ratio(30 * DAY)} / {1 - OBJECTIVE:.2f}"
    yield Record(
        "surefoot:slo_budget_left:ratio", left, "What is left of 30 days' budget of failures; below 0: overdrawn."
    )

    def burns(rate: float, window: float, short: float, least: int) -> str:
        limit = f"{rate * (1 - OBJECTIVE):.2f}"
        return f"({_ratio(window)} >= {limit} and {_ratio(short)} >= {limit} and {_failures(window)} >= {least})"

    def alert(name: str, severity: str, *parts: str) -> Alert:
        return Alert(
            name, "\nor ".join(parts), 0.0, severity,
            "The budget of failed deployments in {{ $labels.environment }} burns "
            + ("fast" if severity == "critical" else "too fast to last"),
            f"{{{{ $value | humanizePercentage }}}} of the deployments failed, in a longer and in a shorter window; "
            f"{OBJECTIVE:.0%} must succeed over 30 days. First, on a runner: surefoot report slo "
            "{{ $labels.environment }}",
            "health-checks-failing", PIPELINE_DASHBOARD,
        )  # fmt: skip

    # Few deployments make a ratio: one failure alone never alerts here.
    yield alert(
        "DeploymentBudgetBurnsFast", "critical",
        burns(14.4, HOUR, 5 * MINUTE, 2), burns(6, 6 * HOUR, 30 * MINUTE, 3),
    )  # fmt: skip
    yield alert(
        "DeploymentBudgetBurnsSlowly", "warning",
        burns(3, DAY, 2 * HOUR, 3), burns(1, 3 * DAY, 6 * HOUR, 4),
    )  # fmt: skip
