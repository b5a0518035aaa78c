"""A canary: an event without meaning that travels from the outbox through every handler, once a minute.

Each topic with a handler gets a canary under a key of its own. The drain sends it, each bridge of the topic
hands it to a worker in a chunk, and the worker moves the position past it in a transaction. Events that a
handler does not subscribe to always travel this way, so no effect ever sees a canary. A handler has passed
a canary when its position is past the canary's offset; no row is written for each handler.

Code that does not know the type would park each canary as a dead letter. So no canary is sent while the
heartbeat of a process says that it runs such code, or while the processes cannot be asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import redis
import structlog
from django.conf import settings
from django.db import transaction

from operations.broker import processes
from outbox import conf, metrics
from outbox.database import jobs
from outbox.database.ask import changed_by, row_of, rows_of
from outbox.envelope import rfc3339
from outbox.publish.events import publish
from outbox.topics import CANARY_TYPE, Topic

__all__ = ["ages", "measure", "send_if_due"]

EVERY_SECONDS = 55.0  # at least; beat starts the task every ten seconds
KEPT_HOURS = 1
LOOKED_AT = 10  # canaries of each topic; a handler that has passed none of them counts as that late
_PARTIES = ("bridge", "worker")
# For each handler the newest canary that its position is past; without one, the age of the oldest canary.
_AGES = """
    SELECT route.handler,
           extract(epoch FROM clock_timestamp() - coalesce(
               max(sent.at) FILTER (WHERE event."offset" < position.next_offset), min(sent.at)))::float
    FROM unnest(%s::text[], %s::text[]) AS route (handler, topic)
    JOIN LATERAL (
        SELECT at, event_id FROM operations_canary WHERE topic = route.topic ORDER BY id DESC LIMIT %s
    ) AS sent ON true
    LEFT JOIN event_outbox event ON event.event_id = sent.event_id
    LEFT JOIN bridge_position position ON position.handler = route.handler
        AND position.topic = route.topic AND position."partition" = event."partition"
    WHERE NOT EXISTS (SELECT FROM handler_control WHERE handler = route.handler AND paused)
    GROUP BY route.handler
"""
_DUE = """
    SELECT coalesce(max(at) < clock_timestamp() - make_interval(secs => %s), true)
    FROM (SELECT at FROM operations_canary ORDER BY id DESC LIMIT 1) AS newest
"""

log = structlog.get_logger("operations.canary")


@dataclass(frozen=True, slots=True)
class _Canary:
    """The canary as an `Event` of outbox/publish/events.py."""

    topic: Topic
    event_id: str
    sent_at: datetime

    source = "/ops/"
    type = CANARY_TYPE

    @property
    def key(self) -> str:
        """A new key for each canary, so that all lanes and partitions get some."""
        return f"canary-{self.event_id}"

    def to_json(self) -> str:
        return json.dumps({"eventType": CANARY_TYPE, "sentAt": rfc3339(self.sent_at)})


def send_if_due() -> int:
    """Send a canary to each topic with a handler, once a minute. Returns how many were sent, 0 while the
    setting CANARY is off. Raises DatabaseError and InterfaceError."""
    if not settings.CANARY or not _is_due():
        return 0
    with jobs.only_one("operations-canary") as mine:
        if not mine or not _is_due() or not _is_known_everywhere():
            return 0
        return _send()


def _is_due() -> bool:
    return bool(row_of(_DUE, (EVERY_SECONDS,))[0])


def _is_known_everywhere() -> bool:
    try:
        seen = [each.said for each in processes()]
    except (redis.RedisError, OSError) as error:
        log.warning("canary_without_processes", error=str(error))
        return False
    older = sorted(
        {said.name for said in seen if said.kind in _PARTIES and not said.passes_canaries}
    )
    if older:
        log.info("canary_not_sent", older=older)
    return not older


def _send() -> int:
    topics = {route.topic for route in conf.routes()}
    now = datetime.now(UTC)
    ordered = sorted(topics, key=lambda topic: topic.name)
    canaries = [_Canary(topic, str(uuid4()), now) for topic in ordered]
    with transaction.atomic():
        publish(canaries)
        changed_by(
            "INSERT INTO operations_canary (topic, event_id)"
            " SELECT * FROM unnest(%s::text[], %s::uuid[])",
            ([topic.name for topic in ordered], [canary.event_id for canary in canaries]),
        )
        changed_by(
            "DELETE FROM operations_canary WHERE at < clock_timestamp() - make_interval(hours => %s)",
            (KEPT_HOURS,),
        )
    return len(canaries)


def ages() -> Mapping[str, float]:
    """Handler -> seconds since the newest canary was sent that it has passed. For a handler that has passed
    none of the last ten, the value is the age of the oldest of them. Paused handlers are left out, and
    every handler before the first canary."""
    routes = conf.routes()
    handlers, topics = [each.handler for each in routes], [each.topic.name for each in routes]
    return dict(rows_of(_AGES, (handlers, topics, LOOKED_AT)))


def measure() -> None:
    """Set the gauge of each handler; it is 0 for a paused handler."""
    if not settings.CANARY:
        return
    found = ages()
    for route in conf.routes():
        metrics.HANDLER_CANARY.labels(route.handler).set(found.get(route.handler, 0.0))
