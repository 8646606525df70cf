# SPDX-License-Identifier: Apache-2.0
"""A registry of images, as far as a check needs it: names, tokens, manifests (OCI distribution, which Docker speaks).

Guarantees: a manifest that was read is the one that its digest names; nothing is pulled but manifests and an image's
config.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode, urlsplit

from surefoot.checks.asking import Asking, Unreachable, asked, basic, beginning, json_of, quoted, read
from surefoot.checks.model import CheckFailed, excerpt
from surefoot.checks.registry_access import Login

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
#: Bytes of a manifest or config: what registries must take at least.
LONGEST = 4 * 1024 * 1024

_HUB = "registry-1.docker.io"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_REGISTRY = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")
_LOCAL = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")
_CHALLENGE = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')


@dataclass(frozen=True, slots=True)
class Reference:
    """An image's name, taken apart."""

    shown: str  #: as it was written
    registry: str  #: as it was written, or Docker Hub
    repository: str
    tag: str
    digest: str

    @classmethod
    def read(cls, text: str) -> Reference:
        """Read a name as Docker does; CheckFailed if it is none."""
        name, _, digest = text.partition("@")
        head, slash, rest = name.partition("/")
        if slash and ("." in head or ":" in head or head == "localhost"):
            registry, path = head, rest
        else:
            registry, path = "docker.io", name if slash else f"library/{name}"
        path, colon, tag = path.partition(":")
        wrong = (
            (not _REGISTRY.fullmatch(registry) and f"{registry!r} is no registry")
            or (not _NAME.fullmatch(path) and f"{path!r} is no name of an image")
            or (colon and not _TAG.fullmatch(tag) and f"{tag!r} is no tag")
            or ("@" in text and not _DIGEST.fullmatch(digest) and f"{digest!r} is no digest")
        )
        if wrong:
            raise CheckFailed(f"{excerpt(text)} can't be an image: {excerpt(wrong)}", "as in registry.example/app:1.0")
        return cls(text, registry, path, tag or ("" if digest else "latest"), digest)

    @property
    def host(self) -> str:
        """The registry's address."""
        return _HUB if self.registry == "docker.io" else self.registry

    @property
    def is_local(self) -> bool:
        """Whether the registry is on this machine: Docker asks it without TLS."""
        return _LOCAL.fullmatch(self.registry) is not None

    def pinned(self, digest: str) -> str:
        """Return the name that always means the same image."""
        name = self.repository.removeprefix("library/") if self.registry == "docker.io" else self.repository
        return f"{name}@{digest}" if self.registry == "docker.io" else f"{self.registry}/{name}@{digest}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest's digest and kind; its content where that was read."""

    digest: str
    kind: str
    content: Mapping[str, Any] | None = None


