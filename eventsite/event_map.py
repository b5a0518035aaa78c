"""Who hears what: one line a subscription. The bridge, the checks and the stack all read this."""

from __future__ import annotations

from django.conf import settings

from eventsite.probe.events import PROBE_TOPIC, SequenceDrawn
from orders.events import (
    ORDER_EVENTS,
    ORDER_EVENTS_TOPIC,
    ORDERS_CREATED_TOPIC,
    STOCK_TOPIC,
    SimpleOrderCreated,
)
from outbox.conf import Route
from outbox.topics import Topic

__all__ = ["FOR_OTHERS", "ROUTES"]

ROUTES: tuple[Route, ...] = (
    Route(
        handler="record_sales",
        event=ORDER_EVENTS,
        topic=ORDER_EVENTS_TOPIC,
        task="analytics.record_sales",
        queue="analytics",
        ordered=True,
        dlq="order-events.dlq",
        reset="analytics.services.reset_sales",
    ),
    Route(
        handler="record_processed_events",
        event=(SimpleOrderCreated,),
        topic=ORDERS_CREATED_TOPIC,
        task="orders.record_processed_events",
        queue="orders",
        ordered=True,
        dlq="orders.created.dlq",
        reset="orders.services.reset_processed_events",
    ),
)

# Topics that only other programs read: their events are done when they are in Kafka.
FOR_OTHERS: tuple[Topic, ...] = (STOCK_TOPIC,)

if settings.PROBE_ENABLED:
    ROUTES += (
        Route(
            handler="append_probe_entries",
            event=(SequenceDrawn,),
            topic=PROBE_TOPIC,
            task="probe.append_entries",
            queue="probe",
            ordered=True,
            dlq="probe-events.dlq",
            reset="eventsite.probe.services.reset_entries",
        ),
    )
