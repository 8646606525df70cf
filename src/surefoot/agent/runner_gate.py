# SPDX-License-Identifier: Apache-2.0
"""What Prometheus knows of the runner that an agent is on, beside what the agent sees itself.

Guarantees: it never stands in an agent's way by its own failure: a Prometheus that is down, or that does not know the
runner, says nothing, and then the agent's own signs of life alone count. What it said last is forgotten after a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from surefoot.agent.machine import Limits, exceeded
from surefoot.checks.asking import Asking, asked, json_of, read, url_shown
from surefoot.checks.model import CheckFailed
from surefoot.core.notes import Level, Note, Tell

#: Seconds between two questions, and for one answer.
ASK_EVERY, ANSWER_WITHIN = 5.0, 4.0
#: Seconds after which an answer is too old to count.
FORGET_AFTER = 30.0
STATUS, CPU, MEMORY = "runner_status", "runner_cpu_usage_percent", "runner_memory_usage_percent"


class RunnerGate:
    """One agent's view of itself through Prometheus."""

    def __init__(self, url: str, agent: str, limits: Limits, note: Tell) -> None:
        """Ask Prometheus at `url` for the runner called `agent`."""
        self._url = url.rstrip("/")
        self._agent = agent
        self._limits = limits
        self._note = note
        self._reason = ""
        self._at = float("-inf")
        self._silent = False

    def reason(self) -> str:
        """Return why the runner is not fit, as far as Prometheus has said lately."""
        return self._reason if time.monotonic() - self._at < FORGET_AFTER else ""

    async def run(self) -> None:
        """Ask for as long as the agent lives."""
        while True:
            await self.ask()
            await asyncio.sleep(ASK_EVERY)

    async def ask(self) -> None:
        """Ask once; silence is told once, too."""
        try:
            found = await self._found()
        except (CheckFailed, ValueError, KeyError, TypeError) as error:
            if not self._silent:
                said = f"{url_shown(self._url)}: {error}; this agent's own measurements count"
                self._note(Note(f"runner gate: {said}", "runner_gate", Level.WARNING))
            self._silent = True
            return
        if self._silent:
            self._note(Note("runner gate: Prometheus answers again", "runner_gate"))
        self._silent = False
        self._reason, self._at = verdict(found, self._limits), time.monotonic()

    async def _found(self) -> dict[str, float]:
        runner = self._agent.replace("\\", "\\\\").replace('"', '\\"')
        query = f'{{__name__=~"{STATUS}|{CPU}|{MEMORY}",runner="{runner}"}}'
        address = f"{self._url}/api/v1/query?{urlencode({'query': query})}"
        async with asked(address, Asking(url_shown(self._url), ANSWER_WITHIN)) as answer:
            body: Any = json_of(await read(answer))
        result = body["data"]["result"]
        return {series["metric"]["__name__"]: float(series["value"][1]) for series in result}


def verdict(found: Mapping[str, float], limits: Limits) -> str:
    """Say why a runner is not fit, from its metrics; nothing if it is, or if nobody knows."""
    down = [f"{STATUS} is {found[STATUS]:g}"] if found.get(STATUS, 1.0) != 1.0 else []
    above = exceeded(((CPU, found.get(CPU), limits.cpu), (MEMORY, found.get(MEMORY), limits.memory)))
    return ", ".join((*down, *above))
