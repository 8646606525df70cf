# SPDX-License-Identifier: Apache-2.0
"""Reports from the journal: post-mortems, service levels, DORA's figures, comments for Jira."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from surefoot.cli.lazy import LazyGroup, command
from surefoot.cli.params import DURATION, TEXT

if TYPE_CHECKING:
    from surefoot.cli.app import App
    from surefoot.reports.plot import Series
    from surefoot.reports.story import Story
    from surefoot.reports.trace import Span

#: Seconds of a day.
DAY = 86400.0


@click.command(
    "report", cls=LazyGroup, example="surefoot report slo production\nsurefoot report postmortem production-7"
)
@click.pass_context
def report(ctx: click.Context) -> None:
    """Report from the journal."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command("postmortem", example="surefoot report postmortem production-7 > docs/postmortems/2026-01-31.md")
@click.argument("deployment", metavar="ID", type=TEXT)
@click.pass_context
def postmortem(ctx: click.Context, deployment: str) -> None:
    """Write a post-mortem to begin with.

    Markdown with the timeline, what failed and what was done filled in, and the questions that only people can answer.
    """
    from surefoot.api.reporting import story_of
    from surefoot.cli.app import App
    from surefoot.reports import postmortem as page

    app = App.of(ctx)
    with app.reading() as store:
        story = story_of(store, deployment)
    if app.json:
        app.console.document(page.facts(story))
    else:
        _print(app, page.markdown(story))


