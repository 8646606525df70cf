# SPDX-License-Identifier: Apache-2.0
"""Sends traces of deployments to where OpenTelemetry's own variables say, by OTLP over HTTP.

Guarantees: nothing of OpenTelemetry is loaded before there is a trace to send; a receiver that is away costs the trace
and at most the time that its variables allow, never anything of a deployment.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from surefoot import __version__
from surefoot.core.errors import Code, SurefootError
from surefoot.reports.trace import Span

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
#: Nanoseconds of a second: OpenTelemetry's times.
NANO = 1e9


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables ask for traces."""
    disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    exporters = environ.get("OTEL_TRACES_EXPORTER", "otlp").replace(" ", "").split(",")
    return not disabled and "otlp" in exporters and any(environ.get(name) for name in ENDPOINTS)


def send(trace: int, spans: Sequence[Span], environ: Mapping[str, str]) -> None:
    """Send spans. SurefootError if they can't be sent, or are not taken."""
    if (protocol := _protocol(environ)) != "http/protobuf":
        raise SurefootError(
            f"traces are sent by http/protobuf, not by {protocol[:40]}",
            code=Code.PUSH_FAILED,
            hint="OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, and the receiver's port for HTTP, mostly 4318",
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SpanExportResult
    except ImportError:
        raise SurefootError(
            "traces need OpenTelemetry, which is not installed",
            code=Code.EXTRA_MISSING,
            hint="pip install 'surefoot[otel]'",
        ) from None
    said = _Said()
    logger = logging.getLogger("opentelemetry")
    logger.addHandler(said)
    propagate, logger.propagate = logger.propagate, False
    exporter = None
    try:
        exporter = OTLPSpanExporter()
        taken = exporter.export(_readable(trace, spans)) is SpanExportResult.SUCCESS
        why = said.last or "the receiver did not take them"
    except Exception as error:  # whatever variables and libraries make of it
        taken, why = False, f"{type(error).__name__}: {error}"
    finally:
        logger.removeHandler(said)
        logger.propagate = propagate
        if exporter is not None:
            exporter.shutdown()  # type: ignore[no-untyped-call]
    if not taken:
        raise SurefootError(
            f"the trace was not taken: {why}",
            code=Code.PUSH_FAILED,
            hint=f"see that ${ENDPOINTS[1]} is the receiver's, as in http://collector:4318",
        )


def _protocol(environ: Mapping[str, str]) -> str:
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    return next((found for name in names if (found := environ.get(name))), "http/protobuf")


class _Said(logging.Handler):
    """Keeps what the exporter says of a failure; it returns no more than that there was one."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()[:500]


def _readable(trace: int, spans: Sequence[Span]) -> list[ReadableSpan]:
    """Return spans as OpenTelemetry has them; each agent is an instance of the service `surefoot`."""
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    scope = InstrumentationScope("surefoot", __version__)
    found: list[ReadableSpan] = []
    for agent, group in groupby(sorted(spans, key=lambda span: span.agent or ""), key=lambda span: span.agent):
        resource = _resource(agent)
        for span in group:
            sampled = TraceFlags(TraceFlags.SAMPLED)
            parent = None if span.parent is None else SpanContext(trace, span.parent, is_remote=False)
            status = Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error)
            found.append(
                ReadableSpan(
                    span.name,
                    context=SpanContext(trace, span.id, is_remote=False, trace_flags=sampled),
                    parent=parent,
                    resource=resource,
                    attributes=span.attributes,
                    events=[Event(name, {"message": text}, _nano(at)) for at, name, text in span.moments],
                    kind=SpanKind.INTERNAL,
                    status=status,
                    start_time=_nano(span.begun),
                    end_time=_nano(span.ended),
                    instrumentation_scope=scope,
                )
            )
    return found


def _resource(agent: str | None) -> Resource:
    from opentelemetry.sdk.resources import Resource

    found = Resource.create()
    ours = {"service.version": __version__}
    if str(found.attributes.get("service.name", "")).startswith("unknown_service"):
        ours["service.name"] = "surefoot"
    if agent is not None:
        ours["service.instance.id"] = agent
    return found.merge(Resource(ours))


def _nano(at: float) -> int:
    return round(at * NANO)
