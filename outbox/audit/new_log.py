"""Recovers from a lost log: moves positions to the new log, and publishes the events again that a handler
lacks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from uuid import UUID

from django.db import transaction

from outbox import conf
from outbox.database.ask import changed_by
from outbox.declaration import Route
from outbox.inbox import positions
from outbox.kafka.admin import TopicState
from outbox.lanes import floors
from outbox.lanes.lock import lock_all_lanes
from outbox.models import InboxReceipt
from outbox.topics import LANES

__all__ = ["adopt_recreated_topics"]


def adopt_recreated_topics(
    routes: Sequence[Route],
    read_states: Callable[[], Mapping[str, TopicState]],
    read_ids: Callable[[str], Collection[UUID]],
) -> int:
    """Move the positions of recreated topics to the end of their new logs, and publish the events again for
    which a handler has no receipt. Returns the number of these events.

    One transaction, with every lane locked before `read_states` and `read_ids` (of the events that
    a topic holds) ask Kafka, so that no drain works meanwhile.

    Safe for order: what a handler lacks of a key is always the key's tail, and all of that goes out
    again in its order, behind the positions. Messages of others that the new log held before are
    skipped: nothing can publish them again."""
    with transaction.atomic():
        lock_all_lanes()
        states = read_states()
        recreated = _recreated(routes, states)
        # All of them before the first row loses its offset, which alone says that it lies before.
        held = {topic: read_ids(topic) for topic in {route.topic.name for route in recreated}}
        for route in recreated:
            _discard_before_start(route, held[route.topic.name])
        republished = 0
        for route in recreated:
            positions.adopt_topic(route.handler, states[route.topic.name])
            republished += _publish_again(route)
        if republished:
            floors.rewind(range(LANES))
    return republished


def _recreated(routes: Sequence[Route], states: Mapping[str, TopicState]) -> list[Route]:
    """All routes of the topics of which some handler knows an older log: one that began in the new
    log has positions before events that are about to be published again, too."""
    topics = {
        route.topic.name
        for route in routes
        if positions.topic_ids_of(route.handler, route.topic.name)
        - {states[route.topic.name].topic_id}
    }
    return [route for route in routes if route.topic.name in topics]


def _publish_again(route: Route) -> int:
    return changed_by(
        """
        UPDATE event_outbox
        SET status = 0, published_at = NULL, "partition" = NULL, "offset" = NULL
        WHERE topic = %s AND type <> ALL(%s) AND status = 1 AND NOT EXISTS (
            SELECT FROM inbox_receipt receipt
            WHERE receipt.event_id = event_outbox.event_id AND receipt.handler = %s
        )
        """,
        (route.topic.name, sorted(conf.passing_types(route)), route.handler),
    )


def _discard_before_start(route: Route, in_new_log: Collection[UUID]) -> None:
    """A receipt for what was in the old log before the handler began: its offset, which alone says
    so, means nothing in the new one. The same for what passed by while a process knew its type, which
    this one does not. Offsets of what is in the new one by now say nothing either."""
    changed_by(
        """
        INSERT INTO inbox_receipt (event_id, handler, outcome)
        SELECT event.event_id, position.handler, %s
        FROM bridge_position position
        JOIN event_outbox event
          ON event.topic = position.topic AND event."partition" = position."partition"
         AND event.status = 1
        WHERE position.handler = %s AND position.topic = %s
          AND event.type <> ALL(%s)
          AND (position.start_offset > 0 AND event."offset" < position.start_offset
               OR event.type <> ALL(%s) AND event."offset" < position.next_offset)
          AND NOT EXISTS (
              SELECT FROM unnest(%s::uuid[]) AS held (event_id)
              WHERE held.event_id = event.event_id)
        ORDER BY event.event_id
        ON CONFLICT (event_id, handler) DO NOTHING
        """,
        (
            InboxReceipt.Outcome.DISCARDED,
            route.handler,
            route.topic.name,
            sorted(conf.passing_types(route)),
            sorted(conf.known_types(route.topic.name)),
            list(in_new_log),
        ),
    )
