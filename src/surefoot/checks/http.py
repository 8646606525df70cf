# SPDX-License-Identifier: Apache-2.0
"""`http`: a URL answers with the status, and the body, that it should."""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar

from pydantic import Field

from surefoot.checks.model import CheckFailed, CheckOptions, Context, Kind, excerpt
from surefoot.config.fields import Duration

#: Bytes of a body that are read; more says no more about health.
LONGEST_BODY = 1024 * 1024
_ABSENT = object()


class HttpOptions(CheckOptions):
    """Options of `http`."""

    url: str = Field(min_length=1, description="What to ask for; with `{host}` in it, each host is asked.")
    status: int | list[int] = Field(
        default=200, description="The status it must answer with, or several to choose from."
    )
    body_json: dict[str, Any] = Field(
        default_factory=dict,
        alias="json",
        description="What the JSON body must hold: values by path, as in `{status: UP, components.db.status: UP}`.",
    )
    contains: str = Field(default="", description="Text that the body must contain.")
    method: str = Field(default="GET", pattern="^[A-Z]+$", description="The method.")
    headers: dict[str, str] = Field(default_factory=dict, description="Headers to send.")
    timeout: Duration = Field(default=5.0, description="Seconds for the whole answer.")
    follow_redirects: bool = Field(default=False, description="Whether to go where a redirect points.")


class Http(Kind):
    """See the module's docstring."""

    name: ClassVar = "http"
    options: ClassVar = HttpOptions

    async def probe(self, options: HttpOptions, context: Context) -> str:
        """Ask once."""
        import aiohttp

        url = context.fill(options.url)
        limit = aiohttp.ClientTimeout(total=options.timeout)
        headers = {name: context.reveal(value) for name, value in options.headers.items()}
        try:
            async with aiohttp.ClientSession(timeout=limit, headers=headers) as session:
                request = session.request(
                    options.method, context.reveal(options.url), allow_redirects=options.follow_redirects
                )
                async with request as answer:
                    # A part of a body that is too long, or breaks off, is judged as it came.
                    body = await answer.content.read(LONGEST_BODY)
                    while len(body) < LONGEST_BODY and (more := await answer.content.read(LONGEST_BODY - len(body))):
                        body += more
                    return _judge(options, context, url, answer.status, body)
        except TimeoutError:
            raise CheckFailed(f"{url} did not answer within {options.timeout:g} s") from None
        except aiohttp.InvalidURL:
            raise CheckFailed(f"{url} is not a URL") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CheckFailed(f"{url}: {_sentence(error)}") from error


def _judge(options: HttpOptions, context: Context, url: str, status: int, body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    wanted = options.status if isinstance(options.status, list) else [options.status]
    if status not in wanted:
        raise CheckFailed(f"{url} answered {status} instead of {' or '.join(map(str, wanted))}: {excerpt(text)}")
    if options.body_json:
        try:
            found = json.loads(text)
        except ValueError:
            raise CheckFailed(f"{url} did not answer with JSON: {excerpt(text)}") from None
        for path, value in options.body_json.items():
            want = context.fill(value) if isinstance(value, str) else value
            got = _at(found, path)
            if got != want:
                shown = "nothing" if got is _ABSENT else json.dumps(got)
                raise CheckFailed(f"{url}: {path} is {excerpt(shown)} instead of {json.dumps(want)}")
    if options.contains and context.fill(options.contains) not in text:
        raise CheckFailed(f"{url}: the body does not contain {options.contains!r}: {excerpt(text)}")
    return f"{url} answered {status}"


def _at(found: Any, path: str) -> Any:
    """Return what stands at a path: a key as it is, else keys and places joined by dots."""
    if isinstance(found, dict) and path in found:
        return found[path]
    for part in path.split("."):
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            return _ABSENT
    return found


def _sentence(error: BaseException) -> str:
    """Return what went wrong with a connection in few words."""
    if isinstance(error, asyncio.IncompleteReadError):
        return "the answer broke off"
    cause = getattr(error, "os_error", None) or error
    return str(getattr(cause, "strerror", None) or cause or type(error).__name__)
