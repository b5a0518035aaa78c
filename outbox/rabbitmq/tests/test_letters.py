"""`manage.py rabbitmq_dead_letters`, on letters that a relay has written."""

from __future__ import annotations

import getpass
import io
import json
from typing import Any

import pika
import pytest
import redis
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import override_settings

from devtools.relay import broker
from devtools.relay.messages import BAD, Message, numbered
from devtools.testing.installed import needs_rabbitmq, on_the_stand_in
from devtools.testing.relay import a_policy, relaying, settled, until, waiting_letters
from outbox.models import OperatorAction
from outbox.rabbitmq.letters import (
    EVERY,
    Bound,
    LettersUnavailable,
    RelayLetter,
    look,
    resolve,
)
from outbox.rabbitmq.message import DELIVERY_COUNT
from outbox.rabbitmq.policy import RelayPolicy

pytestmark = [needs_rabbitmq, pytest.mark.django_db]

HEADERS = {"kept": "yes", "x-delivery-count": 9, "CC": ["elsewhere"], "CCY": "EUR", "time": 5}


def command(policy: RelayPolicy, *arguments: str) -> list[str]:
    fields: dict[str, Any] = {
        "url": policy.url,
        "queue": policy.queue,
        "topic": policy.topic,
        "dedupe_url": policy.dedupe_url,
    }
    out = io.StringIO()
    with override_settings(RELAY=fields):
        call_command("rabbitmq_dead_letters", *arguments, stdout=out)
    return out.getvalue().splitlines()


def with_letters(
    name: str, *messages: Message, queue_arguments: dict[str, Any] | None = None
) -> RelayPolicy:
    policy = a_policy(name)
    if queue_arguments:
        broker.declare(policy.url, policy.dead_letter_queue, queue_arguments)
    broker.publish(policy.url, policy.queue, messages)
    with relaying(policy) as relay:
        settled(policy, relay)
        until(lambda: waiting_letters(policy) == len(messages), "they are dead letters")
    return policy


def kept() -> list[tuple[str, str, str, str, int, str]]:
    """What the log of operators has, all of it over."""
    rows = OperatorAction.objects.order_by("id")
    assert all(row.ended_at for row in rows)
    return [(row.by, row.what, row.subject, row.why, row.done, row.outcome) for row in rows]


def test_listed_inspected_and_discarded() -> None:
    large = Message(b'{"event_id": "large-1", "payload": "%b"}' % (b"l" * 1_100_000))
    policy = with_letters("letters", BAD["no-json"], large, BAD["invalid-utf-8"])
    lines = command(policy, "list")
    assert sorted(line.split("  ")[1:3] for line in lines) == [
        ["too_large", "large-1"],
        ["unreadable", "-"],
        ["unreadable", "-"],
    ]
    [large_one] = [line for line in lines if "too_large" in line]
    [inspected] = map(json.loads, command(policy, "inspect", "--event-id", "large-1"))
    assert inspected["body"] == large.body.decode()
    assert inspected["routing_key"] == policy.queue
    assert "too large" in inspected["reason"]
    [bytes_] = map(json.loads, command(policy, "inspect", "--reason", "UTF-8"))
    assert bytes_["body_base64"]
    assert command(policy, "list", "--limit", "1") == lines[:1], "they keep their place"
    with pytest.raises(CommandError, match="Give ids"):
        command(policy, "discard")
    assert (
        command(policy, "discard", "--kind", "too_large", "--dry-run")[-1]
        == "Would discard 1 letters."
    )
    assert command(policy, "discard", large_one.split()[0])[-1] == "1 discarded."
    assert command(policy, "list") == [line for line in lines if line != large_one]
    theirs = ("--all", "--by", "ann", "--note", "garbage")
    assert command(policy, "discard", *theirs)[-1] == "2 discarded."
    relay = "dead letters of the relay"
    assert kept() == [
        (getpass.getuser(), "discard", f"{relay}: {large_one.split()[0]}", "", 1, ""),
        ("ann", "discard", relay, "garbage", 2, ""),
    ]
    assert command(policy, "list") == []


def test_replayed() -> None:
    """With its own headers and without ours, which would have it refused again, or copied."""
    message = Message(
        b'{"event_id": "mended-1", "payload": "%b"}' % (b"m" * 1_100_000), headers=HEADERS
    )
    policy = with_letters("replayed", message, BAD["array"])
    with redis.Redis.from_url(policy.dedupe_url) as server:
        assert server.get("event:mended-1") is None, "its claim would keep the replay out"
    assert command(policy, "replay", "--event-id", "mended-1")[-1] == "1 replayed."
    with broker.channel(policy.url) as channel:
        _, properties, body = channel.basic_get(policy.queue)
        assert body == message.body
        assert pika.BasicProperties().decode(properties.raw).headers.keys() == {
            "kept",
            "CCY",
            "time",
        }
        channel.basic_ack(1)
    # What RabbitMQ has taken is out of the dead letters.
    assert [line.split("  ")[2] for line in command(policy, "list")] == ["-"]


