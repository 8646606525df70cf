# SPDX-License-Identifier: Apache-2.0
"""`http`: a URL answers with the status, and the body, that it should.

Guarantees: an answer is judged within the time-out, however slowly it comes, and no more than `LONGEST_BODY` of it is
read. The machine's proxy settings don't matter: what is asked is the service, not a proxy's opinion of it.

With `on: hosts` each host asks for itself, by its own Python. What is asked then stands in process arguments, so no
secret may be in it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from surefoot.checks.asking import Asking, asked, beginning, json_of, quoted, read, url_shown
from surefoot.checks.expiry import expires
from surefoot.checks.model import CheckFailed, CheckOptions, CheckWarned, Context, Kind, Where, excerpt
from surefoot.checks.remote import REACHED_WITHIN, Reply, fetch
from surefoot.checks.values import ABSENT, check_comparisons, wrong
from surefoot.config.fields import Duration, Pause, Text, Truth, filled, one_of, refuse, whole_number


def _url(value: str) -> str:
    """Refuse what can't become a URL, whatever its placeholders stand for."""
    if not value.startswith(("http://", "https://", "{", "${")):
        raise refuse("must begin with http:// or https://", hint="as in http://{host}:8080/health")
    return value


Status = Annotated[int, BeforeValidator(whole_number), Field(ge=100, le=599)]
Url = Annotated[Text, AfterValidator(_url)]


class HttpOptions(CheckOptions):
    """Options of `http`."""

    url: Url = Field(description="What to ask for; with `{host}` in it, each host is asked.")
    status: Status | Annotated[list[Status], BeforeValidator(filled)] = Field(
        default=200, description="The status it must answer with, or several to choose from."
    )
    body_json: Annotated[dict[str, Any], AfterValidator(check_comparisons)] = Field(
        default_factory=dict,
        alias="json",
        description="What the JSON body must hold: values by path, as in `{status: UP, components.db.status: UP}`, or "
        "comparisons, as in `{pool.free: {above: 2}}`; there are `equals`, `not`, `above`, `below`, `contains` and "
        "`present`.",
    )
    contains: Text = Field(default="", description="Text that the body must contain.")
    answer_headers: Annotated[dict[str, Any], AfterValidator(check_comparisons)] = Field(
        default_factory=dict, description="What the answer's headers must be: values or comparisons, as in `json`."
    )
    faster_than: Duration | None = Field(default=None, description="The whole answer must come within this time.")
    method: Annotated[Text, Field(pattern="^[A-Z]+$")] = Field(default="GET", description="The method.")
    headers: dict[str, Text] = Field(default_factory=dict, description="Headers to send.")
    body: Text = Field(default="", description="A body to send.")
    timeout: Duration = Field(default=5.0, description="For the whole answer.")
    follow_redirects: Truth = Field(default=False, description="Whether to go where a redirect points.")
    verify_tls: Truth = Field(default=True, description="Whether its certificate must be trusted.")
    ca: Text = Field(
        default="", description="A PEM file of the authorities to trust, in the project or, from /, on the agent."
    )
    warn_before: Pause = Field(
        default=7 * 86400.0, description="Warns when the server's certificate expires within this time."
    )
    on: Annotated[Where, BeforeValidator(one_of(Where))] = Field(
        default=Where.AGENT, description="Who asks: the agent, or each of the `hosts` for itself (by its Python)."
    )

    @model_validator(mode="after")
    def _no_secrets_on_hosts(self) -> Self:
        sent = (self.url, self.body, *self.headers.values())
        if self.on is Where.HOSTS and (self.ca or any("${" in text for text in sent)):
            what = "a file of the agent's" if self.ca else "secrets"
            raise refuse(f"with on: hosts it can't use {what}", hint="ask from the agent: leave `on` out")
        return self


