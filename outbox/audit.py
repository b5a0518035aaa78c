"""When the log is gone: what was published but not applied by everyone goes out again.

Safe for order: a handler applies a partition front to back, so what it lacks of a key is always
the key's tail, and what it has is dropped by its receipts.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection, transaction

from outbox import floors, inbox
from outbox.conf import Route
from outbox.kafka.admin import TopicState
from outbox.models import OutboxLane
from outbox.topics import LANES

__all__ = ["adopt_recreated_topics"]


def adopt_recreated_topics(routes: Iterable[Route], states: dict[str, TopicState]) -> int:
    """Move the positions of topics that were made anew to their new log, and publish again what
    their handlers have no receipt for; returns the number of such events. One transaction, with
    every lane locked, so that no drain works meanwhile.
    """
    republished = 0
    with transaction.atomic():
        list(OutboxLane.objects.select_for_update().order_by("lane").values_list("lane"))
        for route in routes:
            if inbox.adopt_topic(route.handler, states[route.topic.name]):
                republished += _publish_again(route)
        if republished:
            floors.rewind(range(LANES))
    return republished


def _publish_again(route: Route) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE event_outbox
            SET status = 0, published_at = NULL, "partition" = NULL, "offset" = NULL
            WHERE topic = %s AND type = ANY(%s) AND status = 1 AND NOT EXISTS (
                SELECT FROM inbox_receipt receipt
                WHERE receipt.event_id = event_outbox.event_id AND receipt.handler = %s
            )
            """,
            (route.topic.name, sorted(route.event_types), route.handler),
        )
        return int(cursor.rowcount)
