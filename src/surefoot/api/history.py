# SPDX-License-Identifier: Apache-2.0
"""Reads an environment's history, newest first, as far back as somebody wants to know."""

from __future__ import annotations

from collections.abc import Iterator

from surefoot.core.summary import Summary
from surefoot.store.protocol import Store

#: Summaries read at a time.
PAGE = 200


def pages(store: Store, environment: str) -> Iterator[list[Summary]]:
    """Yield all deployments of an environment, a page at a time; the next is read when it is asked for."""
    before: int | None = None
    while page := store.history(environment, PAGE, before):
        yield page
        if len(page) < PAGE:
            return
        before = page[-1].number
