"""The drain against a real Kafka that refuses a message, or has another number of partitions."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction

from devtools.probe import queries as probe_queries
from devtools.probe import services as probe_services
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import apply_probe_log, settles
from outbox import conf
from outbox.drain import run
from outbox.drain.run import Drain
from outbox.kafka import admin, producer
from outbox.kafka.log_reader import read_topic
from outbox.kafka.producer import BatchDelivery, OutgoingMessage
from outbox.lanes import claim
from outbox.models import OutboxEvent
from outbox.publish.events import publish
from outbox.queries import published_ends
from outbox.topics import LANES, Topic, lane_of

pytestmark = pytest.mark.usefixtures("pipeline")


Status = OutboxEvent.Status


def key_in(lane: int) -> str:
    """A key of this lane."""
    return next(key for number in count() if lane_of(key := f"key-{number}") == lane)


# Kafka may refuse as often as it likes; and: what it refuses is tried again at once.
PATIENT = replace(conf.DRAIN, refusals=1000)
IMPATIENT = replace(conf.DRAIN, backoff_first=0.0)
# The code believes in 1 MB, the broker takes 2 kB a request: see the fixture.
SMALL = Topic(f"small-{uuid4().hex}")


@dataclass(frozen=True)
class Numbered:
    """The next number of a key; padding does not compress."""

    key: str
    number: int
    padding: int = 0
    event_id: str = field(default_factory=lambda: str(uuid4()))

    topic: ClassVar[Topic] = SMALL
    source: ClassVar[str] = "/tests"
    type: ClassVar[str] = "NUMBERED"

    def to_json(self) -> str:
        return json.dumps({"number": self.number, "padding": secrets.token_hex(self.padding)})


@pytest.fixture
def small_topic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A topic of the map whose broker takes less than the code says."""
    if settings.KAFKA_GROUP_PROTOCOL == "classic":
        pytest.skip(
            "Apache Kafka is not here, and Tansu knows no max.message.bytes:"
            " apt-get install openjdk-17-jre-headless maven"
        )
    small = replace(SMALL, max_message_bytes=2000)
    admin.create([small, SMALL.dlq_topic], replication_factor=1)
    routes = (*conf.routes(), replace(conf.routes()[0], handler="nobody", topic=SMALL))
    published = (*conf.published_events(), Numbered)
    with monkeypatch.context() as changed:
        changed.setattr(conf, "routes", lambda: routes)
        changed.setattr(conf, "published_events", lambda: published)
        forget_topics()
        yield
    forget_topics()


def forget_topics() -> None:
    """They are put together once from the routes."""
    for remembered in (
        conf.topics,
        conf.all_topics,
        conf.partition_counts,
        conf.publishable,
    ):
        remembered.cache_clear()


def write(events: Sequence[Numbered]) -> None:
    with transaction.atomic():
        publish(events)


def pending() -> list[str]:
    rows = OutboxEvent.objects.filter(status=OutboxEvent.Status.NEW).order_by("id")
    return list(rows.values_list("key", flat=True))


def logged(*keys: str) -> dict[str, list[int]]:
    """The numbers of these keys as the log has them, repetitions dropped."""
    numbers: dict[str, list[int]] = {key: [] for key in keys}
    for message in read_topic(SMALL.name, ends=published_ends(SMALL.name)):
        seen = numbers.get((message.key or b"").decode(), [])
        number = json.loads(message.value or b"")["number"]
        if number not in seen:
            seen.append(number)
    return numbers


def test_a_refused_message_holds_its_key_and_nothing_else(small_topic: None) -> None:
    others = [f"other-{number}" for number in range(150)]
    write([Numbered("refused", 1), Numbered("refused", 2, padding=3000), Numbered("refused", 3)])
    write([Numbered(key, number) for number in (1, 2) for key in others])
    probe_services.draw(["of-another-topic"])
    drain = Drain(PATIENT)
    report = drain.run()
    assert (report.settled, report.stopped) == (302, "")
    assert pending() == ["refused", "refused"]

    write([Numbered("later", 1)])
    assert drain.run().settled == 1
    expected = {key: [1, 2] for key in others} | {"refused": [1], "later": [1]}
    assert logged(*expected) == expected


