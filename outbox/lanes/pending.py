"""Reads the pending events of claimed lanes, in order."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction

from outbox import conf
from outbox.database.ask import rows_of
from outbox.database.planner import plan_by_index
from outbox.envelope import EventEnvelope, TraceContext, kafka_headers, rfc3339_of
from outbox.kafka.producer import OutgoingMessage
from outbox.lanes.floors import FLOOR_OF_LANE, Floors
from outbox.topics import partition_of

__all__ = [
    "PENDING",
    "PendingEvent",
    "pending_events",
    "pending_parameters",
    "topics_without_route",
]


class PendingEvent(NamedTuple):
    """One claimed row of the outbox, as `pending_events` reads it: a plain tuple, because
    there are tens of thousands a second.

    event_id, time  as the message's headers have them
    headers         what the row adds to them, JSON, or None
    committed       when the row was written, seconds since 1970
    beside_letters  its lane has a message that was refused
    """

    id: int
    lane: int
    event_id: str
    type: str
    topic: str
    key: str
    source: str
    time: str
    payload: str
    traceparent: str
    correlation_id: str
    headers: str | None
    committed: float
    beside_letters: bool

    @property
    def partition(self) -> int:
        return partition_of(self.lane, conf.partition_counts()[self.topic])

    @property
    def place(self) -> tuple[str, str]:
        """(topic, key)."""
        return self.topic, self.key

    @property
    def envelope(self) -> EventEnvelope:
        """The event alone, for the few that are refused."""
        return EventEnvelope(
            event_id=UUID(self.event_id),
            type=self.type,
            topic=self.topic,
            key=self.key,
            source=self.source,
            time=self.time,
            payload=self.payload,
            trace=TraceContext(self.traceparent, self.correlation_id),
            headers=tuple(json.loads(self.headers).items()) if self.headers else (),
        )

    def message(self) -> OutgoingMessage:
        headers = kafka_headers(
            event_id=self.event_id,
            type_=self.type,
            source=self.source,
            time=self.time,
            key=self.key,
            traceparent=self.traceparent,
            correlation_id=self.correlation_id,
        )
        if self.headers:
            # As bytes: the client cuts a text at its first NUL.
            headers += [(name, value.encode()) for name, value in json.loads(self.headers).items()]
        key, value = self.key.encode(), self.payload.encode()
        return OutgoingMessage(self.topic, self.partition, key, value, headers)


_UNKNOWN_LOOKED_AT = 32  # pending rows of each lane

# The pending events of a lane, as part of a query that has its row of outbox_lane.
# outbox/lanes/floors.py explains the floor. Keys that Kafka has just refused and topics outside
# the event map are left out.
PENDING = f"""
    status = 0 AND event_outbox.id >= {FLOOR_OF_LANE} AND topic = ANY(%s)
    AND (topic, key) NOT IN (SELECT * FROM unnest(%s::text[], %s::text[]))
"""


def pending_parameters(floors: Floors, left_out: Collection[tuple[str, str]]) -> list[Any]:
    """Of PENDING; `left_out`: (topic, key) of keys that Kafka has just refused."""
    return [
        *floors.parameters(),
        list(conf.partition_counts()),
        [topic for topic, _ in left_out],
        [key for _, key in left_out],
    ]


def pending_events(
    lanes: Sequence[int],
    *,
    limit: int,
    floors: Floors,
    left_out: Collection[tuple[str, str]] = (),
) -> list[PendingEvent]:
    """The next events of the claimed lanes in order of id, at most about `limit`.

    A statement of its own, after the lock: its snapshot sees everything that the lane's previous
    holder committed. Read by status, never by "id greater than": ids are drawn before commit.
    """
    rows = rows_of(
        f"""
        SELECT event.id, event.lane, event.event_id::text, event.type, event.topic, event.key,
               event.source, {rfc3339_of("event.created_at")}, event.payload, event.traceparent,
               event.correlation_id, event.headers,
               extract(epoch FROM event.created_at)::float8, event.letters_open
        FROM outbox_lane
        CROSS JOIN LATERAL (
            SELECT event_outbox.*, letters_open FROM event_outbox
            WHERE event_outbox.lane = outbox_lane.lane AND {PENDING}
            ORDER BY id LIMIT %s
        ) AS event
        WHERE outbox_lane.lane = ANY(%s)
        ORDER BY event.id
        """,
        (*pending_parameters(floors, left_out), limit // len(lanes) + 1, list(lanes)),
    )
    return list(map(PendingEvent._make, rows))


def topics_without_route(floors: Floors) -> list[tuple[str, int, int]]:
    """(topic, events, the first one's id) of what waits for a route; looks at a bounded number of
    pending rows of each lane."""
    with transaction.atomic():
        plan_by_index()
        return rows_of(
            f"""
            SELECT topic, count(*), min(id)
            FROM outbox_lane
            CROSS JOIN LATERAL (
                SELECT topic, id FROM event_outbox
                WHERE event_outbox.lane = outbox_lane.lane AND status = 0
                  AND event_outbox.id >= {FLOOR_OF_LANE}
                ORDER BY id LIMIT %s
            ) AS event
            WHERE topic <> ALL(%s) GROUP BY topic
            """,
            (*floors.parameters(), _UNKNOWN_LOOKED_AT, list(conf.partition_counts())),
        )
