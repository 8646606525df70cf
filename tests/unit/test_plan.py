# SPDX-License-Identifier: Apache-2.0
"""What a plan knows of its steps, its hosts and its secrets' places."""

from __future__ import annotations

import pytest
from msgspec import structs

from surefoot.core.plan import ROLLBACK, Check, Command, Plan, SecretSource, Step

GO = Step("go", Command("true"), undo=Command("true"))
PLAN = Plan(project="p", environment="prod", steps=(GO, Step("more", Command("true"))))


def test_a_plans_rollback_is_a_step_beside_the_others() -> None:
    whole = structs.replace(PLAN, rollback=Command("back"))
    assert whole.step(ROLLBACK).work == Command("back")
    assert (whole.step("go"), whole.step("more")) == PLAN.steps
    own = structs.replace(PLAN, steps=(structs.replace(GO, name=ROLLBACK),))
    assert own.step(ROLLBACK).work == GO.work, "without one, a step may have its name"


def test_what_is_put_back_is_what_was_started_and_has_a_way_back() -> None:
    assert PLAN.undo_of(("go", "more")) == ("go",) and PLAN.undo_of(()) == ()
    whole = structs.replace(PLAN, rollback=Command("back"))
    assert whole.undo_of(("go",)) == (ROLLBACK,) and whole.undo_of(()) == ()


@pytest.mark.parametrize(
    ("inventory", "file", "probe", "records"),
    [
        (None, None, None, False),
        (None, "/srv/version", Check("http"), False),
        ("hosts.ini", None, None, False),
        ("hosts.ini", "/srv/version", None, True),
        ("hosts.ini", None, Check("http"), True),
    ],
)
def test_versions_are_recorded_where_there_are_hosts_and_a_way_to_ask_them(
    inventory: str | None, file: str | None, probe: Check | None, records: bool
) -> None:
    assert structs.replace(PLAN, inventory=inventory, state_file=file, version_probe=probe).records is records


def test_a_secret_is_in_the_environment_unless_its_source_is_named() -> None:
    plan = structs.replace(PLAN, sources=(SecretSource("B", file="/b"), SecretSource("C", env="D")))
    assert [plan.source(name) for name in "ABC"] == [SecretSource("A", env="A"), *plan.sources]
