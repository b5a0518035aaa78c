"""What Kafka holds of ours and the outbox does not: the database was set back to before it. Every
committed event stays in the outbox for longer than in Kafka."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from uuid import UUID

from outbox import conf
from outbox.database.ask import rows_of
from outbox.envelope import EventEnvelope, from_kafka
from outbox.kafka import admin
from outbox.kafka.log_reader import read_topic

__all__ = ["forgotten"]

AT_ONCE = 1_000


def forgotten(topic: str) -> Iterator[EventEnvelope]:
    """The events of a topic that this system published and the outbox does not hold, in the order of each
    partition. Reads the whole topic.

    Raises KafkaUnavailable, and TimeoutError when the log stops answering."""
    sources = {event.source for event in conf.published_events() if event.topic.name == topic}
    topic_id = admin.topic_ids([topic])[topic]
    ours = (
        envelope
        for message in read_topic(topic)
        if (
            envelope := from_kafka(
                topic=topic,
                topic_id=topic_id,
                partition=message.partition,
                offset=message.offset,
                key=message.key,
                value=message.value,
                headers=message.headers,
            )
        ).source
        in sources
    )
    for page in _pages(ours):
        known = _known([envelope.event_id for envelope in page])
        yield from (envelope for envelope in page if envelope.event_id not in known)


def _pages(envelopes: Iterable[EventEnvelope]) -> Iterator[Sequence[EventEnvelope]]:
    rest = iter(envelopes)
    while page := list(islice(rest, AT_ONCE)):
        yield page


def _known(ids: Sequence[UUID]) -> set[UUID]:
    return {
        row[0]
        for row in rows_of(
            "SELECT event_id FROM event_outbox WHERE event_id = ANY(%s::uuid[])", (list(ids),)
        )
    }
