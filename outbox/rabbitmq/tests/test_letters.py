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
from devtools.testing.installed import needs_rabbitmq
from devtools.testing.relay import a_policy, relaying, settled, until, waiting_letters
from outbox.models import OperatorAction
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


def with_letters(name: str, *messages: Message) -> RelayPolicy:
    policy = a_policy(name)
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
    with pytest.raises(CommandError, match="Say which"):
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


def test_nothing_is_done_that_cannot_be_recorded() -> None:
    policy = with_letters("unrecorded", BAD["array"])
    with connection.cursor() as cursor, transaction.atomic():
        cursor.execute("ALTER TABLE operator_action RENAME TO taken_away")
        with pytest.raises(CommandError, match="nothing was done"), transaction.atomic():
            command(policy, "discard", "--all")
        cursor.execute("ALTER TABLE taken_away RENAME TO operator_action")
    assert waiting_letters(policy) == 1
