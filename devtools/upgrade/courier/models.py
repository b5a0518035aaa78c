"""The courier's log. No I/O."""

from __future__ import annotations

from django.db import models

from devtools.upgrade.courier.events import NEW

__all__ = ["CourierEntry"]


class CourierEntry(models.Model):
    """One application of one event, in the order of `id`. No constraint: damage must be seen."""

    id = models.BigAutoField(primary_key=True)
    order_id = models.TextField()
    type = models.TextField()
    event_id = models.UUIDField()
    if NEW:
        # Nothing but a migration, to go through and back.
        place = models.TextField(db_default="")

    class Meta:
        db_table = "courier_log"

    def __str__(self) -> str:
        return f"{self.order_id}: {self.type}"
