# SPDX-License-Identifier: Apache-2.0
"""`image` against real registries: open, behind a login, behind tokens, behind TLS; and against what is none."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from surefoot.checks.model import CheckFailed, CheckStatus
from surefoot.checks.oci import Reference
from surefoot.checks.registry import KINDS, run_all
from surefoot.core.plan import Check
from tests.support.images import PASSWORD, USER, Images, Tokens, basic_header, registry
from tests.support.looking import context, look
from tests.support.servers import certificate, free_port, page, raw, saying, silence

PASS, FAIL = CheckStatus.PASS, CheckStatus.FAIL
HTPASSWD = {"auth": {"htpasswd": {"realm": "images", "path": "htpasswd"}}}
SECRETS = {"PASSWORD": PASSWORD, "WRONG": "no sesame"}


@pytest.fixture(autouse=True)
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's config, of which there is none at first."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return folder / "config.json"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    with registry(tmp_path_factory.mktemp("open")) as found:
        yield found


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """One that asks for user and password, and holds shop/backend:2.0."""
    with registry(tmp_path_factory.mktemp("locked"), HTPASSWD) as found:
        found.pushes = basic_header()
        found.push("shop/backend:2.0")
        yield found


async def test_second_image_of_a_variable_fails_instead_of_taking_the_place_of_the_first(images: Images) -> None:
    digest = images.push("shop/same:2.0")
    images.push("pay/same:2.0")
    checks = [Check("image", {"ref": f"{images.address}/{{{of}}}/same:2.0"}) for of in ("first", "second", "first")]
    results = await run_all(checks, context(first="shop", second="pay"))
    assert [result.status for result in results] == [PASS, FAIL, PASS]
    pinned = {"SUREFOOT_IMAGE_SAME": f"{images.address}/shop/same@{digest}"}
    assert [result.pins for result in results] == [pinned, {}, pinned]
    assert "would be pinned in SUREFOOT_IMAGE_SAME, as" in results[1].message and results[1].hint


async def test_image_that_is_there_passes_and_is_pinned(images: Images) -> None:
    digest = images.push("shop/backend:2.0")
    result = await look("image", ref=f"{images.address}/shop/backend:{{version}}")
    assert result.status is PASS, result.message
    assert result.pins == {"SUREFOOT_IMAGE_BACKEND": f"{images.address}/shop/backend@{digest}"}
    assert digest[:19] in result.message
    result = await look("image", ref=f"{images.address}/shop/backend@{digest}", **{"as": "api"})
    assert result.pins == {"SUREFOOT_IMAGE_API": f"{images.address}/shop/backend@{digest}"}


async def test_image_or_tag_that_is_not_there_fails(images: Images) -> None:
    images.push("shop/backend:2.0")
    for ref in ("shop/backend:3.0", "shop/nothing:2.0", f"shop/backend@sha256:{'0' * 64}"):
        result = await look("image", ref=f"{images.address}/{ref}")
        assert (result.status, "there is no image" in result.message) == (FAIL, True), result.message
        assert "push" in result.hint


async def test_platform_must_fit(images: Images) -> None:
    digest = images.push("shop/both:2.0", ("linux/amd64", "linux/arm64/v8"), index=True)
    images.push("shop/one:2.0", ("linux/arm64",))
    both, one = f"{images.address}/shop/both:2.0", f"{images.address}/shop/one:2.0"
    result = await look("image", ref=both, platform=["linux/amd64", "linux/arm64"])
    assert (result.status, result.pins["SUREFOOT_IMAGE_BOTH"].endswith(digest)) == (PASS, True), result.message
    assert (await look("image", ref=one, platform="linux/arm64")).status is PASS
    result = await look("image", ref=one, platform="linux/amd64")
    assert (result.status, "not run on linux/amd64, only on linux/arm64" in result.message) == (FAIL, True)
    result = await look("image", ref=both, platform="windows/amd64")
    assert (result.status, "linux/amd64, linux/arm64/v8" in result.message) == (FAIL, True), result.message


async def test_login_is_given_by_options(locked: Images) -> None:
    ref = f"{locked.address}/shop/backend:2.0"
    where = context(secrets=SECRETS)
    assert (await look("image", where, ref=ref, username=USER, password="${PASSWORD}")).status is PASS
    for options in ({"username": USER, "password": "${WRONG}"}, {}):
        result = await look("image", where, ref=ref, **options)
        assert (result.status, "401" in result.message, "docker login" in result.hint) == (FAIL, True, True)
        assert "sesame" not in result.message
    result = await look("image", where, ref=ref, username=USER, password="${MISSING}")
    assert (result.status, "MISSING is not set" in result.message) == (FAIL, True)


@pytest.mark.parametrize("key", ["{address}", "http://{address}", "https://{address}/v1/"])
async def test_login_is_read_from_docker_s_config(locked: Images, docker: Path, key: str) -> None:
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    docker.write_text(json.dumps({"auths": {key.format(address=locked.address): {"auth": auth}, "other": {}}}))
    result = await look("image", ref=f"{locked.address}/shop/backend:2.0")
    assert result.status is PASS, result.message


@pytest.mark.parametrize("how", ["credsStore", "credHelpers"])
async def test_login_is_asked_of_a_credential_helper(
    locked: Images, docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    docker.write_text(json.dumps({how: "vault" if how == "credsStore" else {locked.address: "vault"}}))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ref = f"{locked.address}/shop/backend:2.0"
    result = await look("image", ref=ref)
    assert (result.status, "docker-credential-vault" in result.message) == (FAIL, True), result.message
    helper = tmp_path / "docker-credential-vault"

    def says(script: str) -> None:
        helper.write_text(f"#!/bin/sh\n{script}\n")
        helper.chmod(0o755)

    known = json.dumps({"ServerURL": locked.address, "Username": USER, "Secret": PASSWORD})
    says(f'[ "$1" = get ] && [ "$(cat)" = {locked.address} ] && echo \'{known}\'')
    assert (await look("image", ref=ref)).status is PASS
    says("echo 'credentials not found in native keychain'; exit 1")
    assert "without a login" in (await look("image", ref=ref)).message
    says("exit 1")
    assert "ended with status 1" in (await look("image", ref=ref)).message
    says("echo garbage")
    assert "does not answer as it should" in (await look("image", ref=ref)).message
    says("exec sleep 7391")
    result = await look("image", ref=ref, timeout="500ms")
    assert (result.status, "within 0.5 s" in result.message) == (FAIL, True), result.message


@pytest.mark.parametrize("config", ["{", '{"auths": {"ADDRESS": {"auth": "%%%"}}}', '{"credsStore": "../evil"}'])
async def test_config_of_docker_that_is_damaged_fails(locked: Images, docker: Path, config: str) -> None:
    docker.write_text(config.replace("ADDRESS", locked.address))
    result = await look("image", ref=f"{locked.address}/shop/backend:2.0")
    assert result.status is FAIL
    assert "401" not in result.message


async def test_token_is_fetched_where_the_registry_says(tmp_path: Path, docker: Path) -> None:
    pem = certificate(tmp_path)
    tokens = Tokens(pem)
    async with saying(tokens.answer) as port:
        realm = f"http://127.0.0.1:{port}/token"
        auth = {"token": {"realm": realm, "service": "images", "issuer": "tokens", "rootcertbundle": str(pem)}}
        with registry(tmp_path / "registry", {"auth": auth}) as images:
            images.pushes = {"Authorization": f"Bearer {tokens.token('repository:shop/backend:push,pull')}"}
            images.push("shop/backend:2.0")
            ref = f"{images.address}/shop/backend:2.0"
            where = context(secrets=SECRETS)
            options = {"ref": ref, "platform": "linux/amd64"}
            assert (await look("image", where, username=USER, password="${PASSWORD}", **options)).status is PASS
            assert "scope=repository:shop/backend:pull" in tokens.asked[-1]
            result = await look("image", where, username=USER, password="${WRONG}", **options)
            assert (result.status, "does not show" in result.message) == (FAIL, True), result.message
            assert (await look("image", **options)).status is FAIL
            docker.write_text(json.dumps({"auths": {images.address: {"identitytoken": "refresh me"}}}))
            assert (await look("image", **options)).status is PASS
            assert tokens.asked[-1].startswith("POST /token ")


async def test_registry_behind_tls_must_be_trusted(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    with registry(tmp_path / "registry", pem=pem) as images:
        images.push("app:2.0")
        ref = f"{images.address}/app:2.0"
        result = await look("image", ref=ref)
        assert (result.status, "not trusted" in result.message) == (FAIL, True), result.message
        result = await look("image", ref=ref, ca=str(pem))
        assert result.status is PASS, result.message
        assert (await look("image", ref=ref, verify_tls=False)).status is PASS
        assert (await look("image", ref=ref, insecure=True)).status is FAIL


async def test_registry_that_hangs_or_is_not_there_fails() -> None:
    result = await look("image", ref=f"127.0.0.1:{free_port()}/app:1")
    assert (result.status, "refused" in result.message) == (FAIL, True), result.message
    async with saying(silence) as port:
        result = await look("image", ref=f"127.0.0.1:{port}/app:1", timeout="300ms")
        assert (result.status, "within 0.3 s" in result.message) == (FAIL, True), result.message


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (page("<html>", "200 OK"), "can't be read"),
        (page("[]"), "can't be read"),
        (page("{}", headers=f"Docker-Content-Digest: sha256:{'0' * 64}\r\n"), "another manifest"),
        (page("{}"), "unknown kind"),
        (page('{"config": {"digest": "../../x"}}'), "unknown kind"),
        (page("x" * (4 * 1024 * 1024 + 1)), "more than a manifest"),
        (page("busy", "503 Service Unavailable"), "answered 503"),
        (page("", "429 Too Many Requests"), "limits requests"),
        (page("", "401 Unauthorized", 'WWW-Authenticate: Bearer realm="nowhere"\r\n'), "not a URL"),
        (page("", "401 Unauthorized", "WWW-Authenticate: Negotiate\r\n"), "401"),
        (page("", "401 Unauthorized"), "401"),
        (raw(b"\x00\xff\xfe"), "closed"),
        (raw(b""), "closed"),
    ],
)
async def test_garbage_fails(answer: Any, said: str) -> None:
    async with saying(answer) as port:
        result = await look("image", ref=f"127.0.0.1:{port}/app:1", platform="linux/amd64")
    assert (result.status, said in result.message) == (FAIL, True), result.message
    assert len(result.message) < 500


async def test_token_is_not_asked_for_without_tls() -> None:
    """Elsewhere than on this machine."""
    image = Reference.read("registry.example/app:1")
    from surefoot.checks.asking import Asking
    from surefoot.checks.oci import Registry
    from surefoot.checks.registry_access import Login

    asking = Registry(image, Asking("x", 1.0), Login("me", "secret"), plain=False)
    with pytest.raises(CheckFailed, match="not https"):
        await asking._token({"realm": "http://evil.example/token"})


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag"),
    [
        ("nginx", "docker.io", "library/nginx", "latest"),
        ("nginx:1.25", "docker.io", "library/nginx", "1.25"),
        ("bitnami/redis:7", "docker.io", "bitnami/redis", "7"),
        ("docker.io/bitnami/redis:7", "docker.io", "bitnami/redis", "7"),
        ("localhost/app", "localhost", "app", "latest"),
        ("registry.example:5000/a/b/c-d_e:v1.0_x-y", "registry.example:5000", "a/b/c-d_e", "v1.0_x-y"),
        (f"r.example/app@sha256:{'a' * 64}", "r.example", "app", ""),
    ],
)
def test_names_are_read_as_docker_reads_them(text: str, registry: str, repository: str, tag: str) -> None:
    image = Reference.read(text)
    assert (image.registry, image.repository, image.tag) == (registry, repository, tag)


@pytest.mark.parametrize(
    "text", ["", "App", "app:", "app:a b", "r.example/app:1+2", "app@sha256:1", "r.example//app", "app@", "r.example/"]
)
async def test_what_can_not_be_an_image_fails(text: str) -> None:
    result = await look("image", ref=text)
    assert (result.status, "can't be an image" in result.message) == (FAIL, True), result.message


@pytest.mark.parametrize(
    "options", [{}, {"ref": "x", "platform": "linux"}, {"ref": "x", "as": "a-b"}, {"ref": "x", "username": "me"}]
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KINDS["image"].model_validate(options)
