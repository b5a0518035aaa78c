"""Celery tasks of the orders app, one call each."""

from __future__ import annotations

from orders import services
from orders.events import decode_simple_order_created
from outbox.handlers.task import effect_task

__all__ = ["record_processed_events"]

record_processed_events = effect_task(
    name="orders.record_processed_events",
    handler="record_processed_events",
    effect=services.record_processed_events,
    decode=decode_simple_order_created,
)
