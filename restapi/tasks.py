"""Celery tasks of the API, one call each."""

from __future__ import annotations

from celery import shared_task

from restapi import retention

__all__ = ["prune_idempotency_keys"]


@shared_task(name="restapi.prune_idempotency_keys", time_limit=60)
def prune_idempotency_keys() -> int:
    """Run by beat every minute; running twice at once does no harm. Returns the rows."""
    return retention.prune_idempotency_keys()