def test_many_refused_messages_leave_room_for_the_others(small_topic: None) -> None:
    refused = [f"bad-{number}" for number in range(3)]
    write([Numbered(key, 1, padding=3000) for key in refused])
    others = [f"beside-{number}" for number in range(60)]
    write([Numbered(key, 1) for key in others])
    drain, give_up = Drain(PATIENT), time.monotonic() + PATIENCE
    while set(pending()) - set(refused) and time.monotonic() < give_up:
        drain.run()
    assert sorted(pending()) == sorted(refused)


def test_a_message_too_large_for_the_client_is_refused_too(small_topic: None) -> None:
    write([Numbered("big", 1), Numbered("beside-big", 1), Numbered("big", 2), Numbered("big", 3)])
    OutboxEvent.objects.filter(key="big", payload__contains=": 2,").update(payload="x" * 2_100_000)
    assert Drain(PATIENT).run().settled == 2
    assert (pending(), logged("big", "beside-big")) == (
        ["big", "big"],
        {"big": [1], "beside-big": [1]},
    )


def test_a_refused_message_goes_out_once_it_fits(small_topic: None) -> None:
    write([Numbered("k", 1, padding=3000), Numbered("k", 2)])
    drain = Drain(PATIENT)
    assert drain.run().settled == 0
    OutboxEvent.objects.filter(key="k", payload__contains=": 1,").update(payload='{"number": 1}')
    time.sleep(conf.DRAIN.backoff_first)
    assert drain.run().settled == 2
    assert logged("k") == {"k": [1, 2]}


def test_what_stays_refused_is_dead_and_goes_out_in_order_once_it_fits(small_topic: None) -> None:
    write([Numbered("stays", 1, padding=3000), Numbered("stays", 2), Numbered("beside", 1)])
    rows = OutboxEvent.objects.filter(key="stays", topic=SMALL.name).order_by("id")
    drain = Drain(IMPATIENT)
    for _ in range(10):
        drain.run()
    assert list(rows.values_list("status", flat=True)) == [Status.DEAD, Status.HELD]
    write([Numbered("stays", 3)])
    rows.filter(status=Status.DEAD).update(payload='{"number": 1}')
    call_command("dead_letters", "replay", "--topic", SMALL.name)
    for _ in range(10):
        drain.run()
    assert pending() == []
    assert logged("stays", "beside") == {"stays": [1, 2, 3], "beside": [1]}


def test_another_number_of_partitions_leaves_everything_unclaimed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one_more() -> dict[str, int]:
        return {topic.name: 13 for topic in conf.topics()}

    probe_services.draw(["stays"])
    producer.discard()
    with monkeypatch.context() as changed:
        changed.setattr(conf, "partition_counts", one_more)
        changed.setattr(claim, "claim_lanes", pytest.fail)
        drain = Drain()
        assert "12 partitions, the code expects 13" in drain.run().stopped
        assert drain.run().stopped == "backing off"
    assert pending() == ["stays"]


