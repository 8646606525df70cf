# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy on loopback that can cut the line it carries, in the two ways in which lines are cut.

Guarantees: a silent line carries not a byte more in either direction while all its connections stay open, and new ones
are made but never answered; a broken one ends all connections at once and refuses to carry new ones.
"""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Carries connections to one address; `port` is where it listens."""

    def __init__(self, target: tuple[str, int]) -> None:
        """Listen on a free port."""
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._carries = threading.Event()
        self._carries.set()
        self._breaks = False
        self._closed = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def go_silent(self) -> None:
        """Carry nothing more; say nothing of it to anyone."""
        self._carries.clear()

    def break_off(self) -> None:
        """End all connections, and every new one."""
        self._breaks = True
        self._end_all()

    def mend(self) -> None:
        """Carry new connections again; old ones are ended, as nobody knows what they missed."""
        self._end_all()
        self._breaks = False
        self._carries.set()

    def close(self) -> None:
        """End everything."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._end_all()
        self._carries.set()
        self._thread.join()

    def _end_all(self) -> None:
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        self._carries.wait()
        if self._breaks or self._closed:
            client.close()
            return
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        with self._lock:
            self._open |= {client, server}
        back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
        back.start()
        self._pump(client, server)
        back.join()
        with self._lock:
            self._open -= {client, server}
        client.close()
        server.close()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._carries.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
