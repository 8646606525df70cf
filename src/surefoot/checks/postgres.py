# SPDX-License-Identifier: Apache-2.0
"""`postgres`: a PostgreSQL server lets us in, and answers a query as it should.

Guarantees: the query runs in a transaction that may only read, and is ended on the server with the check's time. What
is told of a failure is the server's own sentence, which holds no password.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from surefoot.checks.asking import url_shown
from surefoot.checks.model import CheckFailed, CheckOptions, Context, Kind, excerpt, loaded
from surefoot.checks.values import Bounds, Number, number_in, plain, shown_value
from surefoot.config.fields import Command, Duration, SecretReference, Text, refuse

if TYPE_CHECKING:
    import psycopg


def _url(value: str) -> str:
    if not value.startswith(("postgresql://", "postgres://", "{", "${")):
        raise refuse("must begin with postgresql://", hint="as in postgresql://app@db/shop")
    return value


class PostgresOptions(CheckOptions):
    """Options of `postgres`."""

    url: Annotated[Text, AfterValidator(_url)] = Field(
        description="`postgresql://USER@HOST:PORT/DATABASE`, with whatever libpq knows behind a `?`, such as "
        "`sslmode=verify-full`."
    )
    password: SecretReference = Field(default="", description="The user's password.")
    query: Command = Field(default="SELECT 1", description="A query that only reads; its first value is looked at.")
    equals: Any = Field(default=None, description="What the value must be: text, a number, or true or false.")
    above: Number | None = Field(default=None, description="The value must be a number greater than this.")
    below: Number | None = Field(default=None, description="The value must be a number less than this.")
    timeout: Duration = Field(default=10.0, description="For the connection and the query.")

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        if isinstance(self.equals, dict | list):
            raise refuse("equals must be one value", hint="as in equals: true")
        return self


class Postgres(Kind):
    """See the module's docstring."""

    name: ClassVar = "postgres"
    options: ClassVar = PostgresOptions

    async def probe(self, options: PostgresOptions, context: Context) -> str:
        """Connect, ask, compare."""
        await loaded("psycopg")
        import psycopg

        shown = _shown(context.address(options.url))
        try:
            async with asyncio.timeout(options.timeout):
                value, rows = await _ask(options, context)
        except TimeoutError:
            raise CheckFailed(f"{shown} did not answer within {options.timeout:g} s") from None
        except psycopg.Error as error:
            raise CheckFailed(f"{shown}: {_said(error)}") from None
        asked = f"{shown}: {excerpt(context.fill(options.query))}"
        if not rows:
            if options.equals is not None or options.above is not None or options.below is not None:
                raise CheckFailed(f"{asked} finds nothing")
            return f"{asked} finds nothing, as it may"
        _judge(options, context, asked, value)
        return f"{asked} is {excerpt(_text(value))}"


async def _ask(options: PostgresOptions, context: Context) -> tuple[Any, bool]:
    """Return the query's first value, and whether there is any."""
    import psycopg

    limit = max(1, round(options.timeout))
    more: dict[str, Any] = {"connect_timeout": max(2, limit), "application_name": "surefoot"}
    if options.password:
        more["password"] = context.secret(options.password)
    connection = await psycopg.AsyncConnection.connect(context.reveal_address(options.url), **more)
    try:
        await connection.set_read_only(True)
        await connection.execute(f"SET LOCAL statement_timeout = '{max(1, round(options.timeout * 1000))}ms'")
        cursor = await connection.execute(context.reveal(options.query).encode())
        if cursor.description is None:
            raise CheckFailed("the query returns no rows", "begin it with SELECT")
        row = await cursor.fetchone()
        return (row[0] if row else None), bool(row)
    finally:
        await _closed(connection)


async def _closed(connection: psycopg.AsyncConnection[Any]) -> None:
    """Close a connection without waiting for a server that may not answer."""
    if connection.pgconn is not None:
        connection.pgconn.finish()
    await connection.close()


def _judge(options: PostgresOptions, context: Context, asked: str, value: Any) -> None:
    if options.equals is not None and not _equal(value, context.expected(options.equals)):
        raise CheckFailed(f"{asked} is {excerpt(_text(value))} instead of {shown_value(options.equals, context)}")
    bounds = Bounds.model_validate({"above": options.above, "below": options.below})
    number = number_in(value)
    if bounds.wanted and (number is None or not bounds.hold(number)):
        found = plain(number) if number is not None else excerpt(_text(value))
        raise CheckFailed(f"{asked} is {found}, and must be {bounds.wanted}")


def _equal(value: Any, wanted: Any) -> bool:
    """Whether a value is what it should be; what is written as text may be a number, a date or the like there."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted or (isinstance(wanted, str) and wanted == _text(value))
    if isinstance(wanted, int | float):
        return number_in(value) == wanted
    return bool(_text(value) == str(wanted))


def _text(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def _shown(url: str) -> str:
    """Return where it is, without who we are and how."""
    parts = urlsplit(url_shown(url))
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _said(error: psycopg.Error) -> str:
    """Return an error as one sentence: what comes after the addresses that were tried."""
    text = error.diag.message_primary or re.sub(r"^.*?(failed|error): ", "", str(error), flags=re.DOTALL) or "it broke"
    return excerpt(text)
