"""Topics and lanes: names, partition counts, and where a key goes.

Order holds per (topic, key). Both counts can change only when the outbox and the topics are drained:
the checks at start compare them (guarantees.md#r2)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

__all__ = [
    "CANARY_TYPE",
    "DLQ_SUFFIX",
    "DLQ_TYPE",
    "LANES",
    "PartitionKey",
    "Topic",
    "lane_of",
    "partition_of",
]

LANES = 64
PARTITIONS = 12
DLQ_SUFFIX = ".dlq"
DLQ_TYPE = "DEAD_LETTER"  # of every message on such a topic
DLQ_RETENTION_HOURS = 30 * 24
# Of an event that goes the way of all and means nothing: each topic may have it, and it passes every handler by.
CANARY_TYPE = "CANARY"
DLQ_HEADER_BYTES = 4096

PartitionKey = tuple[str, int]  # a topic's name and the number of one of its partitions


@dataclass(frozen=True, slots=True)
class Topic:
    """One Kafka topic. `max_message_bytes` bounds key, value and headers together.

    `ordered_keys`: every writer locks a row of the key before it publishes, so that the ids of a
    key's events follow its commits (guarantees.md#r1); only such a topic may have an ordered handler.
    """

    name: str
    partitions: int = PARTITIONS
    retention_hours: int = 7 * 24
    max_message_bytes: int = 1_000_000
    ordered_keys: bool = True

    @property
    def dlq(self) -> str:
        """Name of the topic for this topic's dead letters."""
        return f"{self.name}{DLQ_SUFFIX}"

    @property
    def dlq_topic(self) -> Topic:
        """That topic: kept longer, with room for the headers that a dead letter adds."""
        return Topic(
            self.dlq,
            partitions=1,
            retention_hours=max(DLQ_RETENTION_HOURS, self.retention_hours),
            max_message_bytes=self.max_message_bytes + DLQ_HEADER_BYTES,
            ordered_keys=False,
        )


def lane_of(key: str) -> int:
    """The lane of a key: CRC-32 of its UTF-8 bytes, the same in every process and release."""
    return zlib.crc32(key.encode()) % LANES


def partition_of(lane: int, partitions: int) -> int:
    """The partition of a lane. One lane never spreads over two partitions of a topic."""
    return lane % partitions
