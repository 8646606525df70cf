# SPDX-License-Identifier: Apache-2.0
"""The one door: tell one target one moment of one deployment's story.

Guarantees: it ends within `WITHIN`, told or not; what is told again after a lost answer is found again where the
target can be asked (GitHub), and may come twice where it can't (messages, webhooks: they carry an id). Never raises
anything but `NotDelivered`, whose text may still hold a secret: whoever keeps it redacts it first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from surefoot.core import events as ev
from surefoot.core.errors import Code
from surefoot.core.targets import GitHubIssue, GitHubStatus, Message, Target, Webhook
from surefoot.reports.story import Story

#: Seconds that one delivery may take, all its requests together.
WITHIN = 20.0


class NotDelivered(Exception):  # noqa: N818 - says what is the case, to be tried again
    """It was not told, or nobody knows. `after`: seconds for which the target asked to be left alone."""

    def __init__(self, message: str, *, code: Code = Code.DELIVERY_FAILED, hint: str = "", after: float = 0.0) -> None:
        """Take one sentence, and what to do about it."""
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.after = after


@dataclass(frozen=True, slots=True)
class Told:
    """What came of it. `where` is for people and holds no secret."""

    what: str
    where: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one delivery is made of."""

    story: Story
    before: tuple[ev.Delivered, ...]  #: what this target was told of this deployment already
    tried: bool  #: an earlier try may have come through
    reveal: Callable[[str], str]  #: fills the secrets of a text in


async def deliver(target: Target, parcel: Parcel) -> Told:
    """Tell it; raises NotDelivered."""
    try:
        async with asyncio.timeout(WITHIN):
            return await _deliver(target, parcel)
    except TimeoutError:
        raise NotDelivered(f"{target.name} did not take it within {WITHIN:g} s") from None
    except NotDelivered:
        raise
    except Exception as error:
        # Whatever a library or a strange answer raises: the story goes on without it, and it is tried again.
        raise NotDelivered(f"{target.name}: {type(error).__name__}: {error}") from error


async def _deliver(target: Target, parcel: Parcel) -> Told:
    match target:
        case GitHubIssue():
            from surefoot.integrations.github_issue import tell_issue

            return await tell_issue(target, parcel)
        case GitHubStatus():
            from surefoot.integrations.github_status import tell_status

            return await tell_status(target, parcel)
        case Webhook():
            from surefoot.integrations.webhook import tell_webhook

            return await tell_webhook(target, parcel)
        case Message():
            from surefoot.integrations.message import tell_people

            return await tell_people(target, parcel)
        case _:
            assert_never(target)
