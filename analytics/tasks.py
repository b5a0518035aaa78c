"""Celery tasks of the analytics app, one call each."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from analytics import services
from orders.events import decode_order_event
from outbox.handlers.task import effect_task

__all__ = ["fold_additions", "prune_orders_per_minute", "record_sales"]


record_sales = effect_task(
    name="analytics.record_sales",
    handler="record_sales",
    effect=services.record_sales,
    decode=decode_order_event,
)


@shared_task(name="analytics.prune_orders_per_minute")
def prune_orders_per_minute() -> int:
    """Run by beat every hour; running twice at once does no harm."""
    return services.prune_orders_per_minute(now=timezone.now())


@shared_task(name="analytics.fold_additions")
def fold_additions() -> int:
    """Run by beat every few seconds; of two at once one does nothing."""
    return services.fold_additions()
