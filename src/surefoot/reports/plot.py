# SPDX-License-Identifier: Apache-2.0
"""Service levels as a picture: the success rate over time against its objective, and durations day by day.

Guarantees: it is drawn from the same deployments as the figures, and its line ends at the rate that the report gives;
it is SVG without scripts, fonts or addresses of others, light or dark as its reader likes it, and small however long
the history is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from itertools import accumulate

from surefoot.core.status import FAILURES, Status
from surefoot.core.summary import Summary
from surefoot.core.wording import duration
from surefoot.reports.levels import DAY, quantile, took

#: Sizes in pixels: of the picture, of a plot, and of what is around it.
WIDTH, LEFT, RIGHT, HEIGHT, HEAD, GAP, BLOCK = 820, 78, 14, 110, 58, 44, 352
SPAN = WIDTH - LEFT - RIGHT
#: Points of the line, and bars, at most.
POINTS, BARS = 300, 92
#: Where the axis of durations may end, in seconds.
TOPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400)
_STYLE = """
svg { --fg: #24292f; --dim: #6e7781; --grid: #d8dee4; --rate: #0969da; --bad: #cf222e; --bar: #54aeff; --bg: #fff;
  background: var(--bg); font: 12px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { svg { --fg: #e6edf3; --dim: #8d96a0; --grid: #30363d; --rate: #4493f8;
  --bad: #f85149; --bar: #1f6feb; --bg: #0d1117; } }
text { fill: var(--dim); } .title { fill: var(--fg); font-size: 15px; font-weight: 600; } .plot { fill: var(--fg); }
.end { text-anchor: end; } .middle { text-anchor: middle; } line { stroke: var(--grid); }
.rate { fill: none; stroke: var(--rate); stroke-width: 2; } .objective { stroke: var(--bad); stroke-dasharray: 5 4; }
.failure { stroke: var(--bad); stroke-width: 2; } .bar { fill: var(--bar); } .p95 { stroke: var(--dim); }"""


@dataclass(frozen=True, slots=True)
class Series:
    """An environment's deployments that ended since twice the report's time ago, and what is promised of them."""

    name: str
    ended: Sequence[Summary]
    since: float
    until: float
    objective: float
    median: float

    def x(self, at: float) -> float:
        """Return where a time is in the picture."""
        return LEFT + SPAN * (at - self.since) / (self.until - self.since)


def svg(series: Sequence[Series]) -> str:
    """Return one picture of all environments, one below the other."""
    height = max(1, len(series)) * BLOCK
    drawn = "\n".join(line for place, one in enumerate(series) for line in _block(one, place * BLOCK))
    names = ", ".join(one.name for one in series) or "no environment"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img">\n<title>Service levels of deployments: {escape(names)}</title>\n'
        f"<style>{_STYLE}\n</style>\n{drawn}\n</svg>\n"
    )


def _block(s: Series, top: int) -> Iterator[str]:
    days = round((s.until - s.since) / DAY)
    yield _text(LEFT, top + 22, s.name, "title")
    title = f"success rate of the last {days} days; ticks: failures; dashed: the objective, {s.objective * 100:g} %"
    yield from _rates(s, top + HEAD, title)
    yield from _durations(s, top + HEAD + HEIGHT + GAP)
    bottom = top + HEAD + 2 * HEIGHT + GAP + 18
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = s.since + share * (s.until - s.since)
        kind = "" if share == 0 else "end" if share == 1 else "middle"
        yield _text(s.x(at), bottom, datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d"), kind)


def _rates(s: Series, top: int, title: str) -> Iterator[str]:
    """Draw for each moment the rate of the time before it, as long as the report's."""
    counts = (Status.SUCCEEDED, *FAILURES)
    counted = sorted((e.finished_at or 0.0, e.status in FAILURES) for e in s.ended if e.status in counts)
    times = [at for at, _ in counted]
    failures = [0, *accumulate(failed for _, failed in counted)]
    points: list[tuple[float, float]] = []
    for n in range(POINTS + 1):
        at = s.since + (s.until - s.since) * n / POINTS
        first, end = bisect_right(times, at - (s.until - s.since)), bisect_right(times, at)
        if end > first:
            points.append((s.x(at), 1 - (failures[end] - failures[first]) / (end - first)))
    lowest = min([0.9, s.objective, *(rate for _, rate in points)])
    floor = int(lowest * 10 + 1e-9) / 10
    yield from _frame(top, title, ("100 %", f"{(1 + floor) * 50:.0f} %", f"{floor * 100:.0f} %"))
    level = top + HEIGHT * (1 - s.objective) / (1 - floor)
    yield _line(LEFT, level, WIDTH - RIGHT, level, "objective")
    for x in sorted({round(s.x(at)) for at, failed in counted if failed and at >= s.since}):
        yield _line(x, top + HEIGHT - 9, x, top + HEIGHT, "failure")
    where = " ".join(f"{x:.1f},{top + HEIGHT * (1 - rate) / (1 - floor):.1f}" for x, rate in points)
    yield f'<polyline class="rate" points="{where}"/>' if points else _text(LEFT + 8, top + 34, "none has ended")


def _durations(s: Series, top: int) -> Iterator[str]:
    """Draw how long those took that succeeded: a bar up to each day's median, a line up to its 95th percentile."""
    days = max(1, -(-round((s.until - s.since) / DAY) // BARS))
    buckets: dict[int, list[float]] = {}
    for e in s.ended:
        if e.status is Status.SUCCEEDED and s.since <= (e.finished_at or 0.0) <= s.until:
            buckets.setdefault(int(((e.finished_at or 0.0) - s.since) // (days * DAY)), []).append(took(e))
    longest = max((quantile(found, 0.95) or 0.0 for found in buckets.values()), default=0.0)
    tallest = next((top for top in TOPS if top >= longest), longest)
    title = f"duration by {'day' if days == 1 else f'{days} days'}: median and 95th percentile"
    if s.median <= tallest:
        title += f"; dashed: the objective, {duration(s.median)}"
    yield from _frame(top, title, (duration(tallest), duration(tallest / 2), "0 s"))
    step = SPAN * days * DAY / (s.until - s.since)
    for bucket, found in sorted(buckets.items()):
        x = LEFT + step * bucket
        tall, far = (HEIGHT * (quantile(found, share) or 0.0) / tallest for share in (0.5, 0.95))
        width = min(step * 0.7, WIDTH - RIGHT - x)
        yield f'<rect class="bar" x="{x:.1f}" y="{top + HEIGHT - tall:.1f}" width="{width:.1f}" height="{tall:.1f}"/>'
        yield _line(x + width / 2, top + HEIGHT - far, x + width / 2, top + HEIGHT - tall, "p95")
    if s.median <= tallest:
        level = top + HEIGHT * (1 - s.median / tallest)
        yield _line(LEFT, level, WIDTH - RIGHT, level, "objective")


def _frame(top: int, title: str, ticks: Sequence[str]) -> Iterator[str]:
    yield _text(LEFT, top - 8, title, "plot")
    for place, tick in enumerate(ticks):
        y = top + HEIGHT * place / (len(ticks) - 1)
        yield _line(LEFT, y, WIDTH - RIGHT, y)
        yield _text(LEFT - 8, y + 4, tick, "end")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"{_class(kind)}/>'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{_class(kind)}>{escape(text)}</text>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
