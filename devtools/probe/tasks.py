"""The probe's Celery task."""

from __future__ import annotations

from devtools.probe import services
from devtools.probe.events import decode_sequence_drawn
from outbox.handlers.task import effect_task

__all__ = ["append_entries"]

append_entries = effect_task(
    name="probe.append_entries",
    handler="append_probe_entries",
    effect=services.append_entries,
    decode=decode_sequence_drawn,
)
