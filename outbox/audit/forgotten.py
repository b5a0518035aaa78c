"""What Kafka holds of ours and the outbox does not: the database was set back to before it. Every
committed event stays in the outbox for longer than in Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from outbox import conf
from outbox.database.ask import rows_of
from outbox.envelope import EventEnvelope
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
    events = (message.envelope(topic_id) for message in read_topic(topic))
    ours = (event for event in events if event.source in sources)
    while page := list(islice(ours, AT_ONCE)):
        rows = rows_of(
            "SELECT event_id FROM event_outbox WHERE event_id = ANY(%s::uuid[])",
            ([event.event_id for event in page],),
        )
        known = {event_id for (event_id,) in rows}
        yield from (event for event in page if event.event_id not in known)
