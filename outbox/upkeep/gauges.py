"""The gauges of what waits: each query is bounded, whatever the tables hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from django.db import transaction

from outbox import conf, metrics
from outbox.audit.compare import MissingReason
from outbox.conf import DRAIN, all_topics
from outbox.database import jobs
from outbox.database.ask import row_of, rows_of
from outbox.database.planner import plan_without
from outbox.dead_letters import unknown_type
from outbox.declaration import Route
from outbox.inbox.positions import read_positions
from outbox.kafka import admin
from outbox.kafka.admin import TopicState
from outbox.lanes import pause
from outbox.lanes.floors import FLOOR_OF_LANE, Floors
from outbox.models import DeadLetter

__all__ = [
    "LETTERS_COUNT_LIMIT",
    "Backlog",
    "HandlerLag",
    "LetterCount",
    "handler_lags",
    "held_events",
    "measure_handlers",
    "measure_lanes",
    "measure_letters",
    "measure_outbox",
    "measure_unknown_types",
    "oldest_unapplied",
    "open_letters",
]

log = structlog.get_logger("outbox.measure")

# Newest rows looked at for what is not applied yet; what is older stands in audit_open.
NEWEST = 5000
OPEN_LOOKED_AT = 50_000  # of each handler, the oldest
UNCLAIMABLE_PER_LANE = 2000
BACKLOG_COUNT_LIMIT = 100_000
LETTERS_COUNT_LIMIT = 10_000

_PENDING = f"""
    event_outbox.lane = outbox_lane.lane AND status = 0 AND event_outbox.id >= {FLOOR_OF_LANE}