@pytest.mark.parametrize(
    ("few", "lanes_asked_for"),
    [(1000, [16, LANES]), (0, [16, 16, 16, 16])],
    ids=["fewer", "not fewer"],
)
def test_a_batch_that_brought_little_is_followed_by_one_of_all_lanes(
    few: int, lanes_asked_for: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    probe_services.draw([key_in(lane) for lane in range(LANES)])
    asked: list[int] = []
    claim_lanes = claim.claim_lanes

    def noting(limit: int, **options: Any) -> list[int]:
        asked.append(limit)
        return claim_lanes(limit, **options)

    monkeypatch.setattr(claim, "claim_lanes", noting)
    drain = Drain(replace(conf.DRAIN, few=few))
    assert drain.run().settled == LANES
    assert asked[: len(lanes_asked_for)] == lanes_asked_for
    # The next run begins as this one has ended.
    asked.clear()
    probe_services.draw([key_in(lane) for lane in range(LANES)])
    assert drain.run().settled == LANES
    assert asked[0] == lanes_asked_for[-1]


def instead_of_waiting(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """What happens where a run would sleep."""
    clock = SimpleNamespace(
        monotonic=time.monotonic, time=time.time, sleep=lambda _seconds: happens()
    )
    monkeypatch.setattr(run, "time", clock)


def test_a_run_waits_for_more_only_behind_a_claim_of_all_lanes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting: list[int] = []  # at each wait

    def two_in_each_lane() -> None:
        for _ in range(2):
            probe_services.draw([key_in(lane) for lane in range(LANES)])

    def more_comes() -> None:
        waiting.append(OutboxEvent.objects.filter(status=Status.NEW).count())
        if len(waiting) < 3:
            two_in_each_lane()

    instead_of_waiting(monkeypatch, more_comes)
    two_in_each_lane()
    assert Drain().run().settled == 3 * 2 * LANES
    assert waiting == [0, 0, 0]


def test_a_run_does_not_wait_while_one_lane_has_more_than_its_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deep = key_in(0)
    for _ in range(600):
        probe_services.draw([deep])
    probe_services.draw([key_in(lane) for lane in range(1, LANES)])
    waiting: list[int] = []
    instead_of_waiting(monkeypatch, lambda: waiting.append(len(pending())))
    assert Drain().run().settled == 600 + LANES - 1
    assert not any(waiting)


class TestBehindALargeBatch:
    """A second thread claims other lanes, as another drain would."""

    POLICY = replace(conf.DRAIN, lanes_per_claim=4, batch_events=40, much=20, few=0)
    KEYS: ClassVar = [f"key-{number}" for number in range(180)]

    @pytest.fixture
    def senders(self, monkeypatch: pytest.MonkeyPatch) -> set[int]:
        """The threads that have sent; after its first batch the first waits for the second."""
        found: set[int] = set()
        both = threading.Event()
        send = producer.send

        def noting(messages: Sequence[OutgoingMessage], *, timeout: float) -> BatchDelivery:
            known = threading.get_ident() in found
            found.add(threading.get_ident())
            if len(found) == 2:
                both.set()
            if known:
                both.wait(PATIENCE)
            return send(messages, timeout=timeout)

        monkeypatch.setattr(producer, "send", noting)
        return found

    def test_both_send_and_each_key_keeps_its_order(self, senders: set[int]) -> None:
        for _ in range(4):
            probe_services.draw(self.KEYS)
        before = sessions()
        assert Drain(self.POLICY).run(seconds=30.0).settled == 720
        assert len(senders) == 2
        assert settles(lambda: sessions() <= before)
        apply_probe_log()
        verdict = probe_queries.verdict()
        assert (verdict.drawn, verdict.applied, verdict.ok) == (720, 720, True)

    def test_the_first_goes_on_if_the_second_finds_no_kafka(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, warm_up = threading.get_ident(), producer.warm_up
        others: list[int] = []

        def only_for_the_first(partitions: dict[str, int], *, timeout: float) -> None:
            if threading.get_ident() != first:
                others.append(threading.get_ident())
                raise producer.KafkaException("away")
            warm_up(partitions, timeout=timeout)

        monkeypatch.setattr(producer, "warm_up", only_for_the_first)
        for _ in range(4):
            probe_services.draw(self.KEYS)
        report = Drain(self.POLICY).run()
        assert (report.settled, report.stopped, len(others)) == (720, "", 1)

    def test_none_is_begun_behind_a_batch_that_failed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Most of a batch was acknowledged, then Kafka went away: it is left alone for a while."""
        senders = set()
        send = producer.send
        sent = iter(range(100))

        def away_at_the_third(
            messages: Sequence[OutgoingMessage], *, timeout: float
        ) -> BatchDelivery:
            senders.add(threading.get_ident())
            if next(sent) == 2:
                return BatchDelivery(size=len(messages), error="away")
            return send(messages, timeout=timeout)

        monkeypatch.setattr(producer, "send", away_at_the_third)
        for _ in range(4):
            probe_services.draw(self.KEYS)
        drain = Drain(replace(self.POLICY, part_events=10))
        report = drain.run()
        assert (report.stopped, len(senders)) == ("away", 1)
        assert report.settled >= self.POLICY.much
        assert drain.run().stopped == "backing off"


def sessions() -> int:
    """Connections to this database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0])
