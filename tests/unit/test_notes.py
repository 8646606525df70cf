# SPDX-License-Identifier: Apache-2.0
"""What a line of an agent's log has of an entry of the journal."""

from __future__ import annotations

from typing import Any

import pytest

from surefoot.core import events as ev
from surefoot.core.errors import Code, Failure
from surefoot.core.notes import Level, note_of
from surefoot.core.plan import Direction
from surefoot.core.status import Status

BROKEN = Failure(Code.STEP_FAILED, "broken", host="web-01")
NOWHERE = Failure(Code.STEP_FAILED, "broken")
STEP: dict[str, Any] = {"step": "activate", "direction": Direction.UNDO, "attempt": 2}


@pytest.mark.parametrize(
    ("event", "level", "fields"),
    [
        (ev.StepStarted(**STEP), Level.INFO, STEP | {"direction": "undo"}),
        (
            ev.StepFailed(**STEP, failure=BROKEN),
            Level.WARNING,
            STEP | {"direction": "undo", "code": "SF-STEP-FAILED", "host": "web-01"},
        ),
        (ev.FenceFailed(NOWHERE), Level.WARNING, {"code": "SF-STEP-FAILED"}),
        (ev.Finished(Status.STRANDED, NOWHERE), Level.CRITICAL, {"status": "stranded", "code": "SF-STEP-FAILED"}),
        (ev.HandedOver("it is told to stop"), Level.INFO, {}),
    ],
)
def test_a_note_has_what_programs_look_for(event: ev.Event, level: Level, fields: dict[str, Any]) -> None:
    note = note_of("prod-1", ev.Entry(7, 1000.0, event, agent="one", token=3))
    assert (note.level, note.fields, note.type) == (level, fields, ev.type_of(event))
    assert (note.deployment, note.seq, note.token) == ("prod-1", 7, 3)
    assert all(type(value) in (str, int) for value in note.fields.values())
