"""What the page keeps: a row a minute of its figures, for a day."""

from __future__ import annotations

from django.db import models

__all__ = ["Minute"]


class Minute(models.Model):
    """How everything stood in one minute; `told` is a `Told` of operations/past.py."""

    at = models.DateTimeField(primary_key=True)
    told = models.JSONField()

    class Meta:
        db_table = "operations_minute"

    def __str__(self) -> str:
        return str(self.at)
