"""What Kafka says: where each topic begins and ends."""

from __future__ import annotations

from collections.abc import Mapping

from outbox import conf
from outbox.kafka import admin
from outbox.kafka.admin import TopicState

__all__ = ["ask_kafka"]

ANSWERS_WITHIN = 2.0


def ask_kafka() -> Mapping[str, TopicState]:
    """Of all topics that the drain sends to. Raises KafkaUnavailable, soon where nobody answers."""
    admin.ping(ANSWERS_WITHIN)
    return admin.topic_states([topic.name for topic in conf.all_topics()])
