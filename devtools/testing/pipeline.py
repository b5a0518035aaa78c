"""The pipeline step by step, in this process: for tests that must decide what happens when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from uuid import UUID

import redis
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from django.conf import settings

from devtools.probe import services as probe_services
from devtools.probe.events import PROBE_TOPIC
from devtools.testing import own_servers
from devtools.testing.patience import PATIENCE
from outbox import conf
from outbox.drain.batch import drain_batch
from outbox.drain.state import DrainState
from outbox.envelope import EventEnvelope, ReceivedMessage
from outbox.handlers import task
from outbox.handlers.task import Effect
from outbox.inbox import positions
from outbox.inbox.chunk import Chunk
from outbox.kafka import admin, producer
from outbox.kafka.log_reader import read_topic
from outbox.models import BridgePosition
from outbox.queries import published_ends

__all__ = [
    "PROBE_HANDLER",
    "apply_probe_log",
    "chunks_since",
    "cut_log",
    "drain_all",
    "empty_pipeline",
    "make_anew",
    "positions_at_end",
    "settles",
]

PROBE_HANDLER = "append_probe_entries"


def drain_all() -> None:
    """Send to Kafka whatever is pending, as a drain that was just started."""
    state = DrainState()
    while drain_batch(state):
        pass


def empty_pipeline() -> None:
    """Empty Celery queues, and every handler at the end of its topics; the database is the test's."""
    with redis.Redis.from_url(settings.REDIS_URL) as broker:
        names = [queue.name for queue in settings.CELERY_TASK_QUEUES]
        broker.delete("outbox:nudge", *names)
    positions_at_end()


def positions_at_end() -> None:
    """Every handler starts behind what earlier tests have left in Kafka."""
    if settings.KAFKA_GROUP_PROTOCOL == "classic":
        _renew_tansu()
    states = admin.topic_states([topic.name for topic in conf.topics()])
    BridgePosition.objects.all().delete()
    for route in conf.routes():
        positions.create_positions(route.handler, states[route.topic.name], since="now")


def _renew_tansu() -> None:
    """A group of Tansu whose members were killed may take no new ones, and it reports ends of topics that
    are too low. A new process has no groups, and its topics are empty."""
    server = own_servers.kafka_unit()
    server.kill()
    server.start()
    server.wait_ready()
    producer.discard()  # it knows the old topics
    admin.create(conf.all_topics(), replication_factor=settings.KAFKA_REPLICATION_FACTOR)


def chunks_since(handler: str, *, size: int = 500) -> Iterator[Chunk]:
    """What a bridge would send from the positions on, in order, as chunks of `size` messages."""
    topic = conf.route_named(handler).topic.name
    topic_id = admin.topic_ids([topic])[topic]
    rows = BridgePosition.objects.filter(handler=handler).values_list("partition", "next_offset")
    logs: dict[int, list[ReceivedMessage]] = {partition: [] for partition, _ in rows}
    starts = dict(rows)
    for message in read_topic(topic, ends=published_ends(topic)):
        if message.offset >= starts[message.partition]:
            logs[message.partition].append(message)
    for partition, messages in logs.items():
        for begin in range(0, len(messages), size):
            run = messages[begin : begin + size]
            first = messages[begin - 1].offset + 1 if begin else starts[partition]
            yield Chunk(
                topic, topic_id, partition, first, run[-1].offset + 1, _events(run, topic_id)
            )


def _events(
    messages: list[ReceivedMessage], topic_id: UUID
) -> tuple[tuple[int, EventEnvelope], ...]:
    return tuple((message.offset, message.envelope(topic_id)) for message in messages)


def apply_probe_log(effect: Effect = probe_services.append_entries) -> None:
    """Apply all that the probe's topic holds, in the order of the log."""
    assert conf.route_named(PROBE_HANDLER).topic == PROBE_TOPIC
    for chunk in list(chunks_since(PROBE_HANDLER)):
        task.apply_chunks(handler=PROBE_HANDLER, chunks=[chunk], effect=effect)


def cut_log(topic: str) -> None:
    """What Kafka does when its retention has passed: all that the topic holds now is gone."""
    client = AdminClient({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS})
    ends = admin.topic_states([topic])[topic].latest
    cuts = [TopicPartition(topic, partition, end) for partition, end in ends.items()]
    for future in client.delete_records(cuts).values():
        future.result(PATIENCE)


def make_anew(topic: str) -> None:
    """Delete a topic with all that it holds, and make it again."""
    client = AdminClient({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS})
    old = admin.topic_ids([topic])[topic]
    client.delete_topics([topic], operation_timeout=10)[topic].result(PATIENCE)
    producer.discard()  # it knows the old one

    def is_new() -> bool:
        admin.create(conf.all_topics(), replication_factor=settings.KAFKA_REPLICATION_FACTOR)
        return admin.topic_ids([topic])[topic] != old

    assert settles(is_new)


def settles(condition: Callable[[], bool], *, within: float = PATIENCE) -> bool:
    """Wait until the condition holds, at most `within` seconds; whether it does. Give a bound only
    where a contract promises it, or where the condition must not come to hold."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > within:
            return False
        # Soon again while it may be a matter of milliseconds: thousands of tests ask.
        time.sleep(min(max(0.002, waited / 4), 0.05))
    return True
