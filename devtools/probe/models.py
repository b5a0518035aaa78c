"""Tables of the probe. No I/O."""

from __future__ import annotations

from django.db import models

__all__ = ["ProbeEntry", "ProbeSequence"]


class ProbeSequence(models.Model):
    """The last number drawn for a key; its row is locked while one is drawn."""

    key = models.TextField(primary_key=True)
    seq = models.BigIntegerField()

    class Meta:
        db_table = "probe_sequence"

    def __str__(self) -> str:
        return f"{self.key}:{self.seq}"


class ProbeEntry(models.Model):
    """One application of one event, in the order of `id`. No constraint: the checker must be able
    to see damage."""

    id = models.BigAutoField(primary_key=True)
    key = models.TextField()
    seq = models.BigIntegerField()
    event_id = models.UUIDField()
    applied_at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"))

    class Meta:
        db_table = "probe_log"
        indexes = [models.Index(fields=["key", "id"], name="probe_log_key")]

    def __str__(self) -> str:
        return f"{self.key}:{self.seq}"
