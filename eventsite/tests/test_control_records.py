"""What lies in a log and is no message: markers of transactions, and messages that were aborted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from django.conf import settings
from prometheus_client import REGISTRY

from devtools.probe import queries as probe_queries
from devtools.probe.events import PROBE_TOPIC
from devtools.testing.installed import needs_apache_kafka
from devtools.testing.pipeline import PROBE_HANDLER, cut_log, settles
from eventsite.tests.test_bridge import apply_at_once, publish, running
from outbox import conf
from outbox.bridge.bridge import Bridge
from outbox.inbox import positions
from outbox.kafka import admin
from outbox.kafka.log_reader import read_topic
from outbox.models import BridgePosition
from outbox.process import task_queue
from outbox.topics import lane_of, partition_of
from outbox.upkeep import gauges

pytestmark = pytest.mark.usefixtures("pipeline")

PARTITION = partition_of(lane_of("a"), PROBE_TOPIC.partitions)
KEY = PROBE_TOPIC.name, PARTITION
STALL_AFTER = 1.0


End = Callable[..., None]


@pytest.fixture(autouse=True)
def _without_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_queue, "send", apply_at_once)


@pytest.fixture
def foreign(pipeline: None) -> Producer:
    """Another program's producer, which writes in transactions what no handler subscribes to."""
    producer = Producer(
        {"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "transactional.id": str(uuid4())}
    )
    producer.init_transactions(30)
    return producer


def begin(producer: Producer, messages: int = 1) -> None:
    producer.begin_transaction()
    for _ in range(messages):
        producer.produce(
            PROBE_TOPIC.name,
            value=b"{}",
            partition=PARTITION,
            headers=[("ce_id", str(uuid4()).encode()), ("ce_type", b"SOMETHING_ELSE")],
        )
    assert producer.flush(10) == 0


def commit(producer: Producer, messages: int = 1) -> None:
    begin(producer, messages)
    producer.commit_transaction(10)


def abort(producer: Producer, messages: int = 1) -> None:
    begin(producer, messages)
    producer.abort_transaction(10)


@contextmanager
def bridge() -> Iterator[Bridge]:
    stop = threading.Event()
    policy = replace(conf.BRIDGE, stall_after=STALL_AFTER, unheld_after=600.0)
    started = Bridge(conf.route_named(PROBE_HANDLER), stop=stop, policy=policy)
    with running(started, stop):
        assert settles(lambda: len(started._partitions) == PROBE_TOPIC.partitions)
        yield started


def log_end() -> int:
    return admin.topic_states([PROBE_TOPIC.name])[PROBE_TOPIC.name].latest[PARTITION]


def position() -> int:
    return positions.read_positions(PROBE_HANDLER, [KEY])[KEY].next_offset


def lag() -> Sequence[float | None]:
    """As the bridge shows it, and as it is measured beside."""
    [measured] = gauges.handler_lags(
        [conf.route_named(PROBE_HANDLER)], admin.topic_states([PROBE_TOPIC.name])
    )
    shown = REGISTRY.get_sample_value("bridge_lag_events", {"handler": PROBE_HANDLER})
    return shown, measured.events


@pytest.mark.parametrize("end", [commit, abort])
def test_a_marker_at_the_end_of_the_log_is_no_stall_and_no_lag(foreign: Producer, end: End) -> None:
    with bridge() as started:
        client = started.group.client
        for _ in range(2):
            end(foreign, 2)
            assert settles(lambda: position() == log_end())
            assert settles(lambda: lag() == (0, 0))
            time.sleep(3 * STALL_AFTER)
        assert started.group.client is client
        publish("a")
        assert settles(lambda: probe_queries.verdict().applied == 1)
    assert probe_queries.verdict().ok


def test_a_transaction_that_is_still_open_is_no_stall(foreign: Producer) -> None:
    with bridge() as started:
        client = started.group.client
        begin(foreign)
        publish("a")  # nobody is given what lies behind the beginning of an open transaction
        time.sleep(4 * STALL_AFTER)
        assert started.group.client is client
        foreign.commit_transaction(10)
        assert settles(lambda: probe_queries.verdict().applied == 1)
        assert settles(lambda: position() == log_end())


@needs_apache_kafka
@pytest.mark.parametrize("end", [commit, abort])
def test_a_log_that_was_cut_behind_a_marker_has_lost_nothing(foreign: Producer, end: End) -> None:
    with bridge():
        publish("a")
        end(foreign)
        assert settles(lambda: probe_queries.verdict().applied == 1)
        assert settles(lambda: position() == log_end())
    cut_log(PROBE_TOPIC.name)
    with bridge() as again:
        publish("a")
        assert settles(lambda: probe_queries.verdict().applied == 2)
        assert not any(partition.lost for partition in again._partitions.values())
    assert probe_queries.verdict().ok


def test_only_an_idle_position_is_stepped_over_and_only_from_where_it_was_seen() -> None:
    before = BridgePosition.objects.get(handler=PROBE_HANDLER, partition=PARTITION)
    at, there = before.next_offset, before.topic_id
    steps = [(KEY, there, at + 1, at + 5), (KEY, uuid4(), at, at + 5)]
    for key, topic_id, old, new in steps:
        step = positions.Step(key=key, topic_id=topic_id, old=old, new=new)
        assert positions.step_over(PROBE_HANDLER, [step]) == set()
    assert position() == at
    assert positions.step_over(PROBE_HANDLER, [positions.Step(KEY, there, at, at + 5)]) == {KEY}
    assert position() == at + 5


@needs_apache_kafka
@pytest.mark.parametrize("end", [commit, abort])
def test_a_topic_that_ends_with_a_marker_can_be_read_to_its_end(
    foreign: Producer, end: End
) -> None:
    publish("a")
    end(foreign, 3)
    found = [m for m in read_topic(PROBE_TOPIC.name, timeout=10) if m.partition == PARTITION]
    assert found[-1].offset == log_end() - 2 if end is commit else found[-1].offset < log_end() - 3
