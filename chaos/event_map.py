"""The event map under chaos: the real one, and the handler that is added under load."""

from __future__ import annotations

from chaos.environment import second_handler
from eventsite.event_map import ROUTES as REAL_ROUTES
from eventsite.probe.events import PROBE_TOPIC, SequenceDrawn
from outbox.conf import Route

__all__ = ["ROUTES", "SECOND_HANDLER"]

SECOND_HANDLER = "append_chaos_entries"

ROUTES: tuple[Route, ...] = REAL_ROUTES
if second_handler():
    ROUTES += (
        Route(
            handler=SECOND_HANDLER,
            event=(SequenceDrawn,),
            topic=PROBE_TOPIC,
            task="chaos.append_entries",
            queue="probe",
            ordered=True,
            dlq=PROBE_TOPIC.dlq,
            since=second_handler(),
        ),
    )
