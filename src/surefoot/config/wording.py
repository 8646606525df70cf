# SPDX-License-Identifier: Apache-2.0
"""Pydantic's errors in sentences for people who know YAML and not Python."""

from __future__ import annotations

import types
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from surefoot.config import document as doc
from surefoot.config.problems import did_you_mean
from surefoot.core.errors import Code

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


@dataclass(frozen=True, slots=True)
class Words:
    """One problem, but for its place."""

    message: str
    code: Code = Code.CONFIG_VALUE
    hint: str = ""
    allowed: tuple[str, ...] = ()
    expected: str = ""  #: where the type is wrong: what it should have been

    def or_else(self, other: Words) -> Words:
        """Return what to say where two types would have done and neither came."""
        if not (self.expected and other.expected) or other.expected in self.expected.split(" or "):
            return self
        both = f"{self.expected} or {other.expected}"
        return replace(self, expected=both, message=self.message.replace(self.expected, both, 1))


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping (key: value)",
    "mapping_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
}
_LIMITS = {
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}


def in_our_words(detail: ErrorDetails, model: type[BaseModel], node: doc.Node | None) -> Words:
    """Return what an error means; `model` is what was validated, `node` what the file has there."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "surefoot":
        allowed = tuple(map(str, context.get("allowed", ())))
        return Words(context["reason"], Code(context["code"]), context["hint"], allowed)
    if kind == "extra_forbidden":
        key = str(detail["loc"][-1])
        allowed = _keys_at(model, detail["loc"][:-1])
        return Words(f"unknown key{did_you_mean(key, allowed)}", Code.CONFIG_KEY, allowed=allowed)
    if kind == "missing":
        return Words("is required", Code.CONFIG_KEY, "surefoot init writes an example of each key")
    if (expected := _EXPECTED.get(kind)) is not None:
        found = f", not {doc.kind_of(node)}" if node is not None else ""
        hint = "put the value in quotes" if expected == "text" and isinstance(node, doc.Scalar) else ""
        return Words(f"must be {expected}{found}", hint=hint, expected=expected)
    return Words(_sentence(detail))


def _sentence(detail: ErrorDetails) -> str:
    """Return the sentence for an error that says all in its context, or in pydantic's own words."""
    kind, context = detail["type"], detail.get("ctx", {})
    if (limit := _LIMITS.get(kind)) is not None:
        return limit.format_map(context)
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", "is not allowed"))
    return detail["msg"][:1].lower() + detail["msg"][1:]


def _keys_at(model: type[BaseModel], place: tuple[str | int, ...]) -> tuple[str, ...]:
    """Return the keys that the section at a place may have."""
    current: Any = model
    for part in place:
        current = _inside(current, part)
    section = next((t for t in _alternatives(current) if _is_model(t)), None)
    if section is None:
        return ()
    return tuple(field.alias or name for name, field in section.model_fields.items())


def _inside(annotation: Any, part: str | int) -> Any:
    """Return the type of what is at a key or position of a type."""
    for option in _alternatives(annotation):
        if _is_model(option):
            for name, field in option.model_fields.items():
                if part in (name, field.alias):
                    return field.annotation
        arguments = get_args(option)
        if get_origin(option) is dict and isinstance(part, str):
            return arguments[1]
        if get_origin(option) in (list, tuple) and isinstance(part, int):
            return arguments[0]
        if _is_model(option) and option.__name__ == part:
            return option
    return annotation  # a mark that pydantic adds, not a place


def _alternatives(annotation: Any) -> list[Any]:
    """Return the types that a union or annotated type is made of."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [found for option in get_args(annotation) for found in _alternatives(option)]
    return [annotation]


def _is_model(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, BaseModel)
