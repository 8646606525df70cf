# SPDX-License-Identifier: Apache-2.0
"""A pooler of PostgreSQL sessions, as small as can be: like PgBouncer with `pool_mode = transaction` or `session`.

Guarantees: each client's session begins with a number of the pooler's own; between transactions it goes back into one
stack, unless sessions are pooled. Knows servers that trust, and neither TLS nor COPY.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Self

#: Statuses of a session that is in no transaction.
_IDLE = b"I"


class Pooler:
    """Listens on a free port of 127.0.0.1 for as long as its block lasts."""

    def __init__(self, port: int, *, mode: str = "transaction") -> None:
        """Take the port of the server, and when a session is given back."""
        self._server = port
        self._transactions = mode == "transaction"
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._idle: list[socket.socket] = []
        self._all: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for end in self._all:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self._all.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._serve_until_it_leaves(client)
        client.close()

    def _serve_until_it_leaves(self, client: socket.socket) -> None:
        head = _exactly(client, 4)
        session: socket.socket | None = self._begin(client, head + _exactly(client, _length(head) - 4))
        if self._transactions:
            self._give(session)
            session = None
        while True:
            kind, message = _message(client)
            if kind == b"X":
                if session is not None:
                    session.close()
                return
            if session is None:
                session = self._idle.pop() if self._idle else self._another()
            session.sendall(message)
            if kind in (b"Q", b"S"):
                status = self._answer(session, client)
                if self._transactions and status == _IDLE:
                    self._give(session)
                    session = None

    def _begin(self, client: socket.socket, startup: bytes) -> socket.socket:
        self._startup = startup
        session = socket.create_connection(("127.0.0.1", self._server))
        self._all.append(session)
        session.sendall(startup)
        self._answer(session, client)
        return session

    def _another(self) -> socket.socket:
        session = socket.create_connection(("127.0.0.1", self._server))
        self._all.append(session)
        session.sendall(self._startup)
        self._answer(session, None)
        return session

    def _give(self, session: socket.socket | None) -> None:
        assert session is not None
        self._idle.append(session)

    def _answer(self, session: socket.socket, client: socket.socket | None) -> bytes:
        """Pass on what a session says until it is ready again; return its status."""
        while True:
            kind, message = _message(session)
            if kind == b"K":
                message = b"K" + struct.pack("!III", 12, id(session) & 0xFFFFFF | 1 << 30, 0)
            if client is not None:
                client.sendall(message)
            if kind == b"Z":
                return message[-1:]


def _message(source: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(source, 5)
    return head[:1], head + _exactly(source, _length(head[1:]) - 4)


def _length(head: bytes) -> int:
    return int(struct.unpack("!I", head)[0])


def _exactly(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = source.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data
