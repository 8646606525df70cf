# SPDX-License-Identifier: Apache-2.0
"""`redis`: a Redis server answers PING with PONG.

Guarantees: what stands in the place of a server and says something else is not taken for one. A PING is thirty lines
of a documented protocol, so there is no library for it here.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Annotated, ClassVar
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field

from surefoot.checks.asking import trusting, url_shown
from surefoot.checks.model import CheckFailed, CheckOptions, Context, Kind, excerpt, trouble
from surefoot.config.fields import Duration, SecretReference, Text, Truth, refuse

PORT = 6379
#: Bytes of one line of an answer.
LONGEST_LINE = 64 * 1024
_HINTS = {
    "NOAUTH": "give password: ${NAME}",
    "WRONGPASS": "see that the password, and the username, are right",
    "NOPERM": "let this user PING: ACL SETUSER … +ping",
    "LOADING": "it still reads its data; wait, or give health_policy.within more time",
    "MASTERDOWN": "see why it has lost its master: redis-cli INFO replication",
    "DENIED": "Redis is in protected mode: set a password, or bind it elsewhere",
}


def _url(value: str) -> str:
    if not value.startswith(("redis://", "rediss://", "{", "${")):
        raise refuse("must begin with redis:// or rediss:// (TLS)", hint="as in redis://cache:6379")
    return value


class RedisOptions(CheckOptions):
    """Options of `redis`."""

    url: Annotated[Text, AfterValidator(_url)] = Field(
        description="`redis://HOST:PORT`, or `rediss://…` for TLS; with `{host}` in it, each host is asked. It may end "
        "with the number of a database."
    )
    username: Text = Field(default="", description="A user of its access lists; rarely needed.")
    password: SecretReference = Field(default="", description="Its password.")
    timeout: Duration = Field(default=5.0, description="For the whole answer.")
    verify_tls: Truth = Field(default=True, description="Whether its certificate must be trusted.")
    ca: Text = Field(
        default="", description="A PEM file of the authorities to trust, in the project or, from /, on the agent."
    )


@dataclass(frozen=True, slots=True)
class _Server:
    host: str
    port: int
    tls: bool
    username: str
    password: str
    database: str


class Redis(Kind):
    """See the module's docstring."""

    name: ClassVar = "redis"
    options: ClassVar = RedisOptions

    async def probe(self, options: RedisOptions, context: Context) -> str:
        """Say who we are, and PING."""
        shown = url_shown(context.address(options.url))
        server = _server(options, context, shown)
        ca = await context.file(options.ca) if options.ca else None
        tls: ssl.SSLContext | None = None
        if server.tls:
            tls = trusting(ca) if ca else ssl.create_default_context()
            if not options.verify_tls:
                tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        try:
            async with asyncio.timeout(options.timeout):
                return await _ping(server, tls, shown)
        except TimeoutError:
            raise CheckFailed(f"{shown} did not answer within {options.timeout:g} s") from None
        except (OSError, ValueError, EOFError) as error:
            raise CheckFailed(f"{shown}: {excerpt(trouble(error))}") from error


async def _ping(server: _Server, tls: ssl.SSLContext | None, shown: str) -> str:
    reader, writer = await asyncio.open_connection(server.host, server.port, ssl=tls, limit=LONGEST_LINE)
    try:
        if server.password:
            login = [server.username, server.password] if server.username else [server.password]
            await _ask(reader, writer, shown, "AUTH", *login, wanted="OK")
        if server.database:
            await _ask(reader, writer, shown, "SELECT", server.database, wanted="OK")
        await _ask(reader, writer, shown, "PING", wanted="PONG")
    finally:
        writer.transport.abort()
    return f"{shown} answered PING with PONG"


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, shown: str, *words: str, wanted: str
) -> None:
    """Send one command; CheckFailed if the answer is another than it should be."""
    parts = [word.encode() for word in words]
    writer.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
    await writer.drain()
    line = (await reader.readline()).decode("utf-8", "replace")
    if line == f"+{wanted}\r\n":
        return
    if not line:
        raise CheckFailed(f"{shown}: the connection was closed without an answer to {words[0]}")
    if line.startswith("-"):
        hint = next((hint for mark, hint in _HINTS.items() if mark in line), "")
        raise CheckFailed(f"{shown} answered {words[0]} with an error: {excerpt(line[1:])}", hint)
    raise CheckFailed(f"{shown} answered {words[0]} with {excerpt(line)!r} instead of {wanted}")


def _server(options: RedisOptions, context: Context, shown: str) -> _Server:
    """Return where to connect to, and as whom."""
    parts = urlsplit(context.reveal_address(options.url))
    try:
        host, port = parts.hostname, parts.port or PORT
    except ValueError:
        host = port = None
    database = parts.path.strip("/")
    if parts.scheme not in ("redis", "rediss") or not host or port is None or not (database or "0").isdigit():
        raise CheckFailed(f"{shown} is not the address of a Redis server", "as in redis://cache:6379/0")
    password = context.secret(options.password) or unquote(parts.password or "")
    username = context.fill(options.username) or unquote(parts.username or "")
    return _Server(host, port, parts.scheme == "rediss", username, password, database)
