# SPDX-License-Identifier: Apache-2.0
"""Prometheus's two text formats, made ahead of a scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_EOF = b"# EOF\n"


@dataclass(frozen=True, slots=True)
class Text:
    """The same families in both formats; OpenMetrics without its last line."""

    plain: bytes = b""
    open: bytes = b""

    def __add__(self, other: Text) -> Text:
        return Text(self.plain + other.plain, self.open + other.open)


class Collected:
    """What prometheus-client takes for a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        """Take families as they are."""
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        """Return them."""
        return iter(self._families)


def render(families: Iterable[Metric]) -> Text:
    """Return families as text."""
    collected = list(families)
    return Text(_plain(collected), _open(collected))


def answer(now: Iterable[Metric], before: Text, accept: str) -> tuple[bytes, str]:
    """Return body and content type for a scraper's Accept header: families as of now, and what was rendered before."""
    if "application/openmetrics-text" in accept:
        return _open(now) + before.open + _EOF, OPENMETRICS
    return _plain(now) + before.plain, PLAIN


def _plain(families: Iterable[Metric]) -> bytes:
    return generate_latest(Collected(families))


def _open(families: Iterable[Metric]) -> bytes:
    text: bytes = openmetrics.generate_latest(Collected(families))  # type: ignore[no-untyped-call]
    return text.removesuffix(_EOF)
