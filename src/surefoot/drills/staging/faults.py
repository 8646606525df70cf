# SPDX-License-Identifier: Apache-2.0
"""Faults by commands of a shell here, each noted before it is made, with the command that mends it.

Guarantees: both commands are said before the first one begins, so that a person can mend what a drill that was killed
no longer can; whatever was begun is mended by `mend_all`, after its own command has ended or was ended, so that nothing
is made once more behind its back. What can't be mended is returned, with the command, and tried again next time.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from surefoot.drills.errors import DrillError
from surefoot.drills.operator import filled
from surefoot.drills.staging.settings import Fault

#: Seconds for one command.
COMMAND_WITHIN = 120.0
#: Seconds that a fault's own command has to end by itself, once it is to be mended.
GRACE = 10.0
#: How often it is tried to mend one, and the seconds between.
MEND_TRIES = 4
MEND_AGAIN = 3.0
#: Characters of a command's output that are told.
TOLD = 300


@dataclass(eq=False)
class _Made:
    """One that was begun, and not mended yet."""

    name: str
    mend: str
    process: subprocess.Popen[bytes] | None = None


class Faults:
    """See the module's docstring."""

    def __init__(
        self, folder: Path, say: Callable[[str], None], held: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        """Keep what commands say in `folder`; in `held` no signal comes."""
        self._folder = folder
        self._held = held
        self.say = say
        self.made = False  #: whether anything was, mended or not
        self._open: list[_Made] = []
        self._count = 0

    def make(self, name: str, fault: Fault, values: Mapping[str, str]) -> None:
        """Make a fault. DrillError if its command fails."""
        quoted = {key: shlex.quote(value) for key, value in values.items()}
        make, mend = filled(fault.make, **quoted), filled(fault.mend, **quoted)
        self.say(f"{name} is made by: {make}")
        self.say(f"{' ' * len(name)} mended by: {mend}")
        made = _Made(name, mend)
        with self._held():
            self.made = True
            self._open.append(made)
            made.process, output = self._start(name, make)
        code = _ended(made.process, COMMAND_WITHIN)
        if code is None:
            _kill(made.process)
            raise DrillError(f"{name}: {make!r} did not end in {COMMAND_WITHIN:g} s{_tail(output)}")
        if code != 0:
            raise DrillError(
                f"{name}: {make!r} ended with {code}{_tail(output)}",
                hint="a command that can't end well, as a power off by ssh, may end with `|| true`",
            )

    def mend(self, name: str) -> None:
        """Mend what was made by a name. DrillError if that can't be done."""
        if left := self._mend([one for one in self._open if one.name == name]):
            raise DrillError("; ".join(left))

    def mend_all(self) -> list[str]:
        """Mend everything, the newest first; return what could not be mended, a sentence each."""
        return self._mend(self._open)

    def _mend(self, made: list[_Made]) -> list[str]:
        left, tried = [], set[str]()
        for one in reversed(made.copy()):
            if one.process is not None and _ended(one.process, GRACE) is None:
                _kill(one.process)
            if one.mend in tried:  # one command for several, such as a version that is sick on each host
                self._open.remove(one)
                continue
            if why := self._mended(one):
                left.append(f"{one.name} is not mended: {why}; by hand: {one.mend}")
            else:
                tried.add(one.mend)
                self._open.remove(one)
        return left

    def _mended(self, one: _Made) -> str:
        """Run the command that mends, a few times if need be; return why it is not mended, nothing if it is."""
        why = ""
        for attempt in range(MEND_TRIES):
            if attempt:
                time.sleep(MEND_AGAIN)
            self.say(f"{one.name} is mended: {one.mend}")
            process, output = self._start(f"{one.name}-mend", one.mend)
            code = _ended(process, COMMAND_WITHIN)
            if code == 0:
                return ""
            _kill(process)
            why = "it did not end" if code is None else f"it ended with {code}"
            why += _tail(output)
        return why

    def _start(self, name: str, command: str) -> tuple[subprocess.Popen[bytes], Path]:
        self._count += 1
        output = self._folder / f"fault-{self._count:03d}-{name}.log"
        try:
            out = output.open("wb")
        except OSError:  # a full disk, a folder that somebody has tidied away: nothing that mending may depend on
            output = Path(os.devnull)
            out = output.open("wb")
        with out:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the drill, which mends; not for what mends
            )
        return process, output


def _ended(process: subprocess.Popen[bytes], within: float) -> int | None:
    """Return a command's exit code; None if it does not end."""
    try:
        return process.wait(within)
    except subprocess.TimeoutExpired:
        return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command, and what it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(output: Path) -> str:
    said = " ".join(output.read_text(errors="replace").split())
    return f": {said[-TOLD:]}" if said else ""
