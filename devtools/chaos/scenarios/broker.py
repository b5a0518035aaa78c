"""What scenarios do to Kafka as any client could."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from outbox.kafka.config import client_config

__all__ = [
    "KafkaException",
    "add_partition",
    "delete_topic",
    "limit_messages",
    "produce_burst",
    "produce_raw",
    "reset_group",
]

TIMEOUT = 15.0


def _admin() -> AdminClient:
    return AdminClient(client_config("chaos"))


def delete_topic(name: str) -> None:
    """Delete it, and wait until the broker says so."""
    client = _admin()  # its answers are lost with it
    for future in client.delete_topics([name], operation_timeout=TIMEOUT).values():
        future.result(TIMEOUT)


def add_partition(topic: str) -> int:
    """Add one to those that the topic has; its number."""
    client = _admin()
    number = len(client.list_topics(topic, timeout=TIMEOUT).topics[topic].partitions)
    wanted = NewPartitions(topic, number + 1)
    for future in client.create_partitions([wanted], operation_timeout=TIMEOUT).values():
        future.result(TIMEOUT)
    return number


def limit_messages(topic: str, size: int | None) -> None:
    """Set the broker's own max.message.bytes of a topic; None: as it was made (1,000,000)."""
    entry = ConfigEntry(
        name="max.message.bytes",
        value=str(size or 1_000_000),
        incremental_operation=AlterConfigOpType.SET,
    )
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client = _admin()
    for future in client.incremental_alter_configs([resource]).values():
        future.result(TIMEOUT)


def reset_group(group: str, topic: str, partitions: int) -> None:
    """Put the group's committed offsets to the beginning; it must have no members."""
    offsets = [TopicPartition(topic, number, 0) for number in range(partitions)]
    request = ConsumerGroupTopicPartitions(group, offsets)
    client = _admin()
    for future in client.alter_consumer_group_offsets([request]).values():
        future.result(TIMEOUT)


def produce_raw(
    topic: str, partition: int, key: bytes, value: bytes, headers: Mapping[str, bytes]
) -> int:
    """Write one message past the outbox; its offset."""
    offsets: list[int] = []
    producer = Producer(client_config("chaos"))
    producer.produce(
        topic,
        partition=partition,
        key=key,
        value=value,
        headers=list(headers.items()),
        on_delivery=lambda error, message: offsets.append(-1 if error else message.offset() or 0),
    )
    producer.flush(TIMEOUT)
    return offsets[0]


def produce_burst(
    topic: str, partitions: int, keys: Sequence[bytes], value: bytes
) -> list[tuple[int, int]]:
    """Write one message a key past the outbox, without headers, the partitions in turn; where each
    stands, (partition, offset)."""
    places: list[tuple[int, int]] = []

    def note(error: KafkaError | None, message: Message) -> None:
        if error is None:
            places.append((message.partition() or 0, message.offset() or 0))

    producer = Producer(client_config("chaos"))
    for number, key in enumerate(keys):
        producer.produce(
            topic,
            partition=number % partitions,
            key=key,
            value=value,
            on_delivery=note,
        )
        producer.poll(0)
    producer.flush(TIMEOUT)
    return places
