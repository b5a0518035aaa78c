"""What somebody else does to a topic of ours: adds a partition, and writes to it."""

from __future__ import annotations

from uuid import uuid4

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]
from django.conf import settings

from devtools.probe.events import PROBE_TOPIC, SequenceDrawn
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from outbox.kafka import admin, producer

__all__ = ["ADDED", "add_partition", "delete_topic", "make_with", "write_foreign"]

ADDED = PROBE_TOPIC.partitions


def _client() -> AdminClient:
    return AdminClient({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS})


def _partitions() -> int:
    configs = admin.topic_configs([PROBE_TOPIC.name])
    return configs[PROBE_TOPIC.name].partitions if configs else 0


def add_partition() -> None:
    """One more than the event map says."""
    client = _client()
    wanted = NewPartitions(PROBE_TOPIC.name, ADDED + 1)
    for future in client.create_partitions([wanted], operation_timeout=10).values():
        future.result(PATIENCE)
    assert settles(lambda: _partitions() == ADDED + 1)


def delete_topic() -> None:
    client = _client()
    for future in client.delete_topics([PROBE_TOPIC.name], operation_timeout=10).values():
        future.result(PATIENCE)
    assert settles(lambda: _partitions() == 0)
    producer.discard()  # it knows the old one


def make_with(partitions: int) -> None:
    """As a broker does that makes topics by itself: with a number of its own."""
    client = _client()
    wanted = NewTopic(PROBE_TOPIC.name, partitions, settings.KAFKA_REPLICATION_FACTOR)
    for future in client.create_topics([wanted], operation_timeout=10).values():
        future.result(PATIENCE)
    assert settles(lambda: _partitions() == partitions)


def write_foreign(key: str, numbers: range) -> None:
    """Events of another program that our handler applies, to the added partition."""
    foreign = Producer({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS})
    for number in numbers:
        event = SequenceDrawn(event_id=str(uuid4()), key=key, seq=number)
        foreign.produce(
            PROBE_TOPIC.name,
            value=event.to_json().encode(),
            key=key.encode(),
            partition=ADDED,
            headers={"ce_id": event.event_id, "ce_type": event.type},
        )
    assert foreign.flush(10) == 0
