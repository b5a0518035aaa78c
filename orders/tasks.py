"""Celery tasks of the orders app, one call each."""

from __future__ import annotations

from celery import shared_task

from orders import services
from outbox.conf import BRIDGE
from outbox.effects import run_chunks
from outbox.inbox import TaskChunk

__all__ = ["record_processed_events"]


@shared_task(name="orders.record_processed_events", time_limit=BRIDGE.task_time_limit)
def record_processed_events(*, chunks: list[TaskChunk]) -> int:
    """Apply chunks of topic orders.created; returns the number of events applied."""
    return run_chunks(
        handler="record_processed_events", chunks=chunks, effect=services.record_processed_events
    )
