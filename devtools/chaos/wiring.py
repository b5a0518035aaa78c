"""The handler that chaos adds under load, if its environment asks for one."""

from __future__ import annotations

from devtools.chaos.environment import second_handler
from devtools.probe.events import PROBE_TOPIC, SequenceDrawn
from outbox.declaration import Backbone, Route

__all__ = ["SECOND_HANDLER", "WIRING"]

SECOND_HANDLER = "append_chaos_entries"

_ROUTE = Route(
    handler=SECOND_HANDLER,
    event=(SequenceDrawn,),
    topic=PROBE_TOPIC,
    ordered=True,
    task="chaos.append_entries",
    queue="probe",
    since=second_handler(),
)
WIRING = Backbone(routes=(_ROUTE,) if second_handler() else ())
