# SPDX-License-Identifier: Apache-2.0
"""A YAML file as a tree of nodes that know their lines.

Guarantees: whatever the bytes, the outcome is a tree or `Problem`s; no recursion deeper than `MAX_DEPTH`, no more work
than a file of `MAX_BYTES` and `MAX_NODES` can ask for (aliases can multiply); no tag makes an object. Duplicate keys
are problems.

Differs from plain YAML 1.1 where that surprises people: keys are text as written (an environment may be called `no` or
`1.0`), and dates are text.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from surefoot.config.problems import Place, Problem, dotted, file_label, shown
from surefoot.config.syntax import reading_problem, syntax_problem
from surefoot.core.errors import Code

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 50
#: With aliases followed. A large real config has some hundreds.
MAX_NODES = 50_000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = {_TAG + name for name in ("str", "int", "float", "bool", "null")}
_TEXT_TAGS = {_TAG + name for name in ("timestamp", "value", "merge")}
_INT_LIMIT = 2**63


@dataclass(slots=True)
class Scalar:
    """One value: what it is, and how the file writes it."""

    line: int
    value: str | int | float | bool | None
    written: str
    size: int = 1


@dataclass(slots=True)
class Sequence:
    """A list."""

    line: int
    items: list[Node] = field(default_factory=list)
    size: int = 1


@dataclass(slots=True)
class Mapping:
    """A mapping; of each key, its line and its value."""

    line: int
    entries: dict[str, tuple[int, Node]] = field(default_factory=dict)
    size: int = 1


Node = Scalar | Sequence | Mapping


class Unreadable(Exception):  # noqa: N818 - not an error to be told, but the way out of the reader
    """The file can't be made sense of beyond this problem."""

    def __init__(self, problem: Problem) -> None:
        """Take the problem."""
        super().__init__(str(problem))
        self.problem = problem


@dataclass(slots=True)
class Document:
    """A file's mapping, and what was already found wrong with it."""

    file: str
    root: Mapping
    problems: list[Problem]

    def line_of(self, place: Place) -> int:
        """Return the line of a key or list item; of the nearest thing round it that exists, if it does not."""
        node: Node = self.root
        line = self.root.line
        for part in place:
            if isinstance(node, Mapping) and part in node.entries:
                line, node = node.entries[str(part)]
            elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
                node = node.items[part]
                line = node.line
            else:
                break
        return line

    def node(self, place: Place) -> Node | None:
        """Return what is at a place."""
        node: Node | None = self.root
        for part in place:
            if isinstance(node, Mapping):
                node = node.entries[str(part)][1] if part in node.entries else None
            elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
                node = node.items[part]
            else:
                return None
        return node

    def problem(self, place: Place, message: str, *, code: Code = Code.CONFIG_VALUE, hint: str = "") -> Problem:
        """Return a problem at a place."""
        return Problem(self.file, self.line_of(place), dotted(place), message, code=code, hint=hint)


def read_document(path: Path) -> Document:
    """Read and parse the file."""
    return parse_document(read_bytes(path), file_label(path))


