"""The running state of a bridge's partitions. Nothing is lost with it: positions say what is applied."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from outbox.envelope import ReceivedMessage
from outbox.inbox.chunk import Chunk
from outbox.inbox.positions import Position
from outbox.topics import PartitionKey

__all__ = ["Flight", "Partition", "Partitions"]


@dataclass(slots=True)
class Flight:
    """A chunk that was sent and is not yet confirmed; times are of the monotonic clock."""

    chunk: Chunk
    deadline: float
    traceparent: str  # of the span that sent it
    ask_at: float = math.inf  # when to check whether a worker has it


@dataclass(slots=True)
class Partition:
    """Running state of one assigned partition; times are of the monotonic clock."""

    key: PartitionKey
    topic_id: UUID
    position: int
    buffer: deque[ReceivedMessage] = field(default_factory=deque)
    flight: Flight | None = None
    held: Chunk | None = None  # cut and not in flight; it is sent at `retry_at`
    held_was_sent: bool = False
    sent_early: bool = False  # the chunk was sent a second time before its deadline
    failed_at: datetime | None = None
    retry_at: float = 0.0
    attempts: int = 0
    paused: bool = False
    fetching: bool = True
    lost: bool = False  # the log does not hold the next offset
    refused: bool = False  # Kafka has refused that offset since it was last asked for
    ask_again_at: float = 0.0
    buffered_bytes: int = 0
    unknown_type: str = ""  # of the first event in the buffer, which waits for code that knows it
    look_again_at: float = 0.0  # at that event
    end: int = 0  # last known end of the log; everything before it was received or is no message

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
        return not (self.buffer or self.flight or self.held)

    def may_be_cut(self, now: float) -> bool:
        free = not (self.flight or self.held or self.paused)
        return bool(self.buffer) and free and now >= self.look_again_at

    @property
    def waits_for_log(self) -> bool:
        """Whether it is idle and only needs the next message."""
        return self.is_idle and not (self.paused or self.lost) and self.fetching

    def append(self, message: ReceivedMessage) -> None:
        self.buffer.append(message)
        self.buffered_bytes += message.size

    def popleft(self) -> ReceivedMessage:
        message = self.buffer.popleft()
        self.buffered_bytes -= message.size
        return message

    def clear(self) -> None:
        """Forget the buffer and the end, because reading continues at another offset."""
        self.buffer.clear()
        self.buffered_bytes = self.end = 0
        self.unknown_type, self.look_again_at = "", 0.0


class Partitions(dict[PartitionKey, Partition]):
    """The partitions that one bridge reads."""

    def add(self, positions: Mapping[PartitionKey, Position]) -> None:
        """Begin to read these partitions, each from its position."""
        for key, position in positions.items():
            self[key] = Partition(
                key=key,
                topic_id=position.topic_id,
                position=position.next_offset,
                failed_at=position.failed_at,
                attempts=position.attempts,
                paused=position.paused,
            )

    def are_busy(self) -> bool:
        """Whether anything is in flight or waits to be sent."""
        return any(
            p.flight or ((p.held or p.buffer) and not p.paused and not p.unknown_type)
            for p in self.values()
        )
