# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of one's own, in a temporary folder, on a free port of 127.0.0.1 and on a socket.

Guarantees: nothing outside the folder is touched (no user is made, no service registered); the server ends with the
test session, even if that is killed. PostgreSQL refuses to run as root: then it runs as another user that exists.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import psutil
import psycopg

_PDEATHSIG = 1
_START_SECONDS = 30.0


class PostgresServer:
    """A server that can be stopped, killed, frozen and started again on the same data and the same port."""

    def __init__(self, *, fsync: bool = False, settings: dict[str, str] | None = None) -> None:
        """Make the folder and an empty cluster. `fsync` matters to measurements alone."""
        self.folder = Path(tempfile.mkdtemp(prefix="sf-pg-"))
        self.port = _free_port()
        self.settings = {"fsync": "on" if fsync else "off", "max_connections": "200", **(settings or {})}
        self._user = _other_user() if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count(1)
        try:
            if self._user is not None:
                os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, -1)
            self.programs = self._find_programs()
            self._run(
                "initdb",
                "-D",
                str(self.data),
                "-U",
                "postgres",
                "--auth=trust",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
            )
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @property
    def data(self) -> Path:
        """The cluster's folder."""
        return self.folder / "data"

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server and wait until it answers."""
        assert self._process is None
        options = [part for key, value in self.settings.items() for part in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.data), "-h", "127.0.0.1", "-p", str(self.port),
                 "-k", str(self.folder), *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                user=self._user, extra_groups=[] if self._user else None, preexec_fn=_end_with_parent,  # noqa: PLW1509
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    text = (self.folder / "log").read_text(errors="replace")
                    raise RuntimeError(f"PostgreSQL did not start:\n{text[-4000:]}") from None
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Stop the server in good order: sessions are ended, nothing has to be recovered."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End the server as a crash would: sessions break, the next start recovers from the log."""
        self._end(signal.SIGQUIT)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop every process of the server in its tracks; connections stay open and answer nothing."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        """Let a frozen server go on."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # a session may end by itself
                process.resume()

    def __enter__(self) -> Self:
        """Start it; at the end of the block it is gone."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server and remove its folder."""
        try:
            if self._process is not None:
                self.thaw()
                self.kill()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        assert self._process is not None
        postmaster = psutil.Process(self._process.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def _end(self, sign: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(sign)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            for process in self._processes():
                process.kill()
            self._process.wait()
        self._process = None

    # -- databases ----------------------------------------------------------------------------------------------

    def url(self, database: str, *, user: str = "postgres", password: str = "", by_socket: bool = False) -> str:
        """Return a database's URL, over TCP unless `by_socket`."""
        who = f"{user}:{password}@" if password else f"{user}@"
        if by_socket:
            return f"postgresql://{who}/{database}?host={self.folder}&port={self.port}"
        return f"postgresql://{who}127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"db{os.getpid()}_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement as the superuser."""
        with psycopg.connect(self.url(database), autocommit=True) as conn:
            conn.execute(statement)

    def require_password(self, user: str, password: str) -> None:
        """Make a user who has to give a password."""
        self.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        rules = self.data / "pg_hba.conf"
        rules.write_text(f"host all {user} 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        self.execute("SELECT pg_reload_conf()")
        time.sleep(0.2)

    # -- programs -----------------------------------------------------------------------------------------------

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self.programs / program), *arguments],
            check=True, capture_output=True, cwd=self.folder, user=self._user, extra_groups=[] if self._user else None,
        )  # fmt: skip

    def _find_programs(self) -> Path:
        """Return the folder of a PostgreSQL that the server's user may run: pgserver's, a copy of it, or Debian's."""
        carried = importlib.util.find_spec("pgserver")  # found, not imported: its import makes folders elsewhere
        if carried is None or carried.origin is None:
            debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
            if not debian:
                raise RuntimeError("the tests need PostgreSQL: make venv, or apt-get install postgresql")
            return debian[-1].parent
        programs = Path(carried.origin).parent / "pginstall" / "bin"
        if self._may_run(programs / "postgres"):
            return programs
        # The programs look for their libraries three folders up, beside the package.
        package, copy = Path(carried.origin).parent, self.folder / "programs"
        shutil.copytree(package / "pginstall", copy / "pgserver" / "pginstall", symlinks=True)
        shutil.copytree(package.with_name("pgserver.libs"), copy / "pgserver.libs", symlinks=True)
        subprocess.run(["chmod", "-R", "a+rX", str(copy)], check=True)
        return copy / "pgserver" / "pginstall" / "bin"

    def _may_run(self, program: Path) -> bool:
        try:
            subprocess.run(
                [str(program), "--version"], check=True, capture_output=True, cwd="/", user=self._user,
                extra_groups=[] if self._user else None,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError):
            return False
        return True


def _other_user() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGQUIT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
