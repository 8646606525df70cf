# SPDX-License-Identifier: Apache-2.0
"""`tcp`: something accepts connections at an address."""

from __future__ import annotations

import asyncio
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from surefoot.checks.model import CheckFailed, CheckOptions, Context, Kind, excerpt, trouble
from surefoot.config.fields import Duration, Text, refuse


def _has_port(value: str) -> str:
    host, colon, port = value.rpartition(":")
    possible = port.startswith(("{", "${")) or (port.isascii() and port.isdigit() and 0 < int(port) < 65536)
    if not (host and colon and possible):
        raise refuse("must be HOST:PORT", hint="as in {host}:5432")
    return value


class TcpOptions(CheckOptions):
    """Options of `tcp`."""

    address: Annotated[Text, AfterValidator(_has_port)] = Field(description="`HOST:PORT`, as in `{host}:5432`.")
    timeout: Duration = Field(default=5.0, description="For the connection to be made.")


class Tcp(Kind):
    """See the module's docstring."""

    name: ClassVar = "tcp"
    options: ClassVar = TcpOptions

    async def probe(self, options: TcpOptions, context: Context) -> str:
        """Connect, and close again."""
        shown = context.address(options.address)
        host, _, port = context.reveal_address(options.address).rpartition(":")
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise CheckFailed(f"{shown}: {excerpt(shown.rpartition(':')[2])} is not a port")
        try:
            async with asyncio.timeout(options.timeout):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except TimeoutError:
            raise CheckFailed(f"{shown} did not answer within {options.timeout:g} s") from None
        except (OSError, ValueError) as error:  # ValueError: a name that can't be one
            raise CheckFailed(f"{shown}: {excerpt(trouble(error))}") from error
        writer.transport.abort()  # an orderly end could wait for what the other side still has to say
        return f"{shown} accepts connections"