def _window(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what reports on a time have in common."""
    days = click.IntRange(1, 3650)
    function = click.option("--days", type=days, default=30, show_default=True, help="How far back.")(function)
    return click.argument("environment", metavar="[ENV]", required=False, type=TEXT)(function)


@command(
    "slo",
    example="surefoot report slo production --svg slo.svg\nsurefoot report slo --days 7 --output json",
)
@_window
@click.option("--objective", type=click.FloatRange(0, 100), default=95.0, show_default=True, help="Percent of success.")
@click.option("--median", metavar="DURATION", type=DURATION, default="10m", show_default=True, help="Half are faster.")
@click.option(
    "--svg", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Draw it, too: over time, by day."
)
@click.pass_context
def slo(
    ctx: click.Context, *, environment: str | None, days: int, objective: float, median: float, svg: Path | None
) -> None:
    """Show how often and how fast deployments succeed.

    And what is left of the error budget. Refused and cancelled deployments count for nothing.
    """
    from surefoot.api.reporting import ended_since
    from surefoot.cli.app import App
    from surefoot.cli.text import duration
    from surefoot.reports.levels import service_levels
    from surefoot.reports.plot import Series

    app = App.of(ctx)
    found: list[dict[str, Any]] = []
    series: list[Series] = []
    with app.reading() as store:
        until = store.now()
        since = until - days * DAY
        for name in _environments(app, store, environment):
            # The rate of a moment is that of the time before it, so a picture needs as much again of what was before.
            ended = list(ended_since(store, name, since - days * DAY if svg is not None else since))
            levels = service_levels(ended, since=since, until=until, objective=objective / 100, median=median)
            found.append({"name": name, **levels})
            series.append(Series(name, ended, since, until, objective / 100, median))
    if svg is not None:
        _draw(series, svg)
    if app.json:
        app.console.document({"days": days, "environments": found})
        return
    app.console.table(
        ("ENVIRONMENT", "COUNTED", "SUCCESS", "OBJECTIVE", "BUDGET LEFT", "MEDIAN", "P95", "MET"),
        [
            (
                row["name"],
                str(row["counted"]),
                _percent(row["success_rate"]),
                _percent(row["objective"]),
                _percent(row["error_budget"]["left"]),
                _or_dash(row["median_duration_seconds"], duration),
                _or_dash(row["p95_duration_seconds"], duration),
                "yes" if row["met"] else "no",
            )
            for row in found
        ],
    )


@command("dora", example="surefoot report dora production\nsurefoot report dora --days 90 --output json")
@_window
@click.pass_context
def dora(ctx: click.Context, environment: str | None, days: int) -> None:
    """Show DORA's four figures.

    Deployment frequency, lead time for changes, change failure rate, time to restore.
    """
    from surefoot.api.reporting import ended_since, with_journals
    from surefoot.cli.app import App
    from surefoot.cli.text import duration
    from surefoot.reports import levels

    app = App.of(ctx)
    found: list[dict[str, Any]] = []
    with app.reading() as store:
        until = store.now()
        since = until - days * DAY
        for name in _environments(app, store, environment):
            ended = with_journals(store, ended_since(store, name, since))
            found.append({"name": name, **levels.dora(ended, since=since, until=until)})
    if app.json:
        app.console.document({"days": days, "environments": found})
        return
    app.console.table(
        ("ENVIRONMENT", "DEPLOYMENTS", "PER DAY", "LEAD TIME", "CHANGE FAILURE RATE", "TIME TO RESTORE"),
        [
            (
                row["name"],
                str(row["deployments"]),
                f"{row['deployments_per_day']:.2f}",
                _or_dash(row["lead_time_seconds"], duration),
                _percent(row["change_failure_rate"]),
                _or_dash(row["time_to_restore_seconds"], duration),
            )
            for row in found
        ],
    )


@command(
    "jira",
    example="surefoot report jira production-7\nsurefoot report jira --issue INFRA-472 --post --transition Done",
)
@click.argument("deployment", metavar="[ID]", required=False, type=TEXT)
@click.option("--issue", metavar="KEY", type=TEXT, help="The issue, such as INFRA-472.")
@click.option("--post", is_flag=True, help="Post it, once; $JIRA_URL, $JIRA_USER and $JIRA_TOKEN say where and who.")
@click.option("--transition", metavar="NAME", type=TEXT, help="And move the issue on.")
@click.pass_context
def jira(ctx: click.Context, deployment: str | None, issue: str | None, post: bool, transition: str | None) -> None:
    """Write a comment for Jira.

    What was deployed, with what result, and the evidence; of the deployment that ended last if none is named. With
    --output json it is the document that Jira takes.
    """
    from surefoot.api.reporting import newest_ended, story_of
    from surefoot.cli.app import App
    from surefoot.core.errors import UsageError
    from surefoot.reports import jira as comment

    app = App.of(ctx)
    if (post or transition) and not issue:
        raise UsageError("no issue is named", hint="add --issue KEY")
    if transition and not post:
        raise UsageError("--transition needs --post", hint="add --post")
    with app.reading() as store:
        story = story_of(store, deployment or newest_ended(store))
    if post:
        assert issue is not None
        _post(app, story, issue, transition)
    elif app.json:
        app.console.document(comment.document(story))
    else:
        _print(app, comment.text(story))


@command("trace", example="surefoot report trace production-7\nsurefoot report trace production-7 --send")
@click.argument("deployment", metavar="ID", type=TEXT)
@click.option("--send", is_flag=True, help="Send it where $OTEL_EXPORTER_OTLP_ENDPOINT says; again is no harm.")
@click.pass_context
def trace(ctx: click.Context, deployment: str, send: bool) -> None:
    """Show what took how long.

    The deployment, each agent that held it, its steps and checks, and the hosts: spans, as OpenTelemetry has them,
    which agents send by themselves where its variables name a receiver.
    """
    from surefoot.api.reporting import story_of
    from surefoot.cli.app import App
    from surefoot.core.errors import UsageError
    from surefoot.monitoring import otlp
    from surefoot.reports import trace as tracing

    app = App.of(ctx)
    if send and not otlp.wanted(os.environ):
        raise UsageError("no receiver is named", hint="set OTEL_EXPORTER_OTLP_ENDPOINT=http://HOST:4318")
    with app.reading() as store:
        story = story_of(store, deployment)
    found, number = tracing.spans(story.store, story.entries), tracing.trace_id(story.store, deployment)
    if send:
        otlp.send(number, found, os.environ)
    if app.json:
        app.console.document({"trace_id": f"{number:032x}", "sent": send, "spans": [s.shown() for s in found]})
        return
    _show_spans(app, found)
    app.console.note(f"trace {number:032x}{' was sent' if send else ''}")


def _show_spans(app: App, found: list[Span]) -> None:
    from surefoot.cli.text import duration

    depths: dict[int, int] = {}
    rows: list[tuple[str, ...]] = []
    for span in found:
        depth = depths[span.id] = depths.get(span.parent or 0, -1) + 1
        since = span.begun - found[0].begun
        rows.append(
            ("  " * depth + span.name, f"+{duration(since)}", duration(span.ended - span.begun), span.agent or "-",
             span.error or "-")
        )  # fmt: skip
    app.console.table(("SPAN", "BEGAN", "TOOK", "AGENT", "ERROR"), rows)


def _draw(series: list[Series], path: Path) -> None:
    from surefoot.core.errors import UsageError
    from surefoot.reports import plot

    try:
        path.write_text(plot.svg(series), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}", hint="name another with --svg") from error


def _post(app: App, story: Story, issue: str, transition: str | None) -> None:
    """Comment on the issue, and move it on."""
    import asyncio

    from surefoot.core.errors import SurefootError, UsageError
    from surefoot.integrations.delivery import NotDelivered
    from surefoot.integrations.jira import Jira
    from surefoot.reports import jira as comment

    url, token = os.environ.get("JIRA_URL", ""), os.environ.get("JIRA_TOKEN", "")
    if not url.startswith(("https://", "http://")) or not token:
        missing = "JIRA_URL" if not url.startswith(("https://", "http://")) else "JIRA_TOKEN"
        raise UsageError(
            f"{missing} is not set",
            hint="set JIRA_URL=https://SITE.atlassian.net, JIRA_USER and JIRA_TOKEN",
        )
    site = Jira(url, token, os.environ.get("JIRA_USER", ""))
    state = story.state
    marker = f"{story.store}:{state.id}:{state.status}{':resolved' if state.resolved else ''}"

    async def work() -> tuple[str, bool, bool]:
        where, new = await site.comment(issue, comment.document(story), marker)
        moved = await site.transition(issue, transition) if transition else False
        return where, new, moved

    try:
        where, new, moved = asyncio.run(work())
    except NotDelivered as error:
        message = error.message.replace(token, "***")
        raise SurefootError(message, code=error.code, hint=error.hint or "try again: it is posted once") from None
    if app.json:
        app.console.document({"issue": issue, "url": where, "new": new, "moved": moved})
    else:
        app.console.print(f"{'commented on' if new else 'had commented on'} {issue}: {where}")
        if transition:
            app.console.print(f"{issue} {'is moved on' if moved else 'was there already'}: {transition}")


def _environments(app: App, store: Any, environment: str | None) -> list[str]:
    if environment is None:
        return [row.name for row in store.environments()]
    app.know_environment(store, environment)
    return [environment]


def _print(app: App, text: str) -> None:
    from surefoot.cli.text import clean_lines

    app.console.print("\n".join(clean_lines(text.rstrip("\n"))))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.1f} %"


def _or_dash(value: float | None, said: Callable[[float], str]) -> str:
    return "-" if value is None else said(value)


for _command in (postmortem, slo, dora, trace, jira):
    report.add_command(_command)
