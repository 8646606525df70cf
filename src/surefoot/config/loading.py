# SPDX-License-Identifier: Apache-2.0
"""Reads a config: file, variables, types, and what goes across sections, with all problems told at once.

Guarantees: `load` returns a valid `Config` or raises `ConfigError` (a `ConfigProblems` with file, line and key of each
problem), whatever the bytes; secrets stay `${NAME}` in what it returns. Does not look into playbooks, reach hosts, or
ask a store.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from surefoot.config import document as doc
from surefoot.config.expansion import NAME, expand
from surefoot.config.problems import ConfigProblems, Place, Problem, dotted, one_line, shown
from surefoot.config.semantics import check_semantics
from surefoot.core.errors import Code
from surefoot.core.plan import SECRET_OPTIONS

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    from surefoot.config.models import Config

Kinds = Mapping[str, "type[BaseModel]"]

#: Top-level keys that begin so are the writer's own: a place for YAML anchors.
OWN_PREFIX = "x-"
_EMPTY = "is empty"
#: A variable where a URL has its password.
_PASSWORD = re.compile(rf"://[^/\s@:]*:\$\{{({NAME.pattern})\}}@", re.ASCII)
#: Errors whose texts are written by the options of checks, with whatever values in them.
_FREE_TEXT = ("value_error", "assertion_error")


@dataclass(frozen=True, slots=True)
class Peek:
    """What a command needs that only reads the store: no validation, no pydantic, some milliseconds."""

    path: Path
    project: str | None
    store: str | None
    secret_names: tuple[str, ...]
    environments: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Return the project's root."""
        return self.path.parent


def load(path: Path, *, kinds: Kinds | None, environ: Mapping[str, str] | None = None, files: bool = True) -> Config:
    """Read and check the config at `path`.

    `kinds` gives the options of each kind of check; with None, checks are taken as they stand. `files=False` does not
    look whether playbooks and inventories are there.
    """
    path = _absolute(path)
    try:
        document = doc.read_document(path)
    except doc.Unreadable as error:
        raise ConfigProblems([error.problem]) from error
    return _Loading(path, document, os.environ if environ is None else environ, kinds, files).config()


def peek(path: Path, *, environ: Mapping[str, str] | None = None) -> Peek:
    """Read just what finding the store takes; what is wrong elsewhere in the config does not matter."""
    path = _absolute(path)
    try:
        document = doc.read_document(path)
    except doc.Unreadable as error:
        raise ConfigProblems([error.problem]) from error
    problems: list[Problem] = []
    secrets = _secrets(document)

    def text(key: str) -> str | None:
        node = document.node((key,))
        if not isinstance(node, doc.Scalar) or not isinstance(node.value, str):
            return None
        return expand(
            node.value,
            os.environ if environ is None else environ,
            secrets,
            lambda message, hint: problems.append(
                document.problem((key,), message, code=Code.CONFIG_VARIABLE, hint=hint)
            ),
        )

    listed = document.node(("environments",))
    environments = tuple(listed.entries) if isinstance(listed, doc.Mapping) else ()
    found = Peek(path, text("project"), text("store"), secrets, environments)
    if problems:
        raise ConfigProblems(problems)
    return found


