# SPDX-License-Identifier: Apache-2.0
"""Sends the trace of each deployment that this agent has brought to its end, beside all other work.

Guarantees: it begins when the end is written and the lease is given back, so that nothing of a deployment waits for it
or can fail by it. It is tried once: one that is lost can be sent again (`surefoot report trace ID --send`), under the
same ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from surefoot.agent.access import StoreAccess
from surefoot.core.deployment import Deployment
from surefoot.core.errors import SurefootError
from surefoot.core.notes import Level, Note, Tell
from surefoot.monitoring import otlp
from surefoot.reports.trace import ended_at, spans, trace_id
from surefoot.store.protocol import Store


class Tracing:
    """One agent's traces."""

    def __init__(
        self, store: Store, access: StoreAccess, identity: str, environ: Mapping[str, str], note: Tell
    ) -> None:
        """`identity` is the store's; `environ` says whether and where to."""
        self._store = store
        self._access = access
        self._identity = identity
        self._environ = environ
        self._note = note
        self._wanted = otlp.wanted(environ)
        self._under_way: set[asyncio.Task[None]] = set()

    def ended(self, state: Deployment) -> None:
        """Take a deployment that has come to its end, or has been repaired, by this agent."""
        if self._wanted:
            task = asyncio.create_task(self._send(state))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def finish(self, within: float) -> None:
        """Wait for what is under way; what takes longer is given up."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=within)
        for task in self._under_way:
            task.cancel()

    async def _send(self, state: Deployment) -> None:
        try:
            read = await self._access(self._store.journal, state.id)
            entries = [entry for entry in read if entry.seq <= state.seq]
            again = state.resolved is not None or state.resolve_refused is not None
            found = spans(self._identity, entries, after=ended_at(entries) if again else 0)
            trace = trace_id(self._identity, state.id)
            await asyncio.to_thread(otlp.send, trace, found, self._environ)
        except SurefootError as error:
            said, level, fields = f"{error.message} ({error.hint})", Level.WARNING, {"code": str(error.code)}
        except Exception as error:
            said, level, fields = f"the trace was not sent: {type(error).__name__}: {error}", Level.WARNING, {}
        else:
            said, level, fields = f"trace {trace:032x} was sent", Level.INFO, {}
        self._note(Note(said, "trace", level, state.id, state.token or None, fields=fields))
