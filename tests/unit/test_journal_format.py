# SPDX-License-Identifier: Apache-2.0
"""Journals are kept for good: what was written once is read, and is written the same way again.

`journal_format.jsonl` holds a line for each type of event, as it stands in journals that are kept. New types add lines;
no line is ever changed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from surefoot.core import environment  # noqa: E402
from surefoot.core import events as ev  # noqa: E402
from tests.support.events import DEEDS, SAMPLES  # noqa: E402

WRITTEN = {json.loads(line)["type"]: line for line in (Path(__file__).parent / "journal_format.jsonl").open()}
EVENTS = [(ev, event) for event in SAMPLES.values()] + [(environment, deed) for deed in DEEDS]


def holds(now: Any, then: Any) -> bool:
    """Whether all that was there is there with the same names and values; objects may have gained fields."""
    if isinstance(now, dict) and isinstance(then, dict):
        return all(name in now and holds(now[name], value) for name, value in then.items())
    if isinstance(now, list) and isinstance(then, list):
        return len(now) == len(then) and all(map(holds, now, then))
    return type(now) is type(then) and bool(now == then)


@pytest.mark.parametrize(("journal", "event"), EVENTS, ids=lambda value: getattr(type(value), "__name__", ""))
def test_an_event_is_read_and_written_as_it_always_was(journal: Any, event: Any) -> None:
    line = WRITTEN[journal.type_of(event)]
    assert journal.decode(line) == event
    assert holds(json.loads(journal.encode(event)), json.loads(line))
    assert json.loads(journal.encode(event))["type"] == journal.type_of(event)


def test_every_type_of_event_is_held_to_its_form() -> None:
    types = {journal.type_of(event) for journal, event in EVENTS}
    assert types == set(WRITTEN)
    assert len(types) == len(get_args(ev.Event)) + len(get_args(environment.Deed))


@pytest.mark.parametrize("decode", [ev.decode, environment.decode], ids=["deployment", "environment"])
@pytest.mark.parametrize("text", ["", "{}", '{"type":"invented"}', '{"type":"frozen","by":1,"reason":""}', "[]"])
def test_nothing_else_is_read(decode: Callable[[str], object], text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(text)
