# SPDX-License-Identifier: Apache-2.0
"""What goes across the sections of a config: names that must be unique or exist, checks' options, and who needs hosts.

Works on the plain data, not on the models, so that these problems are told together with all others: whatever has not
the expected shape is passed over here, because its own section has already refused it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from surefoot.config.problems import Place, did_you_mean
from surefoot.core.errors import Code
from surefoot.core.plan import ROLLBACK

#: `{host}` as Surefoot replaces it; `${host}` is the shell's.
_HOST = re.compile(r"(?<!\$)\{host(_name)?\}")


class Report(Protocol):
    """Takes one problem."""

    def __call__(
        self, place: Place, message: str, *, code: Code = ..., hint: str = ..., allowed: tuple[str, ...] = ...
    ) -> None:
        """Note it."""


#: Told of the options of each check: kind, options, place.
OptionsCheck = Callable[[str, Any, Place], None]


def check_semantics(
    data: Mapping[str, Any], kinds: Mapping[str, Any] | None, options: OptionsCheck, report: Report
) -> None:
    """Report whatever is wrong across sections."""
    if data.get("agents") == {}:
        report(("agents",), "is empty", hint="name an agent, or leave agents out: then deploy runs its own")
    _unique([_secret_name(entry) for entry in _list(data.get("secrets"))], ("secrets",), "secret", report)
    environments = _mapping(data.get("environments"))
    for name, environment in environments.items():
        if isinstance(environment, dict):
            _environment(environment, ("environments", name), kinds, options, report)
    _promotions(environments, report)


def _environment(
    environment: dict[str, Any], place: Place, kinds: Mapping[str, Any] | None, options: OptionsCheck, report: Report
) -> None:
    steps = environment.get("steps")
    if isinstance(steps, list):
        _step_names(steps, (*place, "steps"), report)
    for check_place, kind, given in _checks(environment, place):
        if kinds is not None and kind not in kinds:
            known = tuple(sorted(kinds))
            message = f"there is no such kind of check{did_you_mean(kind, known)}"
            report((*check_place, kind), message, code=Code.CONFIG_KEY, allowed=known)
        elif kinds is not None and isinstance(given, dict | None):
            options(kind, given or {}, (*check_place, kind))
    _pins(environment, place, kinds, report)
    if "inventory" not in environment:
        _without_hosts(environment, place, kinds, report)
    _ways_back(environment, place, report)
    if environment.get("bake") not in (None, "0s") and not environment.get("health"):
        report(
            (*place, "bake"), "has nothing to watch: the environment has no health", hint="add health, or take it out"
        )


def _ways_back(environment: dict[str, Any], place: Place, report: Report) -> None:
    """Hold that there is one way back: by step, or at once."""
    if "rollback" not in environment:
        return
    steps = environment.get("steps")
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        where = (*place, "steps", index)
        if "undo" in _mapping(step):
            report((*where, "undo"), "the environment has a rollback in place of all undo", hint="keep one of them")
        if _mapping(step).get("name") == ROLLBACK:
            report((*where, "name"), f"{ROLLBACK!r} is the name of the environment's rollback", hint="rename the step")


def _pins(environment: dict[str, Any], place: Place, kinds: Mapping[str, Any] | None, report: Report) -> None:
    """Hold that no check of the preflight pins something in the variable of another."""
    first: dict[str, tuple[str, Place]] = {}
    for where, kind, given in _checks(environment, place):
        pinned = getattr((kinds or {}).get(kind), "pinned", None)
        found = pinned(_mapping(given)) if pinned is not None and "preflight" in where else None
        if found is None:
            continue
        variable, what = found
        other, there = first.setdefault(variable, (what, where))
        if other != what:
            message = f"{what} would be pinned in {variable}, as {other} is by preflight[{there[-1]}]"
            report((*where, kind), message, hint="give one of them a name of its own: as: NAME")


def _step_names(steps: list[Any], place: Place, report: Report) -> None:
    first: dict[str, int] = {}
    for index, step in enumerate(steps):
        name = step.get("name") if isinstance(step, dict) else None
        if not isinstance(name, str):
            continue
        if name in first:
            report(
                (*place, index, "name"),
                f"steps[{first[name]}] has the name {name!r} already",
                hint="give each step a name of its own",
            )
        first.setdefault(name, index)


def _without_hosts(environment: dict[str, Any], place: Place, kinds: Mapping[str, Any] | None, report: Report) -> None:
    """Report each thing that needs hosts, where no inventory names any."""
    hint = "add inventory: PATH to the environment"
    steps = environment.get("steps")
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        for part, work in (("", step), ("undo", _mapping(step).get("undo"))):
            if "playbook" in _mapping(work):
                where = (*place, "steps", index, *([part] if part else []), "playbook")
                report(where, "a playbook needs hosts, and the environment has no inventory", hint=hint)
    if "playbook" in _mapping(environment.get("rollback")):
        where = (*place, "rollback", "playbook")
        report(where, "a playbook needs hosts, and the environment has no inventory", hint=hint)
    for key in ("state_file", "version_probe"):
        if key in environment:
            report((*place, key), "needs hosts, and the environment has no inventory", hint=hint)
    for where, kind, given in _checks(environment, place):
        if where[-1] == "version_probe":
            continue
        needs_hosts = getattr((kinds or {}).get(kind), "needs_hosts", None)
        if needs_hosts is not None and needs_hosts(_mapping(given)):
            report((*where, kind), "looks at hosts, and the environment has no inventory", hint=hint)
        elif any(_HOST.search(text) for text in _texts(given)):
            report((*where, kind), "speaks of {host}, and the environment has no inventory", hint=hint)


def _checks(environment: dict[str, Any], place: Place) -> Iterator[tuple[Place, str, Any]]:
    """Yield each check's place, kind and options."""
    entries: list[tuple[Place, Any]] = []
    for key in ("preflight", "health"):
        listed = environment.get(key)
        if isinstance(listed, list):
            entries += [((*place, key, index), entry) for index, entry in enumerate(listed)]
    if "version_probe" in environment:
        entries.append(((*place, "version_probe"), environment["version_probe"]))
    for where, entry in entries:
        found = [key for key in _mapping(entry) if key != "name"]
        if len(found) == 1:
            yield where, found[0], entry[found[0]]


def _promotions(environments: Mapping[str, Any], report: Report) -> None:
    """Hold that each environment is promoted from another one that exists, and none from itself in the end."""
    given = {name: _mapping(environment).get("promote_from") for name, environment in environments.items()}
    sources = {name: _mapping(value).get("environment", value) for name, value in given.items()}
    for name, source in sources.items():
        if not isinstance(source, str):
            continue
        place: Place = ("environments", name, "promote_from")
        if isinstance(given[name], dict):
            place = (*place, "environment")
        if source not in sources:
            known = tuple(other for other in sources if other != name)
            report(place, f"there is no environment {source!r}{did_you_mean(source, known)}", allowed=known)
            continue
        passed = {name}
        before: Any = source
        while isinstance(before, str) and before not in passed:
            passed.add(before)
            before = sources.get(before)
        if before == name:
            report(place, "is promoted from itself in the end", hint="one environment must come first")


def _unique(names: Any, place: Place, what: str, report: Report) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str) and name in seen:
            report((*place, index), f"the {what} {name!r} is listed twice", hint="keep one of them")
        elif isinstance(name, str):
            seen.add(name)


def _secret_name(entry: Any) -> Any:
    return entry.get("name") if isinstance(entry, dict) else entry


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in a value."""
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _texts(item)
        case dict():
            for item in value.values():
                yield from _texts(item)