def test_a_replay_of_what_was_published_under_another_payload_comes_back() -> None:
    first, other = numbered("again", 1), Message(b'{"event_id": "again-1", "payload": 2}')
    policy = a_policy("comes-back")
    with relaying(policy) as relay:
        broker.publish(policy.url, policy.queue, [first, other])
        settled(policy, relay)
        until(lambda: waiting_letters(policy) == 1, "a dead letter")
        assert command(policy, "replay")[-1] == "1 replayed."
        settled(policy, relay)
        until(lambda: waiting_letters(policy) == 1, "a dead letter again")


def test_without_a_queue_and_without_a_broker() -> None:
    policy = a_policy("no-letters")
    assert command(policy, "list") == []
    with pytest.raises(CommandError, match="does not exist"):
        command(policy, "replay", "--kind", "refused")
    [(*_, subject, _, done, outcome)] = kept()
    assert (subject, done) == ("dead letters of the relay: kind refused", 0)
    assert "does not exist" in outcome
    nowhere = RelayPolicy(url="amqp://guest:guest@127.0.0.1:1/?socket_timeout=1")
    with pytest.raises(CommandError, match="does not answer"):
        command(nowhere, "list")


# The default of RabbitMQ 4. RabbitMQ 3 has no limit unless the queue names one.
DROPS_AFTER_20 = {"x-queue-type": "quorum", "x-delivery-limit": 20}
needs_quorum = pytest.mark.skipif(on_the_stand_in, reason="the stand-in has no quorum queues")


def contents(letters: list[RelayLetter]) -> list[tuple[bytes, bytes]]:
    """Bodies and properties; the count of deliveries is the queue's own."""
    return [
        (each.body, each.properties.without_headers(DELIVERY_COUNT).raw)
        for each in sorted(letters, key=lambda letter: letter.id)
    ]


def all_back(policy: RelayPolicy, count: int) -> None:
    """What a look had in hand is in the queue again."""
    until(
        lambda: broker.depth(policy.url, policy.dead_letter_queue) == count,
        "every letter is there",
    )


def with_worn_letters(name: str) -> tuple[RelayPolicy, list[RelayLetter]]:
    """Three letters in a quorum queue that drops what it has delivered 21 times."""
    odd = Message(b"no JSON", headers={"kept": "yes", "many": 2**40, "time": 5})
    policy = with_letters(
        name, BAD["array"], odd, BAD["id-missing"], queue_arguments=DROPS_AFTER_20
    )
    all_back(policy, 3)
    return policy, look(policy, EVERY).letters


@needs_quorum
def test_looking_loses_no_letter_of_a_quorum_queue() -> None:
    policy, before = with_worn_letters("looked-at")
    for _ in range(24):
        all_back(policy, 3)
        found = look(policy, EVERY)
        assert (found.waiting, found.whole) == (3, True)
        assert [each.id for each in found.letters] == [each.id for each in before], "the order"
        assert contents(found.letters) == contents(before)


@needs_quorum
def test_a_look_that_stops_early_loses_none_either() -> None:
    """The queue has those in front that were there before, so two of them take turns."""
    policy, before = with_worn_letters("looked-at-in-part")
    for _ in range(16):
        all_back(policy, 3)
        assert len(look(policy, limit=1).letters) == 1
        all_back(policy, 3)
        assert len(look(policy, Bound(letters=2)).letters) == 2
    all_back(policy, 3)
    assert contents(look(policy, EVERY).letters) == contents(before)


@needs_quorum
def test_resolving_some_does_not_wear_out_the_others() -> None:
    """Neither those that are passed by, nor those that the relay's queue does not take."""
    policy, before = with_worn_letters("passed-by")
    broker.delete(policy.url, policy.queue)
    for _ in range(12):
        all_back(policy, 3)
        assert not list(resolve(policy, lambda _: False, limit=10, replay=False))
        all_back(policy, 3)
        with pytest.raises(LettersUnavailable, match="did not take"):
            list(resolve(policy, lambda letter: b"no JSON" in letter.body, limit=1, replay=True))
    all_back(policy, 3)
    assert contents(look(policy, EVERY).letters) == contents(before)


def test_the_count_of_the_queue_before_is_not_taken_for_looks() -> None:
    """Or the letter would go behind the others."""
    counted = Message(b"no JSON", headers={"kept": "yes", DELIVERY_COUNT: 9})
    policy = with_letters("counted-before", counted, BAD["array"])
    for _ in range(3):
        [first] = look(policy, limit=1).letters
        assert first.body == counted.body
    assert first.properties.text("kept") == "yes"


def test_nothing_is_done_that_cannot_be_recorded() -> None:
    policy = with_letters("unrecorded", BAD["array"])
    with connection.cursor() as cursor, transaction.atomic():
        cursor.execute("ALTER TABLE operator_action RENAME TO taken_away")
        with pytest.raises(CommandError, match="Nothing was done"), transaction.atomic():
            command(policy, "discard", "--all")
        cursor.execute("ALTER TABLE taken_away RENAME TO operator_action")
    assert waiting_letters(policy) == 1
