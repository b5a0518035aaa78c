"""What the API itself remembers: answers under their idempotency keys."""

from __future__ import annotations

from django.db import models
from django.db.models import Func

__all__ = ["IdempotencyRow"]


class IdempotencyRow(models.Model):
    """The first answer to a request with a key, written in the transaction of what it did.

    Whoever inserts or deletes a row holds the advisory lock of its key (restapi/idempotency.py).
    """

    # Hash of caller, endpoint and key: 16 bytes whatever their length, and a scope of its own.
    id = models.UUIDField(primary_key=True)
    fingerprint = models.UUIDField()  # hash of the body that was answered
    status = models.SmallIntegerField()
    body = models.BinaryField()
    created_at = models.DateTimeField(db_default=Func(function="clock_timestamp"))

    class Meta:
        db_table = "idempotency_keys"
        indexes = [
            # For the prune. A B-tree that only grows at its right end costs little. BRIN would cost
            # less, but the room of deleted rows is used again, and once new rows lie among the old
            # ones every block range begins in the past and each prune reads the whole table.
            models.Index(fields=["created_at"], name="idempotency_keys_age")
        ]
