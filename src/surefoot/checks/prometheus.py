# SPDX-License-Identifier: Apache-2.0
"""`prometheus`: a query's value is what it should be.

Guarantees: where the query finds several series, each must be; where it finds none, the check fails: what is not
measured is not known to be well. What a placeholder stands for can't end a string in the query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlencode

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from surefoot.checks.asking import Asking, Unreachable, asked, basic, json_of, quoted, read, url_shown
from surefoot.checks.http import Url
from surefoot.checks.model import CheckFailed, CheckWarned, Context, Kind, excerpt
from surefoot.checks.values import Bounds, number_in, plain
from surefoot.config.fields import Duration, Percent, SecretReference, Text, Truth, one_of, refuse
from surefoot.core.errors import Code

_DOWN = "see that Prometheus runs and can be reached from the agent; with when_down: warn its absence is no failure"
#: Series that a failure names.
NAMED = 3


def _query(value: str) -> str:
    if not value.strip():
        raise refuse("is empty", hint="give a query in PromQL, as in up == 1")
    return value


class WhenDown(StrEnum):
    """What it means that Prometheus can't be asked."""

    FAIL = "fail"
    WARN = "warn"


class PrometheusOptions(Bounds):
    """Options of `prometheus`."""

    url: Url = Field(description="Where Prometheus is, as in `http://prometheus:9090`.")
    query: Annotated[Text, AfterValidator(_query)] = Field(
        description="What to ask, in PromQL; `{agent}`, `{host}`, `{version}` and the like are filled in. With "
        "`{host}` in it, it is asked for each host."
    )
    risen_below: Percent | None = Field(
        default=None,
        description="After the deployment, it must be less than so much above what it was before the deployment began. "
        "Not looked at in preflight.",
    )
    when_down: Annotated[WhenDown, BeforeValidator(one_of(WhenDown))] = Field(
        default=WhenDown.FAIL, description="What it is when Prometheus can't be asked: `fail` or `warn`."
    )
    username: Text = Field(default="", description="A user, with `password`.")
    password: SecretReference = Field(default="", description="Its password.")
    token: SecretReference = Field(default="", description="A bearer token, instead of user and password.")
    headers: dict[str, Text] = Field(default_factory=dict, description="Headers to send.")
    timeout: Duration = Field(default=5.0, description="For the whole answer.")
    verify_tls: Truth = Field(default=True, description="Whether its certificate must be trusted.")
    ca: Text = Field(
        default="", description="A PEM file of the authorities to trust, in the project or, from /, on the agent."
    )

    @model_validator(mode="after")
    def _judges(self) -> Self:
        if not self.wanted and self.risen_below is None:
            raise refuse("needs equals, above, below or risen_below", hint="as in equals: 1", code=Code.CONFIG_KEY)
        return self


@dataclass(frozen=True, slots=True)
class Series:
    """One value, and what it is of."""

    labels: str
    value: float | None  #: None for what is no number


class Prometheus(Kind):
    """See the module's docstring."""

    name: ClassVar = "prometheus"
    options: ClassVar = PrometheusOptions

    async def probe(self, options: PrometheusOptions, context: Context) -> str:
        """Ask now, and how it was before where that matters."""
        query = _filled(options.query, context)
        try:
            found = await _series(options, context, query, None)
            said = _judged(options, query, found)
            if options.risen_below is not None and context.started is not None:
                before = await _series(options, context, query, context.started)
                said += _compared(query, options.risen_below, found, before)
        except Unreachable as error:
            hint = error.hint or _DOWN
            if options.when_down is WhenDown.WARN:
                raise CheckWarned(f"{error}; so it is not known whether all is well", hint) from None
            raise CheckFailed(str(error), hint) from None
        return said


def _filled(query: str, context: Context) -> str:
    """Return the query with placeholders filled in, each as a part of a string in PromQL."""
    return context.fill(query, lambda value: value.replace("\\", "\\\\").replace('"', '\\"'))


