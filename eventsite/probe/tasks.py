"""The probe's Celery task."""

from __future__ import annotations

from eventsite.probe import services
from outbox.effects import effect_task

__all__ = ["append_entries"]

append_entries = effect_task(
    name="probe.append_entries", handler="append_probe_entries", effect=services.append_entries
)
