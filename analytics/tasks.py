"""Celery tasks of the analytics app, one call each."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from analytics import services
from outbox.conf import BRIDGE
from outbox.effects import run_chunks
from outbox.inbox import TaskChunk

__all__ = ["prune_orders_per_minute", "record_sales"]


@shared_task(name="analytics.record_sales", time_limit=BRIDGE.task_time_limit)
def record_sales(*, chunks: list[TaskChunk]) -> int:
    """Apply chunks of topic order-events to the figures; returns the number of events applied."""
    return run_chunks(handler="record_sales", chunks=chunks, effect=services.record_sales)


@shared_task(name="analytics.prune_orders_per_minute")
def prune_orders_per_minute() -> int:
    """Run by beat every hour; running twice at once does no harm."""
    return services.prune_orders_per_minute(now=timezone.now())
