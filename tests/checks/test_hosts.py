# SPDX-License-Identifier: Apache-2.0
"""`host`, `systemd` and `command` on hosts whose answers are bent as a test needs them.

Through Ansible to real hosts: tests/ansible/test_checks_on_hosts.py; with a real systemd: tests/lab/test_systemd.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from surefoot.checks.model import CheckResult, CheckStatus
from surefoot.checks.registry import KINDS
from surefoot.core.host import Host
from tests.support.looking import context, look, on_hosts

PASS, FAIL = CheckStatus.PASS, CheckStatus.FAIL
WEB = Host("web-01", "127.0.0.1")
#: The host's own /var/lib and programs; `host` looks from a shell of its own, so functions must be programs.
PRELUDE = """
d=$(mktemp -d); trap "rm -rf $d" EXIT; export HOME=$d PATH=$d:$PATH
bend() { printf "#!/bin/sh\\n%s\\n" "$2" > $d/$1; chmod +x $d/$1; }
"""
USER = "bend id 'case $1 in -u) echo 1000;; *) echo deploy;; esac'"


async def bent(kind: str, prelude: str = "", host: Host = WEB, **options: Any) -> CheckResult:
    return await look(kind, on_hosts(host, prelude=PRELUDE + prelude), **options)


async def test_host_that_can_be_deployed_to_passes() -> None:
    result = await bent("host")
    assert result.status is PASS, result.message
    assert result.message.startswith("web-01: reached as ")
    assert ", Python 3." in result.message


@pytest.mark.parametrize(
    ("prelude", "options", "said"),
    [
        ("bend python3 'exit 1'", {}, "no Python 3"),
        ("bend python3 'echo 2.7.18'", {}, "no Python 3"),
        (
            "bend id 'case $1 in -u) echo 1000;; *) echo deploy;; esac'; bend sudo 'exit 1'",
            {"sudo": True},
            "become root",
        ),
        ("bend date 'echo 1000000000.5'", {}, "clock of web-01 differs"),
        ("bend df 'echo x; echo none 10 10 2000 1% /'", {}, "2.0 MB free on the disk of"),
        ("", {"free": "9000TB"}, "must have 9000.0 TB"),
        ("mount -t tmpfs none $d; mount -o remount,ro $d; mount -o bind,ro $d /var/lib", {}, "can't write the fence"),
    ],
)
async def test_host_that_is_not_as_it_must_be_fails(prelude: str, options: dict[str, Any], said: str) -> None:
    result = await bent("host", prelude, **options)
    assert (result.status, said in result.message) == (FAIL, True), result.message
    assert result.hint


async def test_host_that_need_not_have_them_passes_without() -> None:
    assert (await bent("host", "bend python3 'exit 1'", python=False)).status is PASS
    assert (await bent("host", "bend date '/bin/date +%s'", clock_skew="20s")).status is PASS
    assert (await bent("host", f"{USER}; bend sudo 'exit 0'", sudo=True)).status is PASS


@pytest.mark.parametrize(
    ("named", "status"),
    [
        ("/nowhere/python", FAIL),
        ("python3.nowhere", FAIL),
        ("/usr/bin/python3", PASS),
        ("/usr/bin/env python3", PASS),
        ("auto_silent", PASS),
        ("{{ somewhere }}", PASS),
    ],
)
async def test_a_host_s_python_is_the_one_that_the_inventory_names(named: str, status: CheckStatus) -> None:
    host = Host("web-01", "127.0.0.1", {"ansible_python_interpreter": named})
    result = await bent("host", host=host)
    assert result.status is status, result.message


@pytest.mark.parametrize("garbage", ["echo nonsense; exit 0", "exit 255", "exit 0", "echo now=x; exit 1"])
@pytest.mark.parametrize("kind", ["host", "systemd"])
async def test_garbage_fails(kind: str, garbage: str) -> None:
    result = await bent(kind, garbage, **({"unit": "shop"} if kind == "systemd" else {}))
    assert (result.status, len(result.message) < 400) == (FAIL, True), result.message


@pytest.mark.parametrize(
    ("kind", "options"), [("host", {}), ("systemd", {"unit": "shop"}), ("command", {"run": "sleep 1", "on": "hosts"})]
)
async def test_host_that_hangs_fails_at_the_time_out(kind: str, options: dict[str, Any]) -> None:
    assert (await bent(kind, "sleep 100", timeout="300ms", **options)).status is FAIL


async def test_without_hosts_there_is_nothing_to_look_at() -> None:
    for kind, options in (("host", {}), ("command", {"run": "true", "on": "hosts"})):
        result = await look(kind, context(), **options)
        assert (result.status, "none are known" in result.message) == (FAIL, True), result.message


async def test_command_runs_on_each_host() -> None:
    result = await bent("command", run="test {host_name} = web-01 && echo fine", on="hosts")
    assert (result.status, result.host) == (PASS, "web-01"), result.message
    result = await bent("command", run="echo no space left; exit 3", on="hosts")
    assert (result.status, "ended with status 3: no space left" in result.message) == (FAIL, True), result.message


SHOWN = "LoadState=loaded\\nActiveState={}\\nSubState={}\\nResult={}\\nNRestarts=3\\n"


def systemctl(active: str, sub: str, result: str = "success") -> str:
    return f"bend systemctl 'printf \"{SHOWN.format(active, sub, result)}\"'; bend journalctl 'echo out of memory'"


async def test_unit_is_judged_by_its_state() -> None:
    result = await bent("systemd", systemctl("active", "running"), unit=["shop", "shop.timer"])
    assert (result.status, result.message) == (PASS, "web-01: shop.service, shop.timer are active")
    for state in (("failed", "failed", "exit-code"), ("activating", "auto-restart", "exit-code")):
        result = await bent("systemd", systemctl(*state), unit="shop")
        assert result.status is FAIL
        assert result.message == f"web-01: shop.service is {state[0]} ({state[1]}, exit-code): out of memory"
        assert "journalctl -u shop.service" in result.hint
    result = await bent("systemd", systemctl("active", "running"), unit="shop", restarts_below=3)
    assert (result.status, "restarted 3 times" in result.message) == (FAIL, True), result.message


@pytest.mark.parametrize("unit", ["", "-x", "a b", "a;b", [], 3])
def test_what_can_not_be_a_unit_is_refused(unit: Any) -> None:
    with pytest.raises(ValidationError):
        KINDS["systemd"].model_validate({"unit": unit})
