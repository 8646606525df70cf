# SPDX-License-Identifier: Apache-2.0
"""The faces of the PAWS360 stand-in: each is there, tells the truth, and can be broken by a file."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import PostgresServer
from tests.support.servers import free_port

EXAMPLE = Path(__file__).parents[2] / "examples" / "paws360"
PATIENCE = 60.0


def until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"did not come true: {what}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Said:
    status: int
    text: str
    version: str | None

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def get(url: str, timeout: float = PATIENCE, **headers: str) -> Said:
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as response:
            return Said(
                response.status, response.read().decode("utf-8", "replace"), response.headers["X-Paws360-Version"]
            )
    except urllib.error.HTTPError as error:
        return Said(error.code, error.read().decode("utf-8", "replace"), error.headers["X-Paws360-Version"])


@dataclass
class Stand:
    """The services of one host, as processes of this machine."""

    folder: Path
    settings: dict[str, Any]
    ports: dict[str, int] = field(
        default_factory=lambda: {name: free_port() for name in ("backend", "frontend", "idp")}
    )
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def faults(self) -> Path:
        return self.folder / "faults"

    def release(self, version: str) -> Path:
        release = self.folder / "releases" / version
        if not release.exists():
            shutil.copytree(EXAMPLE / "app", release)
            ports = {"backend_port": self.ports["backend"], "frontend_port": str(self.ports["frontend"])}
            said = {"version": version, "listen": "127.0.0.1", "faults": str(self.faults), **ports, **self.settings}
            (release / "release.json").write_text(json.dumps(said))
        return release

    def start(self, service: str, version: str = "1.0") -> None:
        program: list[str | Path] = [self.release(version) / f"{service}.py"]
        if service == "idp":
            program = [EXAMPLE / "idp" / "idp.py", "127.0.0.1", str(self.ports["idp"]), str(self.faults)]
        self.processes[service] = subprocess.Popen([sys.executable, "-B", *program], stderr=subprocess.DEVNULL)
        until(lambda: self._listens(service) or self.processes[service].poll() is not None, f"{service} listens")

    def _listens(self, service: str) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.ports[service]), timeout=5):
            return True
        return False

    def url(self, service: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}{path}"

    def get(self, service: str, path: str, **options: Any) -> Said:
        return get(self.url(service, path), **options)

    @contextlib.contextmanager
    def broken(self, fault: str, *versions: str) -> Iterator[None]:
        (self.faults / fault).write_text("\n".join(versions))
        try:
            yield
        finally:
            (self.faults / fault).unlink()

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@contextlib.contextmanager
def standing(folder: Path, **settings: Any) -> Iterator[Stand]:
    stand = Stand(folder, settings)
    stand.faults.mkdir(parents=True)
    try:
        yield stand
    finally:
        stand.stop()


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    if not (program := shutil.which("redis-server")):
        pytest.skip("redis-server is not installed: make debian")
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    call = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    if not shutil.which("psql"):
        pytest.skip("psql is not installed: make debian")
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, redis_port: int, postgres: PostgresServer) -> Iterator[Stand]:
    """All services, with a PostgreSQL and a Redis of their own."""
    database = {"host": "127.0.0.1", "port": postgres.port, "name": "postgres", "user": "postgres", "passfile": ""}
    redis = {"host": "127.0.0.1", "port": redis_port}
    with standing(tmp_path_factory.mktemp("stand") / "host", database=database, redis=redis) as stand:
        for service in ("backend", "frontend", "idp"):
            stand.start(service)
        yield stand


def test_every_face_is_there_and_names_its_version(stand: Stand) -> None:
    assert stand.get("backend", "/actuator/health").json == {"status": "UP", "version": "1.0"}
    assert stand.get("backend", "/actuator/info").json == {"app": {"name": "paws360", "version": "1.0"}}
    assert stand.get("frontend", "/api/health").json == {"status": "ok", "version": "1.0"}
    assert stand.get("frontend", "/nowhere").status == 404
    for service, path in (("backend", "/actuator/health"), ("frontend", "/api/health")):
        assert stand.get(service, path).version == "1.0"


def test_the_page_counts_visits_in_redis(stand: Stand) -> None:
    first, second = (stand.get("frontend", "/") for _ in range(2))
    assert first.status == second.status == 200
    visits = [int(re.search(r"Version 1\.0, visit (\d+)", said.text)[1]) for said in (first, second)]  # type: ignore[index]
    assert visits[1] == visits[0] + 1


def test_the_database_and_redis_are_really_asked(stand: Stand) -> None:
    assert stand.get("backend", "/actuator/health/db").json["status"] == "UP"
    assert stand.get("backend", "/actuator/health/redis").json == {"status": "UP", "details": {"said": "PONG"}}


def test_a_database_or_a_redis_that_is_gone_is_told_and_the_service_itself_is_well(tmp_path: Path) -> None:
    nowhere = {"host": "127.0.0.1", "port": free_port()}
    database = {**nowhere, "name": "x", "user": "x", "passfile": ""}
    with standing(tmp_path / "host", database=database, redis=nowhere) as stand:
        stand.start("backend")
        for part, words in (("db", "refused"), ("redis", "refused")):
            said = stand.get("backend", f"/actuator/health/{part}")
            assert (said.status, said.json["status"]) == (503, "DOWN")
            assert words in said.json["details"]["error"]
        assert stand.get("backend", "/actuator/health").json["status"] == "UP"
        assert stand.get("backend", "/api/v1/visits").json["visits"] is None


def test_what_is_not_configured_is_unknown_not_up(tmp_path: Path) -> None:
    with standing(tmp_path / "host") as stand:
        stand.start("backend")
        for part in ("db", "redis"):
            assert stand.get("backend", f"/actuator/health/{part}").json["status"] == "UNKNOWN"


@pytest.mark.parametrize(
    ("fault", "service", "path", "status"),
    [
        ("backend", "backend", "/actuator/health", 503),
        ("database", "backend", "/actuator/health/db", 503),
        ("frontend", "frontend", "/", 500),
        ("frontend-api", "frontend", "/api/health", 500),
        ("idp", "idp", "/idp/metadata", 503),
    ],
)
def test_a_file_breaks_a_face_and_its_absence_mends_it(
    stand: Stand, fault: str, service: str, path: str, status: int
) -> None:
    with stand.broken(fault):
        assert stand.get(service, path).status == status
    assert stand.get(service, path).status == 200


def test_a_fault_of_one_version_leaves_the_others_alone(stand: Stand) -> None:
    with stand.broken("backend", "2.0", "3.0"):
        assert stand.get("backend", "/actuator/health").status == 200
    with stand.broken("backend", "2.0", "1.0"):
        assert stand.get("backend", "/actuator/health").status == 503


@pytest.mark.parametrize(("service", "path"), [("backend", "/actuator/health"), ("frontend", "/api/health")])
def test_a_service_can_answer_garbage_or_hang(stand: Stand, service: str, path: str) -> None:
    with stand.broken(f"{service}-garbage"):
        said = stand.get(service, path)
        with pytest.raises(ValueError, match="Expecting value"):
            said.json  # noqa: B018
    with stand.broken(f"{service}-hangs"):
        with pytest.raises(TimeoutError):
            stand.get(service, path, timeout=0.5)
    assert stand.get(service, path).status == 200


def test_a_version_can_crash_at_its_start(tmp_path: Path) -> None:
    with standing(tmp_path / "host") as stand, stand.broken("backend-crash", "2.0"):
        stand.start("backend", "2.0")
        assert stand.processes["backend"].wait(PATIENCE) != 0
        stand.start("backend", "1.0")
        assert stand.get("backend", "/actuator/health").version == "1.0"


def test_the_identity_providers_certificate_is_good_and_the_broken_ones_are_not(stand: Stand) -> None:
    from cryptography import x509

    def certificate(text: str) -> x509.Certificate:
        body = re.search(r"<ds:X509Certificate>(.*)</ds:X509Certificate>", text, re.DOTALL)
        assert body is not None
        pem = f"-----BEGIN CERTIFICATE-----\n{body[1].strip()}\n-----END CERTIFICATE-----\n"
        return x509.load_pem_x509_certificate(pem.encode())

    good = stand.get("idp", "/idp/metadata").text
    assert 'entityID="https://idp.paws360.example/idp/shibboleth"' in good
    assert certificate(good).not_valid_after_utc > datetime.now(UTC)
    with stand.broken("idp-expired"):
        assert certificate(stand.get("idp", "/idp/metadata").text).not_valid_after_utc < datetime.now(UTC)
    with stand.broken("idp-other"):
        assert "idp.paws360.example" not in stand.get("idp", "/idp/metadata").text
    with stand.broken("idp-garbage"):
        assert "</md:EntityDescriptor>" not in stand.get("idp", "/idp/metadata").text


def test_sigterm_lets_the_last_request_be_answered(tmp_path: Path) -> None:
    with standing(tmp_path / "host") as stand:
        stand.start("backend")
        answers: list[Said] = []
        with stand.broken("backend-hangs"):
            asking = threading.Thread(
                target=lambda: answers.append(stand.get("backend", "/actuator/health", X_Forwarded_For="10.0.0.1"))
            )
            asking.start()
            until(lambda: stand.get("backend", "/actuator/requests").json["active"] == 1, "the request is counted")
            stand.processes["backend"].send_signal(signal.SIGTERM)
            asking.join(PATIENCE)
            assert stand.processes["backend"].wait(PATIENCE) == 0
        assert [said.status for said in answers] == [200]


def test_only_what_comes_from_nginx_counts_as_a_request(tmp_path: Path) -> None:
    with standing(tmp_path / "host") as stand:
        stand.start("backend")

        def idle() -> float:
            return float(stand.get("backend", "/actuator/requests").json["idle_seconds"])

        time.sleep(0.3)
        before = idle()
        stand.get("backend", "/actuator/health")
        assert idle() >= before
        asked = time.monotonic()
        stand.get("backend", "/actuator/health", X_Forwarded_For="10.0.0.1")
        assert idle() <= time.monotonic() - asked + 0.01
