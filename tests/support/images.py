# SPDX-License-Identifier: Apache-2.0
"""A registry of images for tests: Debian's docker-registry, with images of no content in it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.support.servers import accepts, free_port, program, running

USER, PASSWORD = "deployer", "open sesame"
#: PASSWORD, as registries keep it.
HTPASSWD = f"{USER}:$2b$04$Ke9NJlOYGvJkaR3oiseRFuCv65TzTQRsyyt5DHC/kDs7W3Y9AzMkC\n"
_CONFIG: Mapping[str, Any] = {
    "version": 0.1,
    "log": {"level": "error", "accesslog": {"disabled": True}},
    "storage": {"filesystem": {"rootdirectory": "images"}},
}
OCI = "application/vnd.oci.image."


@dataclass
class Images:
    """A registry that runs; `pushes` carries what a push needs to be let in."""

    address: str
    scheme: str = "http"
    pushes: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None

    def push(self, name: str, platforms: Sequence[str] = ("linux/amd64",), *, index: bool = False) -> str:
        """Push an image of nothing, as NAME:TAG; return the digest of what its tag stands for."""
        repository, _, tag = name.partition(":")
        manifests = [self._manifest(repository, platform, tag if not index else "") for platform in platforms]
        if not index:
            return str(manifests[-1]["digest"])
        body = {"schemaVersion": 2, "mediaType": f"{OCI}index.v1+json", "manifests": manifests}
        return self._put(repository, tag, json.dumps(body).encode(), f"{OCI}index.v1+json")

    def _manifest(self, repository: str, platform: str, tag: str) -> dict[str, Any]:
        parts = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        config = json.dumps({**parts, "rootfs": {"type": "layers", "diff_ids": []}}).encode()
        layer = {"mediaType": f"{OCI}config.v1+json", "digest": self._blob(repository, config), "size": len(config)}
        body = {"schemaVersion": 2, "mediaType": f"{OCI}manifest.v1+json", "config": layer, "layers": []}
        data = json.dumps(body | {"annotations": {"tag": tag}}).encode()
        digest = self._put(repository, tag or _digest(data), data, f"{OCI}manifest.v1+json")
        return {"mediaType": f"{OCI}manifest.v1+json", "digest": digest, "size": len(data), "platform": parts}

    def _blob(self, repository: str, data: bytes) -> str:
        digest = _digest(data)
        where = self._ask("POST", f"/v2/{repository}/blobs/uploads/")["Location"]
        joint = "&" if "?" in where else "?"
        self._ask("PUT", f"{where}{joint}digest={digest}", data, "application/octet-stream")
        return digest

    def _put(self, repository: str, reference: str, data: bytes, kind: str) -> str:
        self._ask("PUT", f"/v2/{repository}/manifests/{reference}", data, kind)
        return _digest(data)

    def _ask(self, method: str, where: str, data: bytes | None = b"", kind: str = "") -> Any:
        url = where if "://" in where else f"{self.scheme}://{self.address}{where}"
        headers = {**self.pushes, **({"Content-Type": kind} if kind else {})}
        ask = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(ask, timeout=30, context=self.tls) as answer:
                return answer.headers
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {url}: {error.code} {error.read()!r}") from error


@contextlib.contextmanager
def registry(folder: Path, settings: Mapping[str, Any] | None = None, pem: Path | None = None) -> Iterator[Images]:
    """Run a registry in a folder, with settings beside the least; behind TLS if there is a certificate."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    (folder / "htpasswd").write_text(HTPASSWD)
    tls = {"tls": {"certificate": str(pem), "key": str(pem)}} if pem else {}
    config = {**_CONFIG, **(settings or {}), "http": {"addr": f"127.0.0.1:{port}", "secret": "x", **tls}}
    (folder / "config.yml").write_text(json.dumps(config))
    with running([program("docker-registry"), "serve", "config.yml"], folder, accepts(port)):
        trusted = ssl.create_default_context(cafile=pem) if pem else None
        yield Images(f"127.0.0.1:{port}", "https" if pem else "http", tls=trusted)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Tokens:
    """Gives out tokens as a registry's own server does: to those who say who they are, for what they ask."""

    def __init__(self, pem: Path) -> None:
        self._key = load_pem_private_key(pem.read_bytes(), None)
        found = x509.load_pem_x509_certificate(pem.read_bytes())
        self._chain = [base64.b64encode(found.public_bytes(serialization.Encoding.DER)).decode()]
        self.asked: list[str] = []

    def token(self, scope: str) -> str:
        """Return a token for a scope."""
        kind, name, actions = scope.split(":")
        now = int(time.time())
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        claims = {"iss": "tokens", "aud": "images", "sub": USER, "iat": now, "nbf": now - 60, "exp": now + 300}
        made = {**claims, "jti": str(len(self.asked)), "access": access}
        return jwt.encode(made, self._key, algorithm="ES256", headers={"x5c": self._chain})

    async def answer(self, reader: Any, writer: Any) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((int(line[16:]) for line in head.splitlines() if line.startswith("Content-Length: ")), 0)
        form = parse_qs((await reader.readexactly(length)).decode() if length else head.split()[1].partition("?")[2])
        self.asked.append(head)
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        known = f"Basic {login}" in head or form.get("refresh_token") == ["refresh me"]
        body = json.dumps({"token": self.token(form["scope"][0])} if known else {"details": "who are you?"}).encode()
        status = "200 OK" if known else "401 Unauthorized"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()


def basic_header() -> dict[str, str]:
    """Return how USER says who it is."""
    return {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
