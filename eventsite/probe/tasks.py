"""The probe's Celery task."""

from __future__ import annotations

from celery import shared_task

from eventsite.probe import services
from outbox.conf import BRIDGE
from outbox.effects import run_chunks
from outbox.inbox import TaskChunk

__all__ = ["append_entries"]


@shared_task(name="probe.append_entries", time_limit=BRIDGE.task_time_limit)
def append_entries(*, chunks: list[TaskChunk]) -> int:
    """Apply chunks of the probe's topic; returns the number of events applied."""
    return run_chunks(handler="append_probe_entries", chunks=chunks, effect=services.append_entries)
