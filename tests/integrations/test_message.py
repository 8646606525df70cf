# SPDX-License-Identifier: Apache-2.0
"""Messages through Apprise: sent to a real service of its, and said in one sentence where that can't be."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from surefoot.core.errors import Code
from surefoot.core.status import Status
from surefoot.core.targets import Message, Moment
from surefoot.store.memory import MemoryStore
from tests.integrations import telling as t


class Inbox:
    """Takes what Apprise's `json://` sends; `refusals` of the next ones are refused."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.refusals = 0
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                refused, inbox.refusals = inbox.refusals > 0, inbox.refusals - 1
                if not refused:
                    inbox.taken.append({"path": self.path, **body})
                self.send_response(500 if refused else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"127.0.0.1:{self.server.server_port}"


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    monkeypatch.setenv("NO_PROXY", "*")
    inbox = Inbox()
    yield inbox
    inbox.server.shutdown()
    inbox.server.server_close()


async def test_people_are_told_what_happened_and_what_to_do(inbox: Inbox) -> None:
    store = MemoryStore()
    told = Message("notify-1", "${CHAT}", on=(Moment.STRANDED,), runbook="https://runbooks.invalid/r")
    deployment = t.broken(store, told, end=Status.STRANDED)
    inbox.refusals = 1
    await t.told(store, {"CHAT": f"json://{inbox.address}/secret-room"})
    (message,) = inbox.taken
    assert message["path"] == "/secret-room"
    assert message["title"].startswith("production: paws360 2.0 failed and could not be put back")
    assert message["type"] == "failure"
    for needed in ("surefoot resolve production-1", "https://runbooks.invalid/r", t.ORIGIN.run_url, "line 59"):
        assert needed in message["message"], needed
    assert len(t.failures(store, deployment)) == 1
    assert "secret-room" not in repr(store.journal(deployment)) and inbox.address not in repr(store.journal(deployment))


async def test_an_address_that_is_none_is_refused_without_telling_it() -> None:
    store = MemoryStore()
    deployment = t.broken(store, Message("notify-1", "${CHAT}", on=(Moment.ROLLED_BACK,)))
    await t.courier(store, {"CHAT": "nonsense://very-secret"}).finish(2.0)
    (failed,) = t.failures(store, deployment)
    assert failed.failure.code is Code.DELIVERY_REFUSED
    assert "very-secret" not in repr(store.journal(deployment))


def test_without_the_extra_there_is_a_sentence_and_a_command() -> None:
    script = """
import asyncio, sys
sys.modules["apprise"] = None
from surefoot.core.status import Status
from surefoot.core.targets import Message, Moment
from surefoot.store.memory import MemoryStore
from tests.integrations import telling as t
store = MemoryStore()
deployment = t.broken(store, Message("notify-1", "json://localhost", on=(Moment.ROLLED_BACK,)))
asyncio.run(t.courier(store, {}).finish(2.0))
(failed,) = t.failures(store, deployment)
print(failed.failure.code, failed.failure.hint)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "SF-EXTRA-MISSING where the agent runs: pip install 'surefoot[notify]'\n", done.stderr
