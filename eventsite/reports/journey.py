"""The journey of one event: its request, committed, published, applied by each handler, with the times between,
which are the database's. A handler may be through before the drain has noted that it published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from eventsite.reports.sending import notification_of, sending
from eventsite.reports.stops import Journey, Stop, between, request_of, worker_of
from feeds import queries as feeds
from feeds.events import events_of_post
from feeds.models import FeedSlice
from orders.queries import event_ids_of
from outbox import conf, queries
from outbox.dead_letters.unknown_type import is_unknown
from outbox.declaration import Route
from outbox.inbox import positions
from outbox.inbox.positions import Position
from outbox.models import InboxReceipt, OutboxEvent

__all__ = ["Journey", "Stop", "Travels", "journey_of", "travels_of", "travels_of_post"]

_DRAIN, _SLICES = "outbox", "fanout"  # Celery queues


@dataclass(frozen=True, slots=True, kw_only=True)
class Travels:
    """What an id leads to: one event, a notification, or all events of an order or of a post. `let_go` are
    events of the order or the post that the outbox no longer holds, because they are done and past their
    retention. `slices` are pieces of the post's fan-out that are still to be done."""

    order_id: UUID | None = None
    post_id: int | None = None
    notification_id: UUID | None = None
    journeys: Sequence[Journey]
    let_go: Sequence[UUID] = field(default=())
    slices: Sequence[Stop] = field(default=())


def travels_of(wanted: UUID) -> Travels | None:
    """The journeys behind an id of an event, a notification or an order; None if nobody knows it."""
    journey = journey_of(wanted)
    notification = notification_of(wanted)
    if notification is not None:
        return Travels(notification_id=notification.id, journeys=[sending(notification, journey)])
    if journey is not None:
        return Travels(journeys=[journey])
    event_ids = event_ids_of(wanted)
    if event_ids is None:
        return None
    journeys, let_go = _journeys_of(event_ids)
    return Travels(order_id=wanted, journeys=journeys, let_go=let_go)


def travels_of_post(post_id: int) -> Travels | None:
    """The journeys of a post's events, to its slices; None if there never was such a post."""
    known = feeds.is_deleted(post_id)
    if known is None:
        return None
    created, deleted = map(UUID, events_of_post(post_id))
    journeys, let_go = _journeys_of([created, deleted] if known else [created])
    slices = [_slice(each) for each in feeds.slices_of(post_id)]
    return Travels(post_id=post_id, journeys=journeys, let_go=let_go, slices=slices)


def _journeys_of(event_ids: Sequence[UUID]) -> tuple[list[Journey], list[UUID]]:
    """The journeys of those that the outbox holds, and the others."""
    journeys = {event_id: journey_of(event_id) for event_id in event_ids}
    held = [journey for journey in journeys.values() if journey]
    return held, [event_id for event_id, journey in journeys.items() if not journey]


def _slice(piece: FeedSlice) -> Stop:
    buckets = f"buckets {piece.bucket_from} to {piece.bucket_to - 1}, about {piece.size} followers"
    tries = f", {piece.tries} tries: {piece.error}" if piece.tries else ""
    return Stop(
        name=f"slice {piece.id}, {piece.kind}",
        state=feeds.state_of_slice(piece),
        at=piece.created_at,
        detail=f"{buckets}{tries}",
        process=worker_of(_SLICES),
    )


def journey_of(event_id: UUID) -> Journey | None:
    """One event's journey, or None if the outbox does not hold it."""
    event = OutboxEvent.objects.filter(event_id=event_id).first()
    if event is None:
        return None
    receipts = list(queries.receipts_of(event_id))
    request = request_of(event.traceparent, event.correlation_id, source=event.source)
    return Journey(
        event_id=event.event_id,
        type=event.type,
        topic=event.topic,
        key=event.key,
        traceparent=event.traceparent,
        correlation_id=event.correlation_id,
        stops=[
            *([request] if request else []),
            *_behind(event, receipts),
            *_ahead(event, receipts),
        ],
    )


def _behind(event: OutboxEvent, receipts: Sequence[InboxReceipt]) -> list[Stop]:
    moments = [(each.applied_at, each.handler, each.get_outcome_display(), "") for each in receipts]
    if event.published_at is not None:
        place = f"{event.topic}, partition {event.partition}, offset {event.offset}"
        moments.append((event.published_at, "kafka", "published", place))
    stops = [Stop(name="outbox", state="committed", at=event.created_at, total_ms=0.0, step_ms=0.0)]
    queues = {route.handler: route.queue for route in conf.routes()} | {"kafka": _DRAIN}
    for at, name, state, detail in sorted(moments):
        stops.append(
            Stop(
                name=name,
                state=state,
                at=at,
                total_ms=between(event.created_at, at),
                step_ms=between(stops[-1].at or at, at),
                detail=detail,
                process=worker_of(queues.get(name, "")),
            )
        )
    return stops


def _ahead(event: OutboxEvent, receipts: Sequence[InboxReceipt]) -> list[Stop]:
    """What is still to come: Kafka, and every subscribed handler without a receipt."""
    done = {receipt.handler for receipt in receipts}
    stops = []
    if event.published_at is None:
        state = "waiting" if event.status == OutboxEvent.Status.NEW else event.get_status_display()
        detail = "not published yet"
        stops.append(Stop(name="kafka", state=state, detail=detail, process=worker_of(_DRAIN)))
    for route in conf.routes():
        if route.topic.name != event.topic or route.handler in done:
            continue
        if event.type in route.event_types:
            stops.append(_still_to_apply(route, event))
        elif is_unknown(route, event.type):
            stops.append(_of_unknown_type(route, event))
    return stops


def _still_to_apply(route: Route, event: OutboxEvent) -> Stop:
    state, detail = _before_it(route, event)
    process = worker_of(route.queue)
    return Stop(name=route.handler, state=state, detail=detail, process=process)


def _before_it(route: Route, event: OutboxEvent) -> tuple[str, str]:
    """State and detail of a handler that has not applied the event."""
    if event.partition is None or event.offset is None:
        return "waiting", "for Kafka"
    key = event.topic, event.partition
    position = positions.read_positions(route.handler, [key]).get(key)
    if position is None:
        return (
            "waiting",
            f"has no position on partition {event.partition}: run manage.py sync_routes",
        )
    if position.next_offset > event.offset:
        return "missing", f"its position is past the event, at offset {position.next_offset}"
    return "paused" if position.paused else "waiting", _distance(position, event.offset)


def _of_unknown_type(route: Route, event: OutboxEvent) -> Stop:
    """A handler waits for a process that knows the type; behind its position the event has passed."""
    stop = _still_to_apply(route, event)
    if stop.state == "missing":
        return replace(stop, state="passed by", detail="of a type that is not known any more")
    detail = f"of a type that release {conf.release()} does not know; {stop.detail}"
    return replace(stop, detail=detail)


def _distance(position: Position, offset: int) -> str:
    here = f"at offset {position.next_offset} of partition {position.partition}"
    failing = f", failing since {position.failed_at:%H:%M:%S}" if position.failed_at else ""
    attempts = f", {position.attempts} attempts" if position.attempts else ""
    return f"{here}, {offset - position.next_offset} before the event{failing}{attempts}"
