# SPDX-License-Identifier: Apache-2.0
"""One HTTP request to a service outside, its every failure a `NotDelivered` that says when to try again.

Guarantees: redirects are not followed with what we send; no more than `LONGEST_BODY` of an answer is read. It does
not try again by itself: the outbox does, however long that takes and whoever does it then. Proxies are used as the
environment says.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from surefoot import __version__
from surefoot.core.errors import Code
from surefoot.integrations.delivery import NotDelivered

#: Seconds for one request.
TIMEOUT = 10.0
#: Bytes of an answer that are read: a page of issues may be long.
LONGEST_BODY = 16 * 1024 * 1024
#: A service that asks for more patience than this is asked sooner.
LONGEST_PATIENCE = 3600.0
#: GitHub's advice where it limits without saying for how long.
SECONDARY_LIMIT_PAUSE = 60.0

_LIMITED = (403, 429)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and what came with it."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's JSON; None where it is none."""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return None


async def request(
    method: str,
    url: str,
    *,
    who: str,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
    json: Any = None,
    allow: tuple[int, ...] = (),
) -> Answer:
    """Ask once; `who` names the service in failures. Statuses from 400 raise, but for those that are allowed."""
    sent = {"User-Agent": f"surefoot/{__version__}", **(headers or {})}
    if json is not None:
        sent["Content-Type"] = "application/json"
    try:
        limit = aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(timeout=limit, trust_env=True, auto_decompress=True) as session:
            data = None if json is None else msgspec.json.encode(json)
            asked = session.request(method, url, headers=sent, params=query, data=data, allow_redirects=False)
            async with asked as response:
                body = await response.content.read(LONGEST_BODY)
                while not response.content.at_eof() and len(body) < LONGEST_BODY:
                    body += await response.content.read(LONGEST_BODY - len(body))
                answer = Answer(response.status, response.headers, body)
    except TimeoutError:
        raise NotDelivered(f"{who} did not answer within {TIMEOUT:g} s") from None
    except aiohttp.InvalidURL:
        raise NotDelivered(f"{who} has no URL that can be asked", code=Code.DELIVERY_REFUSED) from None
    except (aiohttp.ClientError, OSError) as error:
        raise NotDelivered(f"{who} can't be reached: {_trouble(error)}") from error
    if answer.status < 300 or answer.status in allow:
        return answer
    raise refused(who, method, answer)


def refused(who: str, method: str, answer: Answer) -> NotDelivered:
    """Return what an answer that is none means."""
    said = _said(answer)
    after = _patience(answer)
    if answer.status in _LIMITED and after:
        return NotDelivered(f"{who} limits requests ({answer.status}){said}", hint="it is tried again", after=after)
    if answer.status >= 500 or answer.status in (408, 425, 429):
        return NotDelivered(f"{who} answered {answer.status}{said}", hint="it is tried again", after=after)
    hints = {
        401: "the token is not valid: renew the secret",
        403: "the token lacks the right to do this: give it what docs/incidents.md names",
        404: "check the repository's name, and that the token may see it",
    }
    hint = hints.get(answer.status, "see what the service says, and correct the config")
    return NotDelivered(f"{who} refused a {method} ({answer.status}){said}", code=Code.DELIVERY_REFUSED, hint=hint)


def _patience(answer: Answer) -> float:
    """Return for how many seconds a service wants to be left alone; 0 where it does not say."""
    headers = answer.headers
    if (after := headers.get("Retry-After", "")).isdigit():
        return min(float(after), LONGEST_PATIENCE)
    if headers.get("X-RateLimit-Remaining") == "0" and headers.get("X-RateLimit-Reset", "").isdigit():
        return min(max(1.0, float(headers["X-RateLimit-Reset"]) - time.time()), LONGEST_PATIENCE)
    if answer.status in _LIMITED and b"rate limit" in answer.body.lower():
        return SECONDARY_LIMIT_PAUSE
    return 0.0


def _said(answer: Answer) -> str:
    """Return what the service says of it, in one short line."""
    found = answer.json()
    if not isinstance(found, dict):
        return ""
    said = [str(found.get("message") or found.get("error") or "")]
    for error in found.get("errors") or ():
        said.append(str(error.get("message") or error.get("field") or "") if isinstance(error, dict) else str(error))
    for error in found.get("errorMessages") or ():
        said.append(str(error))
    text = "; ".join(part for part in said if part)
    return f": {_short(text)}" if text else ""


def _trouble(error: Exception) -> str:
    return _short(" ".join(str(getattr(error, "strerror", None) or error).split())) or type(error).__name__


def _short(text: str) -> str:
    """Return its beginning; an ellipsis marks what was cut off, so that half a secret is known for one."""
    return text if len(text) <= 200 else text[:199] + "…"
