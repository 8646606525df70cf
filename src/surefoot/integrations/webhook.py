# SPDX-License-Identifier: Apache-2.0
"""A webhook: one POST of JSON, taken by any answer below 300.

A delivery whose answer was lost comes again: `Idempotency-Key` (and `delivery` in the body) are the same then.
"""

from __future__ import annotations

from typing import Any

from surefoot.core import views
from surefoot.core.summary import summarise
from surefoot.core.targets import Webhook
from surefoot.integrations import http
from surefoot.integrations.delivery import Parcel, Told
from surefoot.reports import story as tell
from surefoot.reports.story import Story


async def tell_webhook(target: Webhook, parcel: Parcel) -> Told:
    """Post the moment."""
    body = content(parcel.story, target.runbook)
    headers = {"Idempotency-Key": body["delivery"], "X-Surefoot-Event": body["event"]}
    await http.request("POST", parcel.reveal(target.url), who="the webhook", headers=headers, json=body)
    return Told(f"sent {body['event']}")


def content(story: Story, runbook: str) -> dict[str, Any]:
    """Return what is sent."""
    state = story.state
    return {
        "delivery": f"{story.store}:{state.id}#{story.of}",
        "event": str(story.moment),
        "at": views.rfc3339(story.entry.at),
        "headline": tell.headline(state, story.moment),
        "deployment": views.row(summarise(state), state.plan.project),
        "run_url": state.origin.run_url if state.origin is not None else "",
        "done": tell.done(state),
        "next": tell.next_steps(state),
        "runbook": runbook,
        "log": list(story.lines),
    }
