"""Comparing every committed event with every receipt, a page at a time: the events that a
handler is not done with (docs/applying.md#audit-repair-replay).

An event is missing when the handler's position is past it without a receipt, or when the log no longer
holds it. All others, those of unknown types too, are under way: that is an age and not a fault."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from outbox import conf
from outbox.conf import DRAIN_HANDLER
from outbox.database.ask import rows_of
from outbox.declaration import Route
from outbox.kafka.admin import TopicState
from outbox.models import InboxReceipt, OutboxEvent

__all__ = [
    "MISSING",
    "NEXT_ROWS",
    "OPEN_ROWS",
    "PAGE",
    "AuditPage",
    "AuditTally",
    "Finding",
    "MissingReason",
    "add_up",
    "pages",
    "read_page",
]

PAGE = 5000
# Between reading the clock here and in PostgreSQL; so long after its publication a row is not
# compared with the end of a log.
CLOCK_SECONDS = 5.0


class MissingReason(StrEnum):
    """Why a handler is not done with an event, in words for the operator."""

    PASSED = "passed without a receipt"
    GONE = "gone from the log before it was applied"
    OTHER_LOG = "lost with a topic that was recreated"
    UNSENT = "not yet in Kafka"
    HELD = "held behind a message that Kafka refuses"
    REFUSED = "refused by Kafka"
    PARKED = "parked as a dead letter"
    UNDER_WAY = "not yet applied"
    NO_POSITION = "without a position: run manage.py sync_routes"


MISSING = frozenset({MissingReason.PASSED, MissingReason.GONE, MissingReason.OTHER_LOG})


@dataclass(frozen=True, slots=True)
class Finding:
    """One event that one handler is not done with; `age_seconds` since it was written."""

    handler: str
    outbox_id: int
    event_id: UUID
    topic: str
    key: str
    type: str
    partition: int | None
    offset: int | None
    age_seconds: float
    reason: MissingReason


@dataclass(slots=True)
class AuditTally:
    """How many events of one handler are open for one reason, and the age of the oldest."""

    events: int = 0
    oldest_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class AuditPage:
    """What one read found; `last_id` is the last row of the outbox that it covers."""

    last_id: int  # 0: there was nothing to read
    rows: int
    findings: Sequence[Finding]


def add_up(
    findings: Iterable[Finding], tallies: dict[tuple[str, MissingReason], AuditTally]
) -> None:
    """Add findings to the tallies of (handler, reason)."""
    for each in findings:
        tally = tallies.setdefault((each.handler, each.reason), AuditTally())
        tally.events += 1
        tally.oldest_seconds = max(tally.oldest_seconds, each.age_seconds)


def pages(
    route: Route, logs: Mapping[str, TopicState], *, size: int = PAGE
) -> Iterator[Sequence[Finding]]:
    """All events with which one handler is not done, in commit order per key, a page at a time.

    Reads the whole outbox, about 100,000 events per second and handler. `logs`: topic -> what Kafka holds; for
    a topic without an entry (Kafka is unavailable) the log is not compared.
    """
    after = 0
    while True:
        page = read_page(route, logs, NEXT_ROWS, (after, size))
        if page.findings:
            yield page.findings
        if page.last_id <= after:
            return
        after = page.last_id


_LAST = 2**63 - 1
NEXT_ROWS = "WHERE id > %s ORDER BY id LIMIT %s"
OPEN_ROWS = "WHERE id IN (SELECT outbox_id FROM audit_open WHERE handler = %s)"

# One statement, hence one snapshot of positions and receipts, which commit together. Made so that
# its plan is the same whatever the statistics are like: rows by the primary key with no upper end
# (one that looks near would have them sorted), and the receipt, by LIMIT 1, a probe for each row.
_READ = f"""
    WITH batch AS MATERIALIZED (
        SELECT id, event_id, topic, key, type, status, "partition", "offset", created_at,
               published_at
        FROM event_outbox {{rows}}
    ), edge AS (
        SELECT coalesce(
            min(id) FILTER (
                WHERE created_at > clock_timestamp() - make_interval(secs => %s::float8) OR id > %s) - 1,
            max(id), 0) AS last_id, count(*) AS rows
        FROM batch
    ), undone AS MATERIALIZED (
        SELECT batch.*, receipt.outcome
        FROM batch LEFT JOIN LATERAL (
            SELECT outcome FROM inbox_receipt
            WHERE inbox_receipt.event_id = batch.event_id AND inbox_receipt.handler = %s LIMIT 1
        ) receipt ON true
        WHERE batch.topic = %s AND batch.type <> ALL(%s)
          AND (receipt.outcome IS NULL OR receipt.outcome = {InboxReceipt.Outcome.PARKED.value})
    ), judged AS (
        SELECT undone.*, position.topic_id, position.next_offset,
               extract(epoch FROM clock_timestamp() - undone.created_at)::float AS age,
               coalesce(undone.published_at
                   < statement_timestamp() - make_interval(secs => %s), false) AS in_log
        FROM undone
        LEFT JOIN bridge_position position
               ON position.handler = %s AND position.topic = undone.topic
              AND position."partition" = undone."partition"
        WHERE NOT coalesce(undone."offset" < position.start_offset, false)
          AND NOT (undone.outcome IS NULL AND undone.type <> ALL(%s)
                   AND coalesce(undone."offset" < position.next_offset, false))
          AND NOT (undone.status = {OutboxEvent.Status.DEAD.value} AND NOT EXISTS (
              SELECT FROM dead_letter letter
              WHERE letter.event_id = undone.event_id AND letter.handler = '{DRAIN_HANDLER}'
                AND letter.state < 3))
    )
    SELECT edge.last_id, edge.rows, judged.id, judged.event_id, judged.topic, judged.key,
           judged.type, judged."partition", judged."offset", judged.age, judged.status,
           judged.outcome, judged.topic_id, judged.next_offset, judged.in_log
    FROM edge LEFT JOIN judged ON judged.id <= edge.last_id
    ORDER BY judged.id
