# SPDX-License-Identifier: Apache-2.0
"""How long a round of 1,000 `http` checks takes, of endpoints that answer and of such of which some hang.

The endpoints are one small server in a process of its own, on the same two cores; each check makes a connection of its
own, and compares status and JSON. The round is what an agent runs in health and preflight. Where some hang, their
time-out is one second: the rest must not wait for them, nor the round for longer than they may take.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.report import Figure, longest, main, p99
from surefoot.checks.model import CheckStatus, Context
from surefoot.checks.registry import SPARE, run_all
from surefoot.core.plan import Check

WHAT = "a round of 1,000 http checks, of endpoints that answer and of 100 that hang among them"
RUNS = 20
COUNT, HANGING = 1000, 100
LIMIT = 2.0
TIMEOUT = 1.0
#: Answers each request at once, but for what begins with /hang. Prints its port; ends with its input.
_SERVER = """
import asyncio, sys
class Endpoint(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        if not data.startswith(b"GET /hang"):
            body = b'{"status": "UP"}'
            self.transport.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(body), body))
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Endpoint, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
asyncio.run(main())
"""


def measure(runs: int | None = None) -> list[Figure]:
    """Measure both."""
    with endpoints() as url:
        well = [check(f"{url}/{number}") for number in range(COUNT)]
        some = [check(f"{url}/hang{number}", TIMEOUT) for number in range(HANGING)] + well[HANGING:]
        times, cpu = asyncio.run(rounds(well, 0, runs or RUNS))
        hanging, _ = asyncio.run(rounds(some, HANGING, min(3, runs or 3)))
    return [
        longest(f"{COUNT:,} checks of endpoints that answer", times, LIMIT),
        p99("of that, CPU of the one who checks", cpu),
        longest(f"{COUNT:,} checks of which {HANGING} hang for {TIMEOUT:g} s", hanging, LIMIT + TIMEOUT + SPARE),
    ]


def check(url: str, timeout: float = 5.0) -> Check:
    """Return one of the checks."""
    return Check("http", {"url": url, "json": {"status": "UP"}, "timeout": f"{timeout:g}s"})


async def rounds(checks: list[Check], failures: int, runs: int) -> tuple[list[float], list[float]]:
    """Return the seconds of each round, and of them our CPU's, after a first one that loads what is needed."""
    context = Context(values={}, hosts=(), secrets={}, run=_never)
    times, cpu = [], []
    for _ in range(runs + 1):
        begun, used = time.monotonic(), time.process_time()
        results = await run_all(checks, context)
        times.append(time.monotonic() - begun)
        cpu.append(time.process_time() - used)
        failed = sum(result.status is CheckStatus.FAIL for result in results)
        assert failed == failures, f"{failed} checks failed, not {failures}"
    return times[1:], cpu[1:]


async def _never(command: str, timeout: float) -> None:
    raise AssertionError("http runs no command")


@contextlib.contextmanager
def endpoints() -> Iterator[str]:
    """Run the endpoints until the end of the block; return their URL."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        assert process.stdin is not None
        process.stdin.close()


if __name__ == "__main__":
    main("checks", WHAT, measure)
