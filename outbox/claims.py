"""What may go out now, and who holds it: lanes are claimed, their pending events read in order.

Two claims never hold rows of the same lane (rule R3). A claim lasts as long as its transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection, transaction
from django.db.models.expressions import RawSQL

from outbox import conf
from outbox.conf import DrainPolicy
from outbox.envelope import rfc3339_of
from outbox.floors import FLOOR_OF_LANE, Floors
from outbox.models import OutboxLane
from outbox.planner import plan_without
from outbox.refusals import PendingEvent, keys_left_out
from outbox.topics import LANES

__all__ = [
    "LaneMismatch",
    "claim_lanes",
    "compare_lanes",
    "pending_events",
    "plan_by_index",
    "refresh_floors",
    "topics_without_route",
]

_floors = Floors()
_UNKNOWN_LOOKED_AT = 32  # pending rows of each lane


class LaneMismatch(RuntimeError):
    """The table outbox_lane and LANES in the code differ, and order per key depends on the number.

    Go back to the number of the table; or drain the outbox, stop every writer and drain, change
    LANES, empty the table and run `manage.py migrate`, which fills it.
    """


def compare_lanes() -> None:
    """Raises LaneMismatch. Read at each connect: rows of a lane that is missing would wait for ever."""
    found = set(OutboxLane.objects.values_list("lane", flat=True))
    if found != set(range(LANES)):
        raise LaneMismatch(
            f"outbox_lane holds {len(found)} lanes, the code says {LANES}. "
            + (LaneMismatch.__doc__ or "")
        )


def refresh_floors(policy: DrainPolicy) -> None:
    """Look again where each lane's pending rows begin, if it is time to."""
    _floors.refresh(policy)


def plan_by_index() -> None:
    """Have this transaction's statements walk along indexes.

    All that a drain reads and writes is found by a key, in the order of an index. Left to itself
    the planner sorts whole lanes for a batch, and reads the whole table to settle one: the work of
    a batch then grows with the backlog.
    """
    plan_without("bitmapscan", "seqscan", "hashjoin", "mergejoin")


def claim_lanes(limit: int) -> list[int]:
    """Lock up to `limit` lanes that have pending events, the longest waiting first.

    Lanes that another drain holds are skipped. The lock lasts until the transaction ends. A lane
    with nothing but refused keys or unknown topics is not claimed: it would take another's place.
    Nor is a paused one; PostgreSQL asks again once it has the lock.
    """
    first_pending = RawSQL(  # noqa: S611  (no text of anybody else)
        f"""(SELECT id FROM event_outbox WHERE event_outbox.lane = outbox_lane.lane AND {_PENDING}
             ORDER BY id LIMIT 1)""",
        _pending_parameters(),
    )
    lanes = (
        OutboxLane.objects.select_for_update(skip_locked=True, of=("self",))
        .annotate(first_pending=first_pending)
        .filter(first_pending__isnull=False, paused=False)
        .order_by("first_pending")
    )
    return list(lanes.values_list("lane", flat=True)[:limit])


# What of a lane may go out now, for a query that has its row of outbox_lane at hand: see
# outbox/floors.py for the floor. Left out: keys that Kafka has just refused, topics not in the map.
_PENDING = f"""
    status = 0 AND event_outbox.id >= {FLOOR_OF_LANE} AND topic = ANY(%s)
    AND (topic, key) NOT IN (SELECT * FROM unnest(%s::text[], %s::text[]))
"""


def _pending_parameters() -> list[Any]:
    left_out = keys_left_out()
    return [
        *_floors.parameters(),
        list(conf.partition_counts()),
        [topic for topic, _ in left_out],
        [key for _, key in left_out],
    ]


def pending_events(lanes: Sequence[int], *, limit: int) -> list[PendingEvent]:
    """The next events of the claimed lanes in order of id, at most about `limit`.

    A statement of its own, after the lock: its snapshot sees everything that the lane's previous
    holder committed. Read by status, never by "id greater than": ids are drawn before commit.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT event.id, event.lane, event.event_id::text, event.type, event.topic, event.key,
                   event.source, {rfc3339_of("event.created_at")}, event.payload, event.traceparent,
                   event.correlation_id, event.headers,
                   extract(epoch FROM event.created_at)::float8, event.letters_open
            FROM outbox_lane
            CROSS JOIN LATERAL (
                SELECT event_outbox.*, letters_open FROM event_outbox
                WHERE event_outbox.lane = outbox_lane.lane AND {_PENDING}
                ORDER BY id LIMIT %s
            ) AS event
            WHERE outbox_lane.lane = ANY(%s)
            ORDER BY event.id
            """,
            (*_pending_parameters(), limit // len(lanes) + 1, list(lanes)),
        )
        return list(map(PendingEvent._make, cursor.fetchall()))


def topics_without_route() -> list[tuple[str, int, int]]:
    """(topic, events, the first one's id) of what waits for a route; looks at a bounded number of
    pending rows of each lane."""
    with transaction.atomic(), connection.cursor() as cursor:
        plan_by_index()
        cursor.execute(
            f"""
            SELECT topic, count(*), min(id)
            FROM outbox_lane
            CROSS JOIN LATERAL (
                SELECT topic, id FROM event_outbox
                WHERE event_outbox.lane = outbox_lane.lane AND status = 0
                  AND event_outbox.id >= {FLOOR_OF_LANE}
                ORDER BY id LIMIT %s
            ) AS event
            WHERE topic <> ALL(%s) GROUP BY topic
            """,
            (*_floors.parameters(), _UNKNOWN_LOOKED_AT, list(conf.partition_counts())),
        )
        rows: list[tuple[str, int, int]] = cursor.fetchall()
    return rows
