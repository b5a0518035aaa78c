"""What the page keeps: a row a minute of its figures, for a day; the canaries of the last hour."""

from __future__ import annotations

from django.db import models

__all__ = ["Canary", "Minute"]


class Minute(models.Model):
    """How everything stood in one minute; `told` is a `Told` of operations/past.py."""

    at = models.DateTimeField(primary_key=True)
    told = models.JSONField()

    class Meta:
        db_table = "operations_minute"

    def __str__(self) -> str:
        return str(self.at)


class Canary(models.Model):
    """An event that was sent to see how long it takes; see operations/canary.py."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"))
    topic = models.TextField()
    event_id = models.UUIDField()

    class Meta:
        db_table = "operations_canary"
        indexes = [models.Index(fields=["topic", "id"], name="operations_canary_topic")]

    def __str__(self) -> str:
        return f"{self.topic} {self.at}"
