# SPDX-License-Identifier: Apache-2.0
"""A message to people through Apprise: Slack, e-mail, Teams, PagerDuty and the hundred others that it knows.

Apprise comes with the extra `notify`. It says only whether a service took a message, so a message whose answer was
lost comes twice.
"""

from __future__ import annotations

import asyncio
import logging

from surefoot.core.errors import Code
from surefoot.core.targets import Message, Moment
from surefoot.integrations.delivery import NotDelivered, Parcel, Told
from surefoot.reports import story as tell
from surefoot.reports.story import Story

#: Lines of the log in a message; the incident has more.
LINES = 5

_GRAVITY = {
    Moment.SUCCEEDED: "success",
    Moment.RESOLVED: "success",
    Moment.FAILED: "warning",
    Moment.CANCELLED: "warning",
    Moment.ROLLING_BACK: "warning",
    Moment.ROLLED_BACK: "failure",
    Moment.STRANDED: "failure",
    Moment.RESOLVE_REFUSED: "failure",
}


async def tell_people(target: Message, parcel: Parcel) -> Told:
    """Send the moment."""
    try:
        import apprise
    except ImportError:
        raise NotDelivered(
            "messages need the package apprise, which this agent does not have",
            code=Code.EXTRA_MISSING,
            hint="where the agent runs: pip install 'surefoot[notify]'",
        ) from None
    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it would log addresses, and with them tokens
    service = apprise.Apprise.instantiate(parcel.reveal(target.url), suppress_exceptions=True)
    if service is None:
        raise NotDelivered(
            f"the address of {target.name} is none that Apprise knows",
            code=Code.DELIVERY_REFUSED,
            hint="see Apprise's documentation for the form of its addresses",
        )
    taken = await asyncio.to_thread(
        service.notify,
        title=tell.headline(parcel.story.state, parcel.story.moment),
        body=text(parcel.story, target.runbook),
        notify_type=apprise.NotifyType(_GRAVITY.get(parcel.story.moment, "info")),
    )
    if not taken:
        raise NotDelivered(f"{service.service_name} did not take the message", hint="check its address and token")
    return Told(f"sent {parcel.story.moment} to {service.service_name}")


def text(story: Story, runbook: str) -> str:
    """Return the message, in plain text."""
    state = story.state
    lines = [tell.runs_now(state)]
    lines += [f"{failure.code}: {failure.message}" for failure in tell.failures(state)]
    if state.status.terminal:
        lines += [f"- {sentence}" for sentence in tell.next_steps(state)]
    if state.origin is not None and state.origin.run_url:
        lines.append(f"Run: {state.origin.run_url}")
    if runbook:
        lines.append(f"Runbook: {runbook}")
    if story.lines and tell.failures(state):
        lines += ["", *story.lines[-LINES:]]
    return "\n".join(line for line in lines if line or story.lines)
