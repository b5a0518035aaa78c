"""The Celery task of the handler that is added under load; its log is a table of its own."""

from __future__ import annotations

from functools import partial

from chaos.event_map import SECOND_HANDLER
from eventsite.probe.services import append_to
from outbox.effects import effect_task

__all__ = ["append_entries"]

append_entries = effect_task(
    name="chaos.append_entries",
    handler=SECOND_HANDLER,
    effect=partial(append_to, "chaos_log"),
)
