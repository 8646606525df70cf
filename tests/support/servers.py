# SPDX-License-Identifier: Apache-2.0
"""Servers for checks to look at: real programs in folders of their own, and such as say what no real one would.

All of them are on ephemeral ports of 127.0.0.1, and end with the test session, even if that is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import datetime
import ipaddress
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_PDEATHSIG = 1
#: Seconds that a server may take to begin.
PATIENCE = 60.0


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(*names: str) -> str:
    """Return the path of a program that is there, or skip."""
    found = next((path for name in names if (path := shutil.which(name, path="/usr/bin:/usr/sbin:/bin"))), None)
    if found is None:
        pytest.skip(f"{names[0]} is not installed: make debian")
    return found


@contextlib.contextmanager
def running(argv: Sequence[str], folder: Path, begun: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block; what it says is in `folder`/log."""
    log = folder / "log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            preexec_fn=_end_with_parent,  # noqa: PLW1509
        )  # fmt: skip
    try:
        end = time.monotonic() + PATIENCE
        while not begun():
            assert process.poll() is None and time.monotonic() < end, log.read_text(errors="replace")[-4000:]
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


def accepts(port: int) -> Callable[[], bool]:
    """Return what says whether a port of this machine accepts connections."""

    def try_it() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    return try_it


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)


# -- what no real server says ----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def saying(answer: Answer, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Serve on a free port; every connection ends with the server."""
    open_ones: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        open_ones.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await answer(reader, writer)
        finally:
            open_ones.discard(task)
            writer.transport.abort()

    listening = await asyncio.start_server(serve, host, 0, ssl=tls)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in list(open_ones):
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)


def raw(*pieces: bytes) -> Answer:
    """Send these bytes, whatever is asked, and end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        await asyncio.sleep(0.05)

    return answer


def page(body: str | bytes, status: str = "200 OK", headers: str = "") -> Answer:
    """Answer any request in HTTP."""
    data = body.encode() if isinstance(body, str) else body
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n{headers}\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(head if asked.startswith(b"HEAD ") else head + data)
        await writer.drain()
        await asyncio.sleep(0.05)

    return answer


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take what comes, and never answer."""
    while await reader.read(65536):
        pass
    await asyncio.sleep(1000)


# -- certificates ----------------------------------------------------------------------------------------


def certificate(folder: Path, *, days: float = 90.0, since: float = -1.0) -> Path:
    """Make a certificate of 127.0.0.1, signed by itself; return the PEM file that holds it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=min(since, days - 1)))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / f"certificate-{x509.random_serial_number()}.pem"
    path.write_bytes(pem)
    return path


def tls_of(pem: Path) -> ssl.SSLContext:
    """Return what a server with that certificate needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
