# SPDX-License-Identifier: Apache-2.0
"""`saml_metadata`: an identity provider's metadata can be fetched, is what it should be, and is not about to expire.

Guarantees: a document type, and with it entities and whatever they would fetch or blow up to, is refused unread. It
does not verify the metadata's own signature: that is the service provider's to do, who knows whom it trusts.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from surefoot.checks.asking import Asking, asked, beginning, quoted, read, url_shown
from surefoot.checks.expiry import expires
from surefoot.checks.http import Url
from surefoot.checks.model import CheckFailed, CheckOptions, CheckWarned, Context, Kind, excerpt
from surefoot.config.fields import Duration, Pause, Text, Truth

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

#: Bytes of metadata: federations' are longer than one provider's by far.
LONGEST = 32 * 1024 * 1024
_MD = "{urn:oasis:names:tc:SAML:2.0:metadata}"
_CERTIFICATE = ".//{http://www.w3.org/2000/09/xmldsig#}X509Certificate"
_RENEW = "have the identity provider's certificate renewed, and the new one told to all that trust the old"


class SamlMetadataOptions(CheckOptions):
    """Options of `saml_metadata`."""

    url: Url = Field(description="Where the metadata is.")
    entity_id: Text = Field(
        default="", description="The provider's entityID. Default: that of the only provider that the metadata has."
    )
    warn_before: Pause = Field(
        default=14 * 86400.0,
        description="Warns when its signing certificate, or the metadata, expires within this time.",
    )
    headers: dict[str, Text] = Field(default_factory=dict, description="Headers to send.")
    timeout: Duration = Field(default=10.0, description="For the whole answer.")
    verify_tls: Truth = Field(default=True, description="Whether its certificate must be trusted.")
    ca: Text = Field(
        default="", description="A PEM file of the authorities to trust, in the project or, from /, on the agent."
    )


@dataclass(frozen=True, slots=True)
class _Life:
    begin: float
    end: float


class SamlMetadata(Kind):
    """See the module's docstring."""

    name: ClassVar = "saml_metadata"
    options: ClassVar = SamlMetadataOptions

    async def probe(self, options: SamlMetadataOptions, context: Context) -> str:
        """Fetch it and look."""
        url = url_shown(context.address(options.url))
        how = Asking(
            url,
            options.timeout,
            headers={name: context.reveal(value) for name, value in options.headers.items()},
            follow_redirects=True,
            verify_tls=options.verify_tls,
            ca=await context.file(options.ca) if options.ca else None,
        )
        async with asked(context.reveal_address(options.url), how) as answer:
            if answer.status != 200:
                raise CheckFailed(f"{url} answered {answer.status} instead of 200{quoted(await beginning(answer))}")
            body = await read(answer, LONGEST + 1)
        if len(body) > LONGEST:
            raise CheckFailed(f"{url} answers with more than {LONGEST // 2**20} MiB")
        provider, until = await asyncio.to_thread(_provider, url, body, context.fill(options.entity_id))
        return _judged(options, provider, until)


def _provider(url: str, body: bytes, wanted: str) -> tuple[Element, list[tuple[str, float]]]:
    """Return the provider's element, and what says until when it is valid."""
    from xml.etree.ElementTree import ParseError

    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root: Element = fromstring(body, forbid_dtd=True)
    except DefusedXmlException:
        raise CheckFailed(f"{url} has a document type, which metadata has no need of: it is not read") from None
    except (ParseError, ValueError, LookupError) as error:
        said = quoted(body[:4096].decode("utf-8", "replace"))
        raise CheckFailed(f"{url} does not answer with XML ({excerpt(str(error))}){said}") from None
    found = list(_entities(root, []))
    if not found:
        raise CheckFailed(f"{url} is no SAML metadata: its root is {excerpt(root.tag.rpartition('}')[2])}")
    providers = [(entity, until) for entity, until in found if entity.find(f"{_MD}IDPSSODescriptor") is not None]
    chosen = [(entity, until) for entity, until in providers if entity.get("entityID") == wanted or not wanted]
    if len(chosen) == 1:
        return chosen[0]
    names = [excerpt(entity.get("entityID", "")) for entity, _ in found][:3]
    if chosen:
        raise CheckFailed(f"{url} has {len(chosen)} identity providers: {', '.join(names)}…", "give entity_id")
    if any(entity.get("entityID") == wanted for entity, _ in found):
        raise CheckFailed(f"{url}: {excerpt(wanted)} is no identity provider")
    what = f"the entity {excerpt(wanted)}" if wanted else "an identity provider"
    raise CheckFailed(f"{url} does not have {what}; it has {', '.join(names)}")


def _entities(element: Element, until: list[tuple[str, float]]) -> Iterator[tuple[Element, list[tuple[str, float]]]]:
    """Yield each entity, with the ends of its own validity and of those around it."""
    here = [*until, *_valid_until(element)]
    if element.tag == f"{_MD}EntityDescriptor":
        yield element, here
    elif element.tag == f"{_MD}EntitiesDescriptor":
        for child in element:
            yield from _entities(child, here)


def _valid_until(element: Element) -> list[tuple[str, float]]:
    text = element.get("validUntil")
    if text is None:
        return []
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CheckFailed(f"the metadata's validUntil is no time: {excerpt(text)}") from None
    return [("the metadata", moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())]


def _judged(options: SamlMetadataOptions, provider: Element, until: list[tuple[str, float]]) -> str:
    """Return what was found of a provider; an Outcome if that is not well."""
    name = excerpt(provider.get("entityID", ""))
    descriptor = provider.find(f"{_MD}IDPSSODescriptor")
    assert descriptor is not None, "it was chosen by that"
    if descriptor.find(f"{_MD}SingleSignOnService") is None:
        raise CheckFailed(f"{name} has no SingleSignOnService: nobody could log in")
    now = time.time()
    lives = [_life(name, text) for text in _signing(descriptor)]
    if not lives:
        raise CheckFailed(f"{name} has no signing certificate")
    valid = [life for life in lives if life.begin <= now < life.end]
    if not valid:
        last = max(lives, key=lambda life: life.end)
        when = expires(last.end) if last.end <= now else "is not valid yet"
        raise CheckFailed(f"the signing certificate of {name} {when}", _RENEW)
    ends = [*until, *_valid_until(descriptor)]
    ends.append(("the signing certificate", max(life.end for life in valid)))
    what, end = min(ends, key=lambda one: one[1])
    said = f"{what} of {name} {expires(end)}"
    if end <= now:
        raise CheckFailed(said, "see why the identity provider does not renew what it publishes")
    if end - now <= options.warn_before:
        raise CheckWarned(said, _RENEW)
    return said


def _signing(descriptor: Element) -> Iterator[str]:
    """Yield the certificates that the provider may sign by; one without a use is for everything."""
    for key in descriptor.findall(f"{_MD}KeyDescriptor"):
        if key.get("use") in (None, "signing"):
            for certificate in key.iterfind(_CERTIFICATE):
                yield certificate.text or ""


def _life(name: str, text: str) -> _Life:
    from cryptography import x509

    try:
        found = x509.load_der_x509_certificate(base64.b64decode("".join(text.split()), validate=True))
        return _Life(found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp())
    except ValueError:
        raise CheckFailed(f"{name} has a signing certificate that can't be read", _RENEW) from None
