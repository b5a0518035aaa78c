"""Celery tasks of the API, one call each."""

from __future__ import annotations

from celery import shared_task

from restapi import retention, status_upkeep

__all__ = ["measure_status_logs", "prune_idempotency_keys", "prune_status_logs"]


@shared_task(name="restapi.prune_idempotency_keys", time_limit=60)
def prune_idempotency_keys() -> int:
    """Run by beat every minute; running twice at once does no harm. Returns the rows."""
    return retention.prune_idempotency_keys()


@shared_task(name="restapi.prune_status_logs", time_limit=60)
def prune_status_logs() -> int:
    """Run by beat every minute; running twice at once does no harm. Returns the rows."""
    return status_upkeep.prune_status_logs()


@shared_task(name="restapi.measure_status_logs")
def measure_status_logs() -> None:
    """Set the gauges of the status logs; run by beat every ten seconds."""
    status_upkeep.measure_status_logs()
