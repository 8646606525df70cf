# SPDX-License-Identifier: Apache-2.0
"""Every metric, once: what is served, documented and asked for in rules and dashboards has its name from here.

Names and labels are part of the public contract: they are never changed, only added to.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Type(StrEnum):
    """What Prometheus calls the types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class Source(StrEnum):
    """Where a metric comes from, and so who serves it."""

    RUNNER = "runner"  #: the machine that the exporter runs on, and what it can reach
    JOURNAL = "journal"  #: the journal's fold: the same from every exporter and the server
    STORE = "store"  #: the store as it is now: the same from every exporter and the server


#: Upper bounds in seconds: a deployment is judged at 10 minutes.
DEPLOYMENT_BUCKETS = (5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1200.0, 1800.0, 3600.0)
STEP_BUCKETS = (0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0)
#: A takeover is judged at 5 and at 30 seconds.
TAKEOVER_BUCKETS = (0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 300.0)
LEAD_BUCKETS = (600.0, 3600.0, 4 * 3600.0, 86400.0, 2 * 86400.0, 7 * 86400.0, 14 * 86400.0, 30 * 86400.0)
RESTORE_BUCKETS = (5.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 4 * 3600.0, 86400.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `name` is what queries say: counters end in `_total`, infos in `_info`."""

    name: str
    type: Type
    source: Source
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()

    @property
    def family(self) -> str:
        """Return the name without what its type adds to it."""
        suffix = {Type.COUNTER: "_total", Type.INFO: "_info"}.get(self.type, "")
        return self.name.removesuffix(suffix)


_RUNNER = ("runner", "role")

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        # -- the runner -------------------------------------------------------------------------------------------
        Metric(
            "runner_status", Type.GAUGE, Source.RUNNER, _RUNNER,
            "1 if the runner can take work: the machine is up, and so is the CI runner's own service, where one is "
            "named; else 0.",
        ),
        Metric("runner_cpu_usage_percent", Type.GAUGE, Source.RUNNER, _RUNNER, "CPU in use, all cores together."),
        Metric("runner_memory_usage_percent", Type.GAUGE, Source.RUNNER, _RUNNER, "Memory in use."),
        Metric("runner_disk_usage_percent", Type.GAUGE, Source.RUNNER, _RUNNER, "Use of the disk that is watched."),
        Metric(
            "runner_last_heartbeat_timestamp_seconds", Type.GAUGE, Source.RUNNER, _RUNNER,
            "The last sign of life of this runner's agent in the store; where there is no such agent, of the machine.",
        ),
        Metric(
            "runner_info", Type.INFO, Source.RUNNER,
            (*_RUNNER, "version", "hostname", "os", "kernel", "python", "service"),
            "What the runner is. Always 1.",
        ),
        Metric(
            "surefoot_clock_skew_seconds", Type.GAUGE, Source.RUNNER, _RUNNER,
            "How far the runner's clock is ahead of the store's (negative: behind), give or take half a round trip.",
        ),
        Metric(
            "surefoot_store_round_trip_seconds", Type.GAUGE, Source.RUNNER, _RUNNER,
            "How long the store took to answer the simplest question.",
        ),
        Metric(
            "surefoot_host_reachable", Type.GAUGE, Source.RUNNER, (*_RUNNER, "environment", "host"),
            "1 if the host accepts connections to its SSH port from this runner, else 0.",
        ),
        Metric(
            "surefoot_secret_valid", Type.GAUGE, Source.RUNNER, (*_RUNNER, "secret"),
            "1 if the secret is there, is what it should be and has not expired, else 0.",
        ),
        Metric(
            "surefoot_secret_expires_in_days", Type.GAUGE, Source.RUNNER, (*_RUNNER, "secret"),
            "Days until the secret expires, of those that do; negative once it has.",
        ),
        # -- the journal ------------------------------------------------------------------------------------------
        Metric(
            "surefoot_deployments_total", Type.COUNTER, Source.JOURNAL, ("environment", "outcome"),
            "Deployments that have ended, by how: succeeded, failed (refused before anything was touched), "
            "rolled_back, cancelled, stranded.",
        ),
        Metric(
            "surefoot_deployment_duration_seconds", Type.HISTOGRAM, Source.JOURNAL, ("environment", "outcome"),
            "From the first agent's start to the end, of deployments that were started.", DEPLOYMENT_BUCKETS,
        ),
        Metric(
            "surefoot_step_duration_seconds", Type.HISTOGRAM, Source.JOURNAL, ("environment", "step"),
            "How long attempts of forward steps took that succeeded or failed.", STEP_BUCKETS,
        ),
        Metric(
            "surefoot_undo_duration_seconds", Type.HISTOGRAM, Source.JOURNAL, ("environment", "step"),
            "How long attempts to undo a step took that succeeded or failed.", STEP_BUCKETS,
        ),
        Metric(
            "surefoot_takeovers_total", Type.COUNTER, Source.JOURNAL, ("environment",),
            "How often an agent went on with a deployment that another had begun.",
        ),
        Metric(
            "surefoot_takeover_duration_seconds", Type.HISTOGRAM, Source.JOURNAL, (),
            "From the last sign of life of an agent that was lost to the grant of its lease to another.",
            TAKEOVER_BUCKETS,
        ),
        Metric(
            "surefoot_deployment_failures_total", Type.COUNTER, Source.JOURNAL, ("environment", "code"),
            "Why deployments failed, were put back or were stranded, by code.",
        ),
        Metric(
            "surefoot_health_checks_total", Type.COUNTER, Source.JOURNAL, ("environment", "result"),
            "Rounds of health checks after a change: passed, failed.",
        ),
        Metric(
            "surefoot_changes_total", Type.COUNTER, Source.JOURNAL, ("environment", "result"),
            "Changes as DORA counts them: succeeded, failed, taken_back (by a rollback that somebody asked for).",
        ),
        Metric(
            "surefoot_lead_time_seconds", Type.HISTOGRAM, Source.JOURNAL, ("environment",),
            "From each commit (from the request, where no commits are known) to the end of the deployment that brought "
            "it.",
            LEAD_BUCKETS,
        ),
        Metric(
            "surefoot_restore_duration_seconds", Type.HISTOGRAM, Source.JOURNAL, ("environment",),
            "How long failures lasted: from the decision to put back to the end, or to the repair; of a rollback that "
            "was asked for, from the request to its success.",
            RESTORE_BUCKETS,
        ),
        Metric(
            "surefoot_last_deployment_timestamp_seconds", Type.GAUGE, Source.JOURNAL,
            ("environment", "outcome", "version", "deployment"),
            "When the last deployment with that outcome ended.",
        ),
        # -- the store now ----------------------------------------------------------------------------------------
        Metric(
            "surefoot_deployment_in_progress", Type.GAUGE, Source.STORE, ("environment",),
            "1 while a deployment is at work in the environment, else 0.",
        ),
        Metric(
            "surefoot_deployment_started_timestamp_seconds", Type.GAUGE, Source.STORE, ("environment",),
            "When the deployment that is at work was started.",
        ),
        Metric(
            "surefoot_queue_depth", Type.GAUGE, Source.STORE, ("environment",), "Deployments that wait for their turn.",
        ),
        Metric(
            "surefoot_queue_oldest_timestamp_seconds", Type.GAUGE, Source.STORE, ("environment",),
            "When the deployment that waits longest was asked for.",
        ),
        Metric(
            "surefoot_environment_stranded", Type.GAUGE, Source.STORE, ("environment",),
            "1 while the environment is locked by a deployment that could not be put back, else 0.",
        ),
        Metric(
            "surefoot_environment_version_info", Type.INFO, Source.STORE, ("environment", "version"),
            "The version that the environment runs. Always 1.",
        ),
        Metric(
            "surefoot_lease_age_seconds", Type.GAUGE, Source.STORE, ("environment",),
            "How long ago the holder of the environment's lease last showed that it lives; 0 while nobody holds it.",
        ),
        Metric(
            "surefoot_lease_ttl_seconds", Type.GAUGE, Source.STORE, ("environment",),
            "A holder unheard of for this long has lost the lease.",
        ),
        Metric(
            "surefoot_lease_token", Type.GAUGE, Source.STORE, ("environment",),
            "The newest fencing token; it grows with each grant.",
        ),
        Metric(
            "surefoot_lease_holder_info", Type.INFO, Source.STORE, ("environment", "agent"),
            "Who holds the environment's lease. Always 1.",
        ),
        Metric(
            "surefoot_agent_online", Type.GAUGE, Source.STORE, ("agent", "role"),
            "1 if the agent is online (degraded counts too), else 0; 0 also while it is drained.",
        ),
        Metric(
            "surefoot_agent_last_seen_timestamp_seconds", Type.GAUGE, Source.STORE, ("agent", "role"),
            "The agent's last sign of life, by the store's clock.",
        ),
        Metric("surefoot_store_up", Type.GAUGE, Source.STORE, (), "1 if the store answers, else 0."),
        Metric(
            "surefoot_store_read_timestamp_seconds", Type.GAUGE, Source.STORE, (),
            "When the store was last read, by the reader's clock. All that comes from it is as of then.",
        ),
        Metric("surefoot_build_info", Type.INFO, Source.STORE, ("version",), "Which Surefoot serves this. Always 1."),
    )
}  # fmt: skip
