"""The bridge's loop in this process, with a worker that is played by the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models import F

from devtools.probe import queries as probe_queries
from devtools.probe import services as probe_services
from devtools.probe.events import PROBE_TOPIC, decode_sequence_drawn
from devtools.testing.installed import needs_apache_kafka
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import PROBE_HANDLER, drain_all, settles
from outbox import conf
from outbox.bridge.bridge import Bridge
from outbox.bridge.partition import Partition
from outbox.declaration import Route
from outbox.envelope import ReceivedMessage
from outbox.handlers import task
from outbox.inbox.chunk import TaskChunk
from outbox.kafka import consumer, producer
from outbox.kafka.producer import OutgoingMessage
from outbox.models import BridgePosition, DeadLetter
from outbox.process import task_queue
from outbox.topics import PartitionKey

OFFSET_BEGINNING = -2  # librdkafka's

pytestmark = pytest.mark.usefixtures("pipeline")


def apply_at_once(route: Route, *, chunks: Sequence[TaskChunk]) -> bool:
    """What a worker would do."""
    task.run_chunks(
        handler=route.handler,
        chunks=chunks,
        effect=probe_services.append_entries,
        decode=decode_sequence_drawn,
    )
    return True


def publish(key: str) -> None:
    probe_services.draw([key])
    drain_all()


@contextmanager
def running(bridge: Bridge, stop: threading.Event) -> Iterator[None]:
    def run() -> None:
        try:
            bridge.run()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextmanager
def impatient_bridge(unheld_after: float) -> Iterator[Bridge]:
    stop = threading.Event()
    policy = replace(conf.BRIDGE, stall_after=1.0, unheld_after=unheld_after)
    bridge = Bridge(conf.route_named(PROBE_HANDLER), stop=stop, policy=policy)
    with running(bridge, stop):
        yield bridge


@contextmanager
def watchful_bridge() -> Iterator[Bridge]:
    with impatient_bridge(1.0) as bridge:
        publish("a")
        assert settles(lambda: probe_queries.verdict().applied == 1)
        yield bridge


@pytest.fixture(autouse=True)
def _without_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_queue, "send", apply_at_once)


def test_a_client_that_fetches_nothing_is_replaced() -> None:
    with watchful_bridge() as bridge:
        quiet = bridge.group.client
        quiet.pause(list(bridge.group.partitions))  # behind the bridge's back
        for _ in range(3):
            publish("a")
        assert settles(lambda: probe_queries.verdict().applied == 4)
        assert bridge.group.client is not quiet
    assert probe_queries.verdict().ok


def test_a_client_that_holds_nothing_is_replaced_where_nobody_else_does() -> None:
    with watchful_bridge() as bridge:
        left_out = bridge.group.client
        left_out._consumer.unsubscribe()
        assert settles(lambda: bridge.group.client is not left_out)
        publish("a")
        assert settles(lambda: probe_queries.verdict().applied == 2)
    assert probe_queries.verdict().ok


@needs_apache_kafka  # Tansu keeps no marks
def test_nobody_is_replaced_where_others_hold_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[dict[PartitionKey, str]] = []
    marks = consumer.TopicConsumer.marks

    def looked(client: consumer.TopicConsumer, *, timeout: float) -> dict[PartitionKey, str]:
        looks.append(marks(client, timeout=timeout))
        return looks[-1]

    with impatient_bridge(60.0) as first, impatient_bridge(4.0) as second:
        clients = first.group.client, second.group.client
        assert settles(lambda: bool(first.group.partitions and second.group.partitions))
        monkeypatch.setattr(consumer.TopicConsumer, "marks", looked)
        assert settles(lambda: len(looks) == 3)
        assert (first.group.client, second.group.client) == clients
        for earlier, later in pairwise(looks):
            assert len(later) == conf.route_named(PROBE_HANDLER).topic.partitions
            assert not earlier.items() & later.items()


Marks = dict[int, str]


@pytest.mark.parametrize(
    ("holds", "first", "second", "left_alone"),
    [
        ([0], {0: "a-1", 1: "b-1", 2: "b-1"}, {0: "a-2", 1: "b-2", 2: "b-1"}, {2}),
        ([0], {0: "a-1", 1: ""}, {0: "a-2", 1: ""}, {1}),  # nobody ever held it
        ([0], {0: "", 1: ""}, {0: "", 1: ""}, set()),  # a broker that keeps none
        ([0], {0: "a-1", 1: "b-1"}, {0: "a-1", 1: "b-1"}, {1}),  # ... or takes none of us any more
        ([], {0: "a-1", 1: "b-1"}, {0: "a-2", 1: "b-1"}, {1}),
        ([], {0: "", 1: ""}, {0: "", 1: ""}, {0, 1}),
    ],
)
def test_which_partitions_nobody_holds(
    monkeypatch: pytest.MonkeyPatch,
    holds: list[int],
    first: Marks,
    second: Marks,
    left_alone: set[int],
) -> None:
    route = conf.route_named(PROBE_HANDLER)
    bridge = Bridge(route, stop=threading.Event())
    said = iter([first, second])

    def marks(client: consumer.TopicConsumer, *, timeout: float) -> dict[PartitionKey, str]:
        return {(route.topic.name, number): mark for number, mark in next(said).items()}

    monkeypatch.setattr(consumer.TopicConsumer, "marks", marks)
    for number in holds:
        key = route.topic.name, number
        bridge.group.partitions[key] = Partition(key=key, topic_id=uuid4(), position=0)
    before, after = bridge.watch.left_alone(), bridge.watch.left_alone()
    assert {number for _, number in dict(before.items() & after.items())} == left_alone
    bridge.group.client.close()


def test_a_topic_that_is_not_there_has_no_marks() -> None:
    client = consumer.TopicConsumer(
        group="nobody",
        topic="no-such-topic",
        on_assign=lambda _: {},
        on_revoke=lambda _: None,
        on_lost_offset=lambda _, __: None,
        on_end=lambda _, __: None,
    )
    assert client.marks(timeout=30) == {}
    client.close()


@needs_apache_kafka  # Tansu keeps no marks
def test_a_client_that_holds_only_half_is_replaced_where_nobody_holds_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a broker was killed: the coordinator knows of no other member, and gives no more."""
    with watchful_bridge() as bridge:
        halved = bridge.group.client
        receive = halved.receive

        def take_half_away(**bounds: float) -> list[ReceivedMessage]:
            monkeypatch.setattr(halved, "receive", receive)
            kept_from_it = list(bridge.group.partitions)[::2]
            bridge.group.on_revoke(kept_from_it)
            halved._consumer.incremental_unassign(consumer._partitions(kept_from_it))
            return []

        monkeypatch.setattr(halved, "receive", take_half_away)  # in the bridge's own thread
        assert settles(lambda: len(bridge.group.partitions) == 6)
        keys = [f"key-{number}" for number in range(50)]
        for key in keys:
            publish(key)
        assert settles(lambda: probe_queries.verdict().applied == 1 + len(keys))
        assert bridge.group.client is not halved
    assert probe_queries.verdict().ok


