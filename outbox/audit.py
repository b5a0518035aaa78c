"""Every committed event against every receipt: what waits, what is missing (rule R15).

An event is done for a handler that has a receipt of it, `applied` or `discarded`, and for all if
Kafka refused it and somebody has discarded that dead letter. It is missing
when the handler's position is past it without one, or when the log no longer holds it. All else
is under way, however long that takes: it has an age, not a fault.

`whole` reads everything and keeps nothing. `watch` is for beat: a mark for each handler says up to
which row everything is done, except the rows of the table audit_open, which are looked at again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from outbox import floors, inbox, queries, upkeep
from outbox.conf import Route
from outbox.dead_letters import DRAIN_HANDLER
from outbox.kafka.admin import TopicState
from outbox.models import InboxReceipt, OutboxEvent, OutboxLane
from outbox.topics import LANES

__all__ = [
    "MISSING",
    "Finding",
    "State",
    "Tally",
    "add_up",
    "adopt_recreated_topics",
    "behind_seconds",
    "forget_handler",
    "lock_lanes",
    "pages",
    "settled_id",
    "watch",
]

PAGE = 5000
# Younger events are not news to beat's audit: nearly all of them are done a moment later.
GRACE_SECONDS = 30.0
OPEN_LIMIT = 5000  # of one handler: past so many open events beat's audit looks no further
WATCH_SECONDS = 4.0
WRITERS_SECONDS = 1.0
# Between reading the clock here and in PostgreSQL; so long after its publication a row is not
# compared with the end of a log.
CLOCK_SECONDS = 5.0


class State(StrEnum):
    """Why an event is not done; in words, for the operator."""

    PASSED = "passed without a receipt"
    GONE = "gone from the log before it was applied"
    OTHER_LOG = "lost with a topic that was made anew"
    UNSENT = "not yet in Kafka"
    HELD = "held behind a message that Kafka refuses"
    REFUSED = "refused by Kafka"
    PARKED = "parked as a dead letter"
    UNDER_WAY = "not yet applied"
    NO_POSITION = "without a position: run manage.py sync_routes"


MISSING = frozenset({State.PASSED, State.GONE, State.OTHER_LOG})


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
    state: State


@dataclass(slots=True)
class Tally:
    """How many events of one handler are in one state, and the age of the oldest."""

    events: int = 0
    oldest_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Page:
    last_id: int  # 0: there was nothing to read
    rows: int
    findings: Sequence[Finding]


def add_up(findings: Iterable[Finding], tallies: dict[tuple[str, State], Tally]) -> None:
    """Add findings to the tallies of (handler, state)."""
    for each in findings:
        tally = tallies.setdefault((each.handler, each.state), Tally())
        tally.events += 1
        tally.oldest_seconds = max(tally.oldest_seconds, each.age_seconds)


def pages(route: Route, logs: Mapping[str, TopicState]) -> Iterator[Sequence[Finding]]:
    """All that one handler is not done with, in commit order per key, a page at a time.

    Reads the whole outbox, about 100,000 events a second and handler. `logs`: what Kafka holds, by
    topic; without an entry (Kafka is away) nothing is judged by it.
    """
    after = 0
    while True:
        page = _read(route, logs, _NEXT_ROWS, (after, PAGE))
        if page.findings:
            yield page.findings
        if page.last_id <= after:
            return
        after = page.last_id


# -- beat's audit --------------------------------------------------------------------------------


def watch(route: Route, logs: Mapping[str, TopicState]) -> dict[tuple[str, State], Tally]:
    """Look again at what was open, and on from the mark; bounded in time and rows.

    Returns the tallies of what is open behind the mark.
    """
    give_up = time.monotonic() + WATCH_SECONDS
    tallies: dict[tuple[str, State], Tally] = {}
    again = _read(route, logs, _OPEN_ROWS, (route.handler,))
    _store_open(route.handler, again.findings, replace=True)
    add_up(again.findings, tallies)
    limit = settled_id()
    found = len(again.findings)
    while limit and found < OPEN_LIMIT and time.monotonic() < give_up:
        mark = upkeep.read_mark(_mark(route.handler))
        with transaction.atomic():
            page = _read(route, logs, _NEXT_ROWS, (mark, PAGE), grace=GRACE_SECONDS, last=limit)
            if not page.rows or page.last_id <= mark:
                break
            if not upkeep.move_mark(_mark(route.handler), old=mark, new=page.last_id):
                break  # a replay has begun
            _store_open(route.handler, page.findings, replace=False)
        add_up(page.findings, tallies)
        found += len(page.findings)
    return tallies


def behind_seconds(handler: str) -> float:
    """Age of the first event that beat's audit has not looked at; 0 if there is none older than
    the newest it leaves alone."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM clock_timestamp() - created_at)::float FROM event_outbox"
            " WHERE id > %s ORDER BY id LIMIT 1",
            (upkeep.read_mark(_mark(handler)),),
        )
        row = cursor.fetchone()
    age = float(row[0]) if row else 0.0
    return age if age > GRACE_SECONDS else 0.0


