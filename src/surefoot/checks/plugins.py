# SPDX-License-Identifier: Apache-2.0
"""Kinds of checks that other packages bring, by the entry point `surefoot.checks`: its name is the kind's.

Guarantees: packages are only looked through for a name that is not one of our own kinds, and only what a config names
is imported. What can't be loaded is a kind whose options are all wrong, with the reason as the problem: so it is told
by `surefoot check` with file and line, and by an agent as the check's failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import Mapping
from importlib import metadata
from typing import Any, ClassVar

from pydantic import ValidationError, model_validator

from surefoot.checks.model import CheckFailed, CheckOptions, Context, Found, Kind, excerpt
from surefoot.config.fields import refuse

GROUP = "surefoot.checks"


@functools.cache
def _entries() -> Mapping[str, tuple[metadata.EntryPoint, ...]]:
    found: dict[str, tuple[metadata.EntryPoint, ...]] = {}
    for entry in metadata.entry_points(group=GROUP):
        if entry not in found.get(entry.name, ()):
            found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def names() -> tuple[str, ...]:
    """Return the names of all kinds that packages here bring."""
    return tuple(sorted(_entries()))


@functools.cache
def kind(name: str) -> Kind | None:
    """Return the kind of that name, if a package brings one."""
    entries = _entries().get(name, ())
    if not entries:
        return None
    package = entries[0].dist.name if entries[0].dist else "a package"
    if len(entries) > 1:
        other = entries[1].dist.name if entries[1].dist else "another"
        return _broken(name, f"both {package} and {other} bring it", "uninstall one of them")
    try:
        found = entries[0].load()
        made = found() if isinstance(found, type) else found
        return _sound(name, made)
    except (Exception, SystemExit) as error:  # whatever a package does wrong is to be told, not to end us
        why = excerpt(str(error) if isinstance(error, _Unsound) else f"{type(error).__name__}: {error}")
        fix = f"repair or upgrade it: pip show {package}"
        return _broken(name, f"{package} can't be loaded for it: {why}", fix)


class _Unsound(Exception):  # noqa: N818 - told as a sentence
    pass


def _sound(name: str, made: Any) -> Kind:
    """Return what a package brings if it is what it should be."""
    if not isinstance(made, Kind):
        raise _Unsound(f"{type(made).__name__} is no surefoot.checks.model.Kind")
    if getattr(made, "name", None) != name:
        raise _Unsound(f"its kind is called {getattr(made, 'name', None)!r}")
    options = getattr(made, "options", None)
    if not (isinstance(options, type) and issubclass(options, CheckOptions)):
        raise _Unsound("its options are no surefoot.checks.model.CheckOptions")
    if type(made).probe is Kind.probe:
        raise _Unsound("it has no probe")
    options.model_rebuild()
    options.needs_hosts({}), options.about_hosts({})
    with contextlib.suppress(ValidationError):  # some of them are required
        options.model_validate({})
    return made if inspect.iscoroutinefunction(made.probe) else _Threaded(made)


class _Threaded(Kind):
    """A kind whose probe is a plain function: it runs in a thread, so that it keeps nobody waiting.

    A thread can't be ended: one that hangs is left behind, and ends with the process.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.name = kind.name  # type: ignore[misc]
        self.options = kind.options  # type: ignore[misc]
        self.deadline = kind.deadline  # type: ignore[misc]

    def seconds(self, options: Any) -> float:
        return self._kind.seconds(options)

    def secrets(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return self._kind.secrets(options)

    async def probe(self, options: Any, context: Context) -> str | Found:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def tell(result: Any, error: BaseException | None) -> None:
            if not done.done():
                done.set_result(result) if error is None else done.set_exception(error)

        def work() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = self._kind.probe(options, context)
            except StopIteration as stopped:  # no future takes it
                error = RuntimeError(f"StopIteration: {stopped}")
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(tell, result, error)

        threading.Thread(target=work, name=f"check {self.name}", daemon=True).start()
        found: str | Found = await done
        return found


def _broken(called: str, why: str, fix: str) -> Kind:
    class Options(CheckOptions):
        @model_validator(mode="before")
        @classmethod
        def _refused(cls, _: Any) -> Any:
            raise refuse(f"checks of kind {called} can't be used: {why}", hint=fix)

    class Broken(Kind):
        name: ClassVar = called
        options: ClassVar = Options

        async def probe(self, options: Any, context: Context) -> str:
            raise CheckFailed(why, fix)

    return Broken()