"""


def read_page(
    route: Route,
    logs: Mapping[str, TopicState],
    rows: str,
    parameters: tuple[Any, ...],
    *,
    grace: float | None = None,
    last: int = _LAST,
) -> AuditPage:
    """Judge the rows that `rows` (NEXT_ROWS or OPEN_ROWS, with its parameters) names.

    `grace`: seconds; only rows before the first that is younger. None: all, whatever their
    times say, for a database's clock may have been set back."""
    state = logs.get(route.topic.name)
    since_read = time.monotonic() - state.read_at if state else 0.0
    found = rows_of(
        _READ.format(rows=rows),
        (
            *parameters,
            grace,
            last,
            route.handler,
            route.topic.name,
            sorted(conf.passing_types(route)),
            since_read + CLOCK_SECONDS,
            route.handler,
            sorted(route.event_types),
        ),
    )
    last_id, count = found[0][:2]
    findings = [_finding(route.handler, row[2:], state) for row in found if row[2] is not None]
    return AuditPage(last_id=last_id, rows=count, findings=findings)


def _finding(handler: str, row: Sequence[Any], state: TopicState | None) -> Finding:
    id_, event_id, topic, key, type_, partition, offset, age = row[:8]
    status, outcome, topic_id, next_, in_log = row[8:]
    if outcome == InboxReceipt.Outcome.PARKED:
        found = MissingReason.PARKED
    elif status != OutboxEvent.Status.PUBLISHED or partition is None or offset is None:
        found = _UNPUBLISHED.get(status, MissingReason.UNSENT)
    elif topic_id is None or next_ is None:
        found = MissingReason.NO_POSITION
    elif state and state.topic_id != topic_id:
        found = MissingReason.OTHER_LOG
    elif offset < next_:
        found = MissingReason.PASSED
    # Before the log's start, because of the retention; or after its end although it was sent before the log
    # was read, because a broker lost it.
    elif state and (
        offset < state.earliest.get(partition, 0)
        or (in_log and offset >= state.latest.get(partition, 0))
    ):
        found = MissingReason.GONE
    else:
        found = MissingReason.UNDER_WAY
    return Finding(handler, id_, event_id, topic, key, type_, partition, offset, age, found)


_UNPUBLISHED = {
    OutboxEvent.Status.HELD: MissingReason.HELD,
    OutboxEvent.Status.DEAD: MissingReason.REFUSED,
}