async def _series(options: PrometheusOptions, context: Context, query: str, at: float | None) -> list[Series]:
    """Return what the query finds, now or at a time."""
    base = context.address(options.url).rstrip("/")
    shown = url_shown(base)
    parameters = {"query": query} | ({} if at is None else {"time": f"{at:.3f}"})
    headers = {name: context.reveal(value) for name, value in options.headers.items()}
    if options.token:
        headers["Authorization"] = f"Bearer {context.secret(options.token)}"
    elif options.username:
        headers["Authorization"] = basic(context.fill(options.username), context.secret(options.password))
    how = Asking(
        shown,
        options.timeout,
        "POST",
        headers | {"Content-Type": "application/x-www-form-urlencoded"},
        verify_tls=options.verify_tls,
        ca=await context.file(options.ca) if options.ca else None,
        data=urlencode(parameters).encode(),
    )
    async with asked(context.reveal_address(options.url).rstrip("/") + "/api/v1/query", how) as answer:
        status, body = answer.status, await read(answer)
    text = body.decode("utf-8", "replace")
    try:
        told = json_of(body)
        if not isinstance(told, dict) or told.get("status") not in ("success", "error"):
            raise ValueError  # noqa: TRY301 - the same sentence for all that is no answer of Prometheus
    except ValueError:
        what = f"answered {status}" if status != 200 else "does not answer as Prometheus does"
        raise (Unreachable if status >= 500 else CheckFailed)(f"{shown} {what}{quoted(text)}") from None
    if told["status"] == "error":
        why = f"{excerpt(str(told.get('error')))} ({excerpt(query)})"
        if status >= 500 or told.get("errorType") in ("timeout", "canceled", "internal", "unavailable"):
            raise Unreachable(f"{shown} can't answer: {why}")
        raise CheckFailed(f"{shown} refuses the query: {why}", "correct the query in surefoot.yml")
    return _read(told.get("data"), query)


def _read(data: Any, query: str) -> list[Series]:
    """Return the series of an answer; CheckFailed if it is of another kind."""
    kind = data.get("resultType") if isinstance(data, Mapping) else None
    result = data.get("result") if isinstance(data, Mapping) else None
    match kind, result:
        case "scalar", [_, value]:
            return [Series("", number_in(value))]
        case "vector", [*found]:
            return [_one(each) for each in found]
        case _:
            raise CheckFailed(
                f"{excerpt(query)} gives {excerpt(str(kind or 'nothing that is known'))}, not values of one moment",
                "take the range in [] away, or put it into a function, as in rate(...[5m])",
            )


def _one(found: Any) -> Series:
    labels = found.get("metric") if isinstance(found, Mapping) else None
    value = found.get("value") if isinstance(found, Mapping) else None
    number = number_in(value[1]) if isinstance(value, Sequence) and len(value) == 2 else None
    return Series(_labels(labels if isinstance(labels, Mapping) else {}), number)


def _labels(labels: Mapping[str, Any]) -> str:
    """Return labels as PromQL writes them."""
    inner = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()) if name != "__name__")
    return f"{labels.get('__name__', '')}{{{inner}}}" if inner else str(labels.get("__name__", ""))


def _judged(options: PrometheusOptions, query: str, found: Sequence[Series]) -> str:
    """Return what was found where it is as it should be."""
    if not found:
        raise CheckFailed(
            f"{excerpt(query)} finds nothing: there is no such series",
            "see that what is asked for is measured, and what its labels are called",
        )
    bad = [one for one in found if one.value is None or not options.hold(one.value)]
    if bad:
        wanted = options.wanted or "a number"
        named = ", ".join(_told(one) for one in bad[:NAMED])
        more = f", and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise CheckFailed(f"{excerpt(query)} is {named}{more}, and must be {wanted}")
    if len(found) == 1:
        return f"{excerpt(query)} is {_value(found[0])}"
    return f"{excerpt(query)} is as it should be for {len(found)} series"


def _compared(query: str, limit: float, now: Sequence[Series], before: Sequence[Series]) -> str:
    """Return how values stand to what they were; CheckFailed for one that has risen too far."""
    earlier = {one.labels: one.value for one in before}
    compared = 0
    for one in now:
        was = earlier.get(one.labels)
        if was is None or one.value is None:
            continue
        compared += 1
        if one.value > was and one.value >= was + abs(was) * limit / 100:
            of = f" for {excerpt(one.labels)}" if one.labels else ""
            raise CheckFailed(
                f"{excerpt(query)} was {plain(was)} before the deployment, and is {plain(one.value)} now{of}: "
                f"it must rise by less than {plain(limit)} %"
            )
    if compared == 0:
        return "; before the deployment it was not measured"
    if len(now) == 1:
        return f", and was {plain(next(iter(earlier.values())) or 0.0)} before the deployment"
    return ", also beside what it was before the deployment"


def _told(one: Series) -> str:
    return f"{_value(one)} for {excerpt(one.labels)}" if one.labels else _value(one)


def _value(one: Series) -> str:
    return "no number" if one.value is None else plain(one.value)
