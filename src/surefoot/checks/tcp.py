# SPDX-License-Identifier: Apache-2.0
"""`tcp`: something accepts connections at an address."""

from __future__ import annotations

import asyncio
import contextlib
from typing import ClassVar

from pydantic import Field, field_validator

from surefoot.checks.model import CheckFailed, CheckOptions, Context, Kind
from surefoot.config.fields import Duration


class TcpOptions(CheckOptions):
    """Options of `tcp`."""

    address: str = Field(description="`HOST:PORT`, as in `{host}:5432`.")
    timeout: Duration = Field(default=5.0, description="Seconds to wait for the connection.")

    @field_validator("address")
    @classmethod
    def _has_port(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not (host and colon and port):
            raise ValueError("must be HOST:PORT")
        return value


class Tcp(Kind):
    """See the module's docstring."""

    name: ClassVar = "tcp"
    options: ClassVar = TcpOptions

    async def probe(self, options: TcpOptions, context: Context) -> str:
        """Connect, and close again."""
        address = context.fill(options.address)
        host, _, port = address.rpartition(":")
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise CheckFailed(f"{address}: {port} is not a port")
        try:
            async with asyncio.timeout(options.timeout):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except TimeoutError:
            raise CheckFailed(f"{address} did not answer within {options.timeout:g} s") from None
        except OSError as error:
            raise CheckFailed(f"{address}: {error.strerror or error}") from error
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return f"{address} accepts connections"
