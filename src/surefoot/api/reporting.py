# SPDX-License-Identifier: Apache-2.0
"""Reads what reports need from the store: journals and last lines of single deployments, histories of a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from surefoot.api.history import PAGE, pages
from surefoot.core.errors import Code, NotFoundError
from surefoot.core.status import FAILURES
from surefoot.core.summary import Summary
from surefoot.reports.levels import Ended
from surefoot.reports.story import Story
from surefoot.store.protocol import Store

#: Lines of the log in a report.
LINES = 50


def story_of(store: Store, deployment: str) -> Story:
    """Return a deployment's whole story."""
    entries = tuple(store.journal(deployment))
    end = store.log_end(deployment)
    lines = store.log(deployment, max(0, end - LINES), LINES)
    shown = tuple(f"{line.step or line.stream} | {line.text}" for line in lines)
    return Story(entries, len(entries), shown, store.identity())


def newest_ended(store: Store) -> str:
    """Return the deployment that ended last, in any environment."""
    ended: list[Summary] = []
    for environment in store.environments():
        for page in pages(store, environment.name):
            ended += (found := [summary for summary in page if summary.finished_at is not None])
            if found:  # a queue may be longer than a page
                break
    if not ended:
        raise NotFoundError("no deployment has ended yet", code=Code.DEPLOYMENT_UNKNOWN, hint="surefoot status")
    return max(ended, key=lambda summary: summary.finished_at or 0.0).id


def ended_since(store: Store, environment: str, since: float) -> Iterator[Summary]:
    """Yield the deployments of an environment that ended since then, newest first.

    Deployments of one environment begin in about the order in which they were accepted: once a whole page is older, so
    is the rest. Those that ended without having begun say nothing of that: the end of a queue may be cancelled first.
    """
    for page in pages(store, environment):
        recent = [summary for summary in page if (summary.finished_at or since) >= since]
        yield from (summary for summary in recent if summary.finished_at is not None)
        if not recent and any(summary.started_at is not None for summary in page):
            return


def with_journals(store: Store, summaries: Iterator[Summary]) -> Iterator[Ended]:
    """Yield each with what of its journal the figures need: of successes the first entry, of failures all. They are one
    environment's, newest first.
    """
    while page := list(islice(summaries, PAGE)):
        before = page[-1].number - 1
        openings = store.openings(page[0].environment, before, page[0].number - before)
        first = {journal.number: journal.entries for journal in openings}
        for summary in page:
            whole = summary.status in FAILURES
            yield Ended(summary, tuple(store.journal(summary.id)) if whole else first[summary.number])
