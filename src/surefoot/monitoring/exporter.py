# SPDX-License-Identifier: Apache-2.0
"""`surefoot exporter`: serves the runner's metrics and the deployments' at one address.

Guarantees: a scrape reads memory only; whatever fails in the background (the store, a host, the disk) costs its own
metrics at most. SIGTERM ends it at once and in good order.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import gc
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from prometheus_client.core import Metric

from surefoot import __version__
from surefoot.core.errors import Code, ConfigError, UsageError
from surefoot.core.notes import Level, Note, Tell
from surefoot.monitoring import families, webconfig
from surefoot.monitoring.exposition import answer
from surefoot.monitoring.following import Following
from surefoot.monitoring.ledger import Labels
from surefoot.monitoring.runner import Service, Watch

DEFAULT_PORT = 9100
#: Seconds between two looks at the files of the web config.
RELOAD_EVERY = 2.0
#: Seconds after which a thread that computes lets another one run. A scrape may wait so long for the thread that reads
#: the store, each time that it comes back from the network; Python's own 5 ms add up to all that a scrape may take.
YIELD_AFTER = 0.0005
_DAY = 86400.0
_PAGE = """<!doctype html><html lang="en"><head><title>Surefoot exporter</title></head>
<body><h1>Surefoot exporter</h1><p>Version {version}</p><p><a href="/metrics">Metrics</a></p></body></html>
"""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; an empty host is all of the machine's addresses."""

    host: str = ""
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def prepare_process() -> None:
    """Keep what else this process does from delaying a scrape; for a process that serves metrics and nothing else.

    What was imported is never garbage: a full collection that looks through all of it stops everything for 50 ms.
    """
    sys.setswitchinterval(YIELD_AFTER)
    gc.collect()
    gc.freeze()


def address(text: str) -> Address:
    """Read `HOST:PORT`, `[V6]:PORT`, `:PORT` or `PORT`. UsageError if it is none."""
    host, separator, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536) or (":" in host and not host.startswith("[")):
        raise UsageError(
            f"{text!r} is no address to listen on", hint="as in --listen 127.0.0.1:9100, or --listen :9100"
        )
    return Address(host.strip("[]") if separator else "", int(port))


@dataclass(frozen=True, slots=True)
class Runner:
    """Which runner this is."""

    name: str
    role: str
    service: Service = field(default_factory=Service)

    @property
    def labels(self) -> Labels:
        """Return what all of its metrics have in common."""
        return (self.name, self.role)


