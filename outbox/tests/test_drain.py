"""The drain against a Kafka that is made up: what is settled, what waits, and when it stops."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar
from uuid import uuid4

import pytest
from django.apps import apps
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models.signals import post_migrate

from outbox import conf
from outbox.conf import DrainPolicy
from outbox.drain import settle
from outbox.drain.batch import drain_batch
from outbox.drain.run import Drain
from outbox.drain.state import DrainState
from outbox.kafka import producer
from outbox.kafka.producer import BatchDelivery, OutgoingMessage
from outbox.lanes import claim
from outbox.lanes.floors import Floors
from outbox.lanes.pending import pending_events
from outbox.models import OutboxEvent, OutboxLane
from outbox.publish.events import UnknownTopic, publish
from outbox.tests.backbone_rows import ORDER_EVENTS
from outbox.topics import LANES, Topic, lane_of

pytestmark = pytest.mark.django_db

TOPIC = ORDER_EVENTS


@dataclass(frozen=True)
class Noted:
    """An event of the map's first topic."""

    key: str
    text: str = "fine"
    event_id: str = field(default_factory=lambda: str(uuid4()))

    topic: ClassVar[Topic] = TOPIC
    source: ClassVar[str] = "/tests"
    type: ClassVar[str] = "ORDER_CREATED"

    def to_json(self) -> str:
        return json.dumps(self.text)


class Elsewhere(Noted):
    """An event that no route names."""

    topic: ClassVar[Topic] = Topic("elsewhere")