def forget_handler(handler: str) -> None:
    """Start the handler's audit again from the first row; inside the transaction of a replay."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_upkeep SET row_id = 0, done_at = clock_timestamp() WHERE name = %s",
            (_mark(handler),),
        )
        cursor.execute("DELETE FROM audit_open WHERE handler = %s", (handler,))


def _mark(handler: str) -> str:
    return f"audit:{handler}"


def settled_id() -> int:
    """An id up to which no transaction can still add a row; 0 while a writer stays open.

    Ids are drawn before commit, so the highest one to be seen says nothing of those below it
    (rule R4). But whoever has drawn one holds a lock on the table until it ends: once all who held
    it when we looked have ended, the rows up to then are settled.
    """
    give_up = time.monotonic() + WRITERS_SECONDS
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(max(id), 0) FROM event_outbox")
        highest = int(cursor.fetchone()[0])
    writers = queries.open_writers()
    while writers:
        if time.monotonic() > give_up:
            return 0
        time.sleep(0.02)
        writers &= queries.open_writers()
    return highest


def _store_open(handler: str, findings: Sequence[Finding], *, replace: bool) -> None:
    ids = [each.outbox_id for each in findings]
    with connection.cursor() as cursor:
        if replace:
            cursor.execute(
                "DELETE FROM audit_open WHERE handler = %s AND outbox_id <> ALL(%s::bigint[])",
                (handler, ids),
            )
        cursor.execute(
            """
            INSERT INTO audit_open (handler, outbox_id, state)
            SELECT %s, outbox_id, state
            FROM unnest(%s::bigint[], %s::text[]) AS open (outbox_id, state) ORDER BY outbox_id
            ON CONFLICT (handler, outbox_id) DO UPDATE SET state = excluded.state
            WHERE audit_open.state <> excluded.state
            """,
            (handler, ids, [each.state.value for each in findings]),
        )


# -- one page ------------------------------------------------------------------------------------

_LAST = 2**63 - 1
_NEXT_ROWS = "WHERE id > %s ORDER BY id LIMIT %s"
_OPEN_ROWS = "WHERE id IN (SELECT outbox_id FROM audit_open WHERE handler = %s)"

# One statement, hence one snapshot of positions and receipts, which commit together. Made so that
# its plan is the same whatever the statistics are like: rows by the primary key with no upper end
# (one that looks near would have them sorted), and the receipt, by LIMIT 1, a probe for each row.
_READ = """
    WITH batch AS MATERIALIZED (
        SELECT id, event_id, topic, key, type, status, "partition", "offset", created_at,
               published_at
        FROM event_outbox {rows}
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
        WHERE batch.topic = %s AND batch.type = ANY(%s)
          AND (receipt.outcome IS NULL OR receipt.outcome = {parked})
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
          AND NOT (undone.status = {dead} AND NOT EXISTS (
              SELECT FROM dead_letter letter
              WHERE letter.event_id = undone.event_id AND letter.handler = '{drain}'
                AND letter.state < 3))
    )
    SELECT edge.last_id, edge.rows, judged.id, judged.event_id, judged.topic, judged.key,
           judged.type, judged."partition", judged."offset", judged.age, judged.status,
           judged.outcome, judged.topic_id, judged.next_offset, judged.in_log
    FROM edge LEFT JOIN judged ON judged.id <= edge.last_id
    ORDER BY judged.id
"""


def _read(
    route: Route,
    logs: Mapping[str, TopicState],
    rows: str,
    parameters: tuple[Any, ...],
    *,
    grace: float | None = None,
    last: int = _LAST,
) -> _Page:
    """`grace`: seconds; only rows before the first that is younger. None: all, whatever their
    times say, for a database's clock may have been set back."""
    sql = _READ.format(
        rows=rows,
        parked=InboxReceipt.Outcome.PARKED.value,
        dead=OutboxEvent.Status.DEAD.value,
        drain=DRAIN_HANDLER,
    )
    state = logs.get(route.topic.name)
    since_read = time.monotonic() - state.read_at if state else 0.0
    with connection.cursor() as cursor:
        cursor.execute(
            sql,
            (
                *parameters,
                grace,
                last,
                route.handler,
                route.topic.name,
                sorted(route.event_types),
                since_read + CLOCK_SECONDS,
                route.handler,
            ),
        )
        found = cursor.fetchall()
    last_id, count = found[0][:2]
    findings = [_finding(route.handler, row[2:], state) for row in found if row[2] is not None]
    return _Page(last_id=last_id, rows=count, findings=findings)


