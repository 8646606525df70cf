# SPDX-License-Identifier: Apache-2.0
"""Who plays drills: asks for deployments by the command line, as a CI's job would, and looks at hosts from outside.

What is asked for runs in processes of their own, and all that they say is kept in files. Nothing here knows how an
environment is made, or how faults are: see `site` for the lab's, `staging` for one that is there already.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

from surefoot.core.errors import Code, Exit, StoreError
from surefoot.drills.errors import CommandError, DrillError

#: Seconds for anything that is waited for; generous, as the machine may have other things to do.
LONG = 600.0
#: Seconds between two looks at what is waited for; and where each is a command.
LOOK_EVERY = 0.05
ASK_EVERY = 0.5
#: Seconds for a host to say which version it runs.
ANSWER_WITHIN = 5.0
#: Bytes of such an answer that are read.
MOST = 1 << 20
_PLACE = re.compile(r"\{(address|host|version|agent)\}")
_ERROR = re.compile(r"^error\[(\S+)\]: (.*)$", re.MULTILINE)
_HINT = re.compile(r"^hint: (.*)$", re.MULTILINE)


class Addressed(Protocol):
    """A host, as far as it is looked at from outside."""

    @property
    def name(self) -> str:
        """Its name in the inventory."""

    @property
    def address(self) -> str:
        """Where it is reached."""


class Cli:
    """One run of the command line, in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, errors: Path | None, patience: float) -> None:
        """Follow a process; `errors` is where it writes what is no result, if that is not with the rest."""
        self.process = process
        self.began = time.time()
        self._output = output
        self._errors = errors
        self._patience = patience

    def answer(self) -> str:
        """Return what it wrote to stdout so far."""
        return self._output.read_text(errors="replace")

    def said(self) -> str:
        """Return all that it wrote so far."""
        errors = self._errors.read_text(errors="replace") if self._errors is not None else ""
        return errors + self.answer()

    def wait(self, patience: float | None = None) -> int:
        """Return its exit code. DrillError if it does not end."""
        patience = self._patience if patience is None else patience
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired as error:
            raise DrillError(
                f"{self.process.args!r:.200} did not end in {patience:g} s:\n{self.said()[-2000:]}"
            ) from error

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None


