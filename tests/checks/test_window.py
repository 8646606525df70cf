# SPDX-License-Identifier: Apache-2.0
"""`window`: days and times on the clocks of a time zone, now."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from surefoot.checks.model import CheckStatus
from surefoot.checks.registry import KINDS
from tests.support.looking import look

PASS, FAIL, WARN = CheckStatus.PASS, CheckStatus.FAIL, CheckStatus.WARN
#: A Wednesday.
NOON = datetime(2026, 1, 14, 12, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, PASS),
        ({"days": ["mon", "tue", "wed"], "from": "09:00", "to": "17:00"}, PASS),
        ({"days": ["sat", "sun"]}, FAIL),
        ({"days": ["sat", "sun"], "outside": "warn"}, WARN),
        ({"from": "13:00", "to": "17:00"}, FAIL),
        ({"from": "13:00", "to": "17:00", "time_zone": "Europe/Zurich"}, PASS),
        ({"from": "22:00", "to": "12:30"}, PASS),
        ({"from": "22:00", "to": "12:00"}, FAIL),
    ],
)
async def test_time_is_within_the_window_or_not(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], status: CheckStatus
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOON)
    result = await look("window", **options)
    assert result.status is status, result.message
    if status is not PASS:
        assert result.message.startswith("it is outside of ")
        assert result.hint.startswith("it opens at 2026-01-")


@pytest.mark.parametrize(
    "options",
    [{"days": []}, {"days": ["someday"]}, {"from": "25:00"}, {"from": "09:00", "to": "09:00"}, {"time_zone": "x"}],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KINDS["window"].model_validate(options)
