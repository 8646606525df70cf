# SPDX-License-Identifier: Apache-2.0
"""Kinds that other packages bring: the one in the documentation, installed; and such as are broken."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from surefoot.checks import plugins
from surefoot.checks.model import CheckStatus
from surefoot.checks.registry import ALL_KINDS, KINDS
from surefoot.config.loading import load
from surefoot.config.problems import ConfigProblems
from tests.support.looking import context, look
from tests.support.servers import raw, saying, silence

PASS, FAIL, WARN = CheckStatus.PASS, CheckStatus.FAIL, CheckStatus.WARN
PAGE = Path(__file__).parents[2] / "docs" / "checks.md"
#: A kind with this probe.
KIND = """\
import asyncio, time
from surefoot.checks.model import CheckOptions, Found, Kind
class Options(CheckOptions):
    timeout: float = 1.0
class Own(Kind):
    name, options = "own", Options
    {}
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Packages are looked through anew, and forgotten after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def forget() -> None:
        plugins._entries.cache_clear()
        plugins.kind.cache_clear()
        for name in [name for name in sys.modules if name.startswith("acme_")]:
            del sys.modules[name]

    forget()
    yield
    forget()


def install(folder: Path, code: str, entry: str = "own = acme_own:Own", package: str = "acme-own") -> None:
    """Put a package into a folder as pip does."""
    module = entry.partition("= ")[2].partition(":")[0]
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[surefoot.checks]\n{entry}\n")


def documented() -> tuple[str, str]:
    """Return the documentation's entry point and code."""
    text = PAGE.read_text().partition("## A kind of your own")[2]
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (entry,) = re.findall(r'^license = "(\S+)"', text, re.MULTILINE)
    return f"license = {entry}", code


async def test_documented_kind_works(tmp_path: Path) -> None:
    entry, code = documented()
    install(tmp_path, code, entry, "acme-checks")
    where = context(secrets={"T": "s3cret"})
    for answer, status, said in (
        (b"12\n", PASS, "12 seats left"),
        (b"3\n", WARN, "only 3 seats"),
        (b"0\n", FAIL, "no seats"),
        (b"<html>\n", FAIL, "instead of a number"),
    ):
        async with saying(raw(answer)) as port:
            result = await look("license", where, server="127.0.0.1", port=port, token="${T}")
        assert (result.status, said in result.message) == (status, True), result.message
    async with saying(silence) as port:
        result = await look("license", where, server="127.0.0.1", port=port, timeout="300ms")
    assert (result.status, "no result within" in result.message) == (FAIL, True), result.message


def test_documented_kind_is_found_by_the_command_line(tmp_path: Path) -> None:
    entry, code = documented()
    install(tmp_path, code, entry, "acme-checks")
    (tmp_path / "surefoot.yml").write_text(
        "project: p\nenvironments: {prod: {steps: [{name: s, run: 'true'}], preflight: ["
        "{license: {server: 127.0.0.1, port: 9}}]}}\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "surefoot", *words]
        return subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)

    done = run("check")
    assert done.returncode == 0, done.stderr
    done = run("preflight", "prod", "1.0")
    assert done.returncode == 3, done.stderr
    assert "license: 127.0.0.1 can't be reached" in done.stderr
    text = (tmp_path / "surefoot.yml").read_text()
    (tmp_path / "surefoot.yml").write_text(text.replace("port: 9", "prot: 9"))
    done = run("check")
    assert done.returncode == 2
    assert "prot" in done.stderr


