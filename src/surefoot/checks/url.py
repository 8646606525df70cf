# SPDX-License-Identifier: Apache-2.0
"""`url`: an artifact can be fetched, and is the one that it should be.

Guarantees: with a checksum, all of it is fetched and counted, and nothing of it is kept.
"""

from __future__ import annotations

import hashlib
from typing import ClassVar

from pydantic import Field

from surefoot.checks.asking import Asking, asked, beginning, quoted, url_shown
from surefoot.checks.file import checksum_of, unlike
from surefoot.checks.http import Url as WebAddress
from surefoot.checks.model import CheckFailed, CheckOptions, Context, Kind
from surefoot.checks.values import Checksum, Size, size
from surefoot.config.fields import Duration, SecretReference, Text, Truth

_PIECE = 256 * 1024
#: What servers say that can't be asked without fetching: it is refused, or not known, or a login is for GET alone.
_NO_HEAD = (400, 403, 404, 405, 501)


class UrlOptions(CheckOptions):
    """Options of `url`."""

    url: WebAddress = Field(description="Where the artifact is, as in `https://repo.example/app-{version}.tar.gz`.")
    checksum: Checksum = Field(default="", description="`sha256:…`, `sha384:…` or `sha512:…`; it is fetched for that.")
    min_size: Size | None = Field(default=None, description="It must be at least so large.")
    headers: dict[str, Text] = Field(default_factory=dict, description="Headers to send.")
    token: SecretReference = Field(default="", description="A bearer token.")
    timeout: Duration = Field(default=60.0, description="For all of it.")
    verify_tls: Truth = Field(default=True, description="Whether its certificate must be trusted.")
    ca: Text = Field(
        default="", description="A PEM file of the authorities to trust, in the project or, from /, on the agent."
    )


class Url(Kind):
    """See the module's docstring."""

    name: ClassVar = "url"
    options: ClassVar = UrlOptions

    async def probe(self, options: UrlOptions, context: Context) -> str:
        """Ask for it, and fetch it if its checksum is wanted."""
        shown = url_shown(context.address(options.url))
        algorithm, wanted = checksum_of(options.checksum, context)
        ca = await context.file(options.ca) if options.ca else None
        length, found = None, ""
        for method in ("GET",) if wanted else ("HEAD", "GET"):
            how = Asking(
                shown,
                options.timeout,
                method,
                _headers(options, context),
                follow_redirects=True,
                verify_tls=options.verify_tls,
                ca=ca,
                outside=True,
            )
            async with asked(context.reveal_address(options.url), how) as answer:
                if method == "HEAD" and answer.status in _NO_HEAD:
                    continue
                if answer.status != 200:
                    raise CheckFailed(
                        f"{shown} answered {answer.status} instead of 200{quoted(await beginning(answer))}",
                        "see that it was built and published, and that the address is right",
                    )
                length = answer.content_length
                if wanted:
                    digest, length = hashlib.new(algorithm), 0
                    while piece := await answer.content.read(_PIECE):
                        digest.update(piece)
                        length += len(piece)
                    found = digest.hexdigest()
            break
        if found != wanted:
            raise CheckFailed(*unlike(shown, algorithm, found, wanted))
        if options.min_size is not None and (length is None or length < options.min_size):
            large = "does not tell how large it is" if length is None else f"is {size(length)} large"
            raise CheckFailed(f"{shown} {large}, and must be at least {size(options.min_size)}")
        told = f", {size(length)}" if length is not None else ""
        return f"{shown} is there{told}{f', {algorithm} {wanted[:12]}…' if wanted else ''}"


def _headers(options: UrlOptions, context: Context) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"} | {k: context.reveal(v) for k, v in options.headers.items()}
    return headers | ({"Authorization": f"Bearer {context.secret(options.token)}"} if options.token else {})
