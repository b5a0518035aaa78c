"""Events of other producers that cannot be decoded: parked together, and no reason to doubt the
handler (guarantees.md#r11 to #r13). They are dead at once: another try reads the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from uuid import UUID

from outbox.database.errors import describe
from outbox.dead_letters.letter import Place
from outbox.envelope import EventEnvelope
from outbox.inbox.chunk import Chunk
from outbox.publish.known import known_event_ids

__all__ = ["NOT_OURS", "Decode", "Sieve", "refuse_none", "waiting_behind"]

NOT_OURS = "not ours"
"""Begins the error of such a letter: `dead_letters list --error "not ours"` finds all of them."""

Decode = Callable[[str], object]
"""Reads the value of a handler's events; any exception means that the value is invalid."""


def refuse_none(payload: str) -> None:
    """The decoder of a handler that checks values only in its effect."""


class Sieve:
    """The refused events of one task. It decodes events only after an effect has failed, and each event once,
    so that nothing is decoded twice in normal operation."""

    def __init__(self, decode: Decode, unknown: Mapping[UUID, str] | None = None) -> None:
        self.refused: dict[UUID, str] = {}
        # Events of this system to park because of their type -> the error.
        self.unknown = unknown or {}
        self._decode = decode
        self._seen: set[UUID] = set()

    def look(self, chunks: Sequence[Chunk]) -> bool:
        """Whether there are more refused events now. Raises what the database raises."""
        first: dict[UUID, EventEnvelope] = {}  # of events with one id only this is ever applied
        for chunk in chunks:
            for _, event in chunk.events:
                first.setdefault(event.event_id, event)
        passed = self._seen | self.unknown.keys()
        new = (event for event_id, event in first.items() if event_id not in passed)
        failed = {event.event_id: error for event in new if (error := self._error_of(event))}
        for ours in known_event_ids(chunks[0].topic, list(failed)):  # a handler reads one topic
            del failed[ours]
        self._seen |= first.keys()
        self.refused |= failed
        return bool(failed)

    def _error_of(self, event: EventEnvelope) -> str:
        try:
            self._decode(event.payload)
        except Exception as error:  # noqa: BLE001  (a decoder does nothing but read)
            return f"{NOT_OURS}, and cannot be decoded: {describe(error)}"
        return ""


def waiting_behind(
    heads: Collection[UUID], chunks: Sequence[Chunk], events: Mapping[UUID, EventEnvelope]
) -> set[UUID]:
    """The `events` that come in these chunks after one of `heads` of the same key, with heads that come after
    another head."""
    places: set[Place] = set()
    seen: set[UUID] = set()
    behind: set[UUID] = set()
    for chunk in chunks:
        for _, event in chunk.events:
            if event.event_id in seen or event.event_id not in events:
                continue
            seen.add(event.event_id)
            place = event.topic, chunk.partition, event.key
            if place in places:
                behind.add(event.event_id)
            elif event.event_id in heads:
                places.add(place)
    return behind