class _Loading:
    """One load: the document, and the problems found so far, by place."""

    def __init__(
        self, path: Path, document: doc.Document, environ: Mapping[str, str], kinds: Kinds | None, files: bool
    ) -> None:
        self._path = path
        self._document = document
        self._environ = environ
        self._kinds = kinds
        self._files = files
        self._secrets = _secrets(document)
        self._problems: list[tuple[Place, Problem]] = [((), problem) for problem in document.problems]
        self._settled = {problem.key for problem in document.problems}  # of these, no more need be said
        self._expanded: set[Place] = set()  # here a variable was replaced

    def config(self) -> Config:
        from pydantic import ValidationError

        from surefoot.config.fields import Files
        from surefoot.config.models import Config

        data = self._value(self._document.root, ())
        config: Config | None = None
        try:
            context = Files(self._path.parent) if self._files else None
            config = Config.model_validate(data, context=context)
            config._path = self._path  # the only place where a config comes from
        except ValidationError as error:
            self._translate(error, Config, ())
        check_semantics(data, self._kinds, self._check_options, self._report)
        if self._problems or config is None:
            ordered = sorted((problem for _, problem in self._worth_telling()), key=lambda p: p.line or 0)
            raise ConfigProblems(list(dict.fromkeys(ordered)))
        return config

    # -- plain data ----------------------------------------------------------------------------------

    def _value(self, node: doc.Node, place: Place) -> Any:
        """Return the plain value with variables replaced, reporting what can't be."""
        match node:
            case doc.Mapping():
                return {
                    key: self._value(value, (*place, key))
                    for key, (_, value) in node.entries.items()
                    if not self._passed_over(value, (*place, key))
                }
            case doc.Sequence():
                return [self._value(item, (*place, index)) for index, item in enumerate(node.items)]
            case doc.Scalar(value=str() as text) if not _is_left_alone(place):
                secrets = _References() if _is_secret(place) else self._secrets
                if _in_check(place) and (match := _PASSWORD.search(text)) and match[1] not in secrets:
                    message = f"the password ${{{match[1]}}} would be in the journal"
                    self._report(place, message, hint=f"list {match[1]} under secrets")
                expanded = expand(text, self._environ, secrets, lambda m, h: self._variable(place, m, h))
                if expanded != text:
                    self._expanded.add(place)
                return expanded
            case doc.Scalar():
                return node.value

    def _passed_over(self, value: doc.Node, place: Place) -> bool:
        """Leave out the writer's own keys, and keys with nothing after them, which are told of here."""
        if len(place) == 1 and str(place[0]).startswith(OWN_PREFIX):
            return True
        if isinstance(value, doc.Scalar) and value.value is None and not _in_check(place):
            self._report(place, _EMPTY, hint="give a value, or leave the key out")
            return True
        return False

    def _variable(self, place: Place, message: str, hint: str) -> None:
        self._report(place, message, code=Code.CONFIG_VARIABLE, hint=hint)

    # -- problems ------------------------------------------------------------------------------------

    def _report(
        self,
        place: Place,
        message: str,
        *,
        code: Code = Code.CONFIG_VALUE,
        hint: str = "",
        allowed: tuple[str, ...] = (),
    ) -> None:
        key = dotted(place)
        if key in self._settled and code is not Code.CONFIG_VARIABLE:
            return
        self._settled.add(key)
        if place in self._expanded and code is not Code.CONFIG_VARIABLE:
            message, hint = self._concealed(place)
        line = self._document.line_of(place)
        problem = Problem(self._document.file, line, key, one_line(message), allowed, code, one_line(hint))
        self._problems.append((place, problem))

    def _concealed(self, place: Place) -> tuple[str, str]:
        """Return message and hint about a value that came from the environment and is not ours to show."""
        node = self._document.node(place)
        what = shown(node.written) if isinstance(node, doc.Scalar) else "what stands here"
        return f"{what} is not allowed with what its variables hold", "see what they hold in the environment"

    def _worth_telling(self) -> list[tuple[Place, Problem]]:
        """Leave out what is said to be empty inside of something that should not be there at all."""
        wrong = {place for place, problem in self._problems if problem.message != _EMPTY}
        return [
            (place, problem)
            for place, problem in self._problems
            if problem.message != _EMPTY or not any(place[:end] in wrong for end in range(1, len(place)))
        ]

    def _check_options(self, kind: str, options: Any, place: Place) -> None:
        from pydantic import ValidationError

        assert self._kinds is not None
        model = self._kinds[kind]
        try:
            model.model_validate(options)
        except ValidationError as error:
            self._translate(error, model, place)

    def _translate(self, error: Any, model: type[BaseModel], base: Place) -> None:
        """Report pydantic's errors in our words."""
        from surefoot.config.wording import Words, in_our_words

        found: dict[Place, Words] = {}
        for detail in error.errors(include_url=False, include_input=False):
            place = (*base, *self._real(base, detail))
            words = in_our_words(detail, model, self._document.node(place))
            if detail["type"] in _FREE_TEXT and any(under[: len(place)] == place for under in self._expanded):
                message, hint = self._concealed(place)
                words = Words(message, hint=hint)
            found[place] = found[place].or_else(words) if place in found else words
        for place, words in found.items():
            self._report(place, words.message, code=words.code, hint=words.hint, allowed=words.allowed)

    def _real(self, base: Place, detail: ErrorDetails) -> Place:
        """Return an error's place in the file: without the marks that pydantic adds for unions and keys."""
        place: list[str | int] = []
        parts = detail["loc"]
        for index, part in enumerate(parts):
            here = self._document.node((*base, *place))
            last = index == len(parts) - 1
            fits_list = isinstance(here, doc.Sequence) and isinstance(part, int)
            fits_mapping = isinstance(here, doc.Mapping) and (
                part in here.entries or (last and detail["type"] == "missing")
            )
            if fits_list or fits_mapping:
                place.append(part)
        return tuple(place)


def _is_left_alone(place: Place) -> bool:
    """Whether `$` is the shell's here: in the commands of steps, checks and secrets."""
    return (place[:1] == ("environments",) and place[-1] == "run") or (
        place[:1] == ("secrets",) and place[-1] == "command"
    )


def _is_secret(place: Place) -> bool:
    """Whether variables here are the agent's to fill in, each of them a secret: in what opens a service elsewhere."""
    match place:
        case ("github" | "incidents", *_, "token" | "id" | "private_key") | ("notify", *_, "url" | "webhook"):
            return True
        case ("environments", _, "ssh", _) | ("secrets", _, "ansible_vault", "password"):
            return True
        case _:
            return _in_check(place) and place[-1] in SECRET_OPTIONS and len(place) == _depth_of_options(place)


class _References(frozenset[str]):
    """All names."""

    def __contains__(self, name: object) -> bool:
        return True

    def __bool__(self) -> bool:
        return True


def _depth_of_options(place: Place) -> int:
    return 5 if place[2] == "version_probe" else 6


def _in_check(place: Place) -> bool:
    """Whether this is inside of a check, where null may be what is expected."""
    return len(place) > 3 and place[0] == "environments" and place[2] in ("preflight", "health", "version_probe")


def _secrets(document: doc.Document) -> tuple[str, ...]:
    """Return the names of secrets, as far as they are names."""
    node = document.node(("secrets",))
    entries = node.items if isinstance(node, doc.Sequence) else []
    items = [entry.entries["name"][1] if _is_named(entry) else entry for entry in entries]
    names = [item.value for item in items if isinstance(item, doc.Scalar) and isinstance(item.value, str)]
    return tuple(name for name in names if NAME.fullmatch(name))


def _is_named(entry: doc.Node) -> TypeGuard[doc.Mapping]:
    return isinstance(entry, doc.Mapping) and "name" in entry.entries


def _absolute(path: Path) -> Path:
    """Return the path from the root, links in it kept: the project's folder is where the name says."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - `Path.absolute` keeps `..`
