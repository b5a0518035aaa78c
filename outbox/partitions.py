"""What a bridge remembers of the partitions it is assigned: nothing that matters when it is lost."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from outbox.chunks import Chunk
from outbox.kafka.consumer import ReceivedMessage
from outbox.topics import PartitionKey

__all__ = ["Flight", "Partition"]


@dataclass(slots=True)
class Flight:
    """A chunk that was sent and is not yet confirmed."""

    chunk: Chunk
    deadline: float


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
    failed_at: datetime | None = None
    retry_at: float = 0.0
    attempts: int = 0
    paused: bool = False
    fetching: bool = True
    lost: bool = False  # the log does not hold what is to be read next
    refused: bool = False  # ... and has said so since it was last asked
    ask_again_at: float = 0.0
    buffered_bytes: int = 0

    @property
    def read_next(self) -> int:
        """The first offset that has not been received."""
        if self.buffer:
            return self.buffer[-1].offset + 1
        if self.flight:
            return self.flight.chunk.next_offset
        return self.held.next_offset if self.held else self.position

    @property
    def waits_for_log(self) -> bool:
        """Nothing of it is at hand or under way: all it needs is the next message."""
        busy = self.buffer or self.flight or self.held
        return not (busy or self.paused or self.lost) and self.fetching

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
        """Forget what is buffered."""
        self.buffer.clear()
        self.buffered_bytes = 0
