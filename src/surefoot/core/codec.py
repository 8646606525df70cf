# SPDX-License-Identifier: Apache-2.0
"""The JSON form of journals' events: one object, whose `type` names the event.

Guarantees: what was encoded decodes to an equal event; nothing else decodes. Journals keep this form for good, and
stores, scripts and dashboards read it.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

E = TypeVar("E", bound=msgspec.Struct)

_encoder = msgspec.json.Encoder()


class Codec(Generic[E]):
    """Encodes and decodes the events of one closed sum."""

    def __init__(self, events: Any) -> None:
        """Take the sum, a union of tagged structs."""
        self._decoder: msgspec.json.Decoder[E] = msgspec.json.Decoder(events)

    def encode(self, event: E) -> str:
        """Return the event's JSON; its `type` names it."""
        return _encoder.encode(event).decode()

    def decode(self, text: str | bytes) -> E:
        """Return the event that `encode` made. Raises `msgspec.ValidationError` on anything else."""
        return self._decoder.decode(text)

    def type_of(self, event: E) -> str:
        """Return the event's public name, such as `step_started`."""
        return str(event.__struct_config__.tag)
