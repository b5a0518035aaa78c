"""The Celery task of the handler that is added under load; its log is a table of its own."""

from __future__ import annotations

from functools import partial

from devtools.chaos.wiring import SECOND_HANDLER
from devtools.probe.events import decode_sequence_drawn
from devtools.probe.services import append_to
from outbox.handlers.task import effect_task

__all__ = ["append_entries"]

append_entries = effect_task(
    name="chaos.append_entries",
    handler=SECOND_HANDLER,
    effect=partial(append_to, "chaos_log"),
    decode=decode_sequence_drawn,
)