"""


@dataclass(frozen=True, slots=True)
class HandlerLag:
    """How far a handler is behind. `events`: messages in Kafka behind its positions, None while
    Kafka is unavailable, as is `unread`: partitions without a position; `oldest_seconds`: age of the oldest
    event in Kafka that it has not applied."""

    handler: str
    events: int | None
    unread: int | None
    oldest_seconds: float


class Backlog:
    """Events that are committed and not in Kafka, read from floors of its own: while a snapshot
    is held, each look would otherwise read past every settled row. For one thread."""

    def __init__(self) -> None:
        self.floors = Floors(sweeps=False)

    def refresh(self) -> None:
        """Raise the floors, before what follows."""
        self.floors.refresh(DRAIN)

    def pending(self, counted: int) -> tuple[int, float]:
        """Pending events, counted up to so many, and the age of the oldest, in seconds."""
        floors = self.floors.parameters()
        events, oldest_seconds = row_of(
            f"""
            SELECT (SELECT count(*) FROM (
                        SELECT FROM outbox_lane CROSS JOIN LATERAL (
                            SELECT FROM event_outbox WHERE {_PENDING} ORDER BY id LIMIT %s) pending
                        LIMIT %s) counted),
                   coalesce((
                        SELECT extract(epoch FROM clock_timestamp() - min(created_at))
                        FROM outbox_lane CROSS JOIN LATERAL (
                            SELECT created_at FROM event_outbox WHERE {_PENDING}
                            ORDER BY id LIMIT 1) first), 0)::float
            """,
            (*floors, counted, counted, *floors),
        )
        return events, oldest_seconds

    def unclaimable(self, per_lane: int = UNCLAIMABLE_PER_LANE) -> int:
        """Pending rows that no drain will ever claim (guarantees.md#r4): of no topic of the map, or of no lane.
        Looks at so many of each lane, the oldest, which they become."""
        # Ordered, because the planner may otherwise estimate that half of the table is above, and
        # read it whole.
        row = row_of(
            f"""
            SELECT (SELECT count(*) FROM outbox_lane CROSS JOIN LATERAL (
                        SELECT topic FROM event_outbox WHERE {_PENDING} ORDER BY id LIMIT %s) pending
                    WHERE pending.topic <> ALL(%s))
                 + (SELECT count(*) FROM (
                        SELECT FROM event_outbox WHERE status = 0
                        AND lane < (SELECT min(lane) FROM outbox_lane)
                        ORDER BY lane, id LIMIT %s) below)
                 + (SELECT count(*) FROM (
                        SELECT FROM event_outbox WHERE status = 0
                        AND lane > (SELECT max(lane) FROM outbox_lane)
                        ORDER BY lane, id LIMIT %s) above)
            """,
            (
                *self.floors.parameters(),
                *(per_lane, [topic.name for topic in all_topics()]),
                *(per_lane, per_lane),
            ),
        )
        return int(row[0])


_backlog = Backlog()


def measure_outbox(counted: int = BACKLOG_COUNT_LIMIT) -> None:
    """What is committed and not in Kafka, counted up to so many; cheap enough for every two seconds."""
    _backlog.refresh()
    events, oldest_seconds = _backlog.pending(counted)
    metrics.BACKLOG.set(events)
    metrics.OLDEST_AGE.set(oldest_seconds)
    metrics.MEASURED.set_to_current_time()


_seen_applications: set[str] = set()


def measure_lanes() -> None:
    """Which lanes are paused, and who holds how many."""
    states = pause.lane_states(counted=0)
    metrics.LANES_PAUSED.set(sum(state.paused for state in states))
    metrics.LANE_HELD.set(max(state.held_seconds for state in states) if states else 0.0)
    held = [state.application for state in states if state.holder]
    _seen_applications.update(held)
    for application in _seen_applications:
        metrics.LANES_HELD.labels(application).set(held.count(application))


def measure_handlers(routes: Sequence[Route]) -> None:
    """Backlog and age of each handler, rows that wait for nobody, and when jobs were last done."""
    _backlog.refresh()
    logs, error = admin.states_or_none(route.topic.name for route in routes)
    if error:
        log.warning("handler_backlog_unknown", error=error)
    for route, lag in zip(routes, handler_lags(routes, logs), strict=True):
        if lag.events is not None:
            metrics.HANDLER_BACKLOG.labels(lag.handler).set(lag.events)
        if lag.unread is not None:
            metrics.HANDLER_UNREAD.labels(lag.handler).set(lag.unread)
        metrics.HANDLER_AGE.labels(lag.handler).set(lag.oldest_seconds)
        metrics.HANDLER_RETENTION.labels(lag.handler).set(
            lag.oldest_seconds / (route.topic.retention_hours * 3600)
        )
    metrics.UNCLAIMABLE.set(_backlog.unclaimable())
    for job, age in jobs.ages().items():
        if ":" not in job:
            metrics.UPKEEP_AGE.labels(job).set(age)
    measure_lanes()
    metrics.HANDLERS_MEASURED.set_to_current_time()


def handler_lags(routes: Sequence[Route], logs: Mapping[str, TopicState]) -> list[HandlerLag]:
    ages = oldest_unapplied()
    return [
        HandlerLag(route.handler, *_behind(route.handler, logs.get(route.topic.name)), age)
        for route in routes
        for age in [ages.get(route.handler, 0.0)]
    ]


def _behind(handler: str, state: TopicState | None) -> tuple[int | None, int | None]:
    """Messages behind the positions, and partitions without one."""
    if state is None:
        return None, None
    keys = [(state.name, partition) for partition in state.latest]
    positions = read_positions(handler, keys)
    messages = sum(
        max(0, state.latest[partition] - position.next_offset)
        for (_, partition), position in positions.items()
    )
    return messages, len(keys) - len(positions)


def oldest_unapplied() -> dict[str, float]:
    """Handler -> seconds. Of the newest rows by the positions; of older ones what the audit left open. Only the
    positions on partitions of these rows are read, each by its key: there may be many idle ones."""
    routes = conf.routes()
    rows = rows_of(
        """
        WITH newest AS MATERIALIZED (
            SELECT topic, "partition", "offset", created_at FROM event_outbox
            ORDER BY id DESC LIMIT %s
        ), oldest AS (
            SELECT position.handler, min(newest.created_at) AS created_at
            FROM (SELECT DISTINCT topic, "partition" FROM newest) AS place
            CROSS JOIN unnest(%s::text[]) AS route (handler)
            CROSS JOIN LATERAL (
                SELECT handler, next_offset FROM bridge_position
                WHERE bridge_position.handler = route.handler AND bridge_position.topic = place.topic
                  AND bridge_position."partition" = place."partition" LIMIT 1) AS position
            JOIN newest ON newest.topic = place.topic AND newest."partition" = place."partition"
            WHERE newest."offset" >= position.next_offset
            GROUP BY position.handler
            UNION ALL
            SELECT route.handler, event.created_at
            FROM unnest(%s::text[]) AS route (handler)
            CROSS JOIN LATERAL (
                SELECT outbox_id AS id FROM (
                    SELECT outbox_id, state FROM audit_open
                    WHERE audit_open.handler = route.handler ORDER BY outbox_id LIMIT %s) AS open
                WHERE state <> ALL(%s) ORDER BY outbox_id LIMIT 1) AS first
            JOIN event_outbox event ON event.id = first.id
        )
        SELECT handler, extract(epoch FROM clock_timestamp() - min(created_at))::float
        FROM oldest GROUP BY handler
        """,
        (
            NEWEST,
            [route.handler for route in routes],
            [route.handler for route in routes],
            OPEN_LOOKED_AT,
            [
                MissingReason.PARKED,
                MissingReason.UNSENT,
                MissingReason.HELD,
                MissingReason.REFUSED,
            ],
        ),
    )
    return dict(rows)


def measure_letters(counts: Iterable[LetterCount]) -> None:
    """Also the zeros: a gauge that is not set keeps its last value."""
    found = {(count.handler, count.state): count for count in counts}
    for handler in (*(route.handler for route in conf.routes()), conf.DRAIN_HANDLER):
        ages = [0.0]
        for state in DeadLetter.State:
            count = found.get((handler, state.label))
            if state < DeadLetter.State.APPLIED:
                metrics.LETTERS_OPEN.labels(handler, state.label).set(count.letters if count else 0)
            if count:
                ages.append(count.oldest_seconds)
        metrics.LETTERS_OLDEST.labels(handler).set(max(ages))


@dataclass(frozen=True, slots=True)
class LetterCount:
    """Open dead letters of one handler in one state, and the age of the oldest, in seconds."""

    handler: str
    state: str
    letters: int
    oldest_seconds: float


_seen_unknown_types: set[tuple[str, str, str]] = set()


def measure_unknown_types() -> None:
    """Letters of types that a release does not know; a series that was set once goes back to 0."""
    found = unknown_type.count_open(LETTERS_COUNT_LIMIT)
    _seen_unknown_types.update(found)
    for labels in _seen_unknown_types:
        metrics.UNKNOWN_TYPE_OPEN.labels(*labels).set(found.get(labels, 0))


def held_events() -> int:
    """Events behind a message that Kafka refused, counted up to 10,000 by an index of their own."""
    [held] = row_of(
        "SELECT count(*) FROM (SELECT FROM event_outbox WHERE status = 2 LIMIT %s) held",
        (LETTERS_COUNT_LIMIT,),
    )
    return int(held)


def open_letters(limit: int = LETTERS_COUNT_LIMIT) -> list[LetterCount]:
    """Per handler and state; looks at `limit` letters of each at most, oldest first, so the many letters of
    one handler hide no other."""
    with transaction.atomic():
        # Along the index (handler, state, id): by id alone, a state of which there is none costs the
        # whole table, and to sort it costs all of the state.
        plan_without("bitmapscan", "seqscan", "sort")
        rows = rows_of(
            """
            WITH RECURSIVE known AS (
                (SELECT handler FROM dead_letter WHERE state < 3 ORDER BY handler LIMIT 1)
                UNION ALL
                SELECT (SELECT handler FROM dead_letter WHERE state < 3 AND handler > known.handler
                        ORDER BY handler LIMIT 1)
                FROM known WHERE known.handler IS NOT NULL
            )
            SELECT known.handler, open.state, count(*),
                   extract(epoch FROM clock_timestamp() - min(created_at))
            FROM known CROSS JOIN unnest(ARRAY[0, 1, 2]) AS open (state)
            CROSS JOIN LATERAL (
                SELECT created_at FROM dead_letter
                WHERE dead_letter.handler BETWEEN known.handler AND known.handler
                  AND dead_letter.state BETWEEN open.state AND open.state AND dead_letter.state < 3
                ORDER BY dead_letter.handler, dead_letter.state, id LIMIT %s
            ) AS letter
            GROUP BY known.handler, open.state
            """,
            (limit,),
        )
    return [
        LetterCount(handler, DeadLetter.State(state).label, count, float(oldest))
        for handler, state, count, oldest in rows
    ]
