# SPDX-License-Identifier: Apache-2.0
"""`http`: a URL answers with the status, and the body, that it should.

Guarantees: an answer is judged within the time-out, however slowly it comes, and no more than `LONGEST_BODY` of it is
read. The machine's proxy settings don't matter: what is asked is the service, not a proxy's opinion of it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, BeforeValidator, Field

from surefoot.checks.model import CheckFailed, CheckOptions, Context, Kind, excerpt, trouble
from surefoot.config.fields import Duration, Text, Truth, filled, refuse, whole_number

if TYPE_CHECKING:
    from aiohttp import ClientResponse

#: Bytes of a body that are read; more says no more about health.
LONGEST_BODY = 1024 * 1024
_ABSENT = object()


def _url(value: str) -> str:
    """Refuse what can't become a URL, whatever its placeholders stand for."""
    if not value.startswith(("http://", "https://", "{", "${")):
        raise refuse("must begin with http:// or https://", hint="as in http://{host}:8080/health")
    return value


Status = Annotated[int, BeforeValidator(whole_number), Field(ge=100, le=599)]


class HttpOptions(CheckOptions):
    """Options of `http`."""

    url: Annotated[Text, AfterValidator(_url)] = Field(
        description="What to ask for; with `{host}` in it, each host is asked."
    )
    status: Status | Annotated[list[Status], BeforeValidator(filled)] = Field(
        default=200, description="The status it must answer with, or several to choose from."
    )
    body_json: dict[str, Any] = Field(
        default_factory=dict,
        alias="json",
        description="What the JSON body must hold: values by path, as in `{status: UP, components.db.status: UP}`.",
    )
    contains: Text = Field(default="", description="Text that the body must contain.")
    method: Annotated[Text, Field(pattern="^[A-Z]+$")] = Field(default="GET", description="The method.")
    headers: dict[str, Text] = Field(default_factory=dict, description="Headers to send.")
    timeout: Duration = Field(default=5.0, description="For the whole answer.")
    follow_redirects: Truth = Field(default=False, description="Whether to go where a redirect points.")
    verify_tls: Truth = Field(default=True, description="Whether its certificate must be trusted.")


class Http(Kind):
    """See the module's docstring."""

    name: ClassVar = "http"
    options: ClassVar = HttpOptions

    async def probe(self, options: HttpOptions, context: Context) -> str:
        """Ask once."""
        import aiohttp

        url = _shown(context.address(options.url))
        headers = {name: context.reveal(value) for name, value in options.headers.items()}
        try:
            connector = aiohttp.TCPConnector(ssl=options.verify_tls)
            limit = aiohttp.ClientTimeout(total=options.timeout)
            async with aiohttp.ClientSession(connector=connector, timeout=limit, headers=headers) as session:
                request = session.request(
                    options.method, context.reveal_address(options.url), allow_redirects=options.follow_redirects
                )
                async with request as answer:
                    await _judge(options, context, url, answer)
                    return f"{url} answered {answer.status}"
        except TimeoutError:
            raise CheckFailed(f"{url} did not answer within {options.timeout:g} s") from None
        except aiohttp.InvalidURL:
            raise CheckFailed(f"{url} is not a URL that can be asked") from None
        except aiohttp.ServerDisconnectedError:
            raise CheckFailed(f"{url}: the connection was closed without an answer") from None
        except aiohttp.ClientPayloadError:
            raise CheckFailed(f"{url}: the answer broke off") from None
        except aiohttp.ClientResponseError as error:
            raise CheckFailed(f"{url} did not answer in HTTP: {excerpt(error.message)}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CheckFailed(f"{url}: {excerpt(trouble(error))}") from error


async def _judge(options: HttpOptions, context: Context, url: str, answer: ClientResponse) -> None:
    """Compare an answer with what it should be."""
    wanted = options.status if isinstance(options.status, list) else [options.status]
    if answer.status not in wanted:
        said = _said(answer.headers.get("Location"), await _beginning(answer))
        raise CheckFailed(f"{url} answered {answer.status} instead of {' or '.join(map(str, wanted))}{said}")
    if not options.body_json and not options.contains:
        return
    body = await _body(answer)
    text = body.decode("utf-8", "replace")
    if options.body_json:
        _judge_json(options, context, url, text)
    if context.reveal(options.contains) not in text:
        wanted_text = excerpt(context.fill(options.contains))
        raise CheckFailed(f"{url}: the body does not contain {wanted_text!r}{_said(None, text)}")


def _judge_json(options: HttpOptions, context: Context, url: str, text: str) -> None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise CheckFailed(f"{url} did not answer with JSON{_said(None, text)}") from None
    for path, value in options.body_json.items():
        got = _at(found, path)
        if not _same(got, context.expected(value)):
            shown = "nothing" if got is _ABSENT else json.dumps(got, ensure_ascii=False)
            wanted = context.fill(json.dumps(value, ensure_ascii=False))
            raise CheckFailed(f"{url}: {path} is {excerpt(shown)} instead of {excerpt(wanted)}")


async def _body(answer: ClientResponse) -> bytes:
    """Return a body, as far as it matters."""
    body = bytearray()
    while len(body) < LONGEST_BODY and (more := await answer.content.read(LONGEST_BODY - len(body))):
        body += more
    return bytes(body)


async def _beginning(answer: ClientResponse) -> str:
    """Return the first of a body that is not what was asked for, if there is any at once."""
    import asyncio

    import aiohttp

    try:
        async with asyncio.timeout(1.0):
            return (await answer.content.read(4096)).decode("utf-8", "replace")
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        return ""


def _said(location: str | None, text: str) -> str:
    """Return the end of a sentence that quotes an answer."""
    if location:
        return f"; it points to {excerpt(location)}"
    return f": {quoted}" if (quoted := excerpt(text)) else ""


def _at(found: Any, path: str) -> Any:
    """Return what stands at a path: a key as it is, else keys and places joined by dots."""
    if isinstance(found, dict) and path in found:
        return found[path]
    for part in path.split("."):
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isascii() and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            return _ABSENT
    return found


def _same(got: Any, wanted: Any) -> bool:
    """Whether two values are the same JSON: `true` is not 1."""
    match got, wanted:
        case bool(), _:
            return got is wanted
        case _, bool():
            return False
        case dict(), dict():
            return got.keys() == wanted.keys() and all(_same(got[key], wanted[key]) for key in got)
        case list(), list():
            return len(got) == len(wanted) and all(map(_same, got, wanted))
        case _:
            return bool(got == wanted)


def _shown(url: str) -> str:
    """Return a URL as it may be told: without user and password."""
    try:
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    except ValueError:
        return url
