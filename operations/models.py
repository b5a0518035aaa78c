"""The tables of the page: one row per minute with its figures, for a day, and the canaries of the last hour."""

from __future__ import annotations

from django.db import models

__all__ = ["Canary", "Minute"]


class Minute(models.Model):
    """The figures of one minute; `told` holds a `MinuteFigures` of operations/past.py."""

    at = models.DateTimeField(primary_key=True)
    told = models.JSONField()

    class Meta:
        db_table = "operations_minute"


class Canary(models.Model):
    """A canary that was sent; see operations/canary.py."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"))
    topic = models.TextField()
    event_id = models.UUIDField()

    class Meta:
        db_table = "operations_canary"
        indexes = [models.Index(fields=["topic", "id"], name="operations_canary_topic")]