@dataclass
class Registry:
    """One repository of a registry, asked for one check."""

    image: Reference
    how: Asking  #: how it is asked; the rest is filled in
    login: Login
    plain: bool  #: without TLS
    _header: str = field(default="", repr=False)

    async def speaks_plainly(self) -> bool:
        """Whether it answers without TLS."""
        try:
            found = await self._once(f"http://{self.image.host}/v2/", "GET", {})
        except Unreachable as error:
            if isinstance(error.__cause__, ConnectionRefusedError | TimeoutError):
                raise
            return False
        return found.status != 400  # what those say who wanted TLS

    async def find(self) -> Manifest:
        """Return what a name stands for, without its content; CheckFailed if there is no such image."""
        wanted = self.image.digest or self.image.tag
        found = await self._get(f"manifests/{wanted}", "HEAD")
        digest = found.headers.get("Docker-Content-Digest", "")
        if found.status == 405 or (found.status == 200 and not _DIGEST.fullmatch(digest)):
            return await self.read(wanted)
        self._expect(found)
        return Manifest(digest, _kind(found.headers))

    async def read(self, wanted: str) -> Manifest:
        """Return a manifest with its content."""
        found = await self._get(f"manifests/{wanted}")
        self._expect(found)
        algorithm = wanted.partition(":")[0] if _DIGEST.fullmatch(wanted) else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, found.body).hexdigest()}"
        if _DIGEST.fullmatch(wanted) and digest != wanted:
            raise CheckFailed(f"{self.image.registry} answers with another manifest than {wanted}")
        return Manifest(digest, _kind(found.headers), self._json(found.body, "manifest"))

    async def platforms(self, manifest: Manifest) -> list[str]:
        """Return the platforms that an image runs on, as in linux/arm64/v8."""
        content = manifest.content or (await self.read(manifest.digest)).content or {}
        if isinstance(content.get("manifests"), list):
            entries = [entry.get("platform") for entry in content["manifests"] if isinstance(entry, Mapping)]
            return [told for entry in entries if isinstance(entry, Mapping) and (told := _platform(entry))]
        digest = content.get("config", {}).get("digest") if isinstance(content.get("config"), Mapping) else None
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise CheckFailed(f"{self.image.shown} has a manifest of an unknown kind ({excerpt(manifest.kind)})")
        found = await self._get(f"blobs/{digest}")
        self._expect(found)
        return [_platform(self._json(found.body, "config"))]

    def _json(self, body: bytes, what: str) -> Mapping[str, Any]:
        try:
            found = json_of(body)
        except ValueError:
            found = None
        if not isinstance(found, Mapping):
            raise CheckFailed(f"{self.image.registry} has a {what} of {self.image.shown} that can't be read")
        return found

    # -- asking --------------------------------------------------------------------------------------

    async def _get(self, what: str, method: str = "GET") -> _Got:
        scheme = "http" if self.plain else "https"
        url = f"{scheme}://{self.image.host}/v2/{self.image.repository}/{what}"
        found = await self._once(url, method)
        if found.status == 401 and not self._header:
            self._header = await self._credentials(found)
            found = await self._once(url, method)
        return found

    async def _once(self, url: str, method: str, headers: Mapping[str, str] | None = None, data: Any = None) -> _Got:
        if headers is None:
            headers = {"Accept": ", ".join((*INDEXES, *MANIFESTS, "*/*;q=0.1"))}
            headers |= {"Authorization": self._header} if self._header else {}
        how = replace(self.how, method=method, headers=headers, data=data, shown=self.image.registry)
        async with asked(url, replace(how, follow_redirects=True)) as answer:
            body = await read(answer, LONGEST + 1) if answer.status == 200 else (await beginning(answer)).encode()
            return _Got(answer.status, answer.headers.copy(), body, answer.headers.getall("WWW-Authenticate", []))

    async def _credentials(self, refused: _Got) -> str:
        """Return the header that the registry wants, as it says."""
        for challenge in refused.challenges:
            kind, _, rest = challenge.partition(" ")
            wanted = {name: quoted or bare for name, quoted, bare in _CHALLENGE.findall(rest)}
            if kind.lower() == "bearer" and "realm" in wanted:
                return f"Bearer {await self._token(wanted)}"
            if kind.lower() == "basic" and self.login.username:
                return basic(self.login.username, self.login.password)
        self._expect(refused)
        raise AssertionError("401 is never what was expected")

    async def _token(self, wanted: Mapping[str, str]) -> str:
        scope = wanted.get("scope") or f"repository:{self.image.repository}:pull"
        query = {"service": wanted.get("service", ""), "scope": scope}
        realm, login = wanted["realm"], self.login
        if urlsplit(realm).scheme != "https" and not self.plain:
            raise CheckFailed(f"{self.image.registry} sends its users to {excerpt(realm)}, which is not https")
        if login.refresh_token:
            form = {**query, "grant_type": "refresh_token", "client_id": "surefoot"}
            form["refresh_token"] = login.refresh_token
            typed = {"Content-Type": "application/x-www-form-urlencoded"}
            found = await self._once(realm, "POST", typed, urlencode(form).encode())
        else:
            known = {"Authorization": basic(login.username, login.password)} if login.username else {}
            joint = "&" if urlsplit(realm).query else "?"
            found = await self._once(f"{realm}{joint}{urlencode(query)}", "GET", known)
        self._expect(found)
        told = self._json(found.body, "token")
        token = told.get("token") or told.get("access_token")
        if not isinstance(token, str) or not token.isprintable():
            raise CheckFailed(f"{self.image.registry} gives no token")
        return token

    def _expect(self, found: _Got) -> None:
        """CheckFailed unless the answer is one to go on with."""
        shown, registry = self.image.shown, self.image.registry
        said = quoted(_errors(found.body))
        match found.status:
            case 200 if len(found.body) <= LONGEST:
                return
            case 200:
                raise CheckFailed(f"{registry} answers with more than a manifest may be")
            case 401 | 403:
                who = f"as {self.login.username}" if self.login.username else "without a login"
                raise CheckFailed(
                    f"{registry} does not show {shown} {who} ({found.status}){said}",
                    f"give username and password, or log in where the agent runs: docker login {registry}",
                )
            case 404:
                raise CheckFailed(
                    f"there is no image {shown}{said}", "build and push it first, or deploy a version that was pushed"
                )
            case 429:
                raise CheckFailed(f"{registry} limits requests (429){said}", "log in, or wait")
            case _:
                raise CheckFailed(f"{registry} answered {found.status}{said}", "see that it is a registry, and well")


@dataclass(frozen=True, slots=True)
class _Got:
    status: int
    headers: Mapping[str, str]
    body: bytes
    challenges: list[str]


def _kind(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip()


def _platform(told: Mapping[str, Any]) -> str:
    parts = (told.get("os"), told.get("architecture"), told.get("variant"))
    return "/".join(str(part) for part in parts if part)


def _errors(body: bytes) -> str:
    """Return what a registry says of an error."""
    try:
        told = json_of(body)
        return "; ".join(str(error.get("message") or error.get("code")) for error in told["errors"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return body.decode("utf-8", "replace")
