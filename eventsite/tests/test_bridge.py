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

from eventsite.probe import queries as probe_queries
from eventsite.probe import services as probe_services
from eventsite.tests.pipeline import PROBE_HANDLER, settles
from outbox import broker, conf, drain, effects
from outbox.bridge import Bridge
from outbox.chunks import TaskChunk
from outbox.conf import Route
from outbox.kafka import consumer
from outbox.models import BridgePosition
from outbox.partitions import Partition
from outbox.topics import PartitionKey

pytestmark = pytest.mark.usefixtures("pipeline")


def apply_at_once(route: Route, *, chunks: Sequence[TaskChunk]) -> bool:
    """What a worker would do."""
    effects.run_chunks(handler=route.handler, chunks=chunks, effect=probe_services.append_entries)
    return True


def publish(key: str) -> None:
    probe_services.draw([key])
    while drain.drain_batch():
        pass


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
        thread.join(30)
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
        assert settles(lambda: probe_queries.verdict().applied == 1, within=45)
        yield bridge


@pytest.fixture(autouse=True)
def _without_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "send", apply_at_once)


def test_a_client_that_fetches_nothing_is_replaced() -> None:
    with watchful_bridge() as bridge:
        quiet = bridge._consumer
        quiet.pause(list(bridge._partitions))  # behind the bridge's back
        for _ in range(3):
            publish("a")
        assert settles(lambda: probe_queries.verdict().applied == 4, within=45)
        assert bridge._consumer is not quiet
    assert probe_queries.verdict().ok


def test_a_client_that_holds_nothing_is_replaced_where_nobody_else_does() -> None:
    with watchful_bridge() as bridge:
        left_out = bridge._consumer
        left_out._consumer.unsubscribe()
        assert settles(lambda: bridge._consumer is not left_out, within=45)
        publish("a")
        assert settles(lambda: probe_queries.verdict().applied == 2, within=45)
    assert probe_queries.verdict().ok


def test_nobody_is_replaced_where_others_hold_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[dict[PartitionKey, str]] = []
    marks = consumer.TopicConsumer.marks

    def looked(client: consumer.TopicConsumer, *, timeout: float) -> dict[PartitionKey, str]:
        looks.append(marks(client, timeout=timeout))
        return looks[-1]

    with impatient_bridge(60.0) as first, impatient_bridge(4.0) as second:
        clients = first._consumer, second._consumer
        assert settles(lambda: bool(first._partitions and second._partitions), within=45)
        monkeypatch.setattr(consumer.TopicConsumer, "marks", looked)
        assert settles(lambda: len(looks) == 3, within=45)
        assert (first._consumer, second._consumer) == clients
        for earlier, later in pairwise(looks):
            assert len(later) == second._route.topic.partitions
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
        bridge._partitions[key] = Partition(key=key, topic_id=uuid4(), position=0)
    before, after = bridge._left_alone(), bridge._left_alone()
    assert {number for _, number in dict(before.items() & after.items())} == left_alone
    bridge._consumer.close()


def test_a_topic_that_is_not_there_has_no_marks() -> None:
    client = consumer.TopicConsumer(
        group="nobody",
        topic="no-such-topic",
        on_assign=lambda _: {},
        on_revoke=lambda _: None,
        on_lost_offset=lambda _, __: None,
    )
    assert client.marks(timeout=30) == {}
    client.close()


def test_a_client_that_holds_only_half_is_replaced_where_nobody_holds_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a broker was killed: the coordinator knows of no other member, and gives no more."""
    with watchful_bridge() as bridge:
        halved = bridge._consumer
        receive = halved.receive

        def take_half_away(*, limit: int, timeout: float) -> list[consumer.ReceivedMessage]:
            monkeypatch.setattr(halved, "receive", receive)
            kept_from_it = list(bridge._partitions)[::2]
            bridge._on_revoke(kept_from_it)
            halved._consumer.incremental_unassign(consumer._partitions(kept_from_it))
            return []

        monkeypatch.setattr(halved, "receive", take_half_away)  # in the bridge's own thread
        assert settles(lambda: len(bridge._partitions) == 6, within=45)
        keys = [f"key-{number}" for number in range(50)]
        for key in keys:
            publish(key)
        assert settles(lambda: probe_queries.verdict().applied == 1 + len(keys), within=45)
        assert bridge._consumer is not halved
    assert probe_queries.verdict().ok


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
        monkeypatch.setattr(broker, "send", apply_and_move)
        publish("a")
        assert settles(lambda: any(p.lost for p in bridge._partitions.values()), within=45)
