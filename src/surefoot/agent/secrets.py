# SPDX-License-Identifier: Apache-2.0
"""The agent's secrets: values from its environment, for the processes that need them and for nothing else.

Guarantees: a value never leaves this module but in the environment of a step, in a check's options, or into a
redactor. The store's password counts as a secret too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urlsplit

from surefoot.agent.redact import Redactor
from surefoot.core.errors import Code, Failure


class Secrets:
    """Looks secrets up each time they are asked for, so that a rotated one is used at the next attempt."""

    def __init__(self, environ: Mapping[str, str], store_url: str = "") -> None:
        """Take the agent's environment, and the store's URL for the password in it."""
        self._environ = environ
        self._store_password = _password(store_url)

    def values(self, names: Sequence[str]) -> dict[str, str]:
        """Return the values of those that are there."""
        return {name: self._environ[name] for name in names if self._environ.get(name)}

    def missing(self, names: Sequence[str], agent: str) -> Failure | None:
        """Return what is wrong if any of them is not there."""
        absent = [name for name in names if not self._environ.get(name)]
        if not absent:
            return None
        return Failure(
            Code.SECRET_MISSING,
            f"{', '.join(absent)} not set in the environment of agent {agent}",
            hint=f"set {absent[0]} where the agent is started, and start it again",
            agent=agent,
        )

    def redactor(self, names: Sequence[str]) -> Redactor:
        """Return a fresh redactor of these secrets."""
        values = self.values(names)
        if self._store_password:
            values["the store's password"] = self._store_password
        return Redactor(values)


def _password(url: str) -> str:
    """Return the password in a URL; of several hosts' URLs too, whose ports `urlsplit` can't read."""
    return unquote(urlsplit(url).netloc.rpartition("@")[0].partition(":")[2]) if "://" in url else ""
