# SPDX-License-Identifier: Apache-2.0
"""What is kept beside a journal: the summary, and what an end makes of the environment."""

from __future__ import annotations

import pytest

from surefoot.core import events as ev
from surefoot.core.deployment import Deployment
from surefoot.core.errors import Code, Failure
from surefoot.core.gates import Gates
from surefoot.core.status import Status
from surefoot.core.summary import EnvironmentChange, environment_after, summarise
from tests.support.journals import add, deployment

WHY, END = Failure(Code.STEP_FAILED, "it broke"), Failure(Code.UNDO_FAILED, "so did the undo")
RUNS = add(deployment(Gates()), 1.0, ev.LeaseGranted("a", 1))
BACK = add(RUNS, 2.0, ev.UndoStarted(WHY))
STRANDED = add(BACK, 3.0, ev.Finished(Status.STRANDED, END))


def resolved(version: str | None) -> Deployment:
    return add(STRANDED, 4.0, ev.ResolveRequested("ann", "fixed"), ev.Resolved(version))


def test_the_reason_is_why_it_goes_back_until_it_has_ended() -> None:
    assert [summarise(s).reason for s in (RUNS, BACK, STRANDED)] == [None, WHY, END]


def test_it_is_told_whether_somebody_has_resolved_it() -> None:
    assert not summarise(STRANDED).resolved and summarise(resolved("1.0")).resolved


@pytest.mark.parametrize(
    ("state", "change"),
    [
        (RUNS, None),
        (BACK, None),
        (add(BACK, 3.0, ev.Finished(Status.ROLLED_BACK, WHY)), None),
        (add(RUNS, 2.0, ev.Finished(Status.SUCCEEDED)), EnvironmentChange("1.0", "0.9", None)),
        (STRANDED, EnvironmentChange("0.9", "0.8", "prod-1")),
        (resolved("0.9"), EnvironmentChange("0.9", "0.8", None)),
        (resolved("1.0"), EnvironmentChange("1.0", "0.9", None)),
        (resolved(None), EnvironmentChange(None, "0.9", None)),
    ],
)
def test_what_the_environment_runs_then_and_ran_before(state: Deployment, change: EnvironmentChange | None) -> None:
    assert environment_after(state, current="0.9", previous="0.8") == change


def test_the_same_version_once_more_leaves_the_environment_as_it_was() -> None:
    succeeded = add(RUNS, 2.0, ev.Finished(Status.SUCCEEDED))
    assert environment_after(succeeded, current="1.0", previous="0.9") is None
