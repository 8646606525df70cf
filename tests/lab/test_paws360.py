# SPDX-License-Identifier: Apache-2.0
"""PAWS360 from staging over an approval to production, and a broken health check that is found, put back and told.

All of production's checks are broken in turn by `make health-faults`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.lab.paws360 import FAULTS, PATIENCE, Platform, broken_in_turn, platform


@pytest.fixture(scope="module")
def both(laboratory: None) -> Iterator[Platform]:
    with platform("staging", "production") as one:
        yield one


def waits(one: Platform, deployment: str) -> None:
    end = time.monotonic() + PATIENCE
    while (status := one.show(deployment)["status"]) != "waiting":
        assert time.monotonic() < end and status == "queued", status


def test_a_version_comes_to_production_by_staging_and_another_persons_approval(both: Platform) -> None:
    one = both
    one.agent()
    code, said = one.run("deploy", "production", "1.0")
    assert (code, "SF-NOT-PROMOTED" in said) == (3, True), said
    assert set(one.versions([*one.staging, *one.production])) == {None}

    code, said = one.run("deploy", "staging", "1.0")
    assert code == 0, said
    assert set(one.versions(one.staging)) == {"1.0"}
    assert set(one.versions(one.production)) == {None}

    # Whoever asked can't approve, be it the only one who may.
    assert one.run("deploy", "production", "1.0", "--detach", by="oncall-sre")[0] == 0
    waits(one, "production-1")
    code, said = one.run("approve", "production-1", by="oncall-sre")
    assert (code, "has asked for production-1 and can't approve it" in said) == (7, True), said
    assert one.run("reject", "production-1", "--reason", "asked for by the wrong person", by="oncall-sre")[0] == 0
    assert one.show("production-1")["status"] == "failed"

    asked = one.start("deploy", "production", "1.0")
    end = time.monotonic() + PATIENCE
    while one.run("show", "production-2")[0] != 0:
        assert time.monotonic() < end
    waits(one, "production-2")
    for who, why in (("dev", "can't approve it"), ("passer-by", "belongs to none of the groups")):
        code, said = one.run("approve", "production-2", by=who)
        assert (code, why in said) == (7, True), said
    assert set(one.versions(one.production)) == {None}
    code, said = one.run("approve", "production-2", "--reason", "staging looks good", by="oncall-sre")
    assert code == 0, said
    assert asked.wait(PATIENCE) == 0
    assert set(one.versions(one.production)) == {"1.0"}
    shown = one.show("production-2")
    assert shown["promoted_from"]["deployment"] == "staging-1"
    assert [re.sub("@.*", "", given["by"]) for given in shown["approvals"]["given"]] == ["oncall-sre"]
    assert one.github.wrong == []


def test_a_broken_check_is_found_named_put_back_and_told(both: Platform) -> None:
    (finding,) = broken_in_turn(both, [fault for fault in FAULTS if fault.check == "services"])
    assert finding.good, finding
    assert both.github.wrong == []
