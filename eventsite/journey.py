"""The journey of one event: committed, published, applied by each handler, with the times between.

Every time is the database's, so they can be compared. A handler may be through before the drain
has noted that it published: the stops are told in the order of their times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from orders.queries import event_ids_of
from outbox import conf, inbox, queries
from outbox.conf import Route
from outbox.inbox import Position
from outbox.models import OutboxEvent
from outbox.queries import Timeline

__all__ = ["Journey", "Stop", "Travels", "journey_of", "travels_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """One station. `at` is None for what has not happened yet; `step_ms` is the time since the
    stop before, `total_ms` since the commit."""

    name: str
    state: str
    at: datetime | None = None
    total_ms: float | None = None
    step_ms: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """One event and its stops: what has happened by time, then what is still to come."""

    event_id: UUID
    type: str
    topic: str
    key: str
    traceparent: str
    correlation_id: str
    stops: Sequence[Stop]


@dataclass(frozen=True, slots=True, kw_only=True)
class Travels:
    """What an id leads to: one event, or all events of an order. `let_go` are events of the order
    that the outbox no longer holds, because they are done and past their retention."""

    order_id: UUID | None = None
    journeys: Sequence[Journey]
    let_go: Sequence[UUID] = field(default=())


def travels_of(wanted: UUID) -> Travels | None:
    """The journeys behind an event id or an order id; None if nobody knows it."""
    journey = journey_of(wanted)
    if journey is not None:
        return Travels(journeys=[journey])
    event_ids = event_ids_of(wanted)
    if event_ids is None:
        return None
    journeys = {event_id: journey_of(event_id) for event_id in event_ids}
    return Travels(
        order_id=wanted,
        journeys=[journey for journey in journeys.values() if journey],
        let_go=[event_id for event_id, journey in journeys.items() if not journey],
    )


def journey_of(event_id: UUID) -> Journey | None:
    """One event's journey, or None if the outbox does not hold it."""
    known = queries.timeline(event_id)
    if known is None:
        return None
    event = known.event
    return Journey(
        event_id=event.event_id,
        type=event.type,
        topic=event.topic,
        key=event.key,
        traceparent=event.traceparent,
        correlation_id=event.correlation_id,
        stops=[*_behind(known), *_ahead(known)],
    )


def _behind(known: Timeline) -> list[Stop]:
    """What has happened, by time."""
    event = known.event
    moments = [(each.applied_at, each.handler, each.outcome, "") for each in known.receipts]
    if event.published_at is not None:
        place = f"{event.topic}, partition {event.partition}, offset {event.offset}"
        moments.append((event.published_at, "kafka", "published", place))
    stops = [Stop(name="outbox", state="committed", at=event.created_at, total_ms=0.0, step_ms=0.0)]
    for at, name, state, detail in sorted(moments):
        stops.append(
            Stop(
                name=name,
                state=state,
                at=at,
                total_ms=_milliseconds(event.created_at, at),
                step_ms=_milliseconds(stops[-1].at or at, at),
                detail=detail,
            )
        )
    return stops


def _milliseconds(start: datetime, end: datetime) -> float:
    return round((end - start).total_seconds() * 1000, 3)


def _ahead(known: Timeline) -> list[Stop]:
    """What is still to come: Kafka, and every subscribed handler without a receipt."""
    event = known.event
    done = {receipt.handler for receipt in known.receipts}
    stops = []
    if event.published_at is None:
        state = "waiting" if event.status == OutboxEvent.Status.NEW else event.get_status_display()
        stops.append(Stop(name="kafka", state=state, detail="not published yet"))
    for route in conf.routes():
        subscribed = route.topic.name == event.topic and event.type in route.event_types
        if subscribed and route.handler not in done:
            stops.append(_still_to_apply(route, event))
    return stops


def _still_to_apply(route: Route, event: OutboxEvent) -> Stop:
    if event.partition is None or event.offset is None:
        return Stop(name=route.handler, state="waiting", detail="for Kafka")
    key = event.topic, event.partition
    position = inbox.read_positions(route.handler, [key]).get(key)
    if position is None:
        detail = f"has no position on partition {event.partition}: run manage.py sync_routes"
        return Stop(name=route.handler, state="waiting", detail=detail)
    if position.next_offset > event.offset:
        detail = f"its position is past the event, at offset {position.next_offset}"
        return Stop(name=route.handler, state="missing", detail=detail)
    return Stop(
        name=route.handler,
        state="paused" if position.paused else "waiting",
        detail=_distance(position, event.offset),
    )


def _distance(position: Position, offset: int) -> str:
    here = f"at offset {position.next_offset} of partition {position.partition}"
    failing = f", failing since {position.failed_at:%H:%M:%S}" if position.failed_at else ""
    attempts = f", {position.attempts} attempts" if position.attempts else ""
    return f"{here}, {offset - position.next_offset} before the event{failing}{attempts}"
