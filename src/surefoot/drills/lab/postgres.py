# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL on hosts of the lab: one server, or a pair of which the second replicates the first synchronously.

Guarantees of a pair: what a client was told to be committed is on both servers; so after `fail_over` nothing that was
acknowledged is lost. Who promotes and who follows is decided here, as a person or Patroni would; the lab is no model
of that decision.
"""

from __future__ import annotations

import time
from pathlib import Path

from surefoot.drills.lab.errors import LabError
from surefoot.drills.lab.ground import run
from surefoot.drills.lab.host import PATIENCE, Host

DATA = "/var/lib/surefoot-lab-postgres"
UNIT = "lab-postgres"
PORT = 5432
STANDBY = "standby"
#: Debian's, the newest that is installed.
PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), default=Path("/usr/bin"))
LOOK_EVERY = 0.05

_SETTINGS = f"""
listen_addresses = '*'
port = {PORT}
unix_socket_directories = '/run/lab-postgres'
max_connections = 200
wal_level = replica
hot_standby = on
max_wal_senders = 10
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
wal_retrieve_retry_interval = 500ms
tcp_keepalives_idle = 2
tcp_keepalives_interval = 1
tcp_keepalives_count = 3
log_connections = off
"""
#: The lab's network is the lab's alone.
_ACCESS = "local all all trust\nhost all all samenet trust\nhost replication all samenet trust\n"
_UNIT = f"""[Unit]
Description=PostgreSQL of the lab
[Service]
Type=notify
User=postgres
RuntimeDirectory=lab-postgres
ExecStart={PROGRAMS}/postgres -D {DATA}
KillMode=mixed
KillSignal=SIGINT
TimeoutSec=60
Environment=LC_ALL=C.UTF-8
"""


class Server:
    """One PostgreSQL on a host that is on."""

    def __init__(self, host: Host) -> None:
        """Take the host; nothing is installed on it yet."""
        self.host = host

    def set_up(self, *databases: str) -> None:
        """Make a server with empty databases of these names, and start it."""
        self.lay_out()
        self.start()
        self.create(*databases)

    def lay_out(self) -> None:
        """Make its files; it is not started."""
        self.host.sh(f"install -d -o postgres -m 0700 {DATA}")
        self._as_postgres(f"{PROGRAMS}/initdb -D {DATA} -U postgres --auth=trust --no-sync -E UTF8 --locale=C")
        self.host.write(f"{DATA}/conf.d/lab.conf", _SETTINGS)
        self.host.write(f"{DATA}/pg_hba.conf", _ACCESS)
        self.host.sh(f"echo \"include_dir 'conf.d'\" >>{DATA}/postgresql.conf; chown -R postgres {DATA}")
        self.host.unit(UNIT, _UNIT)

    def lay_out_as_copy(self, of: Server) -> None:
        """Make the files of a server that follows another one, which was laid out and never started."""
        source, target = (f"/proc/{server.host.pid()}/root{DATA}" for server in (of, self))
        run(["cp", "-a", source, target])
        follows = f"host={of.host.address} port={PORT} user=postgres application_name={STANDBY}"
        self.host.sh(f"echo \"primary_conninfo = '{follows}'\" >>{DATA}/conf.d/lab.conf; : >{DATA}/standby.signal")
        self.host.unit(UNIT, _UNIT)

    def create(self, *databases: str) -> None:
        """Make empty databases."""
        for name in databases:
            self.sql(f"CREATE DATABASE {name}")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.host.systemctl("start", UNIT)

    def stop(self) -> None:
        """Stop it in good order: sessions are ended."""
        self.host.systemctl("stop", UNIT)

    def crash(self) -> None:
        """Kill all of its processes at once; it is not started again by itself."""
        self.host.kill(UNIT, "KILL", who="all")
        self.host.until(lambda: not self.host.active(UNIT), "has no PostgreSQL any more")

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement as the superuser, and return its rows, tab between columns."""
        return self._as_postgres(
            f'{PROGRAMS}/psql -h /run/lab-postgres -qAtX -F "$(printf "\\t")" -v ON_ERROR_STOP=1 -d {database} -c "$1"',
            statement,
        ).strip()

    def promote(self) -> None:
        """Have a server that follows take writes from now on."""
        self.sql("ALTER SYSTEM RESET synchronous_standby_names")
        self.sql("SELECT pg_promote()")

    def _as_postgres(self, script: str, *args: str) -> str:
        return self.host.sh('cd /; exec setpriv --reuid=postgres --regid=postgres --clear-groups sh -c "$@"',
                            script, "sh", *args)  # fmt: skip


class PostgresPair:
    """Two servers: every commit waits for both. See the module's docstring."""

    def __init__(self, first: Host, second: Host) -> None:
        """Take two hosts that are on."""
        self.primary, self.standby = Server(first), Server(second)

    def set_up(self, *databases: str) -> None:
        """Make the pair, with databases of these names."""
        self.primary.lay_out()
        self.standby.lay_out_as_copy(self.primary)
        self.primary.start()
        self.standby.start()
        self.synchronous(True)
        self.primary.create(*databases)

    def synchronous(self, wanted: bool) -> None:
        """Have commits wait for the standby, or not."""
        self.primary.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{STANDBY if wanted else ''}'")
        self.primary.sql("SELECT pg_reload_conf()")
        if wanted:
            self._until("SELECT sync_state FROM pg_stat_replication", "sync")

    def fail_over(self) -> None:
        """Take the primary's power away, and promote the standby."""
        self.primary.host.power_off()
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    def restart_in_mid_commit(self) -> None:
        """Crash the primary while a client waits for the reply to its commit, and start it again.

        The standby is kept from confirming, so a commit that is on the primary's disk stands without its reply; there
        must be writers. LabError if nobody commits.
        """
        self.standby.host.freeze()
        try:
            self._until("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'", "t")
            self.primary.crash()
        finally:
            self.standby.host.thaw()
        self.primary.start()

    def url(self, database: str) -> str:
        """Return the URL that finds whichever server takes writes."""
        hosts = ",".join(f"{server.host.address}:{PORT}" for server in (self.primary, self.standby))
        return f"postgresql://postgres@{hosts}/{database}"

    def _until(self, question: str, answer: str) -> None:
        end = time.monotonic() + PATIENCE
        while (said := self.primary.sql(question)) != answer:
            if time.monotonic() > end:
                raise LabError(f"{self.primary.host.name}: {question}: {said!r} and not {answer!r} in {PATIENCE:g} s")
            time.sleep(LOOK_EVERY)