class Http(Kind):
    """See the module's docstring."""

    name: ClassVar = "http"
    options: ClassVar = HttpOptions

    def seconds(self, options: HttpOptions) -> float:
        """The time-out is the answer's; a host has to be reached too."""
        return options.timeout + (REACHED_WITHIN if options.on is Where.HOSTS else 0.0)

    async def probe(self, options: HttpOptions, context: Context) -> str:
        """Ask once."""
        url = url_shown(context.address(options.url))
        reply = await (_from_host if options.on is Where.HOSTS else _from_agent)(options, context, url)
        _judge(options, context, url, reply)
        said = f"{url} answered {reply.status}"
        ends = reply.certificate_ends
        if ends is not None and ends - time.time() <= options.warn_before:
            raise CheckWarned(f"{said}; its certificate {expires(ends)}", "renew the certificate in time")
        return said


async def _from_agent(options: HttpOptions, context: Context, url: str) -> Reply:
    ends: list[float] = []
    how = Asking(
        url,
        options.timeout,
        options.method,
        {name: context.reveal(value) for name, value in options.headers.items()},
        follow_redirects=options.follow_redirects,
        verify_tls=options.verify_tls,
        ca=await context.file(options.ca) if options.ca else None,
        data=context.reveal(options.body).encode() if options.body else None,
        certificate=ends.append if options.warn_before else None,
    )
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with asked(context.reveal_address(options.url), how) as answer:
        if answer.status not in _statuses(options):
            body = (await beginning(answer)).encode()
        elif options.body_json or options.contains or options.faster_than:
            body = await read(answer)
        else:
            body = b""
        return Reply(answer.status, answer.headers, body, loop.time() - start, ends[-1] if ends else None)


async def _from_host(options: HttpOptions, context: Context, url: str) -> Reply:
    return await fetch(
        context,
        url=context.address(options.url),
        shown=url,
        method=options.method,
        headers={name: context.fill(value) for name, value in options.headers.items()},
        body=context.fill(options.body),
        timeout=options.timeout,
        follow_redirects=options.follow_redirects,
        verify_tls=options.verify_tls,
    )


def _statuses(options: HttpOptions) -> list[int]:
    return options.status if isinstance(options.status, list) else [options.status]


def _judge(options: HttpOptions, context: Context, url: str, reply: Reply) -> None:
    """Compare an answer with what it should be."""
    text = reply.body.decode("utf-8", "replace")
    if reply.status not in (wanted := _statuses(options)):
        location = reply.headers.get("Location")
        said = f"; it points to {excerpt(location)}" if location else quoted(text)
        raise CheckFailed(f"{url} answered {reply.status} instead of {' or '.join(map(str, wanted))}{said}")
    for name, value in options.answer_headers.items():
        if differs := wrong(reply.headers.get(name, ABSENT), value, context):
            raise CheckFailed(f"{url}: the header {name} {differs}")
    if options.body_json:
        _judge_json(options, context, url, text)
    if context.reveal(options.contains) not in text:
        wanted_text = excerpt(context.fill(options.contains))
        raise CheckFailed(f"{url}: the body does not contain {wanted_text!r}{quoted(text)}")
    if options.faster_than is not None and reply.seconds >= options.faster_than:
        took, limit = f"{reply.seconds:.3f} s", f"{options.faster_than:g} s"
        raise CheckFailed(f"{url} took {took} to answer, and must take less than {limit}")


def _judge_json(options: HttpOptions, context: Context, url: str, text: str) -> None:
    try:
        found = json_of(text.encode())
    except ValueError:
        raise CheckFailed(f"{url} did not answer with JSON{quoted(text)}") from None
    for path, value in options.body_json.items():
        if said := wrong(_at(found, path), value, context):
            raise CheckFailed(f"{url}: {path} {said}")


def _at(found: Any, path: str) -> Any:
    """Return what stands at a path: a key as it is, else keys and places joined by dots."""
    if isinstance(found, dict) and path in found:
        return found[path]
    for part in path.split("."):
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isascii() and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            return ABSENT
    return found
