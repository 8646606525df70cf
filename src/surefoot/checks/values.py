# SPDX-License-Identifier: Apache-2.0
"""Values that options of checks take, and what is found is compared with."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from surefoot.checks.model import CheckOptions, Context, excerpt
from surefoot.config.fields import Text, refuse

#: What comparisons of a value in an answer are called.
COMPARISONS = ("equals", "not", "above", "below", "contains", "present")
#: Stands for what is not there.
ABSENT = object()


def number_in(value: Any) -> float | None:
    """Return the number that a value is, or is the text of; None if it is none."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(found) else found


def _number(value: Any) -> float:
    found = number_in(value) if isinstance(value, int | float | str) else None
    if found is None:
        raise refuse("must be a number", hint="as in 0.5")
    return found


_SIZES = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def _size(value: Any) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", value, re.ASCII) if isinstance(value, str) else None
    if match is None or match[2] not in _SIZES:
        raise refuse(f"must be a size in {', '.join(_SIZES)}", hint="as in 5GB")
    return float(match[1]) * _SIZES[match[2]]


_HEX_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}
#: Those that nobody can forge.
ALGORITHMS = tuple(_HEX_DIGITS)


def checksum_in(text: str) -> tuple[str, str]:
    """Return the algorithm and the hexadecimal digits of a checksum; ValueError if it is none."""
    algorithm, colon, digits = text.strip().lower().rpartition(":")
    algorithm = algorithm if colon else "sha256"
    if algorithm not in ALGORITHMS or not re.fullmatch(rf"[0-9a-f]{{{_HEX_DIGITS[algorithm]}}}", digits):
        raise ValueError(text)
    return algorithm, digits


def _checksum(value: str) -> str:
    try:
        checksum_in(value)
    except ValueError:
        if value and "{" not in value:
            raise refuse(
                f"must be a checksum by {', '.join(ALGORITHMS)}", hint='as in "sha256:" and 64 hexadecimal digits'
            ) from None
    return value


def size(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("TB", "GB", "MB", "kB"):
        if count >= _SIZES[unit]:
            return f"{count / _SIZES[unit]:.1f} {unit}"
    return f"{count:.0f} bytes"


Number = Annotated[
    float, BeforeValidator(_number), WithJsonSchema({"type": "number", "x-label": "number"}, mode="validation")
]
Size = Annotated[
    float,
    BeforeValidator(_size),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)? ?[kMGT]i?B$", "examples": ["5GB"], "x-label": "size"}),
]

Checksum = Annotated[Text, AfterValidator(_checksum)]


class Bounds(CheckOptions):
    """What a number must be."""

    equals: Number | None = Field(default=None, description="It must be this number.")
    above: Number | None = Field(default=None, description="It must be greater.")
    below: Number | None = Field(default=None, description="It must be less.")

    @property
    def wanted(self) -> str:
        """Return what the number must be, as people say it."""
        named = (("", self.equals), ("above ", self.above), ("below ", self.below))
        return " and ".join(f"{word}{plain(bound)}" for word, bound in named if bound is not None)

    def hold(self, found: float) -> bool:
        """Whether a number is within them; what is no number is not."""
        return (
            (self.equals is None or found == self.equals)
            and (self.above is None or found > self.above)
            and (self.below is None or found < self.below)
        )


def plain(value: float) -> str:
    """Return a number without needless digits."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


# -- comparisons of any value ------------------------------------------------------------------------------


def wrong(got: Any, wanted: Any, context: Context) -> str | None:
    """Return how a value is not what it should be, as the end of a sentence; None if it is.

    A mapping whose keys are all COMPARISONS compares; anything else is what the value must be.
    """
    if isinstance(wanted, Mapping) and wanted and set(wanted) <= set(COMPARISONS):
        return next((said for name, bound in wanted.items() if (said := _unlike(got, name, bound, context))), None)
    return _unlike(got, "equals", wanted, context)


def check_comparisons(wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse comparisons that can't be made; a validator of options."""
    for path, value in wanted.items():
        if not (isinstance(value, Mapping) and value and set(value) <= set(COMPARISONS)):
            continue
        for name in ("above", "below"):
            if name in value and not _fillable(value[name]):
                raise refuse(f"{path}: {name} must be a number", hint=f"as in {name}: 10")
        if "present" in value and not isinstance(value["present"], bool):
            raise refuse(f"{path}: present must be true or false")
    return wanted


def _fillable(bound: Any) -> bool:
    return number_in(bound) is not None or (isinstance(bound, str) and "{" in bound)


def _unlike(got: Any, name: str, bound: Any, context: Context) -> str | None:
    expected, shown = context.expected(bound), shown_value(bound, context)
    found = "nothing" if got is ABSENT else excerpt(json.dumps(got, ensure_ascii=False))
    number = None if got is ABSENT else number_in(got)
    tests: dict[str, tuple[Callable[[], bool], str]] = {
        "equals": (lambda: same(got, expected), f"instead of {shown}"),
        "not": (lambda: not same(got, expected), f"and must not be {shown}"),
        "above": (lambda: _ordered(expected, number), f"and must be above {shown}"),
        "below": (lambda: _ordered(number, expected), f"and must be below {shown}"),
        "contains": (lambda: _holds(got, expected), f"and must contain {shown}"),
        "present": (lambda: (got is not ABSENT) == expected, f"and must {'' if expected else 'not '}be there"),
    }
    holds, rest = tests[name]
    return None if holds() else f"is {found} {rest}"


def _holds(got: Any, wanted: Any) -> bool:
    if isinstance(got, list):
        return any(same(one, wanted) for one in got)
    return isinstance(got, str) and str(wanted) in got


def _ordered(less: Any, more: Any) -> bool:
    small, great = number_in(less), number_in(more)
    return small is not None and great is not None and small < great


def shown_value(value: Any, context: Context) -> str:
    """Return a value of the options as it may be shown."""
    return excerpt(context.fill(json.dumps(value, ensure_ascii=False)))


def same(got: Any, wanted: Any) -> bool:
    """Whether two values are the same JSON: `true` is not 1."""
    match got, wanted:
        case bool(), _:
            return got is wanted
        case _, bool():
            return False
        case dict(), dict():
            return got.keys() == wanted.keys() and all(same(got[key], wanted[key]) for key in got)
        case list(), list():
            return len(got) == len(wanted) and all(map(same, got, wanted))
        case _:
            return bool(got == wanted)
