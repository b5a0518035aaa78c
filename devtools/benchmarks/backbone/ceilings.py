"""What the machine allows at this moment, by the barest program that does each part."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from uuid import uuid4

import psycopg
import redis
import uuid_utils
from celery import current_app
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from devtools.benchmarks.backbone.events import order_created, trace
from outbox.envelope import kafka_headers

__all__ = ["consume_rate", "empty_tasks_rate", "insert_rate", "produce_rate", "scratch_topic"]

PARTITIONS = 12
QUEUE = "analytics"


def insert_rate(database_url: str, events: int) -> float:
    """Rows a second into a bare copy of the outbox's columns, 1,000 rows a statement and COMMIT."""
    rows = [order_created(number) for number in range(1000)]
    values = [
        [event.order_id for event in rows],
        [event.to_json() for event in rows],
        ["order-events"] * 1000,
    ]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE bench_rows (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
            " event_id uuid NOT NULL UNIQUE, key text, payload text, topic text)"
        )
        try:
            begin = time.perf_counter()
            for _ in range(events // 1000):
                connection.execute(
                    "INSERT INTO bench_rows (event_id, key, payload, topic)"
                    " SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[])",
                    ([str(uuid_utils.uuid7()) for _ in rows], *values),
                )
            return events // 1000 * 1000 / (time.perf_counter() - begin)
        finally:
            connection.execute("DROP TABLE bench_rows")


@contextmanager
def scratch_topic(brokers: str) -> Iterator[str]:
    """A topic for the two bare loops."""
    admin = AdminClient({"bootstrap.servers": brokers})
    name = f"bench-{uuid4().hex[:8]}"
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result()
    try:
        yield name
    finally:
        admin.delete_topics([name])[name].result()


def produce_rate(brokers: str, topic: str, messages: int) -> float:
    """Messages a second: bare librdkafka loop, acks=all, idempotent, the same value and headers."""
    event = order_created(1)
    headers: list[tuple[str, str | bytes | None]] = [
        *kafka_headers(
            event_id=event.event_id,
            type_=event.type,
            source=event.source,
            time=event.timestamp,
            key=event.key,
            traceparent=trace(1).traceparent,
            correlation_id=trace(1).correlation_id,
        )
    ]
    value, key = event.to_json().encode(), event.key.encode()
    producer = Producer(
        {
            "bootstrap.servers": brokers,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 2,
            "compression.type": "lz4",
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": messages + 1,
        }
    )
    producer.list_topics(timeout=5)
    acknowledged = 0

    def report(error: object, message: object) -> None:
        nonlocal acknowledged
        acknowledged += error is None

    begin = time.perf_counter()
    for number in range(messages):
        producer.produce(
            topic,
            partition=number % PARTITIONS,
            key=key,
            value=value,
            headers=headers,
            on_delivery=report,
        )
        if number % 1000 == 0:
            producer.poll(0)
    producer.flush(60)
    assert acknowledged == messages
    return messages / (time.perf_counter() - begin)


def consume_rate(brokers: str, topic: str, messages: int) -> float:
    """Messages a second: bare consume loop that touches value and headers of each."""
    config = {"bootstrap.servers": brokers, "group.id": f"bench-{uuid4()}"}
    consumer = Consumer(config | {"enable.auto.commit": False, "auto.offset.reset": "earliest"})
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        seen, begin = 0, 0.0
        while seen < messages:
            found = consumer.consume(1000, 5.0)
            if not found:
                raise TimeoutError(f"{messages - seen} messages did not come back")
            begin = begin or time.perf_counter()
            for message in found:
                message.value()
                message.headers()
            seen += len(found)
        return messages / (time.perf_counter() - begin)
    finally:
        consumer.close()


def empty_tasks_rate(redis_url: str, tasks: int) -> float:
    """Tasks a second that a running worker with two processes takes off its queue and does.

    The task is the handler's own with no chunks: all of Celery's work and none of ours.
    """
    with redis.Redis.from_url(redis_url) as broker:
        for _ in range(tasks):
            current_app.send_task("analytics.record_sales", kwargs={"chunks": []}, queue=QUEUE)
        waiting, begin = cast(int, broker.llen(QUEUE)), time.perf_counter()
        while broker.llen(QUEUE):
            time.sleep(0.01)
        return waiting / (time.perf_counter() - begin)
