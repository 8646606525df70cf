# SPDX-License-Identifier: Apache-2.0
"""`saml_metadata`: providers that are well, those about to expire, and documents that attack who reads them."""

from __future__ import annotations

import base64
import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pydantic import ValidationError

from surefoot.checks.model import CheckResult, CheckStatus
from surefoot.checks.registry import KINDS
from tests.support.looking import look
from tests.support.servers import certificate, free_port, page, raw, saying, silence

PASS, FAIL, WARN = CheckStatus.PASS, CheckStatus.FAIL, CheckStatus.WARN
ID = "https://idp.example/saml"
MD = 'xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" xmlns:ds="http://www.w3.org/2000/09/xmldsig#"'
SSO = '<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="https://idp/"/>'
SP = '<md:EntityDescriptor entityID="sp"><md:SPSSODescriptor/></md:EntityDescriptor>'


def pem(folder: Path, days: float, since: float = -1.0) -> str:
    made = x509.load_pem_x509_certificate(certificate(folder, days=days, since=since).read_bytes())
    return base64.encodebytes(made.public_bytes(serialization.Encoding.DER)).decode()


def key(text: str, use: str | None = "signing") -> str:
    named = f' use="{use}"' if use else ""
    data = f"<ds:X509Data><ds:X509Certificate>\n{text}</ds:X509Certificate></ds:X509Data>"
    return f"<md:KeyDescriptor{named}><ds:KeyInfo>{data}</ds:KeyInfo></md:KeyDescriptor>"


def provider(*keys: str, name: str = ID, sso: str = SSO, attributes: str = "", until: str = "") -> str:
    inner = f"<md:IDPSSODescriptor{until}>{''.join(keys)}{sso}</md:IDPSSODescriptor>"
    return f'<md:EntityDescriptor {MD} entityID="{name}"{attributes}>{inner}</md:EntityDescriptor>'


def several(*entities: str, attributes: str = "") -> str:
    return f"<md:EntitiesDescriptor {MD}{attributes}>{''.join(entities)}</md:EntitiesDescriptor>"


def until(days: float) -> str:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    return f' validUntil="{moment:%Y-%m-%dT%H:%M:%SZ}"'


async def judge(document: str | bytes, **options: Any) -> CheckResult:
    async with saying(page(document)) as port:
        return await look("saml_metadata", url=f"http://127.0.0.1:{port}/metadata", **options)


async def test_provider_that_is_well_passes(tmp_path: Path) -> None:
    good = key(pem(tmp_path, 90))
    for document in (
        provider(good),
        '<?xml version="1.0" encoding="UTF-8"?>\n' + provider(good),
        provider(key(pem(tmp_path, 90), use=None)),
        several(SP, several(provider(good))),
    ):
        result = await judge(document)
        assert (result.status, "expires in 89 days" in result.message) == (PASS, True), result.message
    assert (await judge(several(SP, provider(good), provider(good, name="other")), entity_id=ID)).status is PASS


async def test_certificate_is_judged_by_its_times(tmp_path: Path) -> None:
    good, soon, old = (key(pem(tmp_path, days)) for days in (90, 5, -2))
    result = await judge(provider(soon))
    assert (result.status, "expires in 4 days" in result.message) == (WARN, True), result.message
    assert (await judge(provider(soon), warn_before="2d")).status is PASS
    result = await judge(provider(old))
    assert (result.status, "expired 2 days ago" in result.message) == (FAIL, True), result.message
    assert (await judge(provider(old, good))).status is PASS  # while keys are changed
    result = await judge(provider(key(pem(tmp_path, 90, since=2))))
    assert (result.status, "not valid yet" in result.message) == (FAIL, True), result.message
    encryption = key(pem(tmp_path, 90), use="encryption")
    result = await judge(provider(encryption))
    assert (result.status, "no signing certificate" in result.message) == (FAIL, True), result.message


async def test_validity_of_the_metadata_counts_too(tmp_path: Path) -> None:
    good = key(pem(tmp_path, 90))
    assert (await judge(provider(good, attributes=until(-1)))).status is FAIL
    assert (await judge(provider(good, until=until(-1)))).status is FAIL
    assert (await judge(several(provider(good), attributes=until(-1)))).status is FAIL
    assert (await judge(provider(good, attributes=until(3)))).status is WARN
    assert (await judge(provider(good, attributes=until(30)))).status is PASS
    result = await judge(provider(good, attributes=' validUntil="soon"'))
    assert (result.status, "no time" in result.message) == (FAIL, True), result.message


async def test_other_provider_than_the_one_named_fails(tmp_path: Path) -> None:
    good = key(pem(tmp_path, 90))
    result = await judge(provider(good), entity_id="https://other")
    assert (result.status, ID in result.message) == (FAIL, True), result.message
    assert (await judge(several(SP))).status is FAIL
    result = await judge(several(SP, provider(good)), entity_id="sp")
    assert (result.status, "no identity provider" in result.message) == (FAIL, True), result.message
    result = await judge(several(provider(good), provider(good, name="other")))
    assert (result.status, "give entity_id" in result.hint) == (FAIL, True), result.message
    result = await judge(provider(good, sso=""))
    assert (result.status, "SingleSignOnService" in result.message) == (FAIL, True), result.message


@pytest.mark.parametrize(
    "document",
    [
        f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>{provider("&b;")}',
        f'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>{provider("&f;")}',
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><x/>',
    ],
)
async def test_document_with_a_type_is_not_read(document: str) -> None:
    result = await judge(document)
    assert (result.status, "document type" in result.message) == (FAIL, True), result.message
    assert "root:" not in result.message


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("<html><body>Log in", "not answer with XML"),
        ("", "not answer with XML"),
        (b"\xff\xfe\x00", "not answer with XML"),
        ("<html/>", "no SAML metadata: its root is html"),
        (f'<EntityDescriptor entityID="{ID}"/>', "no SAML metadata"),
        (provider(key("%%%")), "can't be read"),
        (provider(key("AAAA")), "can't be read"),
        ("<a>" * 20_000 + "</a>" * 20_000, "no SAML metadata"),
        ('<?xml version="1.0" encoding="nonsense"?><a/>', "not answer with XML"),
    ],
)
async def test_garbage_fails(document: str | bytes, said: str) -> None:
    result = await judge(document)
    assert (result.status, said in result.message) == (FAIL, True), result.message
    assert len(result.message) < 500


async def test_server_that_hangs_or_has_no_metadata_fails() -> None:
    async with saying(silence) as port:
        result = await look("saml_metadata", url=f"http://127.0.0.1:{port}/", timeout="300ms")
    assert (result.status, "within 0.3 s" in result.message) == (FAIL, True), result.message
    async with saying(page("gone", "404 Not Found")) as port:
        result = await look("saml_metadata", url=f"http://127.0.0.1:{port}/")
    assert (result.status, "answered 404 instead of 200: gone" in result.message) == (FAIL, True), result.message
    async with saying(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<a>")) as port:
        result = await look("saml_metadata", url=f"http://127.0.0.1:{port}/")
    assert (result.status, "broke off" in result.message) == (FAIL, True), result.message
    result = await look("saml_metadata", url=f"http://127.0.0.1:{free_port()}/")
    assert (result.status, "refused" in result.message) == (FAIL, True), result.message


@pytest.mark.parametrize("options", [{}, {"url": "idp"}, {"url": "http://x", "warn_before": "soon"}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KINDS["saml_metadata"].model_validate(options)
