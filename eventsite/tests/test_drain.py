"""The drain against a real Kafka that refuses a message, or has another number of partitions."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import transaction

from eventsite.probe import services as probe_services
from outbox import conf, drain, refusals
from outbox.kafka import admin, producer
from outbox.kafka.log_reader import read_topic
from outbox.models import OutboxEvent
from outbox.queries import published_ends
from outbox.services import publish
from outbox.topics import Topic

pytestmark = pytest.mark.usefixtures("pipeline", "fresh")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_backoff", refusals.Backoff())
    monkeypatch.setattr(refusals, "_refused", {})


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
def small_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic of the map whose broker takes less than the code says."""
    if settings.KAFKA_GROUP_PROTOCOL == "classic":
        pytest.skip("Tansu knows no max.message.bytes")
    small = replace(SMALL, max_message_bytes=2000)
    admin.create([small, SMALL.dlq_topic], replication_factor=1)
    routes = (*conf.routes(), replace(conf.routes()[0], handler="nobody", topic=SMALL))
    monkeypatch.setattr(conf, "routes", lambda: routes)


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
    report = drain.drain()
    assert (report.settled, report.stopped) == (302, "")
    assert pending() == ["refused", "refused"]

    write([Numbered("later", 1)])
    assert drain.drain().settled == 1
    expected = {key: [1, 2] for key in others} | {"refused": [1], "later": [1]}
    assert logged(*expected) == expected


def test_many_refused_messages_leave_room_for_the_others(small_topic: None) -> None:
    refused = [f"bad-{number}" for number in range(5)]
    write([Numbered(key, 1, padding=3000) for key in refused])
    others = [f"beside-{number}" for number in range(60)]
    write([Numbered(key, 1) for key in others])
    give_up = time.monotonic() + 40
    while set(pending()) - set(refused) and time.monotonic() < give_up:
        drain.drain()
    assert sorted(pending()) == sorted(refused)


def test_a_message_too_large_for_the_client_is_refused_too(small_topic: None) -> None:
    write([Numbered("big", 1), Numbered("beside-big", 1), Numbered("big", 2), Numbered("big", 3)])
    OutboxEvent.objects.filter(key="big", payload__contains=": 2,").update(payload="x" * 2_100_000)
    assert drain.drain().settled == 2
    assert (pending(), logged("big", "beside-big")) == (
        ["big", "big"],
        {"big": [1], "beside-big": [1]},
    )


def test_a_refused_message_goes_out_once_it_fits(small_topic: None) -> None:
    write([Numbered("k", 1, padding=3000), Numbered("k", 2)])
    assert drain.drain().settled == 0
    OutboxEvent.objects.filter(key="k", payload__contains=": 1,").update(payload='{"number": 1}')
    time.sleep(conf.DRAIN.backoff_first)
    assert drain.drain().settled == 2
    assert logged("k") == {"k": [1, 2]}


def test_another_number_of_partitions_leaves_everything_unclaimed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one_more() -> tuple[Topic, ...]:
        return tuple(Topic(topic.name, partitions=13) for topic in conf.topics())

    probe_services.draw(["k"])
    producer.discard()
    with monkeypatch.context() as changed:
        changed.setattr(drain, "topics", one_more)
        changed.setattr(drain, "claim_lanes", pytest.fail)
        assert "12 partitions, the code says 13" in drain.drain().stopped
        assert drain.drain().stopped == "backing off"
    assert pending() == ["k"]
