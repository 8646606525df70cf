# SPDX-License-Identifier: Apache-2.0
"""One request over HTTP for a check, and every way in which it can go wrong as a sentence.

Guarantees: an answer is over by its time-out, however slowly it comes; no more of a body is read than was asked for;
what is told of a URL is without user and password.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json as jsonlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from surefoot.checks.model import CheckFailed, excerpt, loaded, trouble

if TYPE_CHECKING:
    import aiohttp
    from aiohttp import ClientResponse
    from aiohttp.connector import Connection

#: Bytes of a body that are read; more says no more about health.
LONGEST_BODY = 1024 * 1024
#: Bytes, and seconds, for the beginning of a body that is not what was asked for.
BEGINNING, BEGINNING_TIMEOUT = 4096, 1.0


class Unreachable(CheckFailed):
    """There was no answer, or none that is HTTP."""


@dataclass(frozen=True)
class Asking:
    """How something is asked for.

    Unless `outside`, the machine's proxy settings don't matter: what is asked is the service, not a proxy's opinion of
    it.
    """

    shown: str  #: the URL as it is told
    timeout: float
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    follow_redirects: bool = False
    verify_tls: bool = True
    ca: Path | None = None
    outside: bool = False
    data: Any = None
    certificate: Callable[[float], None] | None = None  #: told when a certificate that had to be trusted expires


@contextlib.asynccontextmanager
async def asked(url: str, how: Asking) -> AsyncIterator[ClientResponse]:
    """Ask for a URL; what goes wrong, also while the answer is read, raises CheckFailed."""
    await loaded("aiohttp")
    import aiohttp

    shown = how.shown
    try:
        connector = _connector(how)
        limit = aiohttp.ClientTimeout(total=how.timeout)
        async with aiohttp.ClientSession(
            connector=connector, timeout=limit, headers=how.headers, trust_env=how.outside
        ) as session:
            request = session.request(how.method, url, allow_redirects=how.follow_redirects, data=how.data)
            async with request as answer:
                yield answer
    except TimeoutError:
        raise Unreachable(f"{shown} did not answer within {how.timeout:g} s") from None
    except aiohttp.InvalidURL:
        raise CheckFailed(f"{shown} is not a URL that can be asked") from None
    except aiohttp.ServerDisconnectedError:
        raise Unreachable(f"{shown}: the connection was closed without an answer") from None
    except aiohttp.ClientPayloadError:
        raise Unreachable(f"{shown}: the answer broke off") from None
    except aiohttp.ClientResponseError as error:
        raise Unreachable(f"{shown} did not answer in HTTP: {excerpt(error.message)}") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Unreachable(f"{shown}: {excerpt(trouble(error))}") from error


def _connector(how: Asking) -> aiohttp.TCPConnector:
    import aiohttp

    connector = aiohttp.TCPConnector(ssl=_tls(how))
    if how.certificate is not None:
        connector.connect = _telling(connector.connect, how.certificate)  # type: ignore[method-assign]
    return connector


def _telling(connect: Callable[..., Awaitable[Connection]], tell: Callable[[float], None]) -> Any:
    """Tell of the certificate while the connection is there: a short answer may have closed it by its end."""

    async def told(*args: Any, **more: Any) -> Connection:
        connection = await connect(*args, **more)
        transport = connection.transport
        session = transport.get_extra_info("ssl_object") if transport is not None else None
        if session is not None and (found := session.getpeercert()):
            tell(ssl.cert_time_to_seconds(found["notAfter"]))
        return connection

    return told


def _tls(how: Asking) -> Any:
    if not how.verify_tls or how.ca is None:
        return how.verify_tls
    return trusting(how.ca)


def trusting(ca: Path) -> ssl.SSLContext:
    """Return a context that trusts the authorities of a PEM file, and no other."""
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise CheckFailed(
            f"{ca} holds no certificates that can be read: {excerpt(trouble(error))}",
            "name a PEM file of certificates, in the project or on the agent",
        ) from None


async def read(answer: ClientResponse, limit: int = LONGEST_BODY) -> bytes:
    """Return a body, as far as it matters."""
    body = bytearray()
    while len(body) < limit and (more := await answer.content.read(limit - len(body))):
        body += more
    return bytes(body)


async def beginning(answer: ClientResponse) -> str:
    """Return the first of a body that is not what was asked for, if there is any at once."""
    import aiohttp

    try:
        async with asyncio.timeout(BEGINNING_TIMEOUT):
            return (await answer.content.read(BEGINNING)).decode("utf-8", "replace")
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        return ""


def quoted(text: str) -> str:
    """Return the end of a sentence that quotes an answer."""
    return f": {said}" if (said := excerpt(text)) else ""


def basic(username: str, password: str) -> str:
    """Return the header by which a user says who it is."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def json_of(body: bytes) -> Any:
    """Return the JSON of a body; ValueError if it is none."""
    try:
        return jsonlib.loads(body)
    except RecursionError:
        raise ValueError from None


def url_shown(url: str) -> str:
    """Return a URL as it may be told: without user and password."""
    try:
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    except ValueError:
        return url