class Operator(ABC):
    """See the module's docstring."""

    #: Seconds for what is waited for.
    patience = LONG

    def __init__(self, folder: Path, environment: str, config: Path) -> None:
        """Ask for deployments to `environment` by `config`; what commands say is kept in `folder`."""
        self.folder = folder
        self.environment = environment
        self.config_path = config
        self.reason = "drill"  #: that deployments are asked for with
        self.customer: str | None = None  #: the URL that customers ask, on each host in turn
        self.version_url = ""  #: where a host says which version it runs
        self.version_key = ""  #: under which key of its JSON
        self.held: Callable[[], AbstractContextManager[object]] = nullcontext  #: in which no signal comes
        self._processes: list[subprocess.Popen[bytes]] = []
        self._outputs = 0

    # -- what each kind of environment has its own way of ------------------------------------------------------------

    @property
    @abstractmethod
    def web(self) -> Sequence[Addressed]:
        """The hosts that are deployed to."""

    @abstractmethod
    def version(self) -> str:
        """Return a version to deploy next, other than the one before."""

    @abstractmethod
    def ready(self) -> str:
        """See to it that everything is in order, and return the version that all hosts run."""

    @abstractmethod
    def settle(self, patience: float | None = None) -> None:
        """Wait until nothing is deployed any more."""

    @abstractmethod
    def break_version(self, version: str, *hosts: Addressed) -> None:
        """Have a version be not well on hosts; on all if none are named."""

    @abstractmethod
    def mend(self) -> None:
        """Have every version be well everywhere."""

    @abstractmethod
    def surroundings(self) -> dict[str, str]:
        """Return the environment of the commands."""

    def started_by(self, command: list[str]) -> list[str]:
        """Return the command line that starts a command here."""
        return command

    def marks(self) -> tuple[str, ...]:
        """Return what tells a deployment that is asked for here from all others."""
        return ()

    # -- the command line ------------------------------------------------------------------------------------------

    def cli(self, *words: str, env: Mapping[str, str] | None = None, apart: bool = False) -> Cli:
        """Start a command, as a CI job would. `apart`: its results are not mixed with what else it says."""
        self._outputs += 1
        self.folder.mkdir(parents=True, exist_ok=True)  # it may have been tidied away meanwhile
        output = self.folder / f"cli-{self._outputs:03d}-{words[0]}.log"
        errors = output.with_suffix(".err") if apart else None
        # -P: the project's folder may hold files that are called as modules are.
        command = [sys.executable, "-P", "-m", "surefoot", "--config", str(self.config_path), "--no-color", *words]
        with output.open("wb") as out, (errors or output).open("ab") as err, self.held():
            process = subprocess.Popen(
                self.started_by(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err if apart else subprocess.STDOUT,
                env={**self.surroundings(), **(env or {})},
                cwd=self.config_path.parent,
                start_new_session=True,
            )
            self._processes.append(process)
        return Cli(process, output, errors, self.patience)

    def ask(self, *words: str, patience: float | None = None) -> Any:
        """Return the JSON of a command. CommandError if it fails, or the store is away for long."""
        end = time.monotonic() + (self.patience if patience is None else patience)
        while True:
            done = self.cli(*words, "--output", "json", apart=True)
            code = done.wait()
            if code == 0:
                return json.loads(done.answer())
            if code != Exit.STORE or time.monotonic() > end:
                raise failure(words, done)
            time.sleep(ASK_EVERY)

    def deploy(self, version: str, *more: str) -> Cli:
        """Ask for a deployment, and follow it."""
        return self.cli("deploy", self.environment, version, "--reason", self.reason, *self.marks(), *more)

    def submit(self, version: str) -> str:
        """Ask for a deployment, and return its name once it is accepted."""
        words = ("deploy", self.environment, version, "--reason", self.reason, *self.marks(), "--detach")
        return str(self.ask(*words)["id"])

    def named(self, deploy: Cli) -> str:
        """Return a deployment's name, as its command has said it."""
        found: list[str] = []

        def accepted() -> bool:
            found[:] = re.findall(r"^\S+ (\S+) accepted", deploy.said(), re.MULTILINE)
            if deploy.ended and not found:
                raise DrillError(f"the deploy ended before it was accepted:\n{deploy.said()[-2000:]}")
            return bool(found)

        self.until(accepted, "the deployment is accepted")
        return found[0]

    def events(self, deployment: str) -> list[dict[str, Any]]:
        """Return a deployment's journal."""
        words = ("events", deployment)
        done = self.cli(*words, "--output", "json", apart=True)
        if done.wait() != 0:
            raise failure(words, done)
        return [json.loads(line) for line in done.answer().splitlines()]

    # -- from outside ----------------------------------------------------------------------------------------------

    def runs(self, host: Addressed) -> str | None:
        """Return which version a host's service says that it is; None if it says nothing."""
        url = filled(self.version_url, host=host.name, address=host.address)
        said = b""
        try:
            with urllib.request.urlopen(url, timeout=ANSWER_WITHIN) as answer:  # noqa: S310 - the drill's own config names it
                said = answer.read(MOST)
        except urllib.error.HTTPError as error:
            with suppress(OSError, http.client.HTTPException):
                said = error.read(MOST)
        except (OSError, ValueError, http.client.HTTPException):
            return None
        try:
            found = json.loads(said)
        except ValueError:
            return None
        version = found.get(self.version_key) if isinstance(found, dict) else None
        return str(version) if isinstance(version, str | int | float) else None

    def customers_urls(self) -> list[str]:
        """Return what customers ask; nothing if nobody said."""
        if self.customer is None:
            return []
        return [filled(self.customer, host=host.name, address=host.address) for host in self.web]

    def until(
        self, holds: Callable[[], object], what: str, patience: float | None = None, every: float = LOOK_EVERY
    ) -> None:
        """Wait until something holds. DrillError if it does not come true."""
        patience = self.patience if patience is None else patience
        end = time.monotonic() + patience
        while True:
            try:
                if holds():
                    return
            except StoreError:  # may be what a drill has done
                pass
            if time.monotonic() > end:
                raise DrillError(f"not within {patience:g} s: {what}")
            time.sleep(every)


def filled(text: str, **values: str) -> str:
    """Return a text with `{host}` and the like filled in; other braces are the text's own."""
    return _PLACE.sub(lambda found: values.get(found[1], found[0]), text)


def failure(words: Sequence[str], done: Cli) -> CommandError:
    """Return what a command that failed has said, as an error of ours."""
    said = done.said()
    told = _ERROR.search(said)
    hint = _HINT.search(said, told.end()) if told else None
    code = Code(told[1]) if told and told[1] in set(Code) else None
    message = told[2] if told else f"it ended with {done.process.returncode}: {said.strip()[-500:]}"
    return CommandError(
        f"surefoot {' '.join(words)}: {message}",
        code=code,
        hint=hint[1] if hint else "",
        exit_code=done.process.returncode,
    )
