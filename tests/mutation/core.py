# SPDX-License-Identifier: Apache-2.0
"""Changes the core by one thing at a time, and looks whether anything notices: `python -m tests.mutation.core`.

For each change a process loads the product with it, and plays simulated schedules, then the tests of the core; the
first that fails has caught it. What survives is either listed in `equivalent.txt` with the reason why it makes no
difference, or is a test that is missing: exits 1 then.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import os
import random
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tests.mutation.sites import Site, changed, sites

ROOT = Path(__file__).parents[2]
CORE = ROOT / "src" / "surefoot" / "core"
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
#: What decides; the rest of the core is values and words.
MODULES = ("decide", "deployment", "summary", "lease", "outbox", "opening", "environment", "windows", "people", "plan")
#: Schedules that a change has to survive before the tests are asked, which take longer.
SCHEDULES = 150
TESTS = (
    "tests/property/test_decisions.py",
    "tests/property/test_gates.py",
    "tests/property/test_lease.py",
    "tests/property/test_outbox.py",
    "tests/store/test_gates.py",
    "tests/unit/test_config_freeze.py",
    "tests/unit/test_config_loading.py",
    "tests/unit/test_deployment.py",
    "tests/unit/test_opening.py",
    "tests/unit/test_plan.py",
    "tests/unit/test_summary.py",
)
#: Seconds of the processor after which a change has made something run in circles.
SECONDS = 120


@dataclass(frozen=True)
class Change:
    """One change of one module."""

    module: str
    site: Site

    @property
    def name(self) -> str:
        """Return what the list of equivalent changes calls it."""
        return f"{self.module}.{self.site.name}"


class _Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module from a changed tree."""

    def __init__(self, change: Change) -> None:
        self._name = f"surefoot.core.{change.module}"
        self._path = CORE / f"{change.module}.py"
        self._site = change.site

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> object:
        if name != self._name:
            return None
        return importlib.util.spec_from_loader(name, self, origin=str(self._path))

    def exec_module(self, module: ModuleType) -> None:
        tree = changed(self._path.read_text(encoding="utf-8"), self._site)
        exec(compile(tree, str(self._path), "exec"), module.__dict__)


def caught(change: Change) -> tuple[Change, str]:
    """Try one change in a process of its own; return what has caught it, or nothing."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reads)
        said = "it can't be loaded"
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            sys.meta_path.insert(0, _Loader(change))
            said = _noticed()
        finally:
            os.write(writes, said.encode())
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as answers:
        answer = answers.read().decode()
    _, status = os.waitpid(pid, 0)
    return change, answer if status == 0 else "it never ends"


def _noticed() -> str:
    from tests.simulation.schedule import broken_by

    for seed in range(1, SCHEDULES + 1):
        if (promise := broken_by(seed)) is not None:
            return f"schedule {seed}: {promise}"
    import pytest

    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = "/nonexistent"
    status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *[str(ROOT / test) for test in TESTS]])
    return f"the tests of the core ({status})" if status else ""


def reasons() -> dict[str, str]:
    """Return the changes that make no difference, each with why."""
    found = {}
    for line in EQUIVALENT.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, why = line.partition("  # ")
            found[name.strip()] = why.strip()
    return found


def main() -> int:
    """Try all changes; 1 if one survives that is not known to be equivalent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=MODULES)
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--sample", type=int, help="so many changes, chosen at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="name the changes, and try none")
    chosen = parser.parse_args()
    changes = [
        Change(module, site)
        for module in chosen.modules
        for site in sites((CORE / f"{module}.py").read_text(encoding="utf-8"))
    ]
    known = reasons()
    wanted = [change for change in changes if change.name not in known]
    if chosen.sample:
        wanted = random.Random(chosen.seed).sample(wanted, min(chosen.sample, len(wanted)))
    if chosen.list:
        print("\n".join(change.name for change in wanted))
        return 0
    began, survivors, done = time.monotonic(), 0, 0
    with multiprocessing.get_context("spawn").Pool(chosen.jobs) as pool:
        for change, by in pool.imap_unordered(caught, wanted):
            done += 1
            survivors += not by
            if not by:
                print(f"SURVIVES {change.name}", flush=True)
            elif sys.stderr.isatty():
                print(f"{done} of {len(wanted)}, {survivors} survive", end="\r", file=sys.stderr)
    print(
        f"{len(wanted)} changes of {len(changes)}, {survivors} survive, {len(known)} known to make no difference, "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
