# SPDX-License-Identifier: Apache-2.0
"""The doctor looks at any number of environments, and not at the expense of the machine that it looks from."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from surefoot.api import requests
from surefoot.core.plan import Check, Plan
from surefoot.doctor import collect as collecting
from surefoot.doctor.collect import Question, collect
from surefoot.doctor.facts import EnvironmentFacts
from surefoot.store import open_store
from surefoot.store.protocol import Submission
from tests.store import journal as j
from tests.support.postgres import PostgresServer


def question(tmp_path: Path, seconds: float = 60.0) -> Question:
    return Question(str(tmp_path / "s.db"), tmp_path, environ={}, seconds=seconds)


def submit(tmp_path: Path, *environments: str) -> None:
    store = open_store(str(tmp_path / "s.db"))
    for name in environments:
        plan = replace(j.PLAN, environment=name, health=(Check("file", {"path": "/"}),))
        store.submit(Submission(name, "1.0", plan, bundle="sha256:gone"))
    store.close()


def test_files_that_are_not_in_the_store_keep_nothing_else_from_being_looked_at(tmp_path: Path) -> None:
    submit(tmp_path, "prod")
    facts, _ = asyncio.run(collect(question(tmp_path)))
    assert [environment.row.name for environment in facts.environments] == ["prod"]
    assert facts.store.trouble is None
    assert any("prod" in one.what and "sha256:gone" in one.why for one in facts.unchecked)


def test_what_the_stores_server_may_forget_is_found_out(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()
    store = open_store(url)
    assert [weakness.message.split()[0] for weakness in store.weaknesses()] == ["fsync"], "tests are in a hurry"
    store.close()
    facts, _ = asyncio.run(collect(Question(url, tmp_path, environ={})))
    assert [weakness.message.split()[0] for weakness in facts.store.weaknesses] == ["fsync"]


def test_of_many_environments_a_few_are_looked_at_at_a_time_and_the_urgent_ones_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"env-{number:02d}" for number in range(30)]
    submit(tmp_path, *names)
    store = open_store(str(tmp_path / "s.db"))
    for name in names[:20]:
        requests.cancel(store, f"{name}-1", by="me")
    store.close()
    at_once, most, begun = 0, 0, []

    async def looked(_self: object, environment: EnvironmentFacts, _plan: Plan) -> EnvironmentFacts:
        nonlocal at_once, most
        begun.append(environment.row.name)
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        return environment

    monkeypatch.setattr(collecting._Looking, "_looked", looked)
    facts, _ = asyncio.run(collect(question(tmp_path)))
    assert most == collecting.LOOKS_AT_ONCE
    assert begun == [*names[20:], *names[:20]]
    assert [environment.row.name for environment in facts.environments] == names


def test_where_no_time_is_left_no_look_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(tmp_path, "a", "b", "c")
    monkeypatch.setattr(collecting, "LOOKS_AT_ONCE", 1)
    monkeypatch.setattr(collecting, "SHORTEST_LOOK", 10**6)
    facts, _ = asyncio.run(collect(question(tmp_path)))
    why = {one.what: one.why for one in facts.unchecked if "hosts and checks" in one.what}
    assert why == {f"hosts and checks of {name}": "there was not enough time" for name in "abc"}
