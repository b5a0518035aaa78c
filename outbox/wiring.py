"""The platform's own queues, and what beat starts for it."""

from __future__ import annotations

from outbox.declaration import Backbone, Every, TaskQueue
from outbox.upkeep.alarms import ALARMS

__all__ = ["WIRING"]

WIRING = Backbone(
    queues=(
        # The drain has its queue and its worker to itself: nothing may wait in front of it.
        TaskQueue("outbox", role="outbox"),
        # Upkeep works for seconds, and the drain must not wait for it; nor it for the drains, of
        # which beat puts more on their queue than a backlog lets end.
        TaskQueue("upkeep"),
    ),
    beat=(
        Every(1.0, "outbox.drain_outbox", queue="outbox"),
        Every(1.0, "outbox.redrive_letters"),
        Every(5.0, "outbox.measure_backlog"),
        Every(10.0, "outbox.measure_handlers"),
        Every(10.0, "outbox.audit"),
        Every(60.0, "outbox.purge"),
    ),
    alarms=ALARMS,
)
