"""Events of a type that only a newer release knows, as writers publish them and workers meet them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import ClassVar

import msgspec
import pytest
from django.db.models.functions import Now

from outbox import conf
from outbox.dead_letters import due, redrive
from outbox.envelope import EventEnvelope
from outbox.models import BridgePosition, DeadLetter, OutboxEvent
from outbox.tests.letters import HANDLER, TOPIC, Applied, event
from outbox.topics import Topic

__all__ = [
    "ORDER_EVENTS_TOPIC",
    "RETURNED",
    "OrderReturned",
    "State",
    "Written",
    "letters",
    "newer_release",
    "ours",
    "position",
    "redrive_due",
    "replace_type",
    "returned",
]

State = DeadLetter.State
ORDER_EVENTS_TOPIC = conf.route_named(HANDLER).topic
RETURNED = "ORDER_RETURNED"


class OrderReturned:
    """The event class that only the newer release has."""

    topic: ClassVar[Topic] = ORDER_EVENTS_TOPIC
    type: ClassVar[str] = RETURNED


@dataclass(frozen=True)
class Written:
    """What a writer publishes."""

    type: str
    topic: Topic = ORDER_EVENTS_TOPIC
    source: str = "/tests"
    event_id: str = "0198b9a0-0000-7000-8000-000000000001"
    key: str = "k"

    def to_json(self) -> str:
        return "{}"


@contextmanager
def newer_release(*, subscribes: bool = True) -> Iterator[None]:
    """The code that knows the type; whether its handler subscribes to it or only a writer has it."""
    routes = tuple(
        replace(route, event=(*route.event, OrderReturned))
        if subscribes and route.handler == HANDLER
        else route
        for route in conf.routes()
    )
    published = (*conf.published_events(), OrderReturned)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conf, "routes", lambda: routes)
        patch.setattr(conf, "published_events", lambda: published)
        yield


def returned(payload: str, key: str = "k") -> EventEnvelope:
    return replace_type(event(payload, key), RETURNED)


def replace_type(envelope: EventEnvelope, type_: str) -> EventEnvelope:
    return msgspec.structs.replace(envelope, type=type_)


def ours(*envelopes: EventEnvelope, first: int = 10, seconds_ago: float = 0.0) -> None:
    """The outbox holds these, and has published them."""
    for number, envelope in enumerate(envelopes):
        OutboxEvent.objects.create(
            event_id=envelope.event_id,
            lane=1,
            topic=TOPIC,
            key=envelope.key,
            type=envelope.type,
            source="/orders",
            payload=envelope.payload,
            status=OutboxEvent.Status.PUBLISHED,
            partition=0,
            offset=first + number,
        )
    rows = OutboxEvent.objects.filter(event_id__in=[each.event_id for each in envelopes])
    rows.update(published_at=Now() - timedelta(seconds=seconds_ago))


def position() -> BridgePosition:
    return BridgePosition.objects.get(handler=HANDLER, partition=0)


def letters() -> list[tuple[str, int, int]]:
    rows = DeadLetter.objects.order_by("id")
    return [(row.payload, row.state, row.attempts) for row in rows]


def redrive_due(effect: Applied) -> int:
    """What beat and the handler's worker do, in one go."""
    route = conf.route_named(HANDLER)
    return redrive.run_letters(handler=HANDLER, letters=due.claim_due(route), effect=effect)
