# SPDX-License-Identifier: Apache-2.0
"""Which store an agent of this machine works for, however that is spelt: as seen by a doctor who stands elsewhere."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from surefoot.doctor.machine import agent_processes
from surefoot.doctor.named import named

CONFIG = """\
project: p
environments: {prod: {steps: [{name: only, run: "true"}]}}
"""


@contextmanager
def an_agent(folder: Path, *options: str, **environ: str) -> Iterator[str]:
    """Run an agent in a folder; give its name."""
    name = f"agent-{uuid.uuid4()}"
    command = [sys.executable, "-m", "surefoot", "agent", "run", name, "--role", "emergency", *options]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SUREFOOT_")}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=folder, env=kept | environ, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        told = Path(f"/proc/{process.pid}/cmdline")
        while name.encode() not in told.read_bytes():  # a program that is just being loaded has no arguments yet
            assert process.poll() is None
            time.sleep(0.01)
        yield name
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "surefoot.yml").write_text(CONFIG)
    return folder


SPELLINGS = ["its own.db", "sqlite://its own.db", "sqlite://its%20own.db", "{}/its own.db", "sqlite://{}/its%20own.db"]


@pytest.mark.parametrize("by", ["option", "variable"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_store_is_the_same_however_it_is_spelt(spelling: str, by: str, project: Path, tmp_path: Path) -> None:
    store, chosen = project / "its own.db", spelling.format(project)
    config = project / "surefoot.yml"
    options, environ = ((), {"SUREFOOT_STORE": chosen}) if by == "variable" else (("--store", chosen), {})
    with an_agent(project, *options, **environ) as name:
        for asked, same in ((store, True), (tmp_path / "its own.db", False)):
            (one,) = [one for one in agent_processes(config, str(asked)) if one.name == name]
            assert one.here is same
        (found,) = [one for one in asyncio.run(named()) if name in one.by]
    assert (found.config, found.store) == (config, str(store))