@pytest.mark.parametrize(
    ("code", "entry", "said"),
    [
        ("import nothing_of_that_name", "own = acme_own:Own", "acme-own can't be loaded for it: ModuleNotFoundError"),
        ("raise SystemExit(3)", "own = acme_own:Own", "SystemExit: 3"),
        ("def Own(: pass", "own = acme_own:Own", "SyntaxError"),
        (KIND.format("probe = None"), "own = acme_own:Other", "AttributeError"),
        ("Own = 7", "own = acme_own:Own", "int is no surefoot.checks.model.Kind"),
        (KIND.format("pass"), "own = acme_own:Own", "it has no probe"),
        (KIND.format("async def probe(self, o, c): return ''"), "other = acme_own:Own", "its kind is called 'own'"),
        (KIND.format("options = dict"), "own = acme_own:Own", "its options are no"),
        (KIND.replace("float", "Nothing").format("def probe(self, o, c): ..."), "own = acme_own:Own", "Nothing"),
    ],
)
async def test_broken_package_is_told_where_the_config_uses_it(
    tmp_path: Path, code: str, entry: str, said: str
) -> None:
    install(tmp_path, code, entry)
    kind = entry.partition(" ")[0]
    steps = "steps: [{name: s, run: 'true'}]"
    config = tmp_path / "surefoot.yml"
    config.write_text(f"project: p\nenvironments:\n  e:\n    {steps}\n    health:\n      - {kind}: {{}}\n")
    with pytest.raises(ConfigProblems) as caught:
        load(config, kinds=ALL_KINDS, environ={})
    (problem,) = caught.value.problems
    assert problem.line == 6
    assert said in problem.message
    assert "acme-own" in problem.hint
    result = await look(kind)
    assert (result.status, said in result.message) == (FAIL, True), result.message
    config.write_text(f"project: p\nenvironments: {{e: {{{steps}, health: [{{tcp: {{address: 'x:1'}}}}]}}}}\n")
    load(config, kinds=ALL_KINDS, environ={})


def test_two_packages_with_one_name_are_told(tmp_path: Path) -> None:
    install(tmp_path, "", "own = acme_own:Own", "acme-own")
    install(tmp_path, "", "own = acme_too:Own", "acme-too")
    kind = plugins.kind("own")
    assert kind is not None
    with pytest.raises(ValueError, match=r"both acme-(own|too) and acme-(own|too) bring it"):
        kind.options.model_validate({})


async def test_own_kinds_can_not_be_replaced(tmp_path: Path) -> None:
    install(
        tmp_path, KIND.replace('"own"', '"tcp"').format("async def probe(self, o, c): return ''"), "tcp = acme_own:Own"
    )
    assert ALL_KINDS["tcp"] is KINDS["tcp"]
    assert list(ALL_KINDS) == list(KINDS)


def test_unknown_kind_is_told_with_all_that_there_are(tmp_path: Path) -> None:
    install(tmp_path, "raise SystemExit", "own = acme_own:Own")
    config = tmp_path / "surefoot.yml"
    config.write_text("project: p\nenvironments: {e: {steps: [{name: s, run: x}], health: [{owns: {}}]}}\n")
    with pytest.raises(ConfigProblems) as caught:
        load(config, kinds=ALL_KINDS, environ={})
    assert {"own", *KINDS} == set(caught.value.problems[0].allowed)
    assert "acme_own" not in sys.modules


@pytest.mark.parametrize(
    ("probe", "status", "said"),
    [
        ("def probe(self, o, c): return f'fine at {c.fill(\"{version}\")}'", PASS, "fine at 2.0"),
        ("def probe(self, o, c): return Found('x', {'A': 'b'})", PASS, "x"),
        ("def probe(self, o, c): raise ZeroDivisionError('by 0')", FAIL, "ZeroDivisionError: by 0"),
        ("def probe(self, o, c): raise StopIteration", FAIL, "StopIteration"),
        ("def probe(self, o, c): raise SystemExit(3)", FAIL, "SystemExit: 3"),
        ("async def probe(self, o, c): raise SystemExit(3)", FAIL, "SystemExit: 3"),
        ("async def probe(self, o, c): raise KeyboardInterrupt", FAIL, "KeyboardInterrupt"),
        ("async def probe(self, o, c): raise asyncio.CancelledError", FAIL, "CancelledError"),
        ("def probe(self, o, c): time.sleep(20); return 'late'", FAIL, "no result within"),
    ],
)
async def test_probe_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: str, status: CheckStatus, said: str
) -> None:
    monkeypatch.setattr("surefoot.checks.registry.SPARE", 0.2)
    install(tmp_path, KIND.format(probe))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.05)

    ticking = asyncio.create_task(tick())
    result = await look("own")
    ticking.cancel()
    assert (result.status, said in result.message) == (status, True), result.message
    assert ticks > 5 or "within" not in said, "the loop went on meanwhile"
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("check "))
