# SPDX-License-Identifier: Apache-2.0
"""The backend: the faces of a Spring Boot service with its actuator, on PostgreSQL and Redis.

As in Spring Boot, the health of the database is a group of its own: a database that is away for a moment does not make
every replica look dead.
"""

from __future__ import annotations

import os
import socket
import subprocess
from typing import Any

from service import Answer, Release, Service, answer, here

#: Seconds for an answer of the database or of Redis.
PATIENCE = 3
#: Where nobody listens: what a broken database is asked at.
NOBODY = 1


class Backend:
    """Answers for one release."""

    def __init__(self, release: Release) -> None:
        """Take what it is configured with."""
        self._release = release
        self._database: dict[str, Any] = release.settings.get("database") or {}
        self._redis: dict[str, Any] = release.settings.get("redis") or {}

    def health(self) -> Answer:
        """Tell whether the service itself is well."""
        if self._release.broken("backend"):
            return answer({"status": "DOWN", "version": self._release.version}, 503)
        return answer({"status": "UP", "version": self._release.version})

    def health_db(self) -> Answer:
        """Ask the database, each time anew."""
        if not self._database:
            return answer({"status": "UNKNOWN", "details": {"error": "no database is configured"}})
        trouble = self._ask_database()
        if trouble:
            return answer({"status": "DOWN", "details": {"error": trouble}}, 503)
        return answer({"status": "UP", "details": {"database": "PostgreSQL", "validationQuery": "SELECT 1"}})

    def health_redis(self) -> Answer:
        """Ask Redis, each time anew."""
        if not self._redis:
            return answer({"status": "UNKNOWN", "details": {"error": "no Redis is configured"}})
        try:
            said = self._ask_redis("PING")
        except (OSError, ValueError) as error:
            return answer({"status": "DOWN", "details": {"error": str(error)}}, 503)
        return answer({"status": "UP", "details": {"said": said}})

    def visits(self) -> Answer:
        """Count a visit, in Redis; a visitor does not have to suffer from its absence."""
        try:
            visits = int(self._ask_redis("INCR", "paws360:visits")) if self._redis else None
        except (OSError, ValueError):
            visits = None
        return answer({"visits": visits, "version": self._release.version})

    def info(self) -> Answer:
        """Tell which version runs."""
        return answer({"app": {"name": "paws360", "version": self._release.version}})

    def _ask_database(self) -> str:
        """Return what is wrong with the database, or nothing."""
        asked = {
            "PGHOST": self._database["host"],
            "PGPORT": NOBODY if self._release.broken("database") else self._database["port"],
            "PGDATABASE": self._database["name"],
            "PGUSER": self._database["user"],
            "PGPASSFILE": self._database["passfile"],
            "PGCONNECT_TIMEOUT": PATIENCE,
        }
        env = {**os.environ, **{name: str(value) for name, value in asked.items()}}
        call = ["psql", "--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align", "--command=SELECT 1"]
        try:
            done = subprocess.run(call, env=env, capture_output=True, text=True, timeout=PATIENCE + 1, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return type(error).__name__
        if done.returncode == 0 and done.stdout.strip() == "1":
            return ""
        return " ".join(done.stderr.split())[:200] or f"psql ended with {done.returncode}"

    def _ask_redis(self, *words: str) -> str:
        """Send one command; ValueError if it is refused."""
        request = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.create_connection((self._redis["host"], int(self._redis["port"])), timeout=PATIENCE) as s:
            s.sendall(request.encode())
            with s.makefile("rb") as lines:
                line = lines.readline(200).decode("utf-8", "replace").strip()
        if line[:1] not in ("+", ":"):
            raise ValueError(line or "Redis said nothing")
        return line[1:]


def main() -> None:
    """Serve."""
    release = Release(here())
    backend = Backend(release)
    paths = {
        "/actuator/health": backend.health,
        "/actuator/health/db": backend.health_db,
        "/actuator/health/redis": backend.health_redis,
        "/actuator/info": backend.info,
        "/api/v1/visits": backend.visits,
    }
    service = Service("backend", release, paths)
    service.paths["/actuator/requests"] = service.requests
    service.run()


if __name__ == "__main__":
    main()