class Kafka:
    """Takes every message but those that say "bad", which it refuses together with their request."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.requests: list[int] = []
        self.away = False
        self.names_refused = True

    def warm_up(self, partitions: dict[str, int], *, timeout: float) -> None:
        if self.away:
            raise producer.KafkaException("away")

    def send(self, messages: Sequence[OutgoingMessage], *, timeout: float) -> BatchDelivery:
        self.requests.append(len(messages))
        delivery = BatchDelivery(size=len(messages))
        if self.away:
            delivery.error = "away"
            return delivery
        bad = {message.partition for message in messages if b"bad" in message.value}
        for index, message in enumerate(messages):
            if message.partition not in bad:
                delivery.acknowledged[index] = len(self.log)
                self.log.append((message.key.decode(), message.value.decode()))
            elif self.names_refused:
                delivery.refused[index] = "too large"
        delivery.fatal = bool(bad)
        delivery.error = "too large" if bad else ""
        return delivery


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    made_up = Kafka()
    monkeypatch.setattr(producer, "send", made_up.send)
    monkeypatch.setattr(producer, "warm_up", made_up.warm_up)
    return made_up


def write(*events: Noted) -> None:
    with transaction.atomic():
        publish(events)


def write_for_no_route(*events: Noted) -> None:
    """Rows of an event map that has lost a line since."""
    write(*events)
    ids = [event.event_id for event in events]
    OutboxEvent.objects.filter(event_id__in=ids).update(topic="elsewhere")


def pending_texts(key: str) -> list[str]:
    rows = OutboxEvent.objects.filter(key=key, status=OutboxEvent.Status.NEW).order_by("id")
    return [json.loads(payload) for payload in rows.values_list("payload", flat=True)]


def pending_keys() -> set[str]:
    return set(OutboxEvent.objects.filter(status=0).values_list("key", flat=True))


def keys_of_lane(lane: int, count: int) -> list[str]:
    names = (f"key-{number}" for number in range(100_000))
    return list(islice((name for name in names if lane_of(name) == lane), count))


class TestTheAcknowledgedPrefix:
    def settled(self, keys: str, acknowledged: Iterable[int]) -> list[int]:
        write(*[Noted(key) for key in keys])
        lanes = sorted({lane_of(key) for key in keys})
        pending = pending_events(lanes, limit=1000, floors=Floors())
        delivery = BatchDelivery(size=len(keys), acknowledged=dict.fromkeys(acknowledged, 0))
        return list(settle.acknowledged_prefix(pending, delivery))

    def test_is_everything_if_all_was_acknowledged(self) -> None:
        assert self.settled("aabb", range(4)) == [0, 1, 2, 3]

    def test_ends_at_the_first_gap_of_each_key(self) -> None:
        # a: yes no yes   b: yes yes   c: no yes
        assert self.settled("abcabca", [0, 1, 4, 5, 6]) == [0, 1, 4]

    def test_is_empty_if_nothing_was(self) -> None:
        assert self.settled("ab", []) == []


class TestARefusedMessage:
    @pytest.mark.parametrize("named", [True, False])
    def test_holds_its_key_and_nothing_else(self, kafka: Kafka, named: bool) -> None:
        kafka.names_refused = named
        others = [f"other-{number}" for number in range(100)]
        write(Noted("k", "before"), Noted("k", "bad"), Noted("k", "after"))
        write(*[Noted(key, text) for text in ("1", "2") for key in others])
        report = Drain().run()
        assert (report.settled, report.stopped) == (201, "")
        assert pending_texts("k") == ["bad", "after"]
        assert pending_keys() == {"k"}
        assert [text for key, text in kafka.log if key == "other-7"] == ['"1"', '"2"']

    def test_does_not_back_the_others_off(self, kafka: Kafka) -> None:
        write(Noted("k", "bad"))
        drain = Drain()
        drain.run()
        write(Noted("another"))
        assert drain.run().settled == 1

    def test_is_not_tried_again_at_once(self, kafka: Kafka) -> None:
        write(Noted("k", "bad"))
        drain = Drain()
        drain.run()
        tried = len(kafka.requests)
        drain.run()
        assert len(kafka.requests) == tried <= 3

    def test_goes_out_in_order_once_kafka_takes_it(self, kafka: Kafka) -> None:
        write(Noted("k", "bad"), Noted("k", "after"))
        drain = Drain()
        drain.run()
        OutboxEvent.objects.filter(payload='"bad"').update(payload='"good"')
        time.sleep(conf.DRAIN.backoff_first)
        assert drain.run().settled == 2
        assert kafka.log == [("k", '"good"'), ("k", '"after"')]

    def test_behind_which_its_lane_is_full_leaves_room_for_the_lane(self, kafka: Kafka) -> None:
        refused, other = keys_of_lane(5, 2)
        write(Noted(refused, "bad"), *[Noted(refused) for _ in range(30)])
        write(Noted(other))
        Drain(DrainPolicy(batch_events=8)).run()
        assert (len(pending_texts(refused)), pending_texts(other)) == (31, [])

    def test_in_more_lanes_than_a_claim_holds_starves_no_other(self, kafka: Kafka) -> None:
        refused = [keys_of_lane(lane, 1)[0] for lane in range(20)]
        write(*[Noted(key, "bad") for key in refused])
        others = [keys_of_lane(lane, 1)[0] for lane in range(20, LANES)]
        write(*[Noted(key) for key in others])
        began = time.monotonic()
        assert Drain().run().settled == len(others)
        assert pending_keys() == set(refused)
        assert time.monotonic() - began < 4


class TestALargeBatch:
    """Goes out part by part, each being settled while the next is on its way."""

    SMALL = DrainPolicy(part_events=4)

    def test_is_settled_whole_in_order(self, kafka: Kafka) -> None:
        write(*[Noted("k", str(number)) for number in range(9)])
        report = Drain(self.SMALL).run()
        assert (report.settled, report.stopped, kafka.requests) == (9, "", [5, 4])
        assert kafka.log == [("k", f'"{number}"') for number in range(9)]
        offsets = OutboxEvent.objects.order_by("id").values_list("offset", flat=True)
        assert list(offsets) == list(range(9))
        assert pending_keys() == set()

    def test_whose_first_part_is_refused_somewhere_goes_on_in_the_next(self, kafka: Kafka) -> None:
        write(Noted("a"), Noted("a", "bad"), Noted("a", "after"), Noted("b"), Noted("c"))
        report = Drain(self.SMALL).run()
        assert report.settled == 3
        assert pending_texts("a") == ["bad", "after"]
        assert pending_keys() == {"a"}

    def test_whose_first_part_was_not_acknowledged_ends_there(self, kafka: Kafka) -> None:
        write(*[Noted("k", str(number)) for number in range(8)])
        drain = Drain(self.SMALL)
        drain.state.connected = kafka.away = True
        assert drain.run().stopped == "away"
        assert kafka.requests == [4]

    def test_that_postgresql_will_not_settle_stays_pending(
        self, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(*[Noted("k", str(number)) for number in range(8)])
        broken = settle._SETTLE.replace("SET status = 1", "SET lane = NULL")
        with monkeypatch.context() as changed:
            changed.setattr(settle, "_SETTLE", broken)
            with pytest.raises(IntegrityError):
                drain_batch(DrainState(), self.SMALL)
        assert pending_keys() == {"k"}
        assert Drain(self.SMALL).run().settled == 8
        assert [key for key, _ in kafka.log] == ["k"] * 16


def test_a_batch_of_one_part_is_settled_without_a_thread(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "ThreadPoolExecutor", pytest.fail)
    write(*[Noted("k", str(number)) for number in range(9)])
    assert Drain().run().settled == 9
    assert pending_keys() == set()


class TestKafkaAway:
    def test_before_the_claim_leaves_everything_and_backs_off(self, kafka: Kafka) -> None:
        kafka.away = True
        write(Noted("k"))
        drain = Drain()
        assert drain.run().stopped == "away"
        assert (drain.run().stopped, kafka.requests) == ("backing off", [])
        assert pending_texts("k") == ["fine"]

    def test_during_the_batch_leaves_everything_and_backs_off(self, kafka: Kafka) -> None:
        drain = Drain()
        drain.run()
        kafka.away = True
        write(Noted("k"), Noted("k"))
        assert drain.run().stopped == "away"
        assert drain.run().stopped == "backing off"
        assert (len(pending_texts("k")), kafka.requests) == (2, [2])

    def test_is_remembered_by_the_drain_that_met_it_and_by_no_other(self, kafka: Kafka) -> None:
        one, other = Drain(), Drain()
        kafka.away = True
        write(Noted("k"))
        assert one.run().stopped == "away"
        kafka.away = False
        assert (one.run().stopped, other.run().settled) == ("backing off", 1)

    def test_for_real(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(settings, "KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
        producer.discard()
        write(Noted("k"))
        drain = Drain(DrainPolicy(connect_timeout=0.3))
        assert drain.run().stopped
        assert drain.run().stopped == "backing off"
        assert pending_texts("k") == ["fine"]
        assert producer._own.producer is None


class TestATopicWithoutRoute:
    def test_is_refused_by_publish(self) -> None:
        with pytest.raises(UnknownTopic, match="elsewhere"):
            write(Noted("k"), Elsewhere("k"))
        assert not OutboxEvent.objects.exists()

    def test_waits_and_holds_nobody_up(self, kafka: Kafka) -> None:
        same_lane = keys_of_lane(5, 2)
        write_for_no_route(*[Noted(same_lane[0]) for _ in range(20)])
        write(Noted(same_lane[1]), Noted("another"))
        report = Drain(DrainPolicy(batch_events=8)).run()
        assert (report.settled, report.stopped) == (2, "")
        assert pending_keys() == {same_lane[0]}

    def test_is_told(self, kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
        logged: list[tuple[str, int]] = []
        monkeypatch.setattr(
            "outbox.drain.report.log.error",
            lambda _, **fields: logged.append((fields["topic"], fields["events"])),
        )
        write_for_no_route(Noted("k"), Noted("l"))
        drain = Drain()
        drain.run()
        drain.policy = DrainPolicy(floor_interval=0.0)
        for _ in range(3):  # the floors rise to the first of them, not past it
            drain.run()
        assert logged == [("elsewhere", 2)] * 4

    def test_alone_in_its_lanes_is_not_claimed(self) -> None:
        write_for_no_route(Noted("k"))
        assert claim.claim_lanes(16, floors=Floors()) == []


class TestTheNumberOfLanes:
    @pytest.mark.parametrize("change", ["one fewer", "one more"])
    def test_that_differs_is_refused(self, kafka: Kafka, change: str) -> None:
        if change == "one more":
            OutboxLane.objects.create(lane=LANES)
        else:
            OutboxLane.objects.get(lane=LANES - 1).delete()
        write(Noted("k"))
        drain = Drain()
        assert "outbox_lane holds" in drain.run().stopped
        assert (drain.run().stopped, kafka.requests) == ("backing off", [])

    def migrated(self) -> int:
        config = apps.get_app_config("outbox")
        post_migrate.send(sender=config, app_config=config, using=connection.alias)
        return OutboxLane.objects.count()

    def test_is_never_raised_by_a_migration(self) -> None:
        OutboxLane.objects.get(lane=LANES - 1).delete()
        assert self.migrated() == LANES - 1

    def test_is_filled_into_an_empty_table(self) -> None:
        OutboxLane.objects.all().delete()
        assert self.migrated() == LANES
