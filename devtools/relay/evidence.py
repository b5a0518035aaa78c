"""Reads what there is: the topic, the dead letters, the queue."""

from __future__ import annotations

from collections import defaultdict

from devtools.relay.account import FoundMessages
from devtools.relay.broker import take_all
from outbox.kafka.log_reader import read_topic
from outbox.rabbitmq.letters import look
from outbox.rabbitmq.policy import RelayPolicy

__all__ = ["found", "in_kafka", "letters"]

ALL = 1_000_000


def in_kafka(topic: str) -> list[tuple[int, str, bytes]]:
    """(partition, key, value) of every message, each partition in order."""
    return [
        (message.partition, (message.key or b"").decode(), message.value or b"")
        for message in read_topic(topic)
    ]


def letters(policy: RelayPolicy) -> dict[bytes, list[str]]:
    """Body -> reasons."""
    seen: dict[bytes, list[str]] = defaultdict(list)
    for letter in look(policy).letters:
        seen[letter.body].append(letter.reason)
    return seen


def found(policy: RelayPolicy) -> FoundMessages:
    """All of it; empties the queue. No relay may run."""
    return FoundMessages(
        kafka=in_kafka(policy.topic),
        letters=letters(policy),
        queued=take_all(policy.url, policy.queue),
    )
