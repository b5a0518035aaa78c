"""The courier's Celery task."""

from __future__ import annotations

import msgspec

from devtools.upgrade.courier import services
from outbox.handlers.task import effect_task

__all__ = ["follow_orders"]

follow_orders = effect_task(
    name="courier.follow_orders",
    handler="follow_orders",
    effect=services.follow_orders,
    decode=msgspec.json.decode,
)
