"""What a bridge remembers of the partitions it is assigned: nothing that matters when it is lost."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from outbox.inbox.chunk import Chunk
from outbox.inbox.positions import Position
from outbox.kafka.consumer import ReceivedMessage
from outbox.topics import PartitionKey

__all__ = ["Flight", "Partition", "Partitions"]


@dataclass(slots=True)
class Flight:
    """A chunk that was sent and is not yet confirmed; times are of the monotonic clock."""

    chunk: Chunk
    deadline: float
    traceparent: str  # of the step that sent it
    ask_at: float = math.inf  # whether anybody has it


@dataclass(slots=True)
class Partition:
    """Running state of one assigned partition; times are of the monotonic clock."""

    key: PartitionKey
    topic_id: UUID
    position: int
    buffer: deque[ReceivedMessage] = field(default_factory=deque)
    flight: Flight | None = None
    held: Chunk | None = None  # cut, but not on its way: to be sent when `retry_at` comes
    held_was_sent: bool = False
    sent_early: bool = False  # what is at hand has been sent again before its deadline
    failed_at: datetime | None = None
    retry_at: float = 0.0
    attempts: int = 0
    paused: bool = False
    fetching: bool = True
    lost: bool = False  # the log does not hold what is to be read next
    refused: bool = False  # ... and has said so since it was last asked
    ask_again_at: float = 0.0
    buffered_bytes: int = 0
    unknown_type: str = ""  # of the first event in the buffer, which waits for who knows it
    look_again_at: float = 0.0  # at that event
    end: int = 0  # of the log, as last met: what lies before it was received or is no message

    @property
    def read_next(self) -> int:
        """The first offset at which a message may lie that has not been received."""
        return max(self._received, self.end)

    @property
    def _received(self) -> int:
        if self.buffer:
            return self.buffer[-1].offset + 1
        if self.flight:
            return self.flight.chunk.next_offset
        return self.held.next_offset if self.held else self.position

    @property
    def is_idle(self) -> bool:
        """Nothing of it is at hand or under way."""
        return not (self.buffer or self.flight or self.held)

    def may_be_cut(self, now: float) -> bool:
        """Whether the next chunk may be taken off the buffer."""
        free = not (self.flight or self.held or self.paused)
        return bool(self.buffer) and free and now >= self.look_again_at

    @property
    def waits_for_log(self) -> bool:
        """It is idle, and all it needs is the next message."""
        return self.is_idle and not (self.paused or self.lost) and self.fetching

    def append(self, message: ReceivedMessage) -> None:
        """Put a message at the end of the buffer."""
        self.buffer.append(message)
        self.buffered_bytes += message.size

    def popleft(self) -> ReceivedMessage:
        """Take the first message off the buffer."""
        message = self.buffer.popleft()
        self.buffered_bytes -= message.size
        return message

    def clear(self) -> None:
        """Forget what is buffered, and the end: it is read from another offset on."""
        self.buffer.clear()
        self.buffered_bytes = self.end = 0
        self.unknown_type, self.look_again_at = "", 0.0


class Partitions(dict[PartitionKey, Partition]):
    """The partitions that one bridge reads."""

    def add(self, positions: Mapping[PartitionKey, Position]) -> None:
        """Read these from now on, each from its position."""
        for key, position in positions.items():
            self[key] = Partition(
                key=key,
                topic_id=position.topic_id,
                position=position.next_offset,
                failed_at=position.failed_at,
                attempts=position.attempts,
                paused=position.paused,
            )

    def in_flight(self) -> list[Partition]:
        """Those with a chunk that was sent and is not yet confirmed."""
        return [partition for partition in self.values() if partition.flight]

    def are_busy(self) -> bool:
        """Whether anything is in flight or waits to be sent."""
        return any(
            p.flight or ((p.held or p.buffer) and not p.paused and not p.unknown_type)
            for p in self.values()
        )