def read_bytes(path: Path) -> bytes:
    """Return what the file holds, or say why it can't be read."""
    label = file_label(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            hint = f"give the file: {label.rstrip('/')}/surefoot.yml"
            raise Unreadable(Problem(label, None, "", "is a folder", code=Code.CONFIG_MISSING, hint=hint))
        if not stat.S_ISREG(mode):  # the folder of a pipe or device would be the project's root
            hint = "write the config to a file in the project's folder"
            raise Unreadable(Problem(label, None, "", "is not a regular file", code=Code.CONFIG_MISSING, hint=hint))
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise Unreadable(reading_problem(label, error)) from error
    if len(data) > MAX_BYTES:
        raise Unreadable(
            Problem(label, None, "", "is larger than 1 MiB", code=Code.CONFIG_SYNTAX, hint="is this the right file?")
        )
    return data


def parse_document(data: bytes, file: str) -> Document:
    """Parse the bytes of a config."""
    text = _decode(data, file)
    reader = _Reader(file)
    try:
        root = reader.read(yaml.parse(text, Loader=_LOADER))
    except yaml.YAMLError as error:
        raise Unreadable(syntax_problem(error, text, file)) from error
    if root is None:
        hint = "surefoot init writes one to start from"
        raise Unreadable(Problem(file, None, "", "is empty", code=Code.CONFIG_SYNTAX, hint=hint))
    if not isinstance(root, Mapping):
        hint = "begin with project: NAME"
        message = f"must be a mapping (key: value), not {kind_of(root)}"
        raise Unreadable(Problem(file, root.line, "", message, code=Code.CONFIG_SYNTAX, hint=hint))
    return Document(file, root, reader.problems)


def plain(node: Node) -> Any:
    """Return the node as Python's dicts, lists and values."""
    match node:
        case Scalar():
            return node.value
        case Sequence():
            return [plain(item) for item in node.items]
        case Mapping():
            return {key: plain(value) for key, (_, value) in node.entries.items()}


def kind_of(node: Node) -> str:
    """Name what a node is, for a sentence that says what it should not be."""
    match node:
        case Mapping():
            return "a mapping"
        case Sequence():
            return "a list"
        case Scalar(value=None):
            return "empty"
        case Scalar(value=bool()):
            return f"true or false ({node.written})"
        case Scalar(value=int() | float()):
            return f"a number ({shown(node.written)[1:-1]})"
        case Scalar():
            return f"text ({shown(node.written)})"


class _Reader:
    """Builds the tree from the parser's events, so that nothing is recursive but what `MAX_DEPTH` bounds."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.problems: list[Problem] = []
        self._anchors: dict[str, Node | None] = {}  # None: still open
        self._place: list[str | int] = []
        self._resolver = Resolver()
        self._constructor = SafeConstructor()

    def read(self, events: Iterator[Any]) -> Node | None:
        """Return the only document's root, or None if there is none."""
        self._events = events
        root: Node | None = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._stop(event, "a second document begins here", "one file holds one config; remove the ---")
                root = self._node(next(events))
        if documents == 1 and isinstance(root, Scalar) and root.value is None:
            return None
        return root

    def _node(self, event: Any) -> Node:
        if len(self._place) > MAX_DEPTH:
            self._stop(event, f"nested deeper than {MAX_DEPTH} levels", "no config needs as many")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        node = self._fresh(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            why = "contains itself" if event.anchor in self._anchors else "is not defined above"
            self._stop(event, f"the anchor *{event.anchor} {why}", f"define it first with &{event.anchor}")
        assert node is not None
        return node

    def _fresh(self, event: Any) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._check_tag(event, "map" if isinstance(event, yaml.MappingStartEvent) else "seq")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event)
        return self._mapping(event)

    def _sequence(self, start: Any) -> Sequence:
        result = Sequence(_line(start))
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            self._place.append(len(result.items))
            item = self._node(event)
            self._place.pop()
            result.items.append(item)
            result.size += item.size
            self._check_size(event, result)
        return result

    def _mapping(self, start: Any) -> Mapping:
        result = Mapping(_line(start))
        merged: list[Mapping] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = _line(event)
            key = self._key(event)
            self._place.append(key if key is not None else "?")
            value = self._node(next(self._events))
            if key == "<<" and not event.style:
                merged += self._to_merge(value, line)
            elif key in result.entries:
                first = result.entries[key][0]
                self._note(line, f"is written twice, first in line {first}", Code.CONFIG_KEY, "keep one of them")
            elif key is not None:
                result.entries[key] = (line, value)
            self._place.pop()
            result.size += value.size
            self._check_size(event, result)
        for other in merged:
            for name, entry in other.entries.items():
                result.entries.setdefault(name, entry)
        return result

    def _key(self, event: Any) -> str | None:
        """Return a key as it is written, or None after saying why it can't be one."""
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)  # its checks
            if event.anchor is not None:
                self._anchors[event.anchor] = Scalar(_line(event), event.value, event.value)
            return str(event.value)
        node = self._node(event)
        if isinstance(node, Scalar):
            return node.written
        hint = "quote the text if a placeholder such as {version} stands at its beginning"
        self._note(_line(event), f"a key must be text, not {kind_of(node)}", Code.CONFIG_SYNTAX, hint)
        return None

    def _to_merge(self, value: Node, line: int) -> list[Mapping]:
        nodes: list[Node] = value.items if isinstance(value, Sequence) else [value]
        mappings = [node for node in nodes if isinstance(node, Mapping)]
        if len(mappings) == len(nodes):
            return mappings
        self._note(line, "<< takes a mapping or a list of mappings", Code.CONFIG_SYNTAX, "as in <<: *anchor")
        return []

    def _scalar(self, event: Any) -> Scalar:
        written: str = event.value
        self._check_text(event, written)
        tag = event.tag
        if tag in (None, "!"):
            tag = _TAG + "str"
            if event.tag is None and event.implicit[0]:
                tag = str(self._resolver.resolve(yaml.ScalarNode, written, (True, False)))  # type: ignore[no-untyped-call]
        elif tag not in _SCALAR_TAGS:
            self._bad_tag(event)
            tag = _TAG + "str"
        return Scalar(_line(event), self._value(event, tag), written)

    def _value(self, event: Any, tag: str) -> str | int | float | bool | None:
        if tag == _TAG + "str" or tag in _TEXT_TAGS:
            return str(event.value)
        node = yaml.ScalarNode(tag, event.value)
        try:
            value: Any = {
                _TAG + "int": self._constructor.construct_yaml_int,
                _TAG + "float": self._constructor.construct_yaml_float,
                _TAG + "bool": self._constructor.construct_yaml_bool,
                _TAG + "null": self._constructor.construct_yaml_null,
            }[tag](node)
        except (ValueError, KeyError, IndexError, OverflowError):
            self._note(
                _line(event), f"{shown(event.value)} can't be read as what it looks like", Code.CONFIG_VALUE, "quote it"
            )
            return str(event.value)
        if isinstance(value, float) and (value != value or abs(value) == float("inf")):  # noqa: PLR0124 - not a number
            self._note(_line(event), f"{event.value} is no number to work with", Code.CONFIG_VALUE, "quote it")
            return str(event.value)
        if isinstance(value, int) and not -_INT_LIMIT <= value < _INT_LIMIT:
            message = f"the number {shown(event.value)[1:-1]} is too large"
            self._note(_line(event), message, Code.CONFIG_VALUE, "quote it if it is text")
            return str(event.value)
        return value  # type: ignore[no-any-return]

    def _check_text(self, event: Any, text: str) -> None:
        if "\0" in text or (not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)):
            self._note(_line(event), "holds a character that no text can carry", Code.CONFIG_VALUE, "remove it")
            event.value = "?"

    def _check_tag(self, event: Any, expected: str) -> None:
        if event.tag not in (None, "!", _TAG + expected):
            self._bad_tag(event)

    def _bad_tag(self, event: Any) -> None:
        tag = str(event.tag).replace(_TAG, "!!")
        hint = "encrypted variables belong into files that playbooks load" if tag == "!vault" else "remove the tag"
        self._note(_line(event), f"the tag {shown(tag)[1:-1]} is not understood here", Code.CONFIG_SYNTAX, hint)

    def _check_size(self, event: Any, node: Node) -> None:
        if node.size > MAX_NODES:
            self._stop(event, f"more than {MAX_NODES} values, with aliases followed", "is this the right file?")

    def _note(self, line: int, message: str, code: Code, hint: str) -> None:
        self.problems.append(Problem(self._file, line, dotted(self._place), message, code=code, hint=hint))

    def _stop(self, event: Any, message: str, hint: str) -> None:
        place = dotted(self._place[:6])
        raise Unreadable(Problem(self._file, _line(event), place, message, code=Code.CONFIG_SYNTAX, hint=hint))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _decode(data: bytes, file: str) -> str:
    """Return the text, or say what kind of file this is instead."""
    if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Unreadable(
            Problem(file, None, "", "is a binary file", code=Code.CONFIG_SYNTAX, hint="is this the right file?")
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = "save it as UTF-8"
        raise Unreadable(Problem(file, line, "", "is not UTF-8", code=Code.CONFIG_SYNTAX, hint=hint)) from error
