# SPDX-License-Identifier: Apache-2.0
"""Faults that need hosts of their own, and what doctor says of them; `make doctor-faults` makes all that there are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from surefoot.drills.lab import Lab
from tests.lab.clinic import Clinic
from tests.lab.examine import examine
from tests.lab.faults import FAULTS

#: What no other test makes for real.
ONLY_HERE = (
    "a runner without power, seen from the other",
    "two agents with one name, the other on another machine",
    "the CI runner's own service down",
    "the runner's disk full",
    "the runner's clock 10 minutes behind",
    "the store read-only",
    "the store refuses the password",
    "sudo refused on a host",
    "no Python on a host",
    "no flock on a host",
    "a host's disk full",
    "a host's clock 10 minutes ahead",
    "the fence's folder can't be written",
)


@pytest.fixture(scope="module")
def clinic(lab: Lab) -> Iterator[Clinic]:
    yield Clinic(lab)


def test_shell_that_knows_neither_project_nor_store_is_told_what_to_type(clinic: Clinic) -> None:
    said = clinic.plain("surefoot doctor --timeout 60s", folder="/root")
    assert "2 agents" in said and "postgresql://surefoot@db-01/surefoot" in said
    fix = said.partition("this shell does not know")[2].partition("   fix: ")[2].partition("\n")[0]
    assert fix == "cd /srv/shop; set -a; . /etc/surefoot-agent/environment; set +a"
    assert clinic.plain(f"{fix}; surefoot agents", folder="/root").count(" online ") == 2


@pytest.mark.parametrize("name", ONLY_HERE)
def test_fault_is_found_first_and_what_is_said_mends_it(clinic: Clinic, name: str) -> None:
    (fault,) = (one for one in FAULTS if one.name == name)
    result = examine(clinic, fault)
    assert (result.place, result.mended) == (1, True), (result.report, result.after)