_Row = tuple[
    int,
    UUID,
    str,
    str,
    str,
    int | None,
    int | None,
    float,
    int,
    int | None,
    UUID | None,
    int | None,
    bool,
]


def _finding(handler: str, row: _Row, state: TopicState | None) -> Finding:
    id_, event_id, topic, key, type_, partition, offset, age = row[:8]
    status, outcome, topic_id, next_, in_log = row[8:]
    if outcome == InboxReceipt.Outcome.PARKED:
        found = State.PARKED
    elif status != OutboxEvent.Status.PUBLISHED or partition is None or offset is None:
        found = _UNPUBLISHED[OutboxEvent.Status(status)]
    elif topic_id is None or next_ is None:
        found = State.NO_POSITION
    elif state and state.topic_id != topic_id:
        found = State.OTHER_LOG
    elif offset < next_:
        found = State.PASSED
    elif state and _is_gone(state, partition, offset, in_log=in_log):
        found = State.GONE
    else:
        found = State.UNDER_WAY
    return Finding(handler, id_, event_id, topic, key, type_, partition, offset, age, found)


def _is_gone(state: TopicState, partition: int, offset: int, *, in_log: bool) -> bool:
    """Before the log's start, by retention; or behind its end although it was there before the
    log was read: a broker has lost it."""
    if offset < state.earliest.get(partition, 0):
        return True
    return in_log and offset >= state.latest.get(partition, 0)


_UNPUBLISHED = {
    OutboxEvent.Status.NEW: State.UNSENT,
    OutboxEvent.Status.HELD: State.HELD,
    OutboxEvent.Status.DEAD: State.REFUSED,
    OutboxEvent.Status.PUBLISHED: State.UNSENT,
}


# -- a log that is gone --------------------------------------------------------------------------


def adopt_recreated_topics(
    routes: Sequence[Route],
    read_states: Callable[[], Mapping[str, TopicState]],
    read_ids: Callable[[str], Collection[UUID]],
) -> int:
    """Move the positions of topics that were made anew to the end of their new log, and publish
    again behind it what their handlers have no receipt for; returns the number of such events.

    One transaction, with every lane locked before `read_states` and `read_ids` (of the events that
    a topic holds) ask Kafka, so that no drain works meanwhile: what is in the new log by then is settled, and is published again unless a receipt
    says that it need not be.

    Safe for order: a handler applies a partition front to back, so what it lacks of a key is
    always the key's tail, and all of that goes out again in its order, behind the positions. Had
    they been put before what is in the new log already, that would overtake the events of its
    keys that went with the old one.

    Messages of others that the new log held before are skipped: nothing can publish them again.
    """
    with transaction.atomic():
        lock_lanes()
        states = read_states()
        anew = _made_anew(routes, states)
        # All of them before the first row loses its offset, which alone says that it lies before.
        held = {topic: read_ids(topic) for topic in {route.topic.name for route in anew}}
        for route in anew:
            _discard_before_start(route, held[route.topic.name])
        republished = 0
        for route in anew:
            inbox.adopt_topic(route.handler, states[route.topic.name])
            republished += _publish_again(route)
        if republished:
            floors.rewind(range(LANES))
    return republished


def lock_lanes() -> None:
    """Keep drains from working until the transaction ends. Waits for those that do; and may be held
    while Kafka is asked, so the connection's own bounds are too short."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('lock_timeout', '15s', true),"
            " set_config('idle_in_transaction_session_timeout', '10min', true)"
        )
    list(OutboxLane.objects.select_for_update().order_by("lane").values_list("lane"))


def _made_anew(routes: Sequence[Route], states: Mapping[str, TopicState]) -> list[Route]:
    """All routes of the topics of which some handler knows an older log: one that began in the new
    log has positions before events that are about to be published again, too."""
    topics = {
        route.topic.name
        for route in routes
        if inbox.topic_ids_of(route.handler, route.topic.name) - {states[route.topic.name].topic_id}
    }
    return [route for route in routes if route.topic.name in topics]


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


def _discard_before_start(route: Route, in_new_log: Collection[UUID]) -> None:
    """A receipt for what was in the old log before the handler began: its offset, which alone says
    so, means nothing in the new one. Offsets of what is in the new one by now say nothing either."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO inbox_receipt (event_id, handler, outcome)
            SELECT event.event_id, position.handler, %s
            FROM bridge_position position
            JOIN event_outbox event
              ON event.topic = position.topic AND event."partition" = position."partition"
             AND event.status = 1 AND event."offset" < position.start_offset
            WHERE position.handler = %s AND position.topic = %s
              AND position.start_offset > 0 AND event.type = ANY(%s)
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
                sorted(route.event_types),
                list(in_new_log),
            ),
        )
