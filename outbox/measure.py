"""The gauges of what waits: each query is bounded, whatever the tables hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from django.db import connection

from outbox import inbox, lanes, metrics, upkeep
from outbox.conf import DRAIN, Route, all_topics
from outbox.findings import State
from outbox.floors import FLOOR_OF_LANE, Floors
from outbox.kafka import admin
from outbox.kafka.admin import TopicState

__all__ = ["HandlerLag", "handler_lags", "measure_handlers", "measure_lanes", "measure_outbox"]

log = structlog.get_logger("outbox.measure")

# Newest rows looked at for what is not applied yet; what is older stands in audit_open.
NEWEST = 5000
UNCLAIMABLE_PER_LANE = 2000
BACKLOG_COUNT_LIMIT = 100_000

# While a snapshot is held, what was settled would be passed at every look, by a drain's own queries
# as by these.
_floors = Floors(sweeps=False)
_PENDING = f"""
    event_outbox.lane = outbox_lane.lane AND status = 0 AND event_outbox.id >= {FLOOR_OF_LANE}
"""


@dataclass(frozen=True, slots=True)
class HandlerLag:
    """How far a handler is behind. `events`: messages in Kafka behind its positions, None while
    Kafka is away; `oldest_seconds`: age of the oldest event in Kafka that it has not applied."""

    handler: str
    events: int | None
    oldest_seconds: float


def measure_outbox() -> None:
    """What is committed and not in Kafka; cheap enough for every two seconds."""
    _floors.refresh(DRAIN)
    events, oldest_seconds = _backlog()
    metrics.BACKLOG.set(events)
    metrics.OLDEST_AGE.set(oldest_seconds)
    metrics.MEASURED.set_to_current_time()


def _backlog() -> tuple[int, float]:
    """Pending events (counted up to 100,000) and the age of the oldest, in seconds."""
    with connection.cursor() as cursor:
        cursor.execute(
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
            (
                *_floors.parameters(),
                *(BACKLOG_COUNT_LIMIT, BACKLOG_COUNT_LIMIT),
                *_floors.parameters(),
            ),
        )
        events, oldest_seconds = cursor.fetchone()
    return events, oldest_seconds


_seen_applications: set[str] = set()


def measure_lanes() -> None:
    """Which lanes are paused, and who holds how many."""
    states = lanes.lane_states(counted=0)
    metrics.LANES_PAUSED.set(sum(state.paused for state in states))
    metrics.LANE_HELD.set(max(state.held_seconds for state in states) if states else 0.0)
    held = [state.application for state in states if state.holder]
    _seen_applications.update(held)
    for application in _seen_applications:
        metrics.LANES_HELD.labels(application).set(held.count(application))


def measure_handlers(routes: Sequence[Route]) -> None:
    """Backlog and age of each handler, rows that wait for nobody, and when jobs were last done."""
    _floors.refresh(DRAIN)
    for lag in handler_lags(routes, _logs(routes)):
        route = next(route for route in routes if route.handler == lag.handler)
        if lag.events is not None:
            metrics.HANDLER_BACKLOG.labels(lag.handler).set(lag.events)
        metrics.HANDLER_AGE.labels(lag.handler).set(lag.oldest_seconds)
        metrics.HANDLER_RETENTION.labels(lag.handler).set(
            lag.oldest_seconds / (route.topic.retention_hours * 3600)
        )
    metrics.UNCLAIMABLE.set(_unclaimable())
    for job, age in upkeep.ages().items():
        if ":" not in job:
            metrics.UPKEEP_AGE.labels(job).set(age)
    measure_lanes()
    metrics.HANDLERS_MEASURED.set_to_current_time()


def _logs(routes: Sequence[Route]) -> Mapping[str, TopicState]:
    try:
        return admin.topic_states(sorted({route.topic.name for route in routes}))
    except admin.KafkaUnavailable as error:
        log.warning("handler_backlog_unknown", error=str(error))
        return {}


def handler_lags(routes: Sequence[Route], logs: Mapping[str, TopicState]) -> list[HandlerLag]:
    """How far each handler is behind."""
    ages = _oldest_unapplied()
    return [
        HandlerLag(
            handler=route.handler,
            events=_behind(route.handler, logs.get(route.topic.name)),
            oldest_seconds=ages.get(route.handler, 0.0),
        )
        for route in routes
    ]


def _behind(handler: str, state: TopicState | None) -> int | None:
    if state is None:
        return None
    keys = [(state.name, partition) for partition in state.latest]
    positions = inbox.read_positions(handler, keys)
    return sum(
        max(0, state.latest[partition] - position.next_offset)
        for (_, partition), position in positions.items()
    )


def _oldest_unapplied() -> dict[str, float]:
    """Handler -> seconds. Of the newest rows by the positions; of older ones what the audit left open."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH newest AS MATERIALIZED (
                SELECT topic, "partition", "offset", created_at FROM event_outbox
                ORDER BY id DESC LIMIT %s
            ), oldest AS (
                SELECT position.handler, min(newest.created_at) AS created_at
                FROM newest JOIN bridge_position position USING (topic, "partition")
                WHERE newest."offset" >= position.next_offset
                GROUP BY position.handler
                UNION ALL
                SELECT first.handler, event.created_at
                FROM (SELECT handler, min(outbox_id) AS id FROM audit_open
                      WHERE state <> ALL(%s) GROUP BY handler) first
                JOIN event_outbox event ON event.id = first.id
            )
            SELECT handler, extract(epoch FROM clock_timestamp() - min(created_at))::float
            FROM oldest GROUP BY handler
            """,
            (NEWEST, [State.PARKED, State.UNSENT, State.HELD, State.REFUSED]),
        )
        return dict(cursor.fetchall())


def _unclaimable() -> int:
    """Pending rows that no drain will ever claim (rule R4): of no topic of the map, or of no lane."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT (SELECT count(*) FROM outbox_lane CROSS JOIN LATERAL (
                        SELECT topic FROM event_outbox WHERE {_PENDING} ORDER BY id LIMIT %s) pending
                    WHERE pending.topic <> ALL(%s))
                 + (SELECT count(*) FROM (
                        SELECT FROM event_outbox WHERE status = 0
                        AND lane < (SELECT min(lane) FROM outbox_lane) LIMIT %s) below)
                 + (SELECT count(*) FROM (
                        SELECT FROM event_outbox WHERE status = 0
                        AND lane > (SELECT max(lane) FROM outbox_lane) LIMIT %s) above)
            """,
            (
                *_floors.parameters(),
                *(UNCLAIMABLE_PER_LANE, [topic.name for topic in all_topics()]),
                *(UNCLAIMABLE_PER_LANE, UNCLAIMABLE_PER_LANE),
            ),
        )
        return int(cursor.fetchone()[0])
