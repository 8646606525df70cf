# SPDX-License-Identifier: Apache-2.0
"""From figures to what prometheus-client writes: one family per metric, with names and helps from the catalogue.

Guarantees: labels come in the catalogue's order and none is left out; a family without samples is not written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from surefoot import __version__
from surefoot.monitoring.catalogue import METRICS, Type
from surefoot.monitoring.ledger import Histogram, Labels, Ledger
from surefoot.monitoring.reader import Now
from surefoot.store.protocol import EnvironmentRow

#: What OpenMetrics allows the labels of an exemplar to be long together.
_EXEMPLAR = 128

Samples = Mapping[str, Sequence[tuple[Labels, float]]]


def of(samples: Samples) -> Iterator[Metric]:
    """Return families of gauges and infos: by metric, (values of its labels, value)."""
    for name, values in samples.items():
        metric = METRICS[name]
        if not values:
            continue
        if metric.type is Type.INFO:
            info = InfoMetricFamily(metric.family, metric.help, labels=metric.labels)
            for labels, _ in values:
                info.add_metric(labels, {})
            yield info
            continue
        gauge = GaugeMetricFamily(metric.family, metric.help, labels=metric.labels)
        for labels, value in values:
            gauge.add_metric(labels, value)
        yield gauge


def of_ledger(ledger: Ledger) -> Iterator[Metric]:
    """Return families of what was counted; histograms carry the last deployment of each bucket as an exemplar."""
    for name, counts in ledger.counters.items():
        metric = METRICS[name]
        counter = CounterMetricFamily(metric.family, metric.help, labels=metric.labels)
        for labels, count in sorted(counts.items()):
            counter.add_metric(labels, count)
        yield counter
    for name, found in ledger.histograms.items():
        metric = METRICS[name]
        family = HistogramMetricFamily(metric.family, metric.help, labels=metric.labels)
        for labels, histogram in sorted(found.items()):
            family.add_metric(labels, list(_buckets(histogram)), histogram.total)
        yield family
    newest = {"surefoot_last_deployment_timestamp_seconds": [
        ((environment, outcome, version, deployment), at)
        for (environment, outcome), (version, deployment, at) in sorted(ledger.newest.items())
    ]}  # fmt: skip
    yield from of(newest)


def _buckets(histogram: Histogram) -> Iterator[tuple[str, float] | tuple[str, float, Exemplar]]:
    count = 0
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    for place, bound in enumerate(bounds):
        count += histogram.counts[place]
        last = histogram.last.get(place)
        if last is None or len(last.deployment) + len("deployment") > _EXEMPLAR:
            yield bound, count
        else:
            yield bound, count, Exemplar({"deployment": last.deployment}, last.value, last.at)


def of_store(now: Now | None, *, up: bool, read_at: float | None, names: Iterable[str] = ()) -> Iterator[Metric]:
    """Return families of the store: whether it answers, and, unless `now` is None, what is in it."""
    yield from of(
        {
            "surefoot_store_up": [((), float(up))],
            "surefoot_store_read_timestamp_seconds": [] if read_at is None else [((), read_at)],
            "surefoot_build_info": [((__version__,), 1.0)],
        }
    )
    if now is not None:
        yield from of_now(now, names)


def of_now(now: Now, names: Iterable[str] = ()) -> Iterator[Metric]:
    """Return families of what is in the store now. `names`: environments that are known though they never took a
    deployment.
    """
    yield from of(_environments(now, names) | _agents(now))


def _environments(now: Now, names: Iterable[str]) -> dict[str, list[tuple[Labels, float]]]:
    rows = {row.name: row for row in now.environments}
    fresh = sorted(set(names) - rows.keys())

    def of_each(value: Callable[[EnvironmentRow], float]) -> list[tuple[Labels, float]]:
        return [*(((n,), value(row)) for n, row in rows.items()), *(((n,), 0.0) for n in fresh)]

    leases = {name: row.lease for name, row in rows.items() if row.lease is not None}
    return {
        "surefoot_deployment_in_progress": of_each(lambda row: float(row.running is not None)),
        "surefoot_deployment_started_timestamp_seconds": [((n,), at) for n, at in now.started.items()],
        "surefoot_queue_depth": of_each(lambda row: float(len(row.queue))),
        "surefoot_queue_oldest_timestamp_seconds": [((n,), at) for n, at in now.oldest.items()],
        "surefoot_environment_stranded": of_each(lambda row: float(row.locked_by is not None)),
        "surefoot_environment_version_info": [
            ((n, row.current_version), 1.0) for n, row in rows.items() if row.current_version is not None
        ],
        "surefoot_lease_age_seconds": [((n,), one.age if one.holder is not None else 0.0) for n, one in leases.items()],
        "surefoot_lease_ttl_seconds": [((n,), one.ttl) for n, one in leases.items()],
        "surefoot_lease_token": [((n,), float(one.token)) for n, one in leases.items()],
        "surefoot_lease_holder_info": [((n, one.holder), 1.0) for n, one in leases.items() if one.holder is not None],
    }


def _agents(now: Now) -> dict[str, list[tuple[Labels, float]]]:
    names = [((row.report.name, str(row.report.role)), row) for row in now.agents]
    return {
        "surefoot_agent_online": [(labels, float(row.status.able)) for labels, row in names],
        "surefoot_agent_last_seen_timestamp_seconds": [(labels, row.last_seen_at) for labels, row in names],
    }