class Exporter:
    """See the module's docstring."""

    def __init__(
        self,
        listen: Address,
        runner: Runner,
        watch: Watch,
        following: Following,
        *,
        web_config: Path | None = None,
        note: Tell = lambda _: None,
    ) -> None:
        """Take its parts; nothing runs yet. ConfigError if the web config is wrong."""
        self._listen = listen
        self._runner = runner
        self._info = _info(runner.service)
        self._watch = watch
        self._following = following
        self._web_config = web_config
        self._note = note
        self._web = webconfig.load(web_config) if web_config is not None else webconfig.WebConfig()
        self._guard = webconfig.Guard(self._web.users)
        self._tls = self._web.tls.context() if self._web.tls is not None else None

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Serve until a signal (or `stop`). UsageError if the address can't be had."""
        stop = stop or asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        server = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1.0)
        await server.setup()
        background: list[asyncio.Task[None]] = []
        try:
            port = await self._begin(server)
            self._following.start()
            background = [asyncio.create_task(self._watch.run()), asyncio.create_task(self._reload())]
            shown = Address(self._listen.host, port)
            where = f"metrics at {self._scheme}://{shown}/metrics"
            self._note(Note(f"runner {self._runner.name} ({self._runner.role}): {where}", "exporter_started"))
            await stop.wait()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await server.cleanup()
            await asyncio.to_thread(self._following.stop)

    @property
    def _scheme(self) -> str:
        return "https" if self._tls is not None else "http"

    async def _begin(self, server: web.AppRunner) -> int:
        """Listen; return the port, which the system chose if 0 was asked for."""
        site = web.TCPSite(server, self._listen.host or None, self._listen.port, ssl_context=self._tls)
        try:
            await site.start()
        except OSError as error:
            number = error.errno or (errno.EADDRINUSE if "address already in use" in str(error) else 0)
            raise _refused(self._listen, number, error) from error
        return int(server.addresses[0][1])

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._admit])
        application.router.add_get("/", self._landing)
        application.router.add_get("/metrics", self._metrics)
        return application

    # -- who may come in ---------------------------------------------------------------------------------------

    @web.middleware
    async def _admit(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        guard = self._guard
        if not guard.open and not await _admitted(guard, request.headers.get("Authorization", "")):
            answered: web.StreamResponse = web.Response(status=401, text="Unauthorized\n")
            answered.headers["WWW-Authenticate"] = 'Basic realm="surefoot", charset="UTF-8"'
        else:
            answered = await handler(request)
        answered.headers.update(self._web.headers)
        return answered

    async def _reload(self) -> None:
        """Take up changes of the web config's files: users and headers at once, certificates for new connections."""
        if self._web_config is None:
            return
        seen = self._stamp()
        while True:
            await asyncio.sleep(RELOAD_EVERY)
            if (now := self._stamp()) == seen:
                continue
            seen = now
            try:
                self._take_up(webconfig.load(self._web_config))
            except ConfigError as error:
                self._note(Note(f"the web config is left as it was: {error}", "web_config", Level.ERROR))
            else:
                self._note(Note("the web config was read anew", "web_config"))

    def _take_up(self, found: webconfig.WebConfig) -> None:
        if (found.tls is None) != (self._tls is None):
            raise ConfigError("TLS can't be turned on or off without a restart", code=Code.WEB_CONFIG)
        if found.tls is not None and self._tls is not None:
            found.tls.context()  # all of it must be right before any of it counts
            found.tls.load(self._tls)
        self._web, self._guard = found, webconfig.Guard(found.users)

    def _stamp(self) -> object:
        tls = self._web.tls
        return webconfig.stamp(self._web_config, *((tls.cert, tls.key, tls.client_ca) if tls is not None else ()))

    # -- what is served ----------------------------------------------------------------------------------------

    async def _landing(self, request: web.Request) -> web.Response:
        return web.Response(text=_PAGE.format(version=__version__), content_type="text/html")

    async def _metrics(self, request: web.Request) -> web.Response:
        now = [*self._collect(), *self._following.collect()]
        body, kind = answer(now, self._following.text, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": kind})

    def _collect(self) -> Iterator[Metric]:
        found, me = self._watch.found, self._runner.labels
        machine = found.machine
        samples: dict[str, list[tuple[Labels, float]]] = {
            name: [] if value is None else [(me, value)]
            for name, value in {
                "runner_status": None if machine.service_up is None else float(machine.service_up),
                "runner_cpu_usage_percent": machine.cpu,
                "runner_memory_usage_percent": machine.memory,
                "runner_disk_usage_percent": machine.disk,
                "runner_last_heartbeat_timestamp_seconds": self._heartbeat(),
            }.items()
        }
        samples["runner_info"] = [((*me, *self._info), 1.0)]
        if (skew := self._following.skew) is not None and self._following.up:
            samples["surefoot_clock_skew_seconds"] = [(me, skew.seconds)]
            samples["surefoot_store_round_trip_seconds"] = [(me, skew.round_trip)]
        samples["surefoot_host_reachable"] = [((*me, *key), float(up)) for key, up in found.hosts.items()]
        samples["surefoot_secret_valid"] = [((*me, name), float(one.valid)) for name, one in found.secrets.items()]
        samples["surefoot_secret_expires_in_days"] = [
            ((*me, name), (one.expires_at - time.time()) / _DAY)
            for name, one in found.secrets.items()
            if one.expires_at is not None
        ]
        yield from families.of(samples)

    def _heartbeat(self) -> float | None:
        agents = self._following.now.agents if self._following.now is not None else ()
        mine = next((row.last_seen_at for row in agents if row.report.name == self._runner.name), None)
        return self._watch.found.machine.looked_at if mine is None else mine


async def _admitted(guard: webconfig.Guard, header: str) -> bool:
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        user, separator, password = base64.b64decode(coded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    if not separator:
        return False
    return guard.known(user, password) or await asyncio.to_thread(guard.admits, user, password)


def _refused(listen: Address, number: int, error: OSError) -> UsageError:
    why = os.strerror(number).lower() if number else str(error)
    hints = {
        errno.EADDRINUSE: f"see who has it: ss -ltnp 'sport = :{listen.port}'; node_exporter has the same default: "
        "--listen :9101",
        errno.EACCES: "ports below 1024 are for root: --listen :9100",
    }
    return UsageError(
        f"can't listen on {listen}: {why}", code=Code.LISTEN, hint=hints.get(number, "name another with --listen")
    )


def _info(service: Service) -> Labels:
    """Return version, hostname, os, kernel, python, service."""
    name = "unknown"
    with suppress(OSError):
        name = platform.freedesktop_os_release().get("PRETTY_NAME", name)
    return (
        __version__,
        socket.gethostname(),
        name,
        platform.release(),
        platform.python_version(),
        ",".join((*service.units, *service.processes)),
    )