@needs_apache_kafka  # with Tansu the second message did not come within 45 s
def test_a_position_that_is_moved_while_its_chunk_is_under_way_is_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would be read on from where the chunk ended, with the new position as its name."""

    def apply_and_move(route: Route, *, chunks: Sequence[TaskChunk]) -> bool:
        apply_at_once(route, chunks=chunks)
        positions = BridgePosition.objects.filter(handler=PROBE_HANDLER)
        positions.filter(partition=chunks[0]["partition"]).update(next_offset=F("next_offset") + 3)
        return True

    with watchful_bridge() as bridge:
        monkeypatch.setattr(task_queue, "send", apply_and_move)
        publish("a")
        assert settles(lambda: any(p.lost for p in bridge.group.partitions.values()))


def test_headers_count_in_the_size_of_a_chunk_and_long_ones_are_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Messages of another producer: nothing in them but headers of 300 kB."""
    sent: list[TaskChunk] = []

    def note(route: Route, *, chunks: Sequence[TaskChunk]) -> bool:
        sent.extend(chunks)
        return apply_at_once(route, chunks=chunks)

    monkeypatch.setattr(task_queue, "send", note)
    headers: list[tuple[str, str | bytes]] = [("correlation_id", b"c" * 300_000)]
    burst = [OutgoingMessage(PROBE_TOPIC.name, 3, b"k", b"{bad", headers)] * 10
    assert producer.send(burst, timeout=15).complete
    with impatient_bridge(30.0):
        assert settles(lambda: DeadLetter.objects.count() == 10)
    assert max(len(chunk["events"]) for chunk in sent) == 3
    assert set(DeadLetter.objects.values_list("correlation_id", flat=True)) == {""}


def test_a_client_takes_no_more_than_a_buffer_holds() -> None:
    taken: list[list[ReceivedMessage]] = []
    headers: list[tuple[str, str | bytes]] = [("x-\u00e4", b"h" * 10_000)]
    burst = [OutgoingMessage(PROBE_TOPIC.name, 3, b"k", b"v", headers)] * 1_000
    assert producer.send(burst, timeout=15).complete
    client = consumer.TopicConsumer(
        group="tests-taking",
        topic=PROBE_TOPIC.name,
        on_assign=lambda keys: dict.fromkeys(keys, OFFSET_BEGINNING),
        on_revoke=lambda _: None,
        on_end=lambda *_: None,
        on_lost_offset=lambda *_: None,
    )
    try:

        def all_came() -> bool:
            found = client.receive(limit=1_000, limit_bytes=1_000_000, timeout=0.5)
            taken.append([message for message in found if message.value == b"v"])
            return sum(map(len, taken)) >= 1_000

        assert settles(all_came)
    finally:
        client.close()
    sizes = {message.size for messages in taken for message in messages}
    assert sizes == {len(b"k" + b"v" + "x-\u00e4".encode()) + 10_000}
    assert max(map(len, taken)) <= 201  # a hundred behind the hundred that filled it
