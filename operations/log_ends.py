"""What the page reads from Kafka: the first and the next offset of each partition."""

from __future__ import annotations

from collections.abc import Mapping

from outbox import conf
from outbox.kafka import admin
from outbox.kafka.admin import TopicState

__all__ = ["ask_kafka"]

ANSWERS_WITHIN = 2.0


def ask_kafka() -> Mapping[str, TopicState]:
    """The state of each topic that the drain sends to. Raises KafkaUnavailable, within two seconds if no
    broker answers."""
    admin.ping(ANSWERS_WITHIN)
    return admin.topic_states([topic.name for topic in conf.all_topics()])
