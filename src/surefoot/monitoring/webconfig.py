# SPDX-License-Identifier: Apache-2.0
"""TLS and basic auth by `web.config.file`, in the format that all of Prometheus's exporters share.

Guarantees: what the file asks for is done or refused, never passed over; a user that there is not takes as long to
refuse as a wrong password; changed files count without a restart, and ones that are broken leave all as it was.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surefoot.core.errors import Code, ConfigError

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CLIENTS = {
    "NoClientCert": ssl.CERT_NONE,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
}
_HEADERS = (
    "Content-Security-Policy",
    "X-Frame-Options",
    "X-Content-Type-Options",
    "X-XSS-Protection",
    "Strict-Transport-Security",
)
_HINT = "docs/monitoring.md shows what the file may say"
#: A hash of nobody's password, as dear as the usual ones.
_NOBODY = "$2b$10$" + "u" * 22 + "a" * 31


@dataclass(frozen=True, slots=True)
class Tls:
    """How to speak TLS."""

    cert: Path
    key: Path
    client: ssl.VerifyMode = ssl.CERT_NONE
    client_ca: Path | None = None
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED

    def context(self) -> ssl.SSLContext:
        """Return what a server needs. ConfigError if a file can't be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = self.minimum, self.maximum
        self.load(context)
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ssl.SSLError) as error:
                raise _wrong(f"client_ca_file {self.client_ca} can't be used: {error.strerror or error}") from error
        context.verify_mode = self.client
        return context

    def load(self, context: ssl.SSLContext) -> None:
        """Take the certificate as it is now, for connections to come."""
        try:
            context.load_cert_chain(self.cert, self.key, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            raise _wrong(f"cert_file {self.cert} and key_file {self.key} can't be used: {error}") from error


@dataclass(frozen=True)
class WebConfig:
    """What the file says."""

    tls: Tls | None = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


def load(path: Path) -> WebConfig:
    """Read the file. ConfigError if it is not what it should be; paths in it are relative to it."""
    import yaml

    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _wrong(f"{path} can't be read: {' '.join(str(error).split())}") from error
    top = _section(said, str(path), ("tls_server_config", "http_server_config", "basic_auth_users"))
    http = _section(top.get("http_server_config"), "http_server_config", ("http2", "headers"))
    tls = _section(
        top.get("tls_server_config"),
        "tls_server_config",
        ("cert_file", "key_file", "client_auth_type", "client_ca_file", "min_version", "max_version"),
    )
    return WebConfig(
        _tls(tls, path.parent) if tls else None,
        _texts(top.get("basic_auth_users"), "basic_auth_users", check=_bcrypt),
        _texts(http.get("headers"), "headers", known=_HEADERS),
    )


def _tls(said: Mapping[str, Any], folder: Path) -> Tls:
    files = {key: said.get(key) for key in ("cert_file", "key_file")}
    for key, value in files.items():
        if not isinstance(value, str) or not value:
            raise _wrong(f"tls_server_config: {key} is missing")
    client = said.get("client_auth_type", "NoClientCert")
    if client not in _CLIENTS:
        raise _wrong(f"client_auth_type is {client!r}, which is none of {', '.join(_CLIENTS)}")
    ca = said.get("client_ca_file")
    if _CLIENTS[client] is not ssl.CERT_NONE and not ca:
        raise _wrong(f"client_auth_type {client} needs client_ca_file")
    versions = {key: said.get(key) for key in ("min_version", "max_version")}
    for key, value in versions.items():
        if value is not None and value not in _VERSIONS:
            raise _wrong(f"{key} is {value!r}, which is none of {', '.join(_VERSIONS)}")
    return Tls(
        folder / str(files["cert_file"]),
        folder / str(files["key_file"]),
        _CLIENTS[client],
        folder / str(ca) if ca else None,
        _VERSIONS.get(str(versions["min_version"]), ssl.TLSVersion.TLSv1_2),
        _VERSIONS.get(str(versions["max_version"]), ssl.TLSVersion.MAXIMUM_SUPPORTED),
    )


def _section(said: Any, where: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if said is None:
        return {}
    if not isinstance(said, dict):
        raise _wrong(f"{where} must be a mapping")
    if unknown := [str(key) for key in said if key not in known]:
        raise _wrong(f"{where} has {', '.join(unknown)}, which this exporter does not know")
    return said


def _texts(said: Any, where: str, *, known: tuple[str, ...] = (), check: Any = None) -> Mapping[str, str]:
    found = _section(said, where, known) if known else (said or {})
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, str) for k, v in found.items()):
        raise _wrong(f"{where} must map names to texts")
    for name, value in found.items():
        if check is not None and not check(value):
            raise _wrong(f"{where}: the password of {name} is no bcrypt hash")
    return found


def _bcrypt(value: str) -> bool:
    import bcrypt

    try:
        bcrypt.checkpw(b"", value.encode())
    except ValueError:
        return False
    return value.startswith("$2")


def _wrong(why: str) -> ConfigError:
    return ConfigError(f"the web config: {why}", code=Code.WEB_CONFIG, hint=_HINT)


class Guard:
    """Knows who may come in. A password that was right once is known again without the price of bcrypt."""

    def __init__(self, users: Mapping[str, str]) -> None:
        """Take users with their passwords' hashes."""
        self._users = dict(users)
        self._key = secrets.token_bytes(32)
        self._right: set[bytes] = set()

    @property
    def open(self) -> bool:
        """Whether everybody may."""
        return not self._users

    def known(self, user: str, password: str) -> bool:
        """Whether the two were right before."""
        return self._seal(user, password) in self._right

    def admits(self, user: str, password: str) -> bool:
        """Whether user and password are right. Slow: that is what bcrypt is for."""
        import bcrypt

        hashed = self._users.get(user)
        # bcrypt itself reads 72 bytes, and newer ones of its libraries refuse more.
        given = password.encode()[:72]
        right = bcrypt.checkpw(given, (hashed or _NOBODY).encode()) and hashed is not None
        if right:
            self._right.add(self._seal(user, password))
        return right

    def _seal(self, user: str, password: str) -> bytes:
        text = f"{len(user)}:{user}:{self._users.get(user, '')}:{password}"
        return hmac.new(self._key, text.encode(), hashlib.sha256).digest()


def stamp(*paths: Path | None) -> tuple[tuple[int, int, int] | None, ...]:
    """Return what changes when files do."""
    return tuple(_stamp(path) for path in paths if path is not None)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - Path.stat follows the same way; this is what is compared
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
