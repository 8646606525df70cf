# SPDX-License-Identifier: Apache-2.0
"""`disk` and `memory`: real file systems, filled as a test needs them, on hosts and on the agent."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from surefoot.checks.model import CheckResult, CheckStatus
from surefoot.checks.registry import KINDS, run_all
from surefoot.core.host import Host
from surefoot.core.plan import Check
from tests.support.looking import context, look, on_hosts

PASS, FAIL, WARN = CheckStatus.PASS, CheckStatus.FAIL, CheckStatus.WARN
WEB = (Host("web-01", "127.0.0.1"), Host("web-02", "127.0.0.1"))
#: A disk of 10 MB, of which 8 are used, and of whose 40 inodes 31 or so.
DISK = """
mount -t tmpfs -o size=10m,nr_inodes=40 none /mnt && cd /mnt && head -c 8388608 /dev/zero > big
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29; do : > $n; done
"""


async def each(kind: str, prelude: str = "", **options: Any) -> Sequence[CheckResult]:
    return await run_all([Check(kind, options)], on_hosts(*WEB, prelude=prelude))


async def test_disk_of_each_host_is_looked_at() -> None:
    results = await each("disk", DISK, path="/mnt", below="90%")
    assert [(one.host, one.status) for one in results] == [("web-01", PASS), ("web-02", PASS)]
    assert results[0].message == "web-01: /mnt is 80 % used"
    results = await each("disk", DISK, path=["/", "/mnt"], below="80%")
    assert [one.status for one in results] == [FAIL, FAIL]
    assert results[1].message == "web-02: /mnt is 80 % used, and must be below 80 %"
    assert "df -h / /mnt" in results[1].hint


async def test_disk_that_is_nearly_full_warns() -> None:
    result = (await each("disk", DISK, path="/mnt", below="90%", warn_above="75%"))[0]
    assert (result.status, "/mnt is 80 % used" in result.message) == (WARN, True)
    assert (await each("disk", DISK, path="/mnt", below="90%", warn_above="85%"))[0].status is PASS


async def test_free_space_and_inodes_can_be_asked_for() -> None:
    assert (await each("disk", DISK, path="/mnt", free="2MB"))[0].status is PASS
    result = (await each("disk", DISK, path="/mnt", free="3MB"))[0]
    assert (result.status, "2.1 MB free, and must have 3.0 MB" in result.message) == (FAIL, True), result.message
    assert (await each("disk", DISK, path="/mnt", inodes_below="95%"))[0].status is PASS
    result = (await each("disk", DISK, path="/mnt", inodes_below="50%"))[0]
    assert (result.status, "inodes of /mnt are" in result.message) == (FAIL, True), result.message


async def test_path_that_is_not_there_fails() -> None:
    result = (await each("disk", path=["/", "/no such place"]))[0]
    assert (result.status, "there is no /no such place" in result.message) == (FAIL, True)


async def test_without_hosts_the_agent_s_own_are_looked_at() -> None:
    _, used, free = shutil.disk_usage("/")
    result = await look("disk", below="100%")
    assert (result.status, result.host) == (PASS, None), result.message
    assert result.message.startswith("runner-01: / is ")
    assert abs(float(result.message.split()[3]) - 100 * used / (used + free)) < 5
    result = await look("disk", context(*WEB), on="agent", below="100%")
    assert (result.status, result.host) == (PASS, None)
    assert (await look("memory", below="100%")).status is PASS
    result = await look("disk", on="hosts", below="100%")
    assert (result.status, "none are known" in result.message) == (FAIL, True)


async def test_memory_of_each_host_is_looked_at() -> None:
    text = "MemTotal: 1000 kB\\nMemFree: 10 kB\\nMemAvailable: 80 kB\\n"
    fake = f"mount -t tmpfs none /run && printf '{text}' > /run/m && mount --bind /run/m /proc/meminfo"
    results = await each("memory", fake, below="95%")
    assert [one.status for one in results] == [PASS, PASS]
    result = (await each("memory", fake, below="90%"))[0]
    assert (result.status, result.message) == (FAIL, "web-01: memory is 92 % used, and must be below 90 %")
    assert (await each("memory", fake, below="95%", warn_above="90%"))[0].status is WARN


@pytest.mark.parametrize("kind", ["disk", "memory"])
async def test_host_that_hangs_fails_at_the_time_out(kind: str) -> None:
    result = (await each(kind, "sleep 100", timeout="300ms"))[0]
    assert result.status is FAIL, result.message


@pytest.mark.parametrize("garbage", ["echo nonsense; exit 0", "exit 0", "exit 1", "printf '\\377\\376'; exit 0"])
@pytest.mark.parametrize("kind", ["disk", "memory"])
async def test_garbage_fails(kind: str, garbage: str) -> None:
    result = (await each(kind, garbage))[0]
    assert (result.status, "does not tell how" in result.message) == (FAIL, True), result.message


@pytest.mark.parametrize(
    "options",
    [
        {"below": 90},
        {"below": "90"},
        {"below": "0%"},
        {"below": "101%"},
        {"path": "var"},
        {"path": []},
        {"on": "host"},
        {"warn_above": "95%"},
        {"free": "5"},
        {"free": "5XB"},
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KINDS["disk"].model_validate(options)
