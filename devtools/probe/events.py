"""The probe's one event."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from outbox.topics import Topic

__all__ = ["PROBE_TOPIC", "SequenceDrawn", "decode_sequence_drawn"]

PROBE_TOPIC = Topic("probe-events")


class SequenceDrawn(msgspec.Struct, frozen=True, kw_only=True):
    """A key drew its next number."""

    topic: ClassVar[Topic] = PROBE_TOPIC
    source: ClassVar[str] = "/probe"
    type: ClassVar[str] = "SEQUENCE_DRAWN"

    event_id: str
    key: str
    seq: int

    def to_json(self) -> str:
        """The message's value."""
        return msgspec.json.encode(self).decode()


_decoder = msgspec.json.Decoder(SequenceDrawn)


def decode_sequence_drawn(payload: str) -> SequenceDrawn:
    """Read a value of the probe's topic. Raises msgspec.DecodeError."""
    return _decoder.decode(payload)
