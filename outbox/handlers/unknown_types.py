"""Events of a chunk whose type this worker's release does not know (guarantees.md#r8 and #r12). To run
the effect would fail, or write a receipt and do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import structlog

from outbox import conf, metrics
from outbox.dead_letters import unknown_type
from outbox.declaration import Route
from outbox.inbox.chunk import Chunk

__all__ = ["sort_out"]

log = structlog.get_logger("outbox.effects")


def sort_out(route: Route, chunks: Sequence[Chunk]) -> tuple[list[Chunk], dict[UUID, str]]:
    """The chunks without events that this handler skips, each cut before an event that must wait; and the
    events to park, with the errors of their letters.

    Events that are cut off are not applied, so the bridge sends them again. Raises what the database raises.
    """
    found: list[Chunk] = []
    parks: dict[UUID, str] = {}
    for chunk in chunks:
        run = unknown_type.sort_out(route, chunk.events)
        parks.update(run.parks)
        if run.waits is None:
            found.append(replace(chunk, events=tuple(run.events)))
            continue
        offset, event = run.waits
        metrics.CHUNKS_REFUSED.labels(route.handler, "unknown type").inc()
        log.error(
            "unknown_type_waits",
            handler=route.handler,
            type=event.type,
            release=conf.release(),
            topic=chunk.topic,
            partition=chunk.partition,
            offset=offset,
        )
        if offset > chunk.first_offset:
            found.append(replace(chunk, next_offset=offset, events=tuple(run.events)))
    return found, parks
