"""The order probe's route and queue."""

from __future__ import annotations

from devtools.probe.events import PROBE_TOPIC, SequenceDrawn
from outbox.declaration import Route, TaskQueue
from restapi.declaration import App

__all__ = ["WIRING"]

WIRING = App(
    routes=(
        Route(
            handler="append_probe_entries",
            event=(SequenceDrawn,),
            topic=PROBE_TOPIC,
            ordered=True,
            task="probe.append_entries",
            reset="devtools.probe.services.reset_entries",
        ),
    ),
    publishes=(SequenceDrawn,),
    queues=(TaskQueue("probe"),),
)
